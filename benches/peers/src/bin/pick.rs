//! What a pick costs: the way to a replica as a request goes it, without a network.
//!
//! Processor time, not time: on a machine with fewer processors than threads a thread that waits costs nothing. Each
//! thread holds a few requests at once, so that the replicas differ and every pick changes what the next one sees.

#![allow(clippy::disallowed_methods)] // measuring is reading the clock

use evenkeel::config::Config;
use evenkeel::pool::{Load, Outcome, ProbeResult, Resolution};
use evenkeel::upstream::{Lease, Upstream};
use evenkeel::worker;
use nix::time::{ClockId, clock_gettime};
use peers::figure::thousands;
use peers::record::median;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENDPOINTS: [usize; 4] = [3, 30, 300, 3000];
const THREADS: [usize; 3] = [1, 4, 16];

/// Requests that a thread has in flight.
const HELD: usize = 8;

/// Of one measurement; the median of [`ROUNDS`] counts.
const TIME: Duration = Duration::from_millis(200);
const ROUNDS: usize = 5;

/// A pick among [`BAR_AT`] replicas, by one thread, is to cost less, in ns: a twentieth of what a whole request costs.
const BAR: f64 = 1000.0;
const BAR_AT: usize = 300;

/// Answers that make a replica warm, twice over.
const WARM: usize = 16;

fn main() {
    let seed = 1;
    fastrand::seed(seed);
    eprintln!("what a pick costs; the order of addresses has the seed {seed}");
    println!(
        "| replicas | pick, 1 thread | 4 threads | 16 threads | the same answer of DNS | one of only new addresses |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    let mut at_bar = f64::NAN;
    for count in ENDPOINTS {
        let picks = THREADS.map(|threads| middle(|| pick(count, threads)));
        let answers = [middle(|| same_answer(count)), middle(|| new_answer(count))];
        if count == BAR_AT {
            at_bar = picks[0];
        }
        let picks = picks.map(|nanos| format!("{} ns", thousands(nanos))).join(" | ");
        let answers = answers.map(|nanos| format!("{} µs", thousands(nanos / 1000.0))).join(" | ");
        println!("| {count} | {picks} | {answers} |");
    }
    let verdict = if at_bar < BAR { "below" } else { "**not** below" };
    println!("\nA pick among {BAR_AT} is {verdict} the bar of {} ns.\n", thousands(BAR));
}

fn middle(measure: impl Fn() -> f64) -> f64 {
    median(&(0..ROUNDS).map(|_| measure()).collect::<Vec<f64>>()).unwrap_or(f64::NAN)
}

/// Processor time of a pick and of giving it back, ns.
fn pick(endpoints: usize, threads: usize) -> f64 {
    let upstream = warm(&addresses(endpoints, 0), threads);
    let start = Barrier::new(threads);
    let work = |index: usize| {
        worker::enter(index);
        let mut held: VecDeque<Lease> = (0..HELD).filter_map(|_| upstream.acquire(&[])).collect();
        start.wait();
        let (began, before) = (Instant::now(), processor_time());
        let mut picks = 0_u32;
        while began.elapsed() < TIME {
            // Seldom enough that looking at the clock is no part of the figure.
            for _ in 0..64 {
                drop(held.pop_front());
                held.extend(upstream.acquire(&[]));
                picks += 1;
            }
        }
        (processor_time() - before, picks)
    };
    let totals: Vec<(Duration, u32)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that only counts")).collect()
    });
    let (time, picks) = totals
        .iter()
        .fold((0.0, 0.0), |(time, picks), (more, done)| (time + more.as_secs_f64() * 1e9, picks + f64::from(*done)));
    time / picks
}

/// Processor time of a DNS question whose answer says nothing new, its addresses in another order, ns.
fn same_answer(endpoints: usize) -> f64 {
    const TIMES: u32 = 20;
    let mut answer = addresses(endpoints, 0);
    let upstream = warm(&answer, 1);
    let mut total = Duration::ZERO;
    for _ in 0..TIMES {
        fastrand::shuffle(&mut answer);
        total += resolve(&upstream, &answer);
    }
    total.as_secs_f64() * 1e9 / f64::from(TIMES)
}

/// Processor time of an answer that holds as many addresses, none of them known, ns. Their log lines are not in it.
fn new_answer(endpoints: usize) -> f64 {
    let upstream = warm(&addresses(endpoints, 0), 1);
    resolve(&upstream, &addresses(endpoints, 1)).as_secs_f64() * 1e9
}

/// Hands the pool an answer as the DNS loop does.
fn resolve(upstream: &Arc<Upstream>, addresses: &[IpAddr]) -> Duration {
    let resolution = Resolution::Addresses(addresses.to_vec());
    let before = processor_time();
    let asked = upstream.apply(|pool, now| {
        pool.asked(now);
        now
    });
    upstream.apply(|pool, now| pool.resolved(&resolution, &[], asked, now));
    processor_time() - before
}

/// An upstream with the shipped settings, all of whose replicas are up, and alike.
fn warm(addresses: &[IpAddr], workers: usize) -> Arc<Upstream> {
    let text = "[upstream.app]\naddress = \"app.internal:8080\"\n";
    let config = Config::parse(text, "proxy.toml", &|_| None).expect("the text above is a configuration");
    let settings = config.pool_settings(&config.upstreams[0]);
    let upstream = Upstream::new(config.upstreams[0].clone(), settings, workers);
    resolve(&upstream, addresses);
    upstream.apply(|pool, now| {
        for endpoint in pool.endpoints(now) {
            pool.probed(endpoint.id, &ProbeResult::Passed, now, now);
            let load = Load { in_flight: 1, at_end: 1, limit: u32::MAX };
            let caller = Ipv4Addr::LOCALHOST.into();
            let answer = Outcome::Answered { status: 200, first_byte: Duration::from_millis(5) };
            (0..WARM).for_each(|_| pool.record(endpoint.id, answer, load, caller, now));
        }
    });
    upstream
}

/// So many addresses of a network of their own.
fn addresses(count: usize, network: u8) -> Vec<IpAddr> {
    let address = |index: usize| Ipv4Addr::new(10, network, (index / 250) as u8, (index % 250 + 1) as u8).into();
    (0..count).map(address).collect()
}

/// Of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}
