//! How far each value may go. A limit is where a value stops being meant, not where it stops being wise.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes of a file: a thousand upstreams written out in full fit four times over.
pub const FILE: usize = 1 << 20;

/// Problems shown of one file; who has more has the wrong file.
pub const PROBLEMS_SHOWN: usize = 20;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A time-out: from the timers' granularity up to a day, which outlasts any request and any deploy and is far from where
/// adding it to the present overflows.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;

/// A time that may be nothing at all: `wait`, `hold`, `drain`.
pub const PERIOD: RangeInclusive<Duration> = Duration::ZERO..=DAY;

/// A timer: at most a hundred DNS questions a second for a name, or probes of an endpoint.
pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;

/// Bytes of a request's head, all of which are held until it is whole: a MiB is more than any browser's cookies.
pub const HEADER: RangeInclusive<u64> = 1 << 10..=1 << 20;

/// Bytes of a request's target; also within `max_header`.
pub const TARGET: RangeInclusive<u64> = 64..=1 << 20;

/// Bytes that requests hold, all together: from the smallest that a head of the largest size fits into, to 64 GiB.
pub const BUFFERED: RangeInclusive<u64> = 1 << 20..=1 << 36;

/// Worker threads: more than the cores of the largest machines that run Docker.
pub const THREADS: RangeInclusive<u64> = 0..=512;

/// Connections, requests in flight, requests waiting: a million of each is beyond one process's descriptors.
pub const MANY: RangeInclusive<u64> = 0..=1_000_000;

/// Attempts after the first. Each may cost a replica its life, if the request is what kills it.
pub const RETRIES: RangeInclusive<u64> = 0..=10;

/// Consecutive probes until health changes.
pub const PROBES: RangeInclusive<u64> = 1..=100;

/// Statuses of HTTP.
pub const STATUS: RangeInclusive<u64> = 100..=599;

/// Bytes of a probe's path, a route's prefix and a host: what fits in the smallest `max_header`.
pub const TEXT: usize = 512;

/// Bytes of an upstream's name: those of a DNS name, which it is where there is no file.
pub const NAME: usize = 253;
