//! What the containers at the replicas' addresses are called, for the operator: an address tells nobody which container it is.
//!
//! Only what is asked when is decided here; [`crate::discovery`] asks. Nothing depends on the answers.

use crate::pool::EndpointId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A name is asked for again after this time: another container may have taken the address over meanwhile.
const AGAIN: Duration = Duration::from_secs(60);

/// Where there is no name, it is asked for so often, …
const TRIES: u32 = 3;

/// … each time after twice as long a pause as before, which begins with this: a container's record may come a moment after
/// its address.
const RETRY: Duration = Duration::from_secs(2);

/// Questions at once: one a second for each upstream of a thousand replicas would be too many.
const AT_ONCE: usize = 16;

/// The names of one upstream's replicas.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<EndpointId, Entry>>);

#[derive(Debug)]
struct Entry {
    name: Option<Arc<str>>,
    /// Answers without a name, one behind the other.
    vain: u32,
    /// When it is to be asked for; `None`: not any more.
    due: Option<Instant>,
}

impl Names {
    /// The name of a replica, if it is known.
    pub fn get(&self, id: EndpointId) -> Option<Arc<str>> {
        self.0.lock().get(&id)?.name.clone()
    }

    /// Of the replicas that there are, those to be asked about now. Forgets all others.
    pub fn due(&self, present: &[(EndpointId, IpAddr)], now: Instant) -> Vec<(EndpointId, IpAddr)> {
        let mut known = self.0.lock();
        known.retain(|id, _| present.iter().any(|(there, _)| there == id));
        let is_due = |(id, _): &&(EndpointId, IpAddr)| match known.get(id) {
            None => true,
            Some(entry) => entry.due.is_some_and(|due| due <= now),
        };
        present.iter().filter(is_due).take(AT_ONCE).copied().collect()
    }

    /// What came of a question.
    pub fn answered(&self, id: EndpointId, name: Option<String>, now: Instant) {
        let mut known = self.0.lock();
        let entry = known.entry(id).or_insert(Entry { name: None, vain: 0, due: None });
        entry.vain = if name.is_some() { 0 } else { entry.vain + 1 };
        entry.due = match entry.vain {
            0 => Some(now + AGAIN),
            // Of one that had a name, the next answer has it again.
            _ if entry.name.is_some() && entry.vain < TRIES => Some(now + RETRY),
            vain if vain < TRIES => Some(now + RETRY * (1 << (vain - 1))),
            _ => None,
        };
        if name.is_some() || entry.vain >= TRIES {
            entry.name = name.map(Arc::from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ID: EndpointId = EndpointId(7);
    const HERE: [(EndpointId, IpAddr); 1] = [(ID, IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))];

    #[test]
    fn a_name_is_asked_for_at_once_and_again_each_minute() {
        let (names, now) = (Names::default(), clock::now());
        assert_eq!(names.due(&HERE, now), HERE);
        names.answered(ID, Some("web.1".into()), now);
        assert_eq!(names.get(ID).as_deref(), Some("web.1"));
        assert!(names.due(&HERE, now + AGAIN - Duration::from_millis(1)).is_empty());
        assert_eq!(names.due(&HERE, now + AGAIN), HERE);
        names.answered(ID, Some("other.1".into()), now + AGAIN);
        assert_eq!(names.get(ID).as_deref(), Some("other.1"), "another container has the address");
        assert!(names.due(&[], now).is_empty());
        assert_eq!(names.get(ID), None, "it left");
    }

    #[test]
    fn who_has_no_name_is_not_asked_about_for_ever() {
        let (names, now) = (Names::default(), clock::now());
        let mut asked = 0;
        for second in 0..600 {
            let now = now + Duration::from_secs(second);
            for (id, _) in names.due(&HERE, now) {
                asked += 1;
                names.answered(id, None, now);
            }
        }
        assert_eq!(asked, TRIES);
    }

    #[test]
    fn one_answer_without_a_name_takes_none_away() {
        let (names, now) = (Names::default(), clock::now());
        names.answered(ID, Some("web.1".into()), now);
        for _ in 0..TRIES {
            assert!(names.get(ID).is_some());
            names.answered(ID, None, now);
        }
        assert_eq!(names.get(ID), None, "three do");
    }

    #[test]
    fn of_many_replicas_some_are_asked_about_at_once() {
        let many: Vec<_> = (0..100).map(|id| (EndpointId(id), HERE[0].1)).collect();
        assert_eq!(Names::default().due(&many, clock::now()).len(), AT_ONCE);
    }
}
