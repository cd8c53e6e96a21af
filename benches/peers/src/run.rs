//! A whole run: who takes part, in which order, how many at a time.

use crate::cost;
use crate::kind::Kind;
use crate::memory;
use crate::peer::{Peer, Running, Upstream};
use crate::process::{self, Cores};
use crate::row::{Effort, Row};
use crate::scenario;
use crate::table::Table;
use crate::taken::Taken;

/// What is measured with.
#[derive(Debug)]
pub struct Run<'a> {
    /// Contenders that can be started.
    pub peers: &'a [Peer],
    /// Before which replicas costs are measured.
    pub to: &'a Upstream,
    /// How long and how often.
    pub effort: Effort,
    /// What was measured goes here.
    pub table: &'a mut Table,
}

impl Run<'_> {
    /// Measures these rows.
    pub fn measure(&mut self, rows: &[Row]) {
        let of = |wanted: fn(&Row) -> bool| rows.iter().copied().filter(wanted).collect::<Vec<Row>>();
        let processors = process::processors().len();
        self.side_by_side(&of(|row| row.is_side_by_side() && !row.is_timed() && *row != Row::TwoThreads), 1);
        if rows.contains(&Row::TwoThreads) {
            // Two busy threads of a proxy and a load that is to keep them busy.
            if processors > 2 {
                self.side_by_side(&[Row::TwoThreads], 2);
            } else {
                let why = "two threads of a proxy are not measured: nothing would be left for the load";
                self.table.note(format!("{processors} processors: {why}"));
            }
        }
        self.apart(&of(|row| !row.is_side_by_side() && !row.is_timed()));
        let real_time = rows.iter().any(|row| row.is_timed()) && process::set_real_time(true);
        if rows.iter().any(|row| row.is_timed()) {
            let how = if real_time {
                "real-time scheduling (SCHED_RR)"
            } else {
                "no real-time scheduling, it is not allowed"
            };
            self.table.scheduling = format!("Latencies and behaviour under {how}");
        }
        self.side_by_side(&of(|row| row.is_side_by_side() && row.is_timed()), 1);
        self.apart(&of(|row| !row.is_side_by_side() && row.is_timed()));
        if real_time {
            process::set_real_time(false);
        }
    }

    /// Rows for which all run at once and those that take part are measured in turn.
    fn side_by_side(&mut self, rows: &[Row], threads: usize) {
        if rows.is_empty() || self.effort.rounds == 0 {
            return;
        }
        let cores = Cores::split(threads);
        let mut running: Vec<Running> = vec![];
        for peer in self.peers.iter().filter(|peer| rows.iter().any(|row| row.wants(peer.kind))) {
            match peer.start(self.to, threads, &cores) {
                Ok(started) => running.push(started),
                Err(error) => absent(self.table, peer.kind, &error),
            }
        }
        for round in 0..self.effort.rounds {
            for row in rows {
                eprint!("round {}/{} {:<12}", round + 1, self.effort.rounds, row.key());
                // Another one begins each round: who comes first meets a machine that idled.
                for turn in 0..running.len() {
                    let running = &running[(turn + round) % running.len()];
                    if row.wants(running.kind) {
                        let taken = cost::measure(*row, running, self.to, self.effort, threads, &cores);
                        self.accept(running.kind, round, taken);
                    }
                }
                eprintln!();
            }
        }
    }

    /// Rows for which each is started anew, several at a time where they do not disturb each other.
    fn apart(&mut self, rows: &[Row]) {
        let cores = Cores::split(1);
        for round in 0..self.effort.rounds {
            for row in rows.iter().filter(|row| round < row.most_rounds()) {
                let rounds = self.effort.rounds.min(row.most_rounds());
                eprint!("round {}/{rounds} {:<12}", round + 1, row.key());
                let mut peers: Vec<&Peer> = self.peers.iter().filter(|peer| row.wants(peer.kind)).collect();
                let turn = round % peers.len().max(1);
                peers.rotate_left(turn);
                for group in peers.chunks(row.abreast()) {
                    let (to, effort) = (self.to, self.effort);
                    // Other seeds each round, and the same ones for all contenders of a round.
                    let one = |peer| one(*row, peer, to, effort, 1 + round as u64, &cores);
                    let one = &one;
                    let taken: Vec<Result<Taken, String>> = std::thread::scope(|scope| {
                        let threads: Vec<_> = group.iter().map(|peer| scope.spawn(move || one(peer))).collect();
                        threads.into_iter().map(|thread| thread.join().expect("a measurement")).collect()
                    });
                    for (peer, taken) in group.iter().zip(taken) {
                        match taken {
                            Ok(taken) => self.accept(peer.kind, round, taken),
                            Err(error) => absent(self.table, peer.kind, &error),
                        }
                    }
                }
                eprintln!();
            }
        }
    }

    fn accept(&mut self, kind: Kind, round: usize, taken: Taken) {
        eprint!("  {}", kind.name());
        for (figure, value) in taken.values {
            eprint!(" {}", figure.measure.show(value));
            self.table.add(figure, kind, round, value);
        }
        taken.notes.into_iter().for_each(|note| self.table.note(note));
    }
}

fn one(row: Row, peer: &Peer, to: &Upstream, effort: Effort, seed: u64, cores: &Cores) -> Result<Taken, String> {
    match row {
        Row::Start => memory::start(peer, to, cores),
        Row::Memory => memory::measure(peer, to, effort, cores),
        row => scenario::measure(row, peer, effort, seed, cores),
    }
}

/// Says that a contender could not be measured, and why.
pub fn absent(table: &mut Table, kind: Kind, why: &str) {
    eprintln!("!! {} IS ABSENT: {why}", kind.name());
    table.note(format!("**{} is absent:** {}", kind.name(), why.lines().next().unwrap_or("")));
}
