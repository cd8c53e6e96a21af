use super::*;

/// Requests 10 ms apart, `turns` rounds: what each replica answers.
fn rounds(story: &mut Story, turns: usize, answers: &[(u8, u16)]) {
    for _ in 0..turns {
        story.pass_time(ms(10));
        for (replica, code) in answers {
            story.record(*replica, status(*code));
        }
    }
}

#[test]
fn black_hole_of_two_replicas_is_ejected_within_32_answers() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 16, &[(1, 500), (2, 200)]);
    assert_eq!(story.usable(), [2]);
    assert_eq!(story.events(), [(1, EventKind::Ejected(Duration::from_secs(5)))]);
    assert_eq!(story.view(1).held_back, Some(HeldBack::Ejected));
    story.probe(1, &ProbeResult::Passed);
    assert_eq!(story.usable(), [2], "a probe does not end it");
}

#[test]
fn replica_that_answers_500_from_its_start_is_ejected_after_20_answers() {
    let mut story = Story::of(&[1, 2]);
    story.answer(&[1, 2, 3]);
    story.probe(3, &ProbeResult::Passed);
    rounds(&mut story, 19, &[(3, 500)]);
    assert_eq!(story.usable(), [1, 2, 3]);
    rounds(&mut story, 1, &[(3, 500)]);
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn nobody_is_ejected_when_all_answer_500() {
    let mut story = Story::of(&[1, 2, 3]);
    rounds(&mut story, 200, &[(1, 500), (2, 500), (3, 500)]);
    assert_eq!(story.usable(), [1, 2, 3]);
    rounds(&mut story, 200, &[(1, 200), (2, 200), (3, 200)]);
    assert!(story.events().is_empty());
}

#[test]
fn failed_dependency_is_an_answer() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 100, &[(1, 424), (2, 200)]);
    assert!(story.events().is_empty());
}

#[test]
fn last_replica_is_never_ejected() {
    let mut story = Story::of(&[1]);
    rounds(&mut story, 100, &[(1, 500)]);
    assert_eq!(story.usable(), [1]);
}

#[test]
fn at_most_half_of_the_pool_is_ejected() {
    let mut story = Story::of(&[1, 2, 3, 4, 5]);
    rounds(&mut story, 100, &[(1, 500), (2, 500), (3, 500), (4, 500), (5, 200)]);
    assert_eq!(story.usable().len(), 3);
    assert_eq!(story.events().len(), 2, "two are ejected and stay so");
}

#[test]
fn two_bad_ones_of_four_are_both_ejected() {
    let mut story = Story::of(&[1, 2, 3, 4]);
    rounds(&mut story, 30, &[(1, 500), (2, 503), (3, 200), (4, 200)]);
    assert_eq!(story.usable(), [3, 4]);
}

#[test]
fn ejected_ones_are_taken_back_when_others_leave() {
    let mut story = Story::of(&[1, 2, 3, 4]);
    rounds(&mut story, 30, &[(1, 500), (2, 500), (3, 200), (4, 200)]);
    story.next_answer(&[1, 2, 3]);
    story.next_answer(&[1, 2, 3]);
    assert_eq!(story.usable().len(), 2, "one of three may be out");
}

#[test]
fn ejected_replica_is_better_than_nobody() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 30, &[(1, 500), (2, 200)]);
    story.record(2, Outcome::Refused);
    assert_eq!(story.usable(), [1]);
}

#[test]
fn one_trial_brings_a_mended_replica_back() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 16, &[(1, 500), (2, 200)]);
    story.candidate(2);
    let until = story.view(1).ejected_until.expect("ejected");
    assert!(story.pool.next_wake() <= until);
    story.idle(ms(5000));
    assert_eq!(story.candidate(1).limit, 1, "one at a time");
    story.record(1, ok(5));
    assert_eq!(story.events().last(), Some(&(1, EventKind::Readmitted)));
    rounds(&mut story, 10, &[(1, 200), (2, 200)]);
    assert_eq!(story.candidate(1).limit, u32::MAX);
}

#[test]
fn failed_trials_keep_it_out_twice_as_long_up_to_a_minute() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 16, &[(1, 500), (2, 200)]);
    for _ in 0..5 {
        rounds(&mut story, 10, &[(2, 200)]);
        let until = story.view(1).ejected_until.expect("ejected");
        story.idle(until - story.now);
        story.record(1, status(500));
    }
    let times: Vec<_> = story
        .events()
        .into_iter()
        .filter_map(|(_, kind)| if let EventKind::Ejected(time) = kind { Some(time.as_secs()) } else { None })
        .collect();
    assert_eq!(times, [5, 10, 20, 40, 60, 60]);
}

#[test]
fn trial_that_fails_like_everybody_elses_requests_ends_the_ejection() {
    let mut story = Story::of(&[1, 2]);
    rounds(&mut story, 16, &[(1, 500), (2, 200)]);
    story.idle(ms(5000));
    rounds(&mut story, 32, &[(2, 500)]); // now their database is gone
    story.record(1, status(500));
    assert_eq!(story.usable(), [1, 2]);
}

#[test]
fn replica_that_loses_half_of_its_requests_is_ejected_too() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..40 {
        story.pass_time(ms(10));
        story.record(1, Outcome::TimedOut);
        story.record(2, status(200));
    }
    assert_eq!(story.usable(), [2]);
}

/// Answers of `replica` to these callers, by turns.
fn answer_all(story: &mut Story, turns: usize, replica: u8, answers: &[(u8, u16)]) {
    for _ in 0..turns {
        story.pass_time(ms(10));
        for (caller, code) in answers {
            story.record_for(ip(*caller), replica, status(*code));
        }
    }
}

// A16: one client that gets errors at will, and holds the others busy, decides of no replica.
#[test]
fn one_caller_alone_has_nobody_ejected_where_there_are_several() {
    let mut story = Story::of(&[1, 2]);
    answer_all(&mut story, 50, 2, &[(101, 200), (102, 200)]);
    answer_all(&mut story, 200, 1, &[(101, 500), (101, 500), (101, 500), (102, 200)]);
    assert_eq!(story.usable(), [1, 2], "the other caller is served well there");
    answer_all(&mut story, 50, 1, &[(101, 500)]);
    assert_eq!(story.usable(), [1, 2], "nor while the other asks elsewhere");
    answer_all(&mut story, 50, 2, &[(102, 200)]);
    answer_all(&mut story, 1, 1, &[(103, 500)]);
    assert_eq!(story.usable(), [1, 2], "nor by one bad page of a third, where the second was served well");
}

// A16: what is bad to all is left out as before, however little the others ask.
#[test]
fn replica_that_is_bad_to_several_callers_is_ejected() {
    let mut story = Story::of(&[1, 2]);
    story.idle(ms(10_000)); // whoever warmed them is gone
    answer_all(&mut story, 50, 2, &[(101, 200), (102, 200)]);
    answer_all(&mut story, 31, 1, &[(101, 500)]);
    assert_eq!(story.usable(), [1, 2]);
    answer_all(&mut story, 1, 1, &[(102, 500), (101, 500)]);
    assert_eq!(story.usable(), [2]);
}

// A16: where only one has asked of late, its word is all there is.
#[test]
fn caller_that_is_alone_is_believed() {
    let mut story = Story::of(&[1, 2]);
    answer_all(&mut story, 50, 2, &[(102, 200)]);
    story.idle(ms(10_000));
    answer_all(&mut story, 20, 2, &[(101, 200)]);
    answer_all(&mut story, 32, 1, &[(101, 500)]);
    assert_eq!(story.usable(), [2]);
}

#[test]
fn only_the_latest_callers_are_told_apart() {
    let mut story = Story::of(&[1, 2]);
    for caller in 10..250 {
        answer_all(&mut story, 1, 2, &[(caller, 200)]);
        answer_all(&mut story, 1, 1, &[(caller, 500)]);
    }
    assert_eq!(story.usable(), [2], "each of them says the same");
}
