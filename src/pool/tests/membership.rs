use super::*;

#[test]
fn name_is_asked_for_four_times_a_second_just_after_everybody_was_lost() {
    let mut story = Story::of(&[1]);
    story.next_answer(&[1]);
    story.record(1, Outcome::Refused);
    let mut questions = 0;
    let lost = story.now;
    while story.now - lost < Duration::from_secs(60) {
        story.wait_for_question();
        story.ask(Resolution::Absent);
        questions += u32::from(story.now - lost < Duration::from_secs(8));
    }
    assert!((30..=40).contains(&questions), "{questions} in the first eight seconds");
    let before = story.now;
    story.wait_for_question();
    assert_eq!(story.now - before, ms(1000), "the timer's pace later on");
}

#[test]
fn new_pool_asks_dns_at_once_and_then_on_the_timer() {
    let mut story = Story::new();
    assert_eq!(story.pool.next_question(), story.now);
    assert!(!story.pool.tried());
    story.pool.asked(story.now);
    assert_eq!(story.pool.next_question(), story.now + ms(1000));
    story.pool.resolved(&Resolution::Failed("time-out".into()), &[], story.now, story.now);
    assert!(story.pool.tried(), "any outcome counts as tried");
}

#[test]
fn new_address_is_probed_at_once_and_gets_traffic_only_after_it_passed() {
    let mut story = Story::new();
    story.answer(&[1]);
    assert!(story.usable().is_empty());
    assert_eq!(story.view(1).held_back, Some(HeldBack::Unproven));
    assert_eq!(story.probes_due(), [1]);
    assert!(story.probes_due().is_empty(), "probed twice at once");
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [1]);
    assert_eq!(
        story.events(),
        [(0, EventKind::NameResolved(1)), (1, EventKind::Joined), (1, EventKind::Up("probe passed".into()))]
    );
}

#[test]
fn shuffled_and_repeated_addresses_change_and_log_nothing() {
    let mut story = Story::of(&[1, 2, 3]);
    story.pool.candidates(story.now);
    story.next_answer(&[3, 1, 2, 1, 3]);
    assert!(story.events().is_empty());
    assert!(!story.pool.dirty(story.now));
}

#[test]
fn failed_question_keeps_the_last_set_and_is_said_once() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..30 {
        story.wait_for_question();
        story.ask(Resolution::Failed("SERVFAIL".into()));
    }
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.events(), [(0, EventKind::NameFailing("SERVFAIL".into()))]);
    story.next_answer(&[1, 2]);
    assert_eq!(story.events(), [(0, EventKind::NameResolved(2))]);
}

#[test]
fn address_missing_from_one_answer_stays_and_dns_is_asked_again_after_200_ms() {
    let mut story = Story::of(&[1, 2]);
    story.next_answer(&[1]);
    assert_eq!(story.pool.next_question(), story.now + ms(200));
    assert_eq!(story.usable(), [1, 2]);
    story.next_answer(&[1, 2]);
    story.next_answer(&[1]);
    assert_eq!(story.usable(), [1, 2], "two misses with a sighting between them");
    assert!(story.events().is_empty());
}

#[test]
fn address_missing_from_two_answers_drains_and_is_forgotten_when_its_requests_are_done() {
    let mut story = Story::of(&[1, 2]);
    story.in_flight.insert(story.id(2), 1);
    story.next_answer(&[1]);
    story.next_answer(&[1]);
    assert_eq!(story.usable(), [1]);
    assert_eq!(story.events(), [(2, EventKind::Draining)]);
    assert_eq!(story.view(2).held_back, Some(HeldBack::Draining));
    story.idle(ms(60_000));
    assert!(story.knows(2), "forgotten with a request in flight");
    story.in_flight.clear();
    story.idle(ms(1000));
    assert!(!story.knows(2));
    assert_eq!(story.events(), [(2, EventKind::Left)]);
}

#[test]
fn question_hurried_by_a_refusal_does_not_confirm_a_miss_too_early() {
    let mut story = Story::of(&[1, 2, 3]);
    story.next_answer(&[1, 3]);
    story.pass_time(ms(100));
    story.record(3, Outcome::Refused);
    story.answer(&[1, 3]);
    assert_eq!(story.view(2).membership, Membership::Active);
    assert!(story.pool.next_question() <= story.now + ms(100), "the doubt is forgotten");
    story.next_answer(&[1, 3]);
    assert_eq!(story.view(2).membership, Membership::Draining);
}

#[test]
fn returning_address_ends_its_drain_and_keeps_its_health() {
    let mut story = Story::of(&[1, 2]);
    story.in_flight.insert(story.id(2), 1);
    let id = story.id(2);
    story.next_answer(&[1]);
    story.next_answer(&[1]);
    story.next_answer(&[1, 2]);
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.id(2), id);
    assert_eq!(story.events(), [(2, EventKind::Draining), (2, EventKind::Returned)]);
    assert!(story.probes_due().contains(&2), "not probed although the address may have a new owner");
}

#[test]
fn live_replicas_outlast_a_name_that_is_gone_for_less_than_hold() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..9 {
        story.wait_for_question();
        story.ask(Resolution::Absent);
    }
    assert_eq!(story.usable(), [1, 2]);
    story.next_answer(&[1]);
    assert_eq!(story.usable(), [1, 2], "names come back one by one");
    story.next_answer(&[1, 2]);
    let kinds: Vec<_> = story.events();
    assert!(matches!(kinds[..], [(0, EventKind::NameFailing(_)), (0, EventKind::NameResolved(1))]), "{kinds:?}");
}

#[test]
fn all_replicas_drain_when_the_name_stays_gone_for_hold() {
    let mut story = Story::of(&[1, 2]);
    story.wait_for_question();
    let gone = story.now;
    while story.usable() == [1, 2] {
        story.ask(Resolution::Absent);
        assert!(story.now <= gone + ms(10_000), "still there");
        story.wait_for_question();
    }
    assert!(story.now >= gone + ms(10_000), "gone too early: {:?}", story.now - gone);
    assert!(story.usable().is_empty());
}

#[test]
fn hold_ends_on_time_although_the_timer_is_slow() {
    let mut story = Story::with(Settings { dns_interval: Duration::from_secs(60), ..settings() });
    story.answer(&[1]);
    story.probe_all(&ProbeResult::Passed);
    story.wait_for_question();
    story.ask(Resolution::Absent);
    assert_eq!(story.pool.next_question(), story.now + ms(10_000));
}

#[test]
fn replica_that_does_not_work_is_not_held_when_the_name_is_gone() {
    let mut story = Story::of(&[1, 2]);
    story.record(2, Outcome::Refused);
    for _ in 0..3 {
        story.next_answer_absent();
    }
    assert_eq!(story.view(2).membership, Membership::Draining);
    assert_eq!(story.usable(), [1]);
}

#[test]
fn answer_with_none_of_the_working_addresses_removes_nothing_until_a_new_one_is_up() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..20 {
        story.next_answer(&[8, 9]);
    }
    assert_eq!(story.usable(), [1, 2]);
    story.probe(9, &ProbeResult::Passed);
    assert_eq!(story.usable(), [9], "drained as soon as a successor is up");
    assert_eq!(story.view(1).membership, Membership::Draining);
}

#[test]
fn dead_replicas_are_dropped_although_their_successors_are_not_up_yet() {
    let mut story = Story::of(&[1, 2]);
    story.die(1);
    story.die(2);
    story.next_answer(&[8, 9]);
    story.next_answer(&[8, 9]);
    story.next_answer(&[8, 9]);
    assert_eq!(story.view(1).membership, Membership::Draining);
    assert!(story.usable().is_empty());
}

#[test]
fn addresses_that_are_not_the_networks_to_give_are_dropped_and_said_once() {
    let mut story = Story::new();
    let own = ip(7);
    let listed: Vec<IpAddr> =
        ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:0.0.0.0", "172.18.0.1"]
            .iter()
            .map(|ip| ip.parse().expect("an address"))
            .chain([own])
            .collect();
    for _ in 0..5 {
        story.pool.resolved(&Resolution::Addresses(listed.clone()), &[own], story.now, story.now);
    }
    assert_eq!(story.pool.endpoints(story.now).len(), 1);
    let events = story.events();
    let rejected = events.iter().filter(|(_, kind)| matches!(kind, EventKind::Rejected(_)));
    assert_eq!(rejected.count(), 6, "{events:?}");
    assert!(events.contains(&(0, EventKind::NameResolved(1))));
}

#[test]
fn answer_of_any_length_costs_bounded_memory() {
    let mut story = Story::new();
    let listed = (0..20_000u32).map(|n| IpAddr::from((0x0a00_0001 + n).to_be_bytes())).collect();
    story.ask(Resolution::Addresses(listed));
    assert_eq!(story.pool.endpoints(story.now).len(), 4096);
    assert!(story.events().len() < 3 * 4096);
}

#[test]
fn three_hundred_records_are_all_used() {
    let mut story = Story::new();
    story.ask(Resolution::Addresses((0..300u32).map(|n| IpAddr::from((0x0a00_0001 + n).to_be_bytes())).collect()));
    story.probe_all(&ProbeResult::Passed);
    assert_eq!(story.pool.candidates(story.now).len(), 300);
}

#[test]
fn changed_port_is_taken_over_once_a_replica_answers_there() {
    let mut story = Story::of(&[1]);
    story.pool.reconfigure(Settings { port: 9000, ..settings() }, story.now);
    story.pass_time(ms(100));
    for _ in 0..3 {
        story.next_answer(&[1]);
    }
    let ports =
        |story: &mut Story| story.pool.candidates(story.now).iter().map(|c| c.address.port()).collect::<Vec<_>>();
    assert_eq!(ports(&mut story), [8080]);
    story.probe_all(&ProbeResult::Passed);
    assert_eq!(ports(&mut story), [9000]);
}

impl Story {
    fn next_answer_absent(&mut self) {
        self.wait_for_question();
        self.ask(Resolution::Absent);
    }
}
