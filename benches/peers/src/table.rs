//! The figures of a run, their medians and ratios, and the table that a reader sees.

use crate::load::percentile;
use crate::peer::{Kind, Peer};
use crate::row::Figure;
use std::collections::BTreeMap;
use std::fmt::Write;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Table {
    /// By figure and contender: a value for each round.
    cells: Vec<(Figure, Kind, BTreeMap<usize, f64>)>,
    /// What the reader must know, each once.
    pub notes: Vec<String>,
}

impl Table {
    /// Adds a value of this round.
    pub fn add(&mut self, figure: Figure, kind: Kind, round: usize, value: f64) {
        match self.cells.iter_mut().find(|(f, k, _)| (*f, *k) == (figure, kind)) {
            Some((_, _, values)) => drop(values.insert(round, value)),
            None => self.cells.push((figure, kind, BTreeMap::from([(round, value)]))),
        }
    }

    /// Says something with the figures, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The median of all rounds. Of a latency through a proxy it is that which the proxy adds to the direct way, taken
    /// in the same round.
    pub fn median(&self, figure: Figure, kind: Kind) -> Option<f64> {
        let values = self.values(figure, kind)?;
        let added = kind.is_proxy() && matches!(figure, Figure::Latency(..));
        let values: Vec<f64> = match self.values(figure, Kind::Direct) {
            Some(direct) if added => pairs(values, direct).map(|(value, direct)| value - direct).collect(),
            None if added => return None,
            _ => values.values().copied().collect(),
        };
        median(values)
    }

    /// The median over all rounds of its ratio to HAProxy in the same round. Differences have no ratio.
    pub fn ratio(&self, figure: Figure, kind: Kind) -> Option<f64> {
        if matches!(figure, Figure::Latency(..) | Figure::Recovery | Figure::Failing) || !kind.is_proxy() {
            return None;
        }
        let (values, base) = (self.values(figure, kind)?, self.values(figure, Kind::HaProxy)?);
        median(pairs(values, base).map(|(value, base)| value / base).collect())
    }

    /// In Markdown: a line for each figure, a column for each contender.
    pub fn markdown(&self, peers: &[Peer]) -> String {
        let mut text = String::from("| |");
        for peer in peers {
            let _ = write!(
                text,
                " {}{}{} |",
                peer.kind.name(),
                if peer.version.is_empty() { "" } else { " " },
                peer.version
            );
        }
        let _ = write!(text, "\n|---|{}\n", "---:|".repeat(peers.len()));
        let mut figures: Vec<Figure> = vec![];
        for (figure, _, _) in &self.cells {
            if !figures.contains(figure) {
                figures.push(*figure);
            }
        }
        for figure in figures {
            let _ = write!(text, "| {} |", figure.title());
            for peer in peers {
                let _ = write!(text, " {} |", self.cell(figure, peer.kind));
            }
            text.push('\n');
        }
        text
    }

    fn cell(&self, figure: Figure, kind: Kind) -> String {
        let Some(value) = self.median(figure, kind) else { return "–".into() };
        let added = kind.is_proxy() && matches!(figure, Figure::Latency(..));
        let sign = if added && value >= 0.0 { "+" } else { "" };
        let shown = format!("{sign}{}", figure.show(value));
        match self.ratio(figure, kind) {
            Some(ratio) if kind != Kind::HaProxy => format!("{shown} ({ratio:.2})"),
            _ => shown,
        }
    }

    fn values(&self, figure: Figure, kind: Kind) -> Option<&BTreeMap<usize, f64>> {
        self.cells.iter().find(|(f, k, _)| (*f, *k) == (figure, kind)).map(|(_, _, values)| values)
    }
}

/// The middle value, or the mean of the middle two.
pub fn median(values: Vec<f64>) -> Option<f64> {
    let middle = (percentile(values.clone(), 0.5) + percentile(values.iter().map(|v| -v).collect(), 0.5).abs()) / 2.0;
    (!values.is_empty()).then_some(middle)
}

fn pairs<'a>(
    values: &'a BTreeMap<usize, f64>,
    others: &'a BTreeMap<usize, f64>,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    values.iter().filter_map(|(round, value)| Some((*value, *others.get(round)?)))
}
