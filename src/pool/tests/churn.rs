//! Thousands of random stories, and what must hold at every moment of each.

use super::*;

const REPLICAS: u8 = 12;

/// A world in which anything may happen at any time.
struct Churn {
    story: Story,
    rng: fastrand::Rng,
    /// Probes under way: who, and since when.
    probes: Vec<(EndpointId, Instant)>,
    /// Questions under way: since when.
    questions: Vec<Instant>,
    probe_interval: Duration,
}

#[test]
fn whatever_happens_requests_go_only_where_they_may_and_to_somebody_if_they_can() {
    let seed = std::env::var("CHURN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..3000, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| Churn::new(seed).run(150));
        assert!(result.is_ok(), "CHURN_SEED={seed} repeats it");
    }
}

impl Churn {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let probe_interval = ms(rng.u64(100..3000));
        let settings = Settings {
            dns_interval: ms(rng.u64(100..5000)),
            hold: ms(rng.u64(0..20_000)),
            probe_interval,
            rise: rng.u32(1..4),
            fall: rng.u32(1..4),
            max_in_flight: rng.u32(..5),
            ..settings()
        };
        Churn { story: Story::with(settings), rng, probes: Vec::new(), questions: Vec::new(), probe_interval }
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.check();
        }
    }

    fn step(&mut self) {
        match self.rng.u32(..10) {
            0 => self.ask(),
            1 => self.resolve(),
            2 | 3 => self.let_time_pass(),
            4 => self.start_probes(),
            5 | 6 => self.end_probe(),
            _ => self.record(),
        }
    }

    fn ask(&mut self) {
        if self.story.pool.next_question() > self.story.now && self.rng.u32(..4) > 0 {
            return;
        }
        self.story.pool.asked(self.story.now);
        self.questions.push(self.story.now);
        let next = self.story.pool.next_question();
        assert!(next >= self.story.now + ms(100).min(self.probe_interval), "asked again too soon");
    }

    fn resolve(&mut self) {
        let Some(asked) = self.questions.pop() else { return };
        let resolution = match self.rng.u32(..8) {
            0 => Resolution::Absent,
            1 => Resolution::Failed("SERVFAIL".into()),
            _ => {
                let count = self.rng.usize(..REPLICAS as usize);
                Resolution::Addresses((0..count).map(|_| ip(self.rng.u8(..REPLICAS))).collect())
            }
        };
        let own = [ip(0)];
        self.story.pool.resolved(&resolution, &own, asked, self.story.now);
        assert!(self.story.pool.tried());
    }

    fn let_time_pass(&mut self) {
        let most = [10, 300, 3000, 60_000][self.rng.usize(..4)];
        self.story.pass_time(ms(self.rng.u64(..most)));
        let now = self.story.now;
        self.start_probes();
        let wake = self.story.pool.next_wake();
        assert!(wake > now, "the pool wants to be woken {:?} ago", now - wake);
        assert!(wake <= now + ms(1000), "the heartbeat is missing");
    }

    fn start_probes(&mut self) {
        for DueProbe { id, address, .. } in self.story.pool.due_probes(self.story.now) {
            // One that drains is probed as well, for the requests it still has; one that is gone is not.
            self.story.view(last_byte(&address));
            self.probes.push((id, self.story.now));
        }
    }

    fn end_probe(&mut self) {
        if self.probes.is_empty() {
            return;
        }
        let (id, began) = self.probes.swap_remove(self.rng.usize(..self.probes.len()));
        let result = match self.rng.u32(..6) {
            0 => ProbeResult::Refused,
            1 => ProbeResult::TimedOut,
            2 => unhealthy(503),
            _ => ProbeResult::Passed,
        };
        self.story.pool.probed(id, &result, began, self.story.now);
    }

    /// Many answers of the same kind, so that ejections come about, or some accident.
    fn record(&mut self) {
        let views = self.story.pool.endpoints(self.story.now);
        if views.is_empty() {
            return;
        }
        let id = views[self.rng.usize(..views.len())].id;
        self.story.in_flight.insert(id, self.rng.u32(..4));
        let first_byte = ms(self.rng.u64(..200));
        let (outcome, times) = match self.rng.u32(..16) {
            0 => (Outcome::Refused, 1),
            1 => (Outcome::Broken, self.rng.u32(1..5)),
            2 => (Outcome::ConnectTimedOut, self.rng.u32(1..5)),
            3 => (Outcome::Stale, 1),
            4 => (Outcome::TimedOut, self.rng.u32(1..30)),
            5 => (Outcome::Invalid, 1),
            6 => (Outcome::Abandoned, 1),
            7..10 => (Outcome::Answered { status: 500, first_byte }, self.rng.u32(1..30)),
            _ => (Outcome::Answered { status: 200, first_byte }, self.rng.u32(1..30)),
        };
        for _ in 0..times {
            let now = self.story.now;
            let rng = &mut self.rng;
            let load = Load { in_flight: rng.u32(1..100), at_end: rng.u32(1..100), limit: rng.u32(1..100) };
            self.story.pool.record(id, outcome, load, CALLER, now);
            if matches!(outcome, Outcome::Broken | Outcome::Stale) {
                let accepted = self.rng.bool().then_some(now);
                self.story.pool.break_checked(id, broke_at(now), accepted, now);
            }
        }
    }

    fn check(&mut self) {
        let now = self.story.now;
        let candidates = self.story.pool.candidates(now);
        let views = self.story.pool.endpoints(now);
        assert!(!self.story.pool.dirty(now), "dirty just after publishing");
        assert!(views.is_sorted_by_key(|view| view.id));
        assert!(views.len() <= REPLICAS as usize, "an address is there twice");
        let working =
            |view: &&EndpointView| view.membership == Membership::Active && view.health == Health::Up && !view.suspect;
        for candidate in &candidates {
            let view = views.iter().find(|view| view.id == candidate.id).expect("a candidate is an endpoint");
            assert_eq!(view.membership, Membership::Active);
            assert_ne!(view.health, Health::Unproven);
            assert!(!view.suspect);
            assert_eq!(view.held_back, None);
            assert_ne!(candidate.address.ip(), ip(0), "the proxy itself");
            assert!(candidate.limit >= 1 && candidate.limit <= candidate.ceiling);
            assert!(candidate.weight >= 1.0 && candidate.weight.is_finite());
        }
        for view in &views {
            let picked = candidates.iter().any(|c| c.id == view.id);
            assert_eq!(picked, view.held_back.is_none(), "{view:?}");
        }
        let up = views.iter().filter(working).count();
        let out = views.iter().filter(working).filter(|view| view.ejected_until.is_some()).count();
        assert!(out <= up / 2, "{out} of {up} are ejected");
        assert!(up == 0 || !candidates.is_empty(), "nobody is picked although {up} work");
        let endpoints = self.story.pool.endpoints.iter();
        let forsaken: Vec<_> = endpoints.filter(|e| e.condition.is_forsaken()).map(|e| e.id).collect();
        let down = |v: &EndpointView| v.membership == Membership::Active && v.health == Health::Down && !v.suspect;
        let tried = views.iter().any(|v| down(v) && !forsaken.contains(&v.id));
        assert!(!tried || !candidates.is_empty(), "the proven are not tried");
        self.probes.truncate(100);
        self.questions.truncate(10);
        for event in self.story.pool.take_events() {
            if let EventKind::Ejected(time) = event.kind {
                assert!((5..=60).contains(&time.as_secs()));
            }
        }
    }
}
