use super::*;

#[test]
fn replica_goes_down_after_two_failed_probes_and_up_after_one_that_passes() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(1000));
    story.probe(1, &unhealthy(503));
    assert_eq!(story.usable(), [1, 2]);
    story.probe(1, &unhealthy(503));
    assert_eq!(story.usable(), [2]);
    assert_eq!((story.view(1).health, story.view(1).reason.as_str()), (Health::Down, "probe: status 503"));
    story.probe(1, &ProbeResult::Passed);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn failures_count_only_in_a_row() {
    let mut story = Story::of(&[1]);
    for _ in 0..10 {
        story.probe(1, &ProbeResult::Refused);
        story.probe(1, &ProbeResult::Passed);
    }
    assert!(story.events().is_empty());
}

#[test]
fn hung_replica_is_down_after_two_timed_out_probes() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(1500));
    story.probe_times_out(1);
    story.pass_time(ms(1000));
    story.probe_times_out(1);
    assert_eq!(story.usable(), [2]);
}

#[test]
fn busy_replica_is_not_taken_down_by_probes_that_timed_out_behind_requests() {
    let mut story = Story::of(&[1]);
    for _ in 0..10 {
        story.pass_time(ms(700));
        story.record(1, ok(650));
        story.pass_time(ms(300));
        story.probe_times_out(1);
    }
    assert_eq!(story.view(1).health, Health::Up);
}

#[test]
fn replica_that_says_it_is_unhealthy_is_believed_although_it_answers_requests() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..2 {
        story.record(1, ok(5));
        story.probe(1, &unhealthy(503));
    }
    assert_eq!(story.usable(), [2]);
    story.record(1, ok(5));
    assert_eq!(story.usable(), [2], "an answer does not overrule it");
}

#[test]
fn slow_replica_that_was_declared_down_is_up_when_it_answers() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(2000));
    story.probe_times_out(1);
    story.probe_times_out(1);
    assert_eq!(story.usable(), [2]);
    story.record(1, ok(2000));
    story.record(1, ok(2000));
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn refused_probe_asks_dns_at_once() {
    let mut story = Story::of(&[1]);
    story.pass_time(ms(500));
    story.probe(1, &ProbeResult::Refused);
    assert_eq!(story.pool.next_question(), story.now);
}

#[test]
fn when_all_are_down_the_proven_ones_are_tried_and_never_the_unproven() {
    let mut story = Story::of(&[1, 2]);
    story.answer(&[1, 2, 3]);
    for n in [1, 2] {
        story.probe(n, &unhealthy(404));
        story.probe(n, &unhealthy(404));
    }
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.candidate(1).limit, u32::MAX, "they answer, if only badly");
    story.record(1, Outcome::Refused);
    assert_eq!(story.usable(), [2], "a suspect is not tried");
}

#[test]
fn when_all_hang_they_are_tried_with_one_request_each() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(2000));
    for n in [1, 2, 1, 2] {
        story.probe_times_out(n);
    }
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!([story.candidate(1).limit, story.candidate(2).limit], [1, 1]);
}

// F45
#[test]
fn flapping_replica_has_to_pass_ever_more_probes_until_it_is_calm() {
    let mut story = Story::of(&[1, 2]);
    let passes_needed = |story: &mut Story| {
        story.probe(1, &ProbeResult::Refused);
        story.probe(1, &ProbeResult::Refused);
        assert_eq!(story.view(1).health, Health::Down);
        (1..).find(|_| {
            story.pass_time(ms(1000));
            story.probe(1, &ProbeResult::Passed);
            story.view(1).health == Health::Up
        })
    };
    let needed: Vec<_> = (0..5).filter_map(|_| passes_needed(&mut story)).collect();
    assert_eq!(needed, [2, 4, 8, 8, 8]);
    story.idle(Duration::from_secs(200));
    assert_eq!(passes_needed(&mut story), Some(1), "calm for three minutes");
}

// U11
#[test]
fn container_that_is_listed_before_it_listens_is_up_soon_after_it_does() {
    for (takes, most) in [(500, 60), (1500, 210), (30_000, 210)] {
        let mut story = Story::of(&[1]);
        story.next_answer(&[1, 2]);
        let (listens, mut probes) = (story.now + ms(takes), 0);
        while story.usable().len() < 2 {
            story.pass_time(ms(10));
            for probe in story.pool.due_probes(story.now) {
                let new = last_byte(&probe.address) == 2;
                let result = if new && story.now < listens { ProbeResult::Refused } else { ProbeResult::Passed };
                story.pool.probed(probe.id, &result, story.now, story.now);
                probes += u64::from(new);
            }
        }
        let late = story.now - listens;
        assert!(late <= ms(most), "{late:?} after a start of {takes} ms");
        assert!(probes <= 22 + takes / 200, "{probes} probes in a start of {takes} ms");
    }
}

// U11
#[test]
fn new_replicas_that_hang_or_never_start_are_asked_seldom() {
    let asked = |replicas: &[u8], result: ProbeResult, takes: Duration| {
        let mut story = Story::new();
        story.answer(replicas);
        story.pass_time(Duration::from_secs(70));
        let (mut probes, end) = (0_usize, story.now + Duration::from_secs(10));
        while story.now < end {
            story.pass_time(ms(10));
            for probe in story.pool.due_probes(story.now) {
                story.pool.probed(probe.id, &result, story.now - takes, story.now);
                probes += 1;
            }
        }
        probes
    };
    assert!(asked(&[1], ProbeResult::Refused, ms(0)) <= 42, "four a second while nobody is up");
    let hung = asked(&[1], ProbeResult::TimedOut, ms(1000));
    assert!(hung >= 10, "{hung}: what accepts and hangs is asked one request after the other");
    let crowd: Vec<u8> = (1..=250).collect();
    let all = asked(&crowd, ProbeResult::Refused, ms(0));
    assert!(all <= 5300, "{all} of 250 in ten seconds: 500 a second");
}

// D20
#[test]
fn a_probe_that_this_host_could_not_make_says_nothing_about_the_replica() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..10 {
        story.pass_time(ms(1000));
        story.probe(1, &ProbeResult::Exhausted);
    }
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.events(), [], "and nobody is told that it is ill");
}

#[test]
fn when_the_last_proven_replica_dies_those_that_have_yet_to_pass_a_probe_are_asked_at_once() {
    let mut story = Story::of(&[1]);
    story.answer(&[1, 2]);
    for _ in 0..4 {
        story.pass_time(ms(1000));
        story.probe(1, &ProbeResult::Passed);
        story.probe(2, &ProbeResult::Refused);
    }
    story.pass_time(ms(100));
    assert!(story.probes_due().is_empty(), "it is asked at the interval by now");
    story.die(1);
    assert_eq!(story.probes_due(), [2]);
    story.probe(2, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2]);
}

#[test]
fn replica_that_refuses_for_long_is_probed_at_the_interval_only() {
    let mut story = Story::of(&[1]);
    story.answer(&[1, 2]);
    let mut probes = 0;
    for step in 0..12_100 {
        story.pass_time(ms(10));
        let due = story.probes_due();
        if due.contains(&1) {
            story.probe(1, &ProbeResult::Passed);
        }
        if due.contains(&2) {
            // In the first minute it may be starting.
            probes += u32::from(step >= 6100);
            story.probe(2, &ProbeResult::Refused);
        }
    }
    assert!((58..=66).contains(&probes), "{probes} in a minute");
}

#[test]
fn connect_that_times_out_counts_once_and_is_probed_at_once() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(1500));
    story.probe_all(&ProbeResult::Passed);
    story.answer(&[1, 2]);
    story.pass_time(ms(100));
    for _ in 0..50 {
        story.record(1, Outcome::ConnectTimedOut);
    }
    assert_eq!(story.view(1).health, Health::Up, "fifty at once are one observation");
    assert_eq!(story.probes_due(), [1]);
    assert!(story.pool.next_question() <= story.now, "its host may be gone");
    story.pass_time(ms(1000));
    story.probe_times_out(1);
    assert_eq!(story.view(1).health, Health::Down);
}

#[test]
fn overloaded_replica_that_answers_is_not_taken_down_by_connects_that_time_out() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..20 {
        story.pass_time(ms(400));
        story.record(1, ok(900));
        story.record(1, Outcome::ConnectTimedOut);
        story.record(1, Outcome::ConnectTimedOut);
    }
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn stop_of_the_whole_process_takes_nobody_down() {
    let mut story = Story::with(Settings { fall: 1, ..settings() });
    story.answer(&[1, 2, 3]);
    story.probe_all(&ProbeResult::Passed);
    story.idle(ms(1000));
    let probed = story.pool.due_probes(story.now);
    assert_eq!(probed.len(), 3);
    let began = story.now;
    story.now += Duration::from_secs(10); // SIGSTOP
    for DueProbe { id, .. } in probed {
        story.pool.probed(id, &ProbeResult::TimedOut, began, story.now);
        story.pool.record(id, Outcome::ConnectTimedOut, QUIET, CALLER, story.now);
    }
    assert_eq!(story.usable(), [1, 2, 3]);
    assert_eq!(story.probes_due(), [1, 2, 3], "asked again before judging");
    story.pass_time(ms(1000));
    story.probe_times_out(1);
    assert_eq!(story.usable(), [2, 3], "and judged then");
}

#[test]
fn replica_that_drains_is_down_only_when_nobody_answers_there() {
    let mut story = Story::of(&[1, 2]);
    story.in_flight.insert(story.id(2), 1);
    story.next_answer(&[1]);
    story.next_answer(&[1]);
    assert_eq!(story.view(2).membership, Membership::Draining);
    for result in [ProbeResult::Refused, unhealthy(503)].iter().cycle().take(6) {
        story.pass_time(ms(1000));
        story.probe(2, result);
        assert_eq!(story.view(2).health, Health::Up, "it closes its door, and finishes what it has: {result:?}");
    }
    for _ in 0..2 {
        story.pass_time(ms(1000));
        story.probe_times_out(2);
    }
    assert_eq!(story.view(2).health, Health::Down, "its network is gone");
}

#[test]
fn lost_probe_is_made_again() {
    let mut story = Story::of(&[1]);
    story.idle(ms(1000));
    assert_eq!(story.probes_due(), [1]);
    story.idle(ms(1900));
    assert!(story.probes_due().is_empty());
    story.idle(ms(200));
    assert_eq!(story.probes_due(), [1]);
}

#[test]
fn time_out_garbage_or_a_client_that_leaves_makes_nobody_suspect() {
    let mut story = Story::of(&[1]);
    for outcome in [Outcome::TimedOut, Outcome::Invalid, Outcome::Abandoned] {
        story.record(1, outcome);
        assert_eq!(story.usable(), [1], "{outcome:?}");
    }
    assert!(story.events().is_empty());
}

#[test]
fn replicas_that_joined_together_are_not_probed_together_for_ever() {
    let mut story = Story::new();
    story.answer(&(1..=100).collect::<Vec<u8>>());
    story.probe_all(&ProbeResult::Passed);
    let most = (0..100)
        .map(|_| {
            story.pass_time(ms(10));
            story.probes_due().len()
        })
        .max();
    assert!(most <= Some(4), "{most:?} within 10 ms");
}

// U5
#[test]
fn a_new_replica_that_fails_its_probe_is_reported_once_after_a_second_for_each_kind_of_failure() {
    let mut story = Story::of(&[1]);
    story.next_answer(&[1, 2]);
    story.events();
    let reported = |story: &mut Story, result: &ProbeResult, time: Duration| {
        let end = story.now + time;
        let mut reports = Vec::new();
        while story.now < end {
            story.pass_time(ms(100));
            story.probe(2, result);
            let events = story.events().into_iter().filter(|(_, kind)| matches!(kind, EventKind::Unproven(_)));
            reports.extend(events.map(|event| (event, story.elapsed())));
        }
        reports
    };
    assert_eq!(reported(&mut story, &ProbeResult::Refused, ms(900)), [], "it may be starting");
    let refused = reported(&mut story, &ProbeResult::Refused, ms(5000));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, (2, EventKind::Unproven(ProbeResult::Refused)));
    let wrong_path = reported(&mut story, &unhealthy(404), ms(5000));
    assert_eq!(wrong_path.len(), 1, "it listens now, and another thing is wrong: {wrong_path:?}");
    story.probe(2, &ProbeResult::Passed);
    assert_eq!(story.view(2).health, Health::Up);
    assert_eq!(reported(&mut story, &unhealthy(404), ms(5000)), [], "it is down then, which is another event");
}

/// Both replicas' probes time out in the connect until they are down.
fn vanish(story: &mut Story) {
    for _ in 0..2 {
        story.pass_time(ms(1100));
        [1, 2].iter().for_each(|n| story.probe(*n, &ProbeResult::ConnectTimedOut));
    }
}

// A9: one request finds out that a host is gone as its probes say; the others need not.
#[test]
fn one_request_only_dials_a_host_that_probes_do_not_reach() {
    let mut story = Story::of(&[1, 2]);
    vanish(&mut story);
    assert_eq!(story.usable(), [1, 2], "probes can be wrong");
    story.pass_time(ms(1100));
    story.record(1, Outcome::ConnectTimedOut);
    assert_eq!(story.usable(), [2]);
    story.record(2, Outcome::ConnectTimedOut);
    assert!(story.usable().is_empty());
    story.probe(1, &ProbeResult::ConnectTimedOut);
    story.probe(2, &ProbeResult::Exhausted);
    assert!(story.usable().is_empty(), "as before, and nothing is known");
    story.probe(1, &ProbeResult::TimedOut);
    assert_eq!(story.usable(), [1], "it accepts: it may be busy");
    (0..2).for_each(|_| story.probe(2, &ProbeResult::Passed));
    assert_eq!(story.usable(), [2], "it is there");
}

// A9
#[test]
fn connects_that_time_out_as_a_host_goes_down_count_too() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(1100));
    story.record(1, Outcome::ConnectTimedOut);
    vanish(&mut story);
    story.record(1, Outcome::ConnectTimedOut);
    assert_eq!(story.usable(), [2]);
}
