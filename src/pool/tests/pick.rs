use super::*;

fn candidates(weights: &[f64]) -> Vec<Candidate> {
    let candidate = |(n, weight): (usize, &f64)| Candidate {
        id: EndpointId(n as u64),
        address: SocketAddr::new(ip(n as u8), 8080),
        weight: *weight,
        trial: false,
        limit: u32::MAX,
        ceiling: u32::MAX,
    };
    weights.iter().enumerate().map(candidate).collect()
}

fn choose(candidates: &[Candidate], in_flight: &[u32]) -> Option<usize> {
    pick(candidates, Bound::Window, |i| in_flight[i], |_| false, &mut fastrand::Rng::with_seed(1))
}

// P2
#[test]
fn least_busy_replica_is_picked() {
    assert_eq!(choose(&candidates(&[1.0; 4]), &[3, 2, 1, 2]), Some(2));
    assert_eq!(choose(&[], &[]), None);
}

#[test]
fn idle_slow_replica_does_not_tie_with_idle_fast_ones() {
    let pool = candidates(&[1.0, 10.0]);
    assert_eq!(choose(&pool, &[0, 0]), Some(0));
    assert_eq!(choose(&pool, &[8, 0]), Some(0));
    assert_eq!(choose(&pool, &[10, 0]), Some(1), "under load it helps");
}

#[test]
fn trial_is_one_request_at_a_time() {
    let mut pool = candidates(&[1.0, 10.0]);
    pool[1].trial = true;
    assert_eq!(choose(&pool, &[1, 0]), Some(1));
    assert_eq!(choose(&pool, &[1, 1]), Some(0));
}

#[test]
fn full_and_excluded_replicas_are_passed_over() {
    let mut pool = candidates(&[1.0; 3]);
    pool[0].limit = 1;
    assert_eq!(choose(&pool, &[1, 5, 6]), Some(1));
    let rng = &mut fastrand::Rng::with_seed(1);
    assert_eq!(pick(&pool, Bound::Window, |i| [1, 5, 6][i], |id| id.0 == 1, rng), Some(2));
    assert_eq!(pick(&pool, Bound::Window, |_| 1, |id| id.0 > 0, rng), None);
}

#[test]
fn equals_share_evenly() {
    let pool = candidates(&[1.0; 7]);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut hits = [0; 7];
    for _ in 0..70_000 {
        hits[pick(&pool, Bound::Window, |_| 3, |_| false, &mut rng).expect("somebody")] += 1;
    }
    assert!(hits.iter().all(|hits| (9_500..10_500).contains(hits)), "{hits:?}");
}

#[test]
fn certainly_slow_replica_weighs_more_and_one_that_is_a_fifth_slower_does_not() {
    let mut story = Story::of(&[1, 2, 3]);
    for _ in 0..100 {
        story.pass_time(ms(10));
        for (n, time) in [(1, 5), (2, 6), (3, 50)] {
            story.record(n, ok(time));
        }
    }
    assert_eq!(story.candidate(1).weight, 1.0);
    assert_eq!(story.candidate(2).weight, 1.0, "a fifth slower is not slow");
    let weight = story.candidate(3).weight;
    assert!((30.0..=45.0).contains(&weight), "(50 / 5 / 1.5)² is 44, this is {weight}");
    assert_eq!(story.view(3).weight, weight);
    assert!(story.view(3).mean > Some(ms(20)));
}

#[test]
fn slow_replica_gets_one_request_in_two_hundred() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..30 {
        story.pass_time(ms(10));
        story.record(1, ok(5));
        story.record(2, ok(50));
    }
    assert!(!story.candidate(2).trial);
    let answers = (1..1000).find(|_| {
        story.pass_time(ms(10));
        story.record(1, ok(5));
        story.candidate(2).trial
    });
    assert_eq!(answers, Some(200));
    story.record(2, ok(50));
    assert!(story.pool.dirty(story.now), "a second request must not follow the first");
    assert!(!story.candidate(2).trial);
}

#[test]
fn differences_below_a_millisecond_are_none() {
    let mut story = Story::of(&[1, 2]);
    for _ in 0..50 {
        story.pass_time(ms(10));
        for (n, micros) in [(1, 90), (2, 700)] {
            story.record(n, Outcome::Answered { status: 200, first_byte: Duration::from_micros(micros) });
        }
    }
    assert_eq!(story.candidate(2).weight, 1.0);
}

#[test]
fn fast_errors_do_not_make_a_replica_fast() {
    let mut story = Story::of(&[1, 2, 3]);
    for _ in 0..30 {
        story.pass_time(ms(10));
        for n in [1, 2, 3] {
            story.record(n, ok(50));
        }
        story.record(3, Outcome::Answered { status: 503, first_byte: ms(1) });
    }
    assert!(story.pool.candidates(story.now).iter().all(|c| c.weight == 1.0));
}

#[test]
fn weights_are_published_every_five_milliseconds_at_most() {
    let mut story = Story::of(&[1]);
    story.pool.candidates(story.now);
    story.record(1, ok(5));
    assert!(!story.pool.dirty(story.now + ms(4)));
    assert!(story.pool.dirty(story.now + ms(5)));
}
