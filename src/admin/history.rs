//! The last hour of each upstream and replica, in fixed memory: a [`Slot`] of numbers for each ten seconds.

use super::latency::Counts;
use super::status::{EndpointStatus, Status, UpstreamStatus};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What one slot covers.
pub const SLOT: Duration = Duration::from_secs(10);

/// Slots that are kept: an hour.
pub const SLOTS: usize = 360;

/// Replicas of an upstream that are remembered, those that have left included.
const REPLICAS: usize = 64;

/// What happened within ten seconds, to an upstream or to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slot {
    /// What it really covers, in seconds: more where the process was stopped.
    pub seconds: f32,
    /// Requests that ended, or that the replica was sent.
    pub requests: u32,
    /// Of those, the ones that failed.
    pub failed: u32,
    /// Responses that said 5xx.
    pub server_errors: u32,
    /// Attempts after the first.
    pub retries: u32,
    /// Half of the requests took no longer: to their end, or to the replica's first byte.
    pub p50: Option<Duration>,
    /// The same of 99 in 100.
    pub p99: Option<Duration>,
    /// Requests in flight at its end; of an upstream the most that waited at once.
    pub in_flight: u32,
    /// The replica's state at its end, in words.
    pub state: &'static str,
}

impl Slot {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { f64::from(self.requests) / f64::from(self.seconds) } else { 0.0 }
    }
}

/// Counts that only grow, as of the last slot's end.
#[derive(Clone, Debug, Default)]
struct Seen {
    requests: u64,
    failed: u64,
    server_errors: u64,
    retries: u64,
    latency: Counts,
}

/// The slots of an upstream or a replica.
#[derive(Clone, Debug, Default)]
struct Series {
    seen: Seen,
    slots: VecDeque<Slot>,
    /// The number of the slot after the last.
    end: u64,
}

impl Series {
    /// One that counts from now on.
    fn new(seen: Seen, number: u64) -> Series {
        Series { seen, slots: VecDeque::new(), end: number }
    }

    /// Adds the slot with this number. `counts`: everything up to its end.
    fn add(&mut self, number: u64, seconds: f32, counts: Seen, in_flight: u32, state: &'static str) {
        let times = counts.latency.since(&self.seen.latency);
        let difference = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        if self.slots.len() == SLOTS {
            self.slots.pop_front();
        }
        // By a tenth of an hour: doubling would take up to twice the room.
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(SLOTS / 10);
        }
        self.slots.push_back(Slot {
            seconds,
            requests: difference(counts.requests, self.seen.requests),
            failed: difference(counts.failed, self.seen.failed),
            server_errors: difference(counts.server_errors, self.seen.server_errors),
            retries: difference(counts.retries, self.seen.retries),
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
            in_flight,
            state,
        });
        self.seen = counts;
        self.end = number + 1;
    }

    fn get(&self, number: u64) -> Option<&Slot> {
        let back = self.end.checked_sub(number).filter(|back| *back > 0)?;
        self.slots.get(self.slots.len().checked_sub(usize::try_from(back).ok()?)?)
    }
}

/// A replica's slots, and where it was.
#[derive(Clone, Debug)]
struct Replica {
    address: String,
    series: Series,
}

/// An upstream's slots, and its replicas' by their ids.
#[derive(Clone, Debug)]
struct Record {
    series: Series,
    replicas: BTreeMap<u64, Replica>,
}

/// How long requests took so far: an upstream's, and its replicas' by their ids; and how many waited.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// To the end of the response.
    pub upstream: Counts,
    /// To the first byte of the replica's response.
    pub replicas: BTreeMap<u64, Counts>,
    /// The most requests that waited for a replica at once, since the last slot's end.
    pub most_waiting: usize,
}

/// The last hour of everything.
#[derive(Clone, Debug)]
pub struct History {
    upstreams: BTreeMap<String, Record>,
    /// The number of the slot that is not over yet; the first is 0.
    number: u64,
    /// When that began.
    began: Instant,
}

/// A replica at one moment of the past.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Its number in this process.
    pub id: u64,
    /// Its address and port.
    pub address: String,
    /// What happened to it then.
    pub slot: Slot,
}

/// What happened to an upstream since some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Requests that ended.
    pub requests: u64,
    /// Of those, the ones that failed.
    pub failed: u64,
    /// Responses of replicas that said 5xx.
    pub server_errors: u64,
}

impl History {
    /// Nothing yet.
    pub fn new(now: Instant) -> History {
        History { upstreams: BTreeMap::new(), number: 0, began: now }
    }

    /// Ends the present slot: everything is `status` by now, and requests took `times` so far, by the upstreams' names.
    pub fn add(&mut self, status: &Status, times: &BTreeMap<String, Times>, now: Instant) {
        let seconds = now.saturating_duration_since(self.began).as_secs_f32();
        self.upstreams.retain(|name, _| times.contains_key(name));
        for upstream in &status.upstreams {
            let Some(times) = times.get(&upstream.name) else { continue };
            self.add_upstream(upstream, times, seconds);
        }
        self.number += 1;
        self.began = now;
    }

    fn add_upstream(&mut self, upstream: &UpstreamStatus, times: &Times, seconds: f32) {
        let number = self.number;
        let new = || Record { series: Series::new(Seen::default(), number), replicas: BTreeMap::new() };
        let record = self.upstreams.entry(upstream.name.clone()).or_insert_with(new);
        let counts = Seen {
            requests: upstream.requests,
            failed: upstream.failed,
            server_errors: upstream.server_errors,
            retries: upstream.retries,
            latency: times.upstream.clone(),
        };
        record.series.add(number, seconds, counts, u32::try_from(times.most_waiting).unwrap_or(u32::MAX), "");
        for endpoint in &upstream.endpoints {
            let replica = record.replicas.entry(endpoint.id).or_insert_with(|| Replica {
                address: endpoint.address.clone(),
                series: Series::new(Seen::default(), number),
            });
            let counts = Seen {
                requests: endpoint.requests,
                failed: endpoint.failures,
                server_errors: endpoint.server_errors,
                retries: 0,
                latency: times.replicas.get(&endpoint.id).cloned().unwrap_or_default(),
            };
            replica.series.add(number, seconds, counts, endpoint.in_flight, endpoint.state());
        }
        let oldest = number.saturating_sub(SLOTS as u64);
        record.replicas.retain(|_, replica| replica.series.end > oldest);
        while record.replicas.len() > REPLICAS {
            // Of those that left, the one that left first; the ids grow.
            let gone = record.replicas.iter().min_by_key(|(id, replica)| (replica.series.end, **id));
            let Some(id) = gone.map(|(id, _)| *id) else { break };
            record.replicas.remove(&id);
        }
    }

    /// The number of the slot that is not over yet.
    pub fn present(&self) -> u64 {
        self.number
    }

    /// How long ago slot `number` ended; `None` if it is not over, or no longer known.
    pub fn ended(&self, number: u64, now: Instant) -> Option<Duration> {
        let back = self.number.checked_sub(number + 1).filter(|back| *back < SLOTS as u64)?;
        Some(now.saturating_duration_since(self.began) + SLOT * u32::try_from(back).unwrap_or(u32::MAX))
    }

    /// An upstream's slot of that number.
    pub fn slot(&self, upstream: &str, number: u64) -> Option<Slot> {
        self.upstreams.get(upstream)?.series.get(number).copied()
    }

    /// How many requests of an upstream ended, how many of them failed, and how many responses said 5xx in the last `slots`
    /// slots and since then.
    pub fn since(&self, upstream: &UpstreamStatus, slots: usize) -> Since {
        let UpstreamStatus { requests, failed, server_errors, .. } = *upstream;
        let Some(Record { series, .. }) = self.upstreams.get(&upstream.name) else {
            return Since { requests, failed, server_errors };
        };
        let over = |of: fn(&Slot) -> u32| -> u64 {
            series.slots.iter().rev().take(slots).map(|slot| u64::from(of(slot))).sum()
        };
        Since {
            requests: requests.saturating_sub(series.seen.requests) + over(|slot| slot.requests),
            failed: failed.saturating_sub(series.seen.failed) + over(|slot| slot.failed),
            server_errors: server_errors.saturating_sub(series.seen.server_errors) + over(|slot| slot.server_errors),
        }
    }

    /// How many responses of a replica said 5xx in the last `slots` slots and since then.
    pub fn errors_since(&self, upstream: &UpstreamStatus, endpoint: &EndpointStatus, slots: usize) -> u64 {
        let record = self.upstreams.get(&upstream.name);
        let Some(Replica { series, .. }) = record.and_then(|record| record.replicas.get(&endpoint.id)) else {
            return endpoint.server_errors;
        };
        let over: u64 = series.slots.iter().rev().take(slots).map(|slot| u64::from(slot.server_errors)).sum();
        endpoint.server_errors.saturating_sub(series.seen.server_errors) + over
    }

    /// The last `count` slots of an upstream that are over, the oldest first; `None` for what is not known.
    pub fn last(&self, upstream: &str, count: usize) -> Vec<(u64, Option<Slot>)> {
        let first = self.number.saturating_sub(count as u64);
        let missing = count - (self.number - first) as usize;
        let known = (first..self.number).map(|number| (number, self.slot(upstream, number)));
        (0..missing).map(|_| (0, None)).chain(known).collect()
    }

    /// The replicas of an upstream in slot `number`.
    pub fn replicas(&self, upstream: &str, number: u64) -> Vec<Past> {
        let replicas = self.upstreams.get(upstream).into_iter().flat_map(|record| &record.replicas);
        replicas
            .filter_map(|(id, replica)| {
                let slot = *replica.series.get(number)?;
                Some(Past { id: *id, address: replica.address.clone(), slot })
            })
            .collect()
    }

    /// A replica's last slots, the newest first.
    pub fn of_replica(&self, upstream: &str, id: u64) -> impl Iterator<Item = &Slot> {
        let record = self.upstreams.get(upstream);
        record.and_then(|record| record.replicas.get(&id)).into_iter().flat_map(|r| r.series.slots.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::latency::Latency;
    use crate::clock;

    /// `requests` so far of the one upstream, sent to the replicas with these ids.
    fn status(requests: u64, ids: impl IntoIterator<Item = u64>) -> Status {
        let endpoint = |id| EndpointStatus { id, address: format!("10.0.0.{id}:80"), requests, ..Default::default() };
        let endpoints = ids.into_iter().map(endpoint).collect();
        let upstream =
            UpstreamStatus { name: "app".into(), requests, failed: requests / 10, endpoints, ..Default::default() };
        Status { upstreams: vec![upstream], ..Default::default() }
    }

    fn times(latency: &Latency) -> BTreeMap<String, Times> {
        let mut times = Times::default();
        latency.add_to(&mut times.upstream);
        latency.add_to(times.replicas.entry(1).or_default());
        BTreeMap::from([("app".to_owned(), times)])
    }

    #[test]
    fn a_slot_tells_what_came_within_it() {
        let now = clock::now();
        let mut history = History::new(now);
        let latency = Latency::default();
        latency.observe(Duration::from_millis(80));
        history.add(&status(100, [1]), &times(&latency), now + SLOT);
        latency.observe(Duration::from_millis(20));
        history.add(&status(130, [1]), &times(&latency), now + 3 * SLOT);
        let slot = history.slot("app", 1).unwrap();
        assert_eq!((slot.requests, slot.failed, slot.rate()), (30, 3, 1.5), "it took twenty seconds");
        let ms = slot.p99.unwrap().as_millis();
        assert!((19..=21).contains(&ms), "{ms} ms: what came before does not count");
        assert_eq!(history.replicas("app", 1)[0].slot.requests, 30);
        assert_eq!(history.slot("app", 2), None, "it is not over");
        assert_eq!(history.ended(1, now + 3 * SLOT), Some(Duration::ZERO));
        assert_eq!(history.ended(0, now + 3 * SLOT), Some(SLOT));
        assert_eq!(
            history.last("app", 3).iter().map(|(_, slot)| slot.is_some()).collect::<Vec<_>>(),
            [false, true, true]
        );
    }

    #[test]
    fn an_hour_is_kept_and_no_more_than_so_many_replicas() {
        let now = clock::now();
        let mut history = History::new(now);
        let latency = Latency::default();
        for n in 0..1000_u64 {
            // A deploy with each slot.
            history.add(&status(n, [2 * n, 2 * n + 1]), &times(&latency), now + SLOT * n as u32);
            let record = &history.upstreams["app"];
            assert!(record.replicas.len() <= REPLICAS && record.series.slots.len() <= SLOTS);
            assert!(record.replicas.contains_key(&(2 * n)), "whoever is there is remembered");
        }
        assert_eq!(history.slot("app", 999 - SLOTS as u64), None);
        assert!(history.slot("app", 1000 - SLOTS as u64).is_some());
        assert_eq!(history.replicas("app", 999).len(), 2);
        assert_eq!(history.replicas("app", 998).len(), 2, "those who left are known for a while");
        history.add(&Status::default(), &BTreeMap::new(), now);
        assert!(history.upstreams.is_empty(), "what is configured no longer is forgotten");
    }
}
