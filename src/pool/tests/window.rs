use super::*;

/// The load of a request that was the last its window allowed.
const FULL: Load = Load { in_flight: 1, at_end: 1, limit: 1 };

/// Answers of 5 ms to requests that filled the window, each 5 ms after the one before.
fn answer_full(story: &mut Story, replica: u8, count: u32, outcome: Outcome) {
    for _ in 0..count {
        story.now += ms(1);
        let limit = story.candidate(replica).limit;
        story.record_under(replica, outcome, Load { in_flight: limit, at_end: limit, limit });
    }
}

#[test]
fn new_replica_among_warm_ones_gets_one_request_at_first_and_one_more_with_each_answer() {
    let mut story = Story::of(&[1]);
    story.answer(&[1, 2]);
    story.probe(2, &ProbeResult::Passed);
    let limits: Vec<u32> = (0..6)
        .map(|_| {
            let candidate = story.candidate(2);
            assert_eq!(candidate.limit, candidate.ceiling, "there are others to send to");
            story.record_under(2, ok(5), FULL);
            assert!(story.pool.dirty(story.now), "not published at once");
            candidate.limit
        })
        .collect();
    assert_eq!(limits, [1, 2, 3, 4, 5, 6]);
    for _ in 0..8 {
        story.record(2, ok(5));
    }
    assert_eq!(story.candidate(2).limit, u32::MAX, "eight requests in a row found room");
    assert_eq!(story.view(2).window, None);
}

// U1
#[test]
fn cold_pool_takes_what_an_ordinary_app_bears_from_a_backlog_and_any_load_that_nobody_waits_behind() {
    let mut story = Story::new();
    story.answer(&[1, 2]);
    story.probe_all(&ProbeResult::Passed);
    for replica in [1, 2] {
        let candidate = story.candidate(replica);
        assert_eq!((candidate.limit, candidate.ceiling), (16, u32::MAX));
    }
}

// U1
#[test]
fn after_an_outage_each_replica_gets_as_many_as_each_bore_before() {
    for (before, window) in [(60, 60), (1, 4), (30, 30)] {
        let mut story = Story::of(&[1, 2]);
        for _ in 0..1000 {
            story.record_under(1, ok(5), Load { in_flight: before, at_end: 1, limit: u32::MAX });
        }
        for _ in 0..2 {
            story.probe(1, &ProbeResult::Refused);
            story.probe(2, &ProbeResult::Refused);
        }
        // A deploy: other addresses, the same app.
        story.answer(&[3]);
        story.probe(3, &ProbeResult::Passed);
        assert_eq!(story.candidate(3).limit, window, "{before} in flight before");
    }
}

#[test]
fn burst_that_was_survived_once_is_not_what_is_borne_and_what_was_borne_is_forgotten_in_time() {
    let now = crate::clock::now();
    let mut borne = window::Borne::new(now);
    for _ in 0..16 {
        borne.prove(500, now);
    }
    assert_eq!(borne.level(now), Some(2));
    for _ in 0..800 {
        borne.prove(100, now);
    }
    assert_eq!(borne.level(now), Some(100));
    assert_eq!(borne.level(now + Duration::from_secs(300)), Some(50));
    assert_eq!(borne.level(now + Duration::from_secs(3600)), None);
}

// U1
#[test]
fn beyond_what_was_borne_a_window_grows_by_a_sixteenth_each_tenth_of_a_second_and_not_while_answers_get_slower() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    answer_full(&mut story, 1, 1000, ok(5));
    let grown = story.candidate(1).limit;
    assert!((24..=30).contains(&grown), "{grown} after a second");
    answer_full(&mut story, 1, 1000, ok(50));
    assert_eq!(story.candidate(1).limit, grown, "ten times slower");
}

// U1
#[test]
fn answers_that_speak_of_overload_take_back_what_the_window_grew() {
    for strained in [424, 429, 500, 503] {
        let mut story = Story::new();
        story.answer(&[1]);
        story.probe_all(&ProbeResult::Passed);
        answer_full(&mut story, 1, 4000, ok(5));
        let grown = story.candidate(1).limit;
        assert!(grown > 100);
        story.record_under(1, status(strained), Load { in_flight: grown, at_end: grown, limit: grown });
        let less = story.candidate(1).limit;
        assert_eq!(less, grown - grown / 4, "{strained}");
        // One failed wave is one sign.
        answer_full(&mut story, 1, less / 2, status(strained));
        assert_eq!(story.candidate(1).limit, less, "{strained}");
    }
}

#[test]
fn app_that_answers_500_to_everything_warms_up_all_the_same() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    answer_full(&mut story, 1, 100, status(500));
    assert!(story.candidate(1).limit > 16, "{}", story.candidate(1).limit);
    for _ in 0..8 {
        story.record(1, status(500));
    }
    assert_eq!(story.candidate(1).limit, u32::MAX);
}

// A8
#[test]
fn long_requests_that_fill_a_cold_pool_are_followed_by_twice_as_many_within_a_fifth_of_a_second() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    for full in [16, 32, 64, 128, 256] {
        assert_eq!(story.candidate(1).limit, full);
        story.in_flight.insert(story.id(1), full);
        assert!(story.pool.next_wake() <= story.now + ms(200));
        story.pass_time(ms(200));
    }
    assert_eq!(story.candidate(1).limit, 512);
    story.idle(ms(10_000));
    assert_eq!(story.candidate(1).limit, 512, "time alone proves nothing");
}

#[test]
fn long_poll_as_first_request_of_a_new_replica_does_not_block_it() {
    let mut story = Story::of(&[1]);
    story.answer(&[1, 2]);
    story.probe(2, &ProbeResult::Passed);
    story.in_flight.insert(story.id(2), 1);
    story.pass_time(ms(500));
    assert_eq!(story.candidate(2).limit, 2);
    story.in_flight.insert(story.id(2), 2);
    story.pass_time(ms(500));
    assert_eq!(story.candidate(2).limit, 4);
}

#[test]
fn replica_that_comes_up_again_beside_a_warm_one_is_cold() {
    let mut story = Story::of(&[1, 2]);
    assert_eq!(story.candidate(1).limit, u32::MAX);
    story.probe(1, &ProbeResult::Refused);
    story.probe(1, &ProbeResult::Refused);
    story.probe(1, &ProbeResult::Passed);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.view(1).health, Health::Up);
    assert_eq!(story.candidate(1).limit, 1);
}

// A9
#[test]
fn replicas_that_are_known_to_be_unreachable_get_one_request_at_a_time_however_long_it_takes() {
    let mut story = Story::of(&[1]);
    story.pass_time(ms(1500));
    story.probe_times_out(1);
    story.pass_time(ms(1000));
    story.probe_times_out(1);
    assert_eq!(story.view(1).health, Health::Down);
    story.in_flight.insert(story.id(1), 1);
    for _ in 0..20 {
        story.pass_time(ms(500));
        let candidate = story.candidate(1);
        assert_eq!((candidate.limit, candidate.ceiling), (1, 1));
    }
    story.record(1, ok(5));
    story.record(1, ok(5));
    assert!(story.candidate(1).ceiling > 1, "it answers");
}

#[test]
fn cap_on_requests_in_flight_holds_for_warm_replicas_and_cold_pools_too() {
    let mut story = Story::of(&[1]);
    story.pool.reconfigure(Settings { max_in_flight: 3, ..settings() }, story.now);
    assert!(story.pool.dirty(story.now));
    assert_eq!(story.candidate(1).limit, 3);
    let mut cold = Story::with(Settings { max_in_flight: 3, ..settings() });
    cold.answer(&[1]);
    cold.probe_all(&ProbeResult::Passed);
    assert_eq!((cold.candidate(1).limit, cold.candidate(1).ceiling), (3, 3));
}
