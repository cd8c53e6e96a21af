//! Carries out what an operator orders.

use crate::admin::verb::{Done, Replica, Verb};
use crate::config;
use crate::pool::NotDone;
use crate::upstream::Upstream;
use std::fmt::Write as _;
use std::sync::Arc;

/// Replicas that an error names.
const NAMED: usize = 10;

/// An upstream and its configuration, as the table of what runs has them.
type Entry = (Arc<Upstream>, Arc<config::Upstream>);

/// Does what `who` orders, for the upstreams that run.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn obey(upstreams: &[Entry], verb: &Verb, who: &str) -> Result<Done, String> {
    match verb {
        Verb::Drain(replica) => set_drained(upstreams, replica, Some((true, who))),
        Verb::Undrain(replica) => set_drained(upstreams, replica, Some((false, who))),
        Verb::Look(replica) => set_drained(upstreams, replica, None),
        Verb::Pause(name) => set_paused(upstreams, name, true, who),
        Verb::Resume(name) => set_paused(upstreams, name, false, who),
    }
}

/// `order`: whether it is to be drained or not, and who says so; `None`: nothing is to change.
fn set_drained(upstreams: &[Entry], replica: &Replica, order: Option<(bool, &str)>) -> Result<Done, String> {
    let named = match &replica.upstream {
        Some(name) => std::slice::from_ref(find(upstreams, name)?),
        None => upstreams,
    };
    let mut done = Done { in_force: true, ..Done::default() };
    for (upstream, config) in named.iter().filter(|(_, config)| replica.port.is_none_or(|port| port == config.port)) {
        let changed = match order {
            Some((drained, who)) => match upstream.apply(|pool, now| pool.set_drained(replica.ip, drained, who, now)) {
                Ok(changed) => changed,
                Err(NotDone::Unknown) => continue,
                Err(problem @ NotDone::TooMany) => return Err(format!("{}: {problem}", upstream.name())),
            },
            None => false,
        };
        report(&mut done, upstream, config, replica, changed);
    }
    if done.lines.is_empty() { Err(unknown(replica, named)) } else { Ok(done) }
}

/// Says how it stands with this replica of `upstream` now, if it is one.
fn report(done: &mut Done, upstream: &Arc<Upstream>, config: &config::Upstream, replica: &Replica, changed: bool) {
    let (views, drained) = upstream.apply(|pool, now| (pool.endpoints(now), pool.is_drained(replica.ip)));
    let its: Vec<_> = views.iter().filter(|view| view.address.ip() == replica.ip).collect();
    if its.is_empty() && !drained && !changed {
        return;
    }
    let running: u32 = its.iter().map(|view| upstream.in_flight(view.id)).sum();
    done.in_flight += running;
    done.in_force &= drained;
    let name = upstream.name();
    let ip = replica.ip;
    let mut line = match (drained, changed) {
        (true, true) => format!("{name}: {ip} gets nothing new"),
        (true, false) => format!("{name}: {ip} was drained before"),
        (false, true) if its.is_empty() => format!("{name}: {ip} is not listed; it gets requests when it is"),
        (false, true) => format!("{name}: {ip} gets requests as its probes allow"),
        (false, false) => format!("{name}: {ip} was not drained"),
    };
    if drained {
        let _ = match running {
            0 => write!(line, ", and has no request"),
            1 => write!(line, "; 1 request or stream still runs there"),
            _ => write!(line, "; {running} requests and streams still run there"),
        };
    }
    done.lines.push(line);
    if drained && upstream.outage_since().is_some() && !upstream.is_paused() {
        done.lines.push(format!(
            "{name}: no replica is left that works: requests wait for up to {}, then on_failure decides; \
             `evenkeel undrain` one",
            humantime::format_duration(config.wait)
        ));
    }
}

fn set_paused(upstreams: &[Entry], name: &str, paused: bool, who: &str) -> Result<Done, String> {
    let (upstream, config) = find(upstreams, name)?;
    let changed = upstream.apply(|pool, now| pool.set_paused(paused, who, now));
    let in_flight = upstream.in_flight_in_all();
    let waiting = upstream.queue().waiting;
    let line = match (paused, changed) {
        (true, true) => format!(
            "{name}: each request waits for up to {}, then on_failure decides; {in_flight} still run",
            humantime::format_duration(config.wait)
        ),
        (true, false) => format!("{name}: was paused before; {waiting} requests wait, {in_flight} still run"),
        (false, true) => format!("{name}: requests go on"),
        (false, false) => format!("{name}: was not paused"),
    };
    Ok(Done { lines: vec![line], in_flight, in_force: paused })
}

fn find<'a>(upstreams: &'a [Entry], name: &str) -> Result<&'a Entry, String> {
    upstreams.iter().find(|(upstream, _)| **upstream.name() == *name).ok_or_else(|| {
        let names: Vec<_> = upstreams.iter().map(|(upstream, _)| upstream.name().to_string()).collect();
        format!("there is no upstream {name:?}; there is {}", names.join(", "))
    })
}

fn unknown(replica: &Replica, upstreams: &[Entry]) -> String {
    let mut known = Vec::new();
    for (upstream, _) in upstreams {
        let views = upstream.apply(|pool, now| pool.endpoints(now));
        known.extend(views.iter().map(|view| format!("{} ({})", view.address, upstream.name())));
    }
    let rest = known.len().saturating_sub(NAMED);
    known.truncate(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    match known.as_slice() {
        [] => format!("no replica has the address {replica}; none is known now (see `evenkeel status`)"),
        known => format!("no replica has the address {replica}; there is {}{more}", known.join(", ")),
    }
}
