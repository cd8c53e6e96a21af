//! What one measurement gave.

use crate::figure::{Figure, Measure};
use crate::kind::Kind;
use crate::record::Record;
use crate::row::Row;

/// The figures of a row for one contender in one round.
#[derive(Debug)]
pub struct Taken {
    row: Row,
    kind: Kind,
    /// The figures.
    pub values: Vec<(Figure, f64)>,
    /// What the reader must know about them.
    pub notes: Vec<String>,
}

impl Taken {
    /// Nothing yet.
    pub fn new(row: Row, kind: Kind) -> Taken {
        Taken { row, kind, values: vec![], notes: vec![] }
    }

    /// A figure; one that could not be taken (nothing was answered) is left out.
    pub fn add(&mut self, measure: Measure, value: f64) {
        if value.is_finite() {
            self.values.push((Figure { row: self.row, measure }, value));
        }
    }

    /// Something that a reader must know.
    pub fn note(&mut self, text: &str) {
        self.notes.push(format!("{}, {}: {text}", self.kind.name(), self.row.key()));
    }

    /// More than one failure in a thousand requests, where none is expected, is told with the figures.
    pub fn complain(&mut self, record: &Record) {
        let all = record.all();
        if record.failed * 1000 > all || all == 0 {
            let reason = record.reason.as_deref().unwrap_or("nothing was answered");
            self.note(&format!("{} of {all} requests failed ({reason})", record.failed));
        }
    }
}
