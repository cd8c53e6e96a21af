//! Which connection is closed to make room: of the client address with the most connections, the one that rested longest.
//!
//! So a flood from one address loses its own connections first. Among addresses with equally many the oldest one goes.
//!
//! Whether a connection rests changes with each request, which must not wait for a lock. What is written here may
//! therefore be out of date: each candidate stands at a time before which it does not rest, and is looked at when it
//! comes first. If it rests since later, it moves back; if it works, it leaves until it says that it rests. So every look
//! is paid for by an arrival or by a request since the look before it, and a choice takes a constant number of looks,
//! amortised, each of them logarithmic in the number of connections.
//!
//! Most of the time nobody has to go, and an order would be kept for nothing: it is made when the first choice asks for it,
//! and forgotten when half of those who were there are gone, so that each time it is made is paid for by as many arrivals
//! or departures. Of 10,000 connections it is made in a millisecond.

use super::client_state::{ClientState, Found};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// By their numbers.
type Connections = HashMap<u64, Connection, BuildHasherDefault<Counted>>;

/// The connections, and in order while somebody has to go.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connections: Connections,
    order: Option<Order>,
}

/// The hash of a connection's number. Numbers are counted here, so nobody can choose some that collide; multiplied by
/// 2⁶⁴ / φ, neighbours lie far apart (Knuth, The Art of Computer Programming, volume 3, section 6.4).
#[derive(Debug, Default)]
struct Counted(u64);

impl Hasher for Counted {
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    state: Arc<ClientState>,
    /// A time in milliseconds before which it does not rest; `None` if it is no candidate.
    since: Option<u64>,
    chosen: bool,
}

/// In which order connections go.
#[derive(Debug, Default)]
struct Order {
    addresses: HashMap<IpAddr, Address>,
    /// The addresses that have candidates. The last one is the next to lose a connection.
    ranks: BTreeSet<Rank>,
    /// How many connections there were when the order was made.
    of: usize,
}

#[derive(Debug, Default)]
struct Address {
    /// All of its connections, be they candidates or not.
    connections: usize,
    /// Each one's `since` and number.
    candidates: BTreeSet<(u64, u64)>,
}

/// How many connections an address has, the earliest of its candidates, and the address.
type Rank = (usize, Reverse<(u64, u64)>, IpAddr);

impl Address {
    fn rank(&self, address: IpAddr) -> Option<Rank> {
        self.candidates.first().map(|&first| (self.connections, Reverse(first), address))
    }
}

impl Order {
    fn new(connections: &Connections) -> Self {
        let mut lists: HashMap<IpAddr, (usize, Vec<(u64, u64)>)> = HashMap::new();
        for (number, connection) in connections {
            let (count, candidates) = lists.entry(connection.address).or_default();
            *count += 1;
            candidates.extend(connection.since.map(|since| (since, *number)));
        }
        // Lists first: a set of a whole list is made by sorting it once.
        let address = |(count, candidates): (usize, Vec<_>)| Address {
            connections: count,
            candidates: candidates.into_iter().collect(),
        };
        let addresses: HashMap<_, _> = lists.into_iter().map(|(ip, list)| (ip, address(list))).collect();
        let ranks = addresses.iter().filter_map(|(address, at)| at.rank(*address)).collect();
        Order { addresses, ranks, of: connections.len() }
    }

    /// Changes what is known of an address, and its place in the order with it.
    fn change<R>(&mut self, address: IpAddr, change: impl FnOnce(&mut Address) -> R) -> R {
        let at = self.addresses.entry(address).or_default();
        let before = at.rank(address);
        let result = change(at);
        let after = at.rank(address);
        if at.connections == 0 {
            self.addresses.remove(&address);
        }
        if before != after {
            before.and_then(|rank| self.ranks.take(&rank));
            self.ranks.extend(after);
        }
        result
    }
}

impl Clients {
    /// Counts a connection. It is a candidate from the start if `since` says so.
    pub(super) fn arrive(&mut self, number: u64, address: IpAddr, state: Arc<ClientState>, since: Option<u64>) {
        self.connections.insert(number, Connection { address, state, since, chosen: false });
        if let Some(order) = &mut self.order {
            order.change(address, |at| {
                at.connections += 1;
                at.candidates.extend(since.map(|since| (since, number)));
            });
        }
    }

    /// Makes a connection a candidate that does not rest before `since`.
    pub(super) fn list(&mut self, number: u64, since: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.chosen || connection.since.is_some() {
            return;
        }
        connection.since = Some(since);
        if let Some(order) = &mut self.order {
            order.change(connection.address, |at| at.candidates.insert((since, number)));
        }
    }

    /// Counts a connection out. Whether it had been chosen.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        let Some(Connection { address, since, chosen, .. }) = self.connections.remove(&number) else { return false };
        if let Some(order) = &mut self.order {
            order.change(address, |at| {
                at.connections -= 1;
                since.is_some_and(|since| at.candidates.remove(&(since, number)))
            });
            if self.connections.len() <= order.of / 2 {
                self.order = None;
            }
        }
        chosen
    }

    /// Chooses a connection and marks its state; `None` if no connection rests, or the one to go rests since later than
    /// `latest`.
    pub(super) fn choose(&mut self, latest: u64) -> Option<Arc<ClientState>> {
        let order = self.order.get_or_insert_with(|| Order::new(&self.connections));
        loop {
            let &(_, Reverse((since, number)), address) = order.ranks.last()?;
            if since > latest {
                return None;
            }
            let connection = self.connections.get_mut(&number).expect("a candidate is a connection");
            let found = connection.state.evict(since);
            connection.chosen = found == Found::Evicted;
            connection.since = match found {
                Found::RestsSince(later) => Some(later),
                Found::Evicted | Found::Works => None,
            };
            let (later, chosen) = (connection.since, connection.chosen.then(|| connection.state.clone()));
            order.change(address, |at| {
                at.candidates.remove(&(since, number));
                at.candidates.extend(later.map(|later| (later, number)));
            });
            if chosen.is_some() {
                return chosen;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self, address: IpAddr) -> usize {
        self.connections.values().filter(|connection| connection.address == address).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_state::Was;
    use super::*;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// A connection that rests since its arrival.
    fn resting(clients: &mut Clients, number: u64, address: IpAddr, since: u64) -> Arc<ClientState> {
        let state = Arc::new(ClientState::new(since));
        clients.arrive(number, address, state.clone(), Some(since));
        state
    }

    /// Chooses, and says whom.
    fn choose(clients: &mut Clients) -> Option<u64> {
        let chosen = clients.choose(u64::MAX)?;
        clients.connections.iter().find(|(_, c)| Arc::ptr_eq(&c.state, &chosen)).map(|(number, _)| *number)
    }

    // A12
    #[test]
    fn the_address_with_the_most_connections_loses_its_longest_resting_one() {
        let mut clients = Clients::default();
        for number in 0..3 {
            resting(&mut clients, number, HONEST, number);
        }
        for number in 10..15 {
            resting(&mut clients, number, FLOOD, number);
        }
        let mut chosen = Vec::new();
        while chosen.len() < 4 {
            let number = choose(&mut clients).unwrap();
            assert!(clients.leave(number));
            chosen.push(number);
        }
        // At three each the oldest of all goes, which is an honest one.
        assert_eq!(chosen, [10, 11, 0, 12]);
    }

    // D18
    #[test]
    fn connections_that_worked_since_they_were_looked_at_are_passed_over() {
        let mut clients = Clients::default();
        let first = resting(&mut clients, 1, HONEST, 1);
        let second = resting(&mut clients, 2, HONEST, 2);
        resting(&mut clients, 3, HONEST, 3);
        assert!(first.work() && second.work());
        assert_eq!(first.rest(9), Was::Unnoticed);
        assert_eq!(choose(&mut clients), Some(3));
        assert_eq!(second.rest(10), Was::Watched);
        assert_eq!(choose(&mut clients), Some(1));
        assert_eq!(choose(&mut clients), None, "the second is no candidate before it is listed");
        clients.list(2, 10);
        assert_eq!(choose(&mut clients), Some(2));
    }

    // A12
    #[test]
    fn nobody_pays_for_the_address_with_the_most_because_its_connections_are_young() {
        let mut clients = Clients::default();
        resting(&mut clients, 1, HONEST, 1);
        resting(&mut clients, 10, FLOOD, 10);
        resting(&mut clients, 11, FLOOD, 11);
        assert!(clients.choose(9).is_none());
        assert!(clients.choose(10).is_some());
        assert_eq!(clients.order.unwrap().addresses[&HONEST].candidates.len(), 1);
    }

    #[test]
    fn an_address_of_which_all_connections_work_loses_none_and_the_next_one_does() {
        let mut clients = Clients::default();
        let busy: Vec<_> = (0..5).map(|number| resting(&mut clients, number, FLOOD, number)).collect();
        assert!(busy.iter().all(|state| state.work()));
        resting(&mut clients, 9, HONEST, 9);
        assert_eq!(choose(&mut clients), Some(9));
        assert_eq!(choose(&mut clients), None);
    }

    // D18
    #[test]
    fn a_full_house_of_busy_connections_is_not_looked_through_for_each_newcomer() {
        let mut clients = Clients::default();
        let busy: Vec<_> = (0..1000).map(|number| resting(&mut clients, number, FLOOD, number)).collect();
        assert!(busy.iter().all(|state| state.work()));
        assert_eq!(choose(&mut clients), None);
        assert!(
            clients.order.as_ref().unwrap().ranks.is_empty(),
            "they say when they rest, and are not looked at before"
        );
        resting(&mut clients, 1000, FLOOD, 1000);
        assert_eq!(choose(&mut clients), Some(1000));
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let mut clients = Clients::default();
        for number in 0..100 {
            resting(&mut clients, number, FLOOD, number);
        }
        clients.choose(u64::MAX);
        for number in 0..100 {
            clients.leave(number);
        }
        assert!(clients.connections.is_empty() && clients.order.is_none());
    }

    #[test]
    fn an_order_that_is_kept_and_one_that_is_made_anew_choose_alike() {
        const SEED: u64 = 0x0de7;
        let mut rng = fastrand::Rng::with_seed(SEED);
        let (mut kept, mut made) = (Clients::default(), Clients::default());
        let mut here: Vec<(u64, [Arc<ClientState>; 2])> = Vec::new();
        for step in 0..4000u64 {
            match rng.u8(..10) {
                0..4 => {
                    let address = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, rng.u8(..4)));
                    let of = |clients| resting(clients, step, address, step);
                    here.push((step, [of(&mut kept), of(&mut made)]));
                }
                4..6 if !here.is_empty() => {
                    let (number, _) = here.swap_remove(rng.usize(..here.len()));
                    assert_eq!(kept.leave(number), made.leave(number));
                }
                6..8 if !here.is_empty() => {
                    let (number, states) = &here[rng.usize(..here.len())];
                    if rng.bool() {
                        assert_eq!(states[0].work(), states[1].work());
                        continue;
                    }
                    let was = states[0].rest(step);
                    assert_eq!(was, states[1].rest(step));
                    if was == Was::Watched {
                        kept.list(*number, step);
                        made.list(*number, step);
                    }
                }
                _ => {
                    made.order = None;
                    let latest = step.saturating_sub(rng.u64(..20));
                    let number = |clients: &mut Clients, at: usize| {
                        let chosen = clients.choose(latest)?;
                        here.iter().find(|(_, states)| Arc::ptr_eq(&states[at], &chosen)).map(|(number, _)| *number)
                    };
                    assert_eq!(number(&mut kept, 0), number(&mut made, 1), "seed {SEED}, step {step}");
                }
            }
        }
    }
}
