//! The figures of a run, their medians and ratios, and the table that a reader sees.

use crate::load::percentile;
use crate::peer::{Kind, Peer};
use crate::row::{Figure, Row};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Table {
    /// By figure and contender: a value for each round.
    cells: Vec<(Figure, Kind, BTreeMap<usize, f64>)>,
    /// Cells of an earlier run that this one has not measured again.
    earlier: Vec<(Figure, Kind)>,
    /// What the reader must know, each once.
    pub notes: Vec<String>,
}

impl Table {
    /// What an earlier run has kept ([`Table::values_text`]). Values that are added to one of its cells replace it.
    ///
    /// # Errors
    /// A line that no run has written.
    pub fn earlier(text: &str) -> Result<Table, String> {
        let mut table = Table::default();
        let figures: Vec<Figure> = Row::ALL.into_iter().flat_map(Row::figures).collect();
        for (index, line) in text.lines().enumerate() {
            let fields: Vec<&str> = line.split('\t').collect();
            let cell = || {
                let [title, kind, values @ ..] = fields.as_slice() else { return None };
                let figure = figures.iter().find(|figure| figure.title() == *title)?;
                let kind = Kind::ALL.into_iter().find(|one| one.key() == *kind)?;
                let values: Result<Vec<f64>, _> = values.iter().map(|value| value.parse()).collect();
                Some((*figure, kind, values.ok()?))
            };
            let (figure, kind, values) = cell().ok_or_else(|| format!("line {}: `{line}`", index + 1))?;
            values.into_iter().enumerate().for_each(|(round, value)| table.add(figure, kind, round, value));
        }
        table.earlier = table.cells.iter().map(|(figure, kind, _)| (*figure, *kind)).collect();
        Ok(table)
    }

    /// Every value, a line for each figure and contender, for [`Table::earlier`].
    pub fn values_text(&self) -> String {
        let mut text = String::new();
        for (figure, kind, values) in &self.cells {
            let _ = write!(text, "{}\t{}", figure.title(), kind.key());
            for value in values.values() {
                let _ = write!(text, "\t{value}");
            }
            text.push('\n');
        }
        text
    }

    /// Adds a value of this round.
    pub fn add(&mut self, figure: Figure, kind: Kind, round: usize, value: f64) {
        if let Some(index) = self.earlier.iter().position(|cell| *cell == (figure, kind)) {
            self.earlier.swap_remove(index);
            self.cells.retain(|(f, k, _)| (*f, *k) != (figure, kind));
        }
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
        let measured = |figure: &Figure| self.cells.iter().any(|(f, _, _)| f == figure);
        for figure in Row::ALL.into_iter().flat_map(Row::figures).filter(measured) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_an_earlier_run_stay_until_they_are_measured_again() {
        let (get, post) = (Figure::Cpu(Row::Get), Figure::Cpu(Row::Post4K));
        let mut table = Table::default();
        for (round, value) in [10.0, 20.0, 30.0].into_iter().enumerate() {
            table.add(get, Kind::Evenkeel, round, value);
            table.add(post, Kind::Evenkeel, round, value / 3.0);
        }
        let mut later = Table::earlier(&table.values_text()).unwrap();
        assert_eq!(later.values_text(), table.values_text());
        later.add(get, Kind::Evenkeel, 0, 40.0);
        later.add(get, Kind::Evenkeel, 1, 60.0);
        assert_eq!(later.median(get, Kind::Evenkeel), Some(50.0));
        assert_eq!(later.median(post, Kind::Evenkeel), Some(20.0 / 3.0));
        assert!(Table::earlier("CPU per request\tnobody\t1").unwrap_err().starts_with("line 1"));
    }
}
