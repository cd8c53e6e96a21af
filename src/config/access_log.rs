//! Which requests are logged, as `server.access_log` says it: `"all"`, `"slow"`, `"250ms"`, `"1%"`.

use super::limits;
use super::value::time;
use std::time::Duration;

/// What `"slow"` is: callers notice a second, and an app that answers in less is not what an operator looks for.
const SLOW: Duration = Duration::from_secs(1);

/// One per cent as [`AccessLog::Share`] has it.
const PER_CENT: f64 = 10_000.0;

/// Which requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Each.
    All,
    /// Those that take so long, or longer.
    Slow(Duration),
    /// So many of a million, by chance.
    Share(u32),
}

impl AccessLog {
    /// Whether a request is logged that took so long.
    pub fn wants(self, took: Duration, rng: impl FnOnce() -> u32) -> bool {
        match self {
            AccessLog::Off => false,
            AccessLog::All => true,
            AccessLog::Slow(time) => took >= time,
            AccessLog::Share(share) => rng() % 1_000_000 < share,
        }
    }
}

/// A word, a time or a share.
pub(super) fn access_log(text: &str) -> Result<AccessLog, String> {
    match text {
        "off" | "" => return Ok(AccessLog::Off),
        "all" => return Ok(AccessLog::All),
        "slow" => return Ok(AccessLog::Slow(SLOW)),
        _ => {}
    }
    if let Some(number) = text.strip_suffix('%') {
        let share = number.trim().parse::<f64>().ok().filter(|share| (0.0001..=100.0).contains(share));
        let share = share.ok_or("is not a share; write from \"0.0001%\" to \"100%\"")?;
        return Ok(AccessLog::Share((share * PER_CENT) as u32));
    }
    match humantime::parse_duration(text) {
        Ok(least) if limits::TIMEOUT.contains(&least) => Ok(AccessLog::Slow(least)),
        Ok(_) => {
            let (first, last) = (time(*limits::TIMEOUT.start()), time(*limits::TIMEOUT.end()));
            Err(format!("is out of bounds; write a time from {first} to {last}"))
        }
        Err(_) => Err("is none of \"off\", \"all\", \"slow\" (a second or longer), a time as \"250ms\" (that long or \
                       longer), and a share as \"1%\""
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_a_time_or_a_share_says_which_requests_are_logged() {
        let read = |text| access_log(text).unwrap();
        assert_eq!([read("off"), read(""), read("all")], [AccessLog::Off, AccessLog::Off, AccessLog::All]);
        assert_eq!([read("slow"), read("1s")], [AccessLog::Slow(SLOW); 2]);
        assert_eq!([read("1%"), read("0.5 %"), read("100%")], [10_000, 5_000, 1_000_000].map(AccessLog::Share));
        for (wrong, said) in
            [("some", "is none of"), ("0%", "is not a share"), ("101%", "is not a share"), ("0s", "is out of")]
        {
            assert!(access_log(wrong).unwrap_err().starts_with(said), "{wrong}");
        }
    }

    #[test]
    fn what_is_wanted_is_logged() {
        let (quick, slow) = (Duration::from_millis(2), Duration::from_millis(250));
        let wanted = |log: AccessLog, took| log.wants(took, || 9_999);
        assert!(!wanted(AccessLog::Off, slow) && wanted(AccessLog::All, quick));
        assert!(wanted(AccessLog::Slow(slow), slow) && !wanted(AccessLog::Slow(slow), quick));
        assert!(wanted(AccessLog::Share(10_000), quick) && !wanted(AccessLog::Share(9_999), quick));
    }
}
