use super::*;

const WHO: &str = "user 0";

fn drain(story: &mut Story, replica: u8, drained: bool) -> Result<bool, NotDone> {
    story.pool.set_drained(ip(replica), drained, WHO, story.now)
}

// P16
#[test]
fn a_drained_replica_gets_nothing_until_it_is_undrained() {
    let mut story = Story::of(&[1, 2]);
    assert_eq!(drain(&mut story, 1, true), Ok(true));
    assert!(story.pool.dirty(story.now), "published at once");
    assert_eq!(story.usable(), [2]);
    assert_eq!(story.view(1).held_back, Some(HeldBack::Drained));
    assert_eq!(story.view(1).health, Health::Up, "it is well");
    assert_eq!(story.events(), [(1, EventKind::Drained(WHO.to_owned()))]);
    assert_eq!(drain(&mut story, 1, true), Ok(false));
    story.probe(1, &ProbeResult::Passed);
    story.record(1, ok(5));
    assert_eq!(story.usable(), [2], "neither probes nor its last answers end it");
    assert_eq!(drain(&mut story, 1, false), Ok(true));
    assert_eq!(story.usable(), [1, 2]);
    assert_eq!(story.view(1).window, Some(1), "it may have been restarted");
    assert_eq!(story.events(), [(1, EventKind::Undrained(WHO.to_owned()))]);
    assert_eq!(drain(&mut story, 1, false), Ok(false));
    assert_eq!(story.events(), []);
}

// P16
#[test]
fn a_drain_outlives_the_answers_of_dns() {
    let mut story = Story::of(&[1, 2]);
    drain(&mut story, 1, true).unwrap();
    for listed in [&[1, 2][..], &[2], &[2], &[2]] {
        story.next_answer(listed);
        story.probe_all(&ProbeResult::Passed);
    }
    story.idle(ms(3000));
    assert!(!story.knows(1), "it left");
    assert_eq!(story.pool.drained(), [ip(1)]);
    story.events();
    story.next_answer(&[1, 2]);
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2]);
    let said = story.events();
    assert!(said.iter().any(|(replica, kind)| *replica == 1 && kind.name() == "drained"), "{said:?}");
    story.pool.reconfigure(Settings { rise: 2, ..settings() }, story.now);
    assert_eq!(story.usable(), [2], "a reload leaves it as it is");
    assert_eq!(drain(&mut story, 1, false), Ok(true));
    assert_eq!(story.usable(), [2, 1]);
}

// P16
#[test]
fn a_drained_address_that_left_can_be_undrained() {
    let mut story = Story::of(&[1, 2]);
    drain(&mut story, 1, true).unwrap();
    for _ in 0..3 {
        story.next_answer(&[2]);
    }
    story.idle(ms(3000));
    assert!(!story.knows(1));
    story.events();
    assert_eq!(drain(&mut story, 1, false), Ok(true));
    assert!(story.pool.drained().is_empty());
    assert_eq!(story.events(), [(1, EventKind::Undrained(WHO.to_owned()))]);
}

#[test]
fn an_address_that_nobody_has_is_refused() {
    let mut story = Story::of(&[1]);
    assert_eq!(drain(&mut story, 9, true), Err(NotDone::Unknown));
    assert_eq!(drain(&mut story, 9, false), Err(NotDone::Unknown));
    assert_eq!(story.events(), []);
}

// P16
#[test]
fn with_all_drained_requests_wait() {
    let mut story = Story::of(&[1, 2]);
    drain(&mut story, 1, true).unwrap();
    drain(&mut story, 2, true).unwrap();
    assert_eq!(story.usable(), [] as [u8; 0]);
    drain(&mut story, 2, false).unwrap();
    assert_eq!(story.usable(), [2]);
}

// P16
#[test]
fn who_is_no_longer_listed_serves_on_while_the_only_successor_is_drained() {
    let mut story = Story::of(&[1]);
    story.answer(&[1, 2]);
    story.probe(2, &ProbeResult::Passed);
    drain(&mut story, 2, true).unwrap();
    for _ in 0..3 {
        story.next_answer(&[2]);
        story.probe(1, &ProbeResult::Passed);
    }
    assert_eq!(story.usable(), [1]);
    drain(&mut story, 2, false).unwrap();
    assert_eq!(story.usable(), [2]);
}

// P16
#[test]
fn a_drained_replica_does_not_let_the_last_one_be_ejected() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..40 {
        story.record(2, ok(5));
    }
    drain(&mut story, 2, true).unwrap();
    for _ in 0..100 {
        story.pass_time(ms(10));
        story.record(1, status(500));
    }
    assert_eq!(story.view(1).ejected_until, None);
}

// P17
#[test]
fn a_paused_upstream_has_no_candidates_and_is_as_before_afterwards() {
    let mut story = Story::of(&[1, 2]);
    assert!(story.pool.set_paused(true, WHO, story.now));
    assert!(story.pool.dirty(story.now), "published at once");
    assert_eq!(story.usable(), [] as [u8; 0]);
    assert_eq!(story.view(1).held_back, Some(HeldBack::Paused));
    assert!(!story.pool.set_paused(true, WHO, story.now));
    story.next_answer(&[1, 2]);
    story.probe_all(&ProbeResult::Passed);
    assert_eq!(story.usable(), [] as [u8; 0], "neither DNS nor probes end it");
    assert!(story.pool.set_paused(false, WHO, story.now));
    assert_eq!(story.usable(), [1, 2]);
    assert!(story.view(1).window.is_some(), "what waited comes at a bounded pace");
    let said = [EventKind::Paused(WHO.to_owned()), EventKind::Resumed(WHO.to_owned())];
    assert_eq!(story.events(), said.map(|kind| (0, kind)));
}
