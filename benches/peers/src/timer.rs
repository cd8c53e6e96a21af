//! A sleep as exact as the kernel's: tokio's timers are whole milliseconds, an origin that takes five must not be six.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Returns at `due`, or at once when that is past.
pub async fn sleep_until(due: Instant) {
    sleep(due.saturating_duration_since(Instant::now())).await;
}

/// Returns after this time.
pub async fn sleep(time: Duration) {
    if time.is_zero() {
        return;
    }
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
        .expect("a descriptor for a timer");
    let time = Expiration::OneShot(TimeSpec::from_duration(time));
    timer.set(time, TimerSetTimeFlags::empty()).expect("a valid time");
    #[allow(deprecated)] // unsound only for types that lie about their descriptor (tokio 8587); OwnedFd does not
    let timer = AsyncFd::new(OwnedFd::from(timer)).expect("a runtime with I/O");
    let _ = timer.readable().await.expect("a timer can be polled");
}
