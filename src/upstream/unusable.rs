//! Why replicas get no requests, in one line for the log of a failed request.

use super::Upstream;
use crate::pool::{EndpointView, HeldBack, Membership, Resolution};
use std::fmt::Write as _;

/// Replicas that a line names; the others are counted.
const NAMED: usize = 5;

impl Upstream {
    /// Each replica that can get no requests now, and why; or why there is none at all. Empty if all can. It looks at every
    /// endpoint under the pool's lock: for what is logged some times a second at most.
    pub fn explain_unusable(&self) -> String {
        let views = self.pool.lock().endpoints(crate::clock::now());
        let listed = || views.iter().filter(|view| view.membership == Membership::Active);
        if listed().next().is_none() {
            return self.explain_empty();
        }
        let held_back: Vec<_> = listed().filter_map(|view| Some((view, view.held_back?.text()))).collect();
        let explain = |(view, why): &(&EndpointView, &str)| match view.reason.as_str() {
            // What is known of a replica is not why its upstream is paused.
            _ if view.held_back == Some(HeldBack::Paused) => format!("{} {why}", view.address),
            "" => format!("{} {why}", view.address),
            reason => format!("{} {why} ({reason})", view.address),
        };
        let mut text = held_back.iter().take(NAMED).map(explain).collect::<Vec<_>>().join("; ");
        if held_back.len() > NAMED {
            let _ = write!(text, "; and {} more", held_back.len() - NAMED);
        }
        text
    }

    fn explain_empty(&self) -> String {
        let host = &self.config.load().host;
        match self.metrics.dns.last().map(|answer| answer.resolution) {
            None => format!("DNS has not answered yet for {host}"),
            Some(Resolution::Absent) => format!("DNS knows no address of {host}"),
            Some(Resolution::Failed(why)) => format!("{host} does not resolve: {why}"),
            Some(Resolution::Addresses(_)) => format!("no address of {host} can be a replica's"),
        }
    }
}
