use super::*;

/// Lets the question and the probe that a suspect waits for happen, as a shell would.
fn clear_up(story: &mut Story, listed: &[u8], result: &ProbeResult) {
    story.next_answer(listed);
    story.probe_all(result);
}

#[test]
fn replica_that_refuses_or_breaks_and_accepts_no_more_gets_no_traffic_at_once() {
    let hits: [fn(&mut Story); 2] = [|story| story.record(1, Outcome::Refused), |story| story.die(1)];
    for hit in hits {
        let mut story = Story::of(&[1, 2]);
        hit(&mut story);
        assert!(story.pool.dirty(story.now));
        assert_eq!(story.usable(), [2]);
        assert_eq!(story.view(1).held_back, Some(HeldBack::Suspect));
        assert!(matches!(story.events()[..], [(1, EventKind::Suspect(_))]));
    }
}

// D3, A1
#[test]
fn break_of_a_connection_costs_a_replica_that_accepts_the_next_one_nothing() {
    let mut story = Story::of(&[1, 2]);
    let before = story.candidate(1);
    for _ in 0..300 {
        story.record(1, Outcome::Broken);
        story.record(2, ok(5));
        let (broke, accepted) = (story.now, story.now + ms(1));
        story.pass_time(ms(1));
        assert!(story.pool.break_checked(story.id(1), broke_at(broke), Some(accepted), story.now));
        // One in four is lost: the app's own business, unless it is so for most of them.
        (0..3).for_each(|_| story.record(1, ok(5)));
    }
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.candidate(1), before, "no cold window, no weight");
    assert!(story.events().is_empty());
}

// D3
#[test]
fn connection_accepted_when_the_address_may_have_changed_hands_clears_nobody() {
    let mut story = Story::of(&[1, 2]);
    story.record(1, Outcome::Broken);
    let broke = story.now;
    story.pass_time(HANDOVER + ms(1));
    assert!(!story.pool.break_checked(story.id(1), broke_at(broke), Some(story.now), story.now));
    assert_eq!(story.usable(), [2]);
}

// D3
#[test]
fn replica_whose_queue_of_connections_is_full_is_cleared_by_an_answer_that_came_soon_after_the_break() {
    let mut story = Story::of(&[1, 2]);
    story.record(1, Outcome::Broken);
    let broke = story.now;
    story.pass_time(ms(50));
    story.record(1, ok(5));
    story.pass_time(HANDOVER);
    assert!(story.pool.break_checked(story.id(1), broke_at(broke), None, story.now));
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn suspect_is_cleared_by_a_fresh_answer_and_a_probe_within_300_ms() {
    let mut story = Story::of(&[1, 2]);
    story.pass_time(ms(500));
    let broke = story.now;
    story.die(1);
    assert_eq!(story.pool.next_question(), story.now, "DNS is asked at once, for it may have left");
    story.answer(&[1, 2]);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2], "that answer was too early to count");
    clear_up(&mut story, &[1, 2], &ProbeResult::Passed);
    assert_eq!(story.usable(), [1, 2]);
    assert!(story.now - broke <= ms(300), "{:?}", story.now - broke);
    assert_eq!(story.candidate(1).limit, 1, "back with a cold window");
    assert_eq!(story.events().last(), Some(&(1, EventKind::Cleared)));
}

#[test]
fn probe_that_began_before_the_answer_does_not_clear_a_suspect() {
    let mut story = Story::of(&[1]);
    story.die(1);
    story.wait_for_question();
    story.pass_time(ms(250));
    let began = story.now - ms(10);
    story.answer(&[1]);
    story.pool.probed(story.id(1), &ProbeResult::Passed, began, story.now);
    assert!(story.usable().is_empty());
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [1]);
}

#[test]
fn suspect_is_not_tried_even_when_nobody_else_is_left() {
    let mut story = Story::of(&[1, 2]);
    story.record(1, Outcome::Refused);
    story.die(2);
    assert!(story.usable().is_empty());
}

#[test]
fn address_that_a_foreign_app_took_gets_nothing() {
    let mut story = Story::of(&[1, 2]);
    story.die(1);
    // The foreign app answers probes, but DNS lists the address no more.
    for _ in 0..5 {
        clear_up(&mut story, &[2], &ProbeResult::Passed);
        assert_eq!(story.usable(), [2]);
    }
    assert!(!story.knows(1));
}

#[test]
fn name_that_is_gone_clears_nobody() {
    let mut story = Story::of(&[1, 2]);
    story.die(1);
    story.pass_time(ms(250));
    story.ask(Resolution::Absent);
    story.probe(1, &ProbeResult::Passed);
    story.ask(Resolution::Failed("time-out".into()));
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2]);
}

// D14
#[test]
fn replica_that_refuses_a_probe_while_the_name_is_gone_is_not_trusted_by_a_probe_alone() {
    let mut story = Story::of(&[1]);
    story.next_answer(&[1]);
    story.ask(Resolution::Absent);
    assert_eq!(story.usable(), [1], "it works, and the name may come back");
    story.probe(1, &ProbeResult::Refused);
    assert!(story.usable().is_empty());
    // Another app has its address by now, and answers probes.
    story.probe(1, &ProbeResult::Passed);
    story.pass_time(ms(500));
    story.ask(Resolution::Absent);
    assert!(story.usable().is_empty());
}

// D14
#[test]
fn replica_that_closes_its_connections_while_the_name_is_gone_is_not_trusted_by_a_probe_alone() {
    let mut story = Story::of(&[1]);
    story.close_resting(1);
    assert_eq!(story.usable(), [1], "servers close connections that rest");
    story.ask(Resolution::Absent);
    story.close_resting(1);
    assert!(story.usable().is_empty());
    story.probe(1, &ProbeResult::Passed);
    assert!(story.usable().is_empty());
    story.pass_time(ms(260));
    story.answer(&[1]);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [1], "it is listed again");
}

#[test]
fn later_break_makes_an_earlier_answer_worthless() {
    let mut story = Story::of(&[1, 2]);
    story.die(1);
    story.pass_time(ms(260));
    story.answer(&[1, 2]);
    story.die(1);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2]);
    story.next_answer(&[1, 2]);
    story.next_answer(&[1, 2]);
    assert!(story.probes_due().contains(&1));
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn restarted_container_gets_traffic_only_after_a_passing_probe() {
    let mut story = Story::of(&[1]);
    story.record(1, Outcome::Refused);
    let mut probes = 0;
    let end = story.now + ms(2000);
    while story.now < end {
        story.wait_for_question();
        story.answer(&[1]);
        if story.probes_due().contains(&1) {
            probes += 1;
            story.probe(1, &ProbeResult::Refused);
        }
        assert!(story.usable().is_empty());
    }
    assert!(probes >= 5, "with nobody left, {probes} probes in 2 s keep requests waiting");
    let back = story.now;
    while story.usable().is_empty() {
        clear_up(&mut story, &[1], &ProbeResult::Passed);
    }
    assert!(story.now - back <= ms(400), "{:?}", story.now - back);
}

#[test]
fn replica_that_breaks_every_connection_costs_ever_fewer_requests() {
    let mut story = Story::of(&[1, 2]);
    let mut broken = 0;
    while story.elapsed() < Duration::from_secs(60) {
        if story.usable().contains(&1) {
            story.die(1);
            broken += 1;
        }
        clear_up(&mut story, &[1, 2], &ProbeResult::Passed);
    }
    assert!((8..=14).contains(&broken), "{broken} requests in a minute");
}

#[test]
fn idle_connection_closed_by_the_replica_is_no_suspicion_unless_nobody_accepts_there() {
    let mut story = Story::of(&[1, 2]);
    story.record(1, Outcome::Stale);
    assert!(story.pool.break_checked(story.id(1), broke_at(story.now), Some(story.now), story.now));
    assert_eq!(story.usable(), [1, 2]);
    story.record(1, Outcome::Stale);
    assert!(!story.pool.break_checked(story.id(1), broke_at(story.now), None, story.now));
    assert_eq!(story.usable(), [2]);
}

#[test]
fn storm_of_refusals_asks_dns_at_most_every_100_ms() {
    let mut story = Story::of(&[1, 2, 3]);
    let mut questions = 0;
    for _ in 0..1000 {
        story.pass_time(ms(1));
        story.record(3, Outcome::Refused);
        if story.pool.next_question() <= story.now {
            story.answer(&[1, 2, 3]);
            questions += 1;
        }
    }
    assert!((9..=10).contains(&questions), "{questions} questions in a second");
}

#[test]
fn what_draining_replicas_suffer_is_not_logged() {
    let mut story = Story::of(&[1, 2]);
    story.in_flight.insert(story.id(2), 1);
    story.next_answer(&[1]);
    story.next_answer(&[1]);
    story.events();
    story.die(2);
    assert!(story.events().is_empty());
    story.answer(&[1, 2]);
    assert_eq!(story.usable(), [1], "it is suspect when it comes back");
}
