//! What an operator sees of the pool: each test is a short story, in which time passes by hand.

mod churn;
mod ejection;
mod health;
mod membership;
mod operator;
mod pick;
mod suspicion;
mod window;

use super::*;
use std::collections::HashMap;

/// A pool, its clock, and a shell that does what the pool asks for.
struct Story {
    pool: Pool,
    now: Instant,
    start: Instant,
    in_flight: HashMap<EndpointId, u32>,
}

fn settings() -> Settings {
    Settings {
        port: 8080,
        dns_interval: Duration::from_secs(1),
        hold: Duration::from_secs(10),
        probe_interval: Duration::from_secs(1),
        rise: 1,
        fall: 2,
        max_in_flight: 0,
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Who asks.
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 18, 1, 1));

/// The load of a request that is alone.
const QUIET: Load = Load { in_flight: 1, at_end: 1, limit: u32::MAX };

/// The `n`-th replica's address.
fn ip(n: u8) -> IpAddr {
    IpAddr::from([172, 18, 0, n])
}

fn ips(replicas: &[u8]) -> Vec<IpAddr> {
    replicas.iter().map(|n| ip(*n)).collect()
}

fn ok(milliseconds: u64) -> Outcome {
    Outcome::Answered { status: 200, first_byte: ms(milliseconds) }
}

/// A probe that was answered with this status.
fn unhealthy(code: u16) -> ProbeResult {
    ProbeResult::Unhealthy(Unhealthy::Status { code, location: None })
}

/// A break that was noticed as it happened.
fn broke_at(time: Instant) -> Break {
    Break { earliest: time, noticed: time }
}

fn status(status: u16) -> Outcome {
    Outcome::Answered { status, first_byte: ms(5) }
}

impl Story {
    /// Nothing is known yet.
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let now = crate::clock::now();
        Story { pool: Pool::new(settings, now), now, start: now, in_flight: HashMap::new() }
    }

    /// These replicas are listed, proven and warm.
    fn of(replicas: &[u8]) -> Self {
        let mut story = Self::new();
        story.answer(replicas);
        story.probe_all(&ProbeResult::Passed);
        story.warm(replicas);
        story.pool.take_events();
        story
    }

    fn warm(&mut self, replicas: &[u8]) {
        for n in replicas {
            for _ in 0..9 {
                self.record(*n, ok(5));
            }
        }
    }

    /// A connection of the `n`-th breaks, and the connect that is begun thereupon fails.
    fn die(&mut self, n: u8) {
        self.record(n, Outcome::Broken);
        assert!(!self.pool.break_checked(self.id(n), broke_at(self.now), None, self.now));
    }

    /// The `n`-th closes a connection that rests.
    fn close_resting(&mut self, n: u8) {
        let id = self.id(n);
        self.pool.rest_ended(id, self.now);
    }

    fn pass_time(&mut self, time: Duration) {
        self.now += time;
        let in_flight = &self.in_flight;
        self.pool.tick(|id| in_flight.get(&id).copied().unwrap_or(0), self.now);
    }

    /// Lets time pass as a shell would: with ticks when asked for. Probes and DNS questions are left unanswered.
    fn idle(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass_time(ms(500).min(end - self.now));
        }
    }

    fn ask(&mut self, resolution: Resolution) {
        self.pool.asked(self.now);
        self.pool.resolved(&resolution, &[], self.now, self.now);
    }

    fn answer(&mut self, replicas: &[u8]) {
        self.ask(Resolution::Addresses(ips(replicas)));
    }

    /// Waits for the next question's time and answers it.
    fn next_answer(&mut self, replicas: &[u8]) {
        self.wait_for_question();
        self.answer(replicas);
    }

    fn wait_for_question(&mut self) {
        let wait = self.pool.next_question().saturating_duration_since(self.now);
        self.pass_time(wait);
    }

    fn view(&self, replica: u8) -> EndpointView {
        let found = self.pool.endpoints(self.now).into_iter().find(|e| e.address.ip() == ip(replica));
        found.unwrap_or_else(|| panic!("replica {replica} is not there"))
    }

    fn knows(&self, replica: u8) -> bool {
        self.pool.endpoints(self.now).iter().any(|e| e.address.ip() == ip(replica))
    }

    fn id(&self, replica: u8) -> EndpointId {
        self.view(replica).id
    }

    fn record(&mut self, replica: u8, outcome: Outcome) {
        self.record_under(replica, outcome, QUIET);
    }

    /// An answer to somebody else than usual.
    fn record_for(&mut self, caller: IpAddr, replica: u8, outcome: Outcome) {
        self.pool.record(self.id(replica), outcome, QUIET, caller, self.now);
    }

    fn record_under(&mut self, replica: u8, outcome: Outcome, load: Load) {
        self.pool.record(self.id(replica), outcome, load, CALLER, self.now);
    }

    /// A probe of this replica that begins and ends now.
    fn probe(&mut self, replica: u8, result: &ProbeResult) {
        self.pool.probed(self.id(replica), result, self.now, self.now);
    }

    /// A probe that began a second ago and timed out.
    fn probe_times_out(&mut self, replica: u8) {
        self.pool.probed(self.id(replica), &ProbeResult::TimedOut, self.now - ms(1000), self.now);
    }

    /// All probes that are due.
    fn probe_all(&mut self, result: &ProbeResult) {
        for DueProbe { id, .. } in self.pool.due_probes(self.now) {
            self.pool.probed(id, result, self.now, self.now);
        }
    }

    fn probes_due(&mut self) -> Vec<u8> {
        let due = self.pool.due_probes(self.now);
        due.iter().map(|probe| last_byte(&probe.address)).collect()
    }

    /// Who may be picked.
    fn usable(&mut self) -> Vec<u8> {
        self.pool.candidates(self.now).iter().map(|c| last_byte(&c.address)).collect()
    }

    fn candidate(&mut self, replica: u8) -> Candidate {
        let all = self.pool.candidates(self.now);
        all.into_iter().find(|c| c.address.ip() == ip(replica)).expect("a candidate")
    }

    /// The events since the last call, as replica (0 for the name) and kind.
    fn events(&mut self) -> Vec<(u8, EventKind)> {
        let events = self.pool.take_events();
        events.into_iter().map(|e| (e.address.as_ref().map_or(0, last_byte), e.kind)).collect()
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn last_byte(address: &SocketAddr) -> u8 {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}
