//! When a replica that is not up is probed again.
//!
//! A container is listed before its process listens, and until it is proven it serves nobody, so a late probe is lost capacity.
//! A connect that is refused costs both hosts some 50 µs. So a new replica is asked often at first, less often later, and the
//! probes of all new replicas together are bounded.

use std::time::Duration;

/// In the first second after it was listed, when most processes begin to listen, a new replica is asked again this soon …
const SOON: Duration = Duration::from_millis(50);
const SOON_FOR: Duration = Duration::from_secs(1);
/// … in the first minute, in which slow starters (JVMs, migrations) begin to, this soon, and after that at the probe's
/// interval: what has not come up in a minute is broken.
const LATER: Duration = Duration::from_millis(200);
const LATER_FOR: Duration = Duration::from_secs(60);

/// For each new replica of the upstream the pause is at least so long: all of them together are asked 500 times a second at
/// most, which at 50 µs is a fortieth of a core.
const SHARE: Duration = Duration::from_millis(2);

/// On one network a connect is answered within a millisecond. If it is not, its SYN was lost, as when the container's
/// interface was not up yet, and the kernel would repeat it only after a second. So a new replica's first connects are given
/// up after this time, each later one after twice the time of the one before, in case the network is slow.
const CONNECT: Duration = Duration::from_millis(200);

/// A replica that was up once is asked again after this time, then after twice as long, up to the probe's interval: a second
/// of waiting may be a second of outage.
const RETRY: Duration = Duration::from_millis(100);

/// While nobody is usable no pause is longer than this.
const ALONE: Duration = Duration::from_millis(250);

/// From a failed probe of a new replica, listed `age` ago and one of `newcomers`, to the next.
pub(super) fn after_new(age: Duration, newcomers: usize, interval: Duration, alone: bool) -> Duration {
    let pause = if age < SOON_FOR {
        SOON
    } else if age < LATER_FOR {
        LATER
    } else {
        interval
    };
    let share = SHARE * u32::try_from(newcomers).unwrap_or(u32::MAX);
    pause.min(if alone { ALONE } else { interval }).max(share).min(interval)
}

/// From the last of so many failed probes of a replica that was up once to the next.
pub(super) fn after_down(failures: u32, interval: Duration, alone: bool) -> Duration {
    let doubled = RETRY * (1 << failures.saturating_sub(1).min(10));
    doubled.min(if alone { ALONE } else { interval }).min(interval)
}

/// How long the connect to a new replica may take that has failed so many probes in a row.
pub(super) fn connect_within(failures: u32) -> Duration {
    CONNECT * (1 << failures.min(10))
}
