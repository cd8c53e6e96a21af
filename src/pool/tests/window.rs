use super::*;

#[test]
fn new_replica_gets_one_request_at_first_and_twice_as_many_with_each_answer() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    let limits: Vec<u32> = (0..9)
        .map(|_| {
            let limit = story.candidate(1).limit;
            story.record(1, ok(5));
            assert!(limit > 128 || story.pool.dirty(story.now), "not published at once");
            limit
        })
        .collect();
    assert_eq!(limits, [1, 2, 4, 8, 16, 32, 64, 128, u32::MAX]);
    assert_eq!(story.view(1).window, None);
}

#[test]
fn app_that_answers_500_to_everything_warms_up_all_the_same() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    for _ in 0..8 {
        story.record(1, status(500));
    }
    assert_eq!(story.candidate(1).limit, u32::MAX);
}

#[test]
fn long_poll_as_first_request_does_not_block_a_cold_pool() {
    let mut story = Story::new();
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    story.in_flight.insert(story.id(1), 1);
    assert!(story.pool.next_wake() <= story.now + ms(500));
    story.pass_time(ms(500));
    assert_eq!(story.candidate(1).limit, 2);
    story.in_flight.insert(story.id(1), 2);
    story.pass_time(ms(500));
    assert_eq!(story.candidate(1).limit, 4);
    story.idle(ms(10_000));
    assert_eq!(story.candidate(1).limit, 4, "time alone proves nothing");
}

#[test]
fn replica_that_comes_up_again_is_cold() {
    let mut story = Story::of(&[1]);
    assert_eq!(story.candidate(1).limit, u32::MAX);
    story.probe(1, &ProbeResult::Refused);
    story.probe(1, &ProbeResult::Refused);
    story.probe(1, &ProbeResult::Passed);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.view(1).health, Health::Up);
    assert_eq!(story.candidate(1).limit, 1);
}

#[test]
fn cap_on_requests_in_flight_holds_for_warm_replicas_too() {
    let mut story = Story::of(&[1]);
    story.pool.reconfigure(Settings { max_in_flight: 3, ..settings() }, story.now);
    assert!(story.pool.dirty(story.now));
    assert_eq!(story.candidate(1).limit, 3);
}
