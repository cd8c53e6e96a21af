//! All that was measured, round by round, and the file that keeps it.

use crate::figure::{Figure, Measure};
use crate::kind::Kind;
use crate::record::median;
use crate::row::Row;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The figures of a run, or of several that were made in pieces.
#[derive(Debug, Default)]
pub struct Table {
    /// By figure and contender: a value for each round.
    cells: Vec<(Figure, Kind, BTreeMap<usize, f64>)>,
    /// Cells of an earlier run that this one has not measured again.
    earlier: Vec<(Figure, Kind)>,
    /// Versions of the proxies that took part.
    pub versions: BTreeMap<Kind, String>,
    /// The machine.
    pub machine: String,
    /// How latencies were scheduled.
    pub scheduling: String,
    /// What a pick costs, as `pick` prints it.
    pub pick: String,
    /// What the reader must know, by the row or the contender that it is about; each once.
    notes: Vec<String>,
}

/// The file: names instead of enums, sorted, so that two runs can be compared line by line.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    machine: String,
    scheduling: String,
    versions: BTreeMap<String, String>,
    pick: String,
    notes: Vec<String>,
    /// By figure, then by contender: a value for each round.
    values: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
}

impl Table {
    /// What an earlier run has kept ([`Table::text`]). Values that are added to one of its cells replace it.
    ///
    /// # Errors
    /// It is not such a file, or names what is not measured any more.
    pub fn earlier(text: &str) -> Result<Table, String> {
        let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let known = |key: &str| Kind::named(key).ok_or_else(|| format!("there is no contender `{key}`"));
        let mut table = Table {
            machine: kept.machine,
            scheduling: kept.scheduling,
            pick: kept.pick,
            notes: kept.notes,
            ..Table::default()
        };
        for (key, version) in kept.versions {
            table.versions.insert(known(&key)?, version);
        }
        for (key, contenders) in &kept.values {
            let figure = Figure::named(key).ok_or_else(|| format!("there is no figure `{key}`"))?;
            for (kind, values) in contenders {
                let kind = known(kind)?;
                values.iter().enumerate().for_each(|(round, value)| table.add(figure, kind, round, *value));
            }
        }
        table.earlier = table.cells.iter().map(|(figure, kind, _)| (*figure, *kind)).collect();
        Ok(table)
    }

    /// All of it as JSON, for [`Table::earlier`].
    pub fn text(&self) -> String {
        let mut kept = Kept {
            machine: self.machine.clone(),
            scheduling: self.scheduling.clone(),
            versions: self.versions.iter().map(|(kind, version)| (kind.key().into(), version.clone())).collect(),
            pick: self.pick.clone(),
            notes: self.notes.clone(),
            values: BTreeMap::new(),
        };
        for (figure, kind, values) in &self.cells {
            // More digits than any figure has would only make two runs hard to compare.
            let rounded = values.values().map(|value| (value * 1000.0).round() / 1000.0).collect();
            kept.values.entry(figure.key()).or_default().insert(kind.key().into(), rounded);
        }
        serde_json::to_string_pretty(&kept).expect("names and numbers") + "\n"
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

    /// What was said.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Forgets what was said of these rows, which are measured again, and of contenders that were absent.
    pub fn forget_notes(&mut self, rows: &[Row]) {
        let again = |note: &String| rows.iter().any(|row| note.contains(&format!(", {}: ", row.key())));
        self.notes.retain(|note| !again(note) && !note.contains(" is absent"));
    }

    /// This figure of this contender, round by round. Of a latency through a proxy where `Direct` takes part it is that
    /// which the proxy adds to the direct way, taken in the same round.
    pub fn rounds(&self, figure: Figure, kind: Kind) -> Vec<f64> {
        self.by_round(figure, kind).into_values().collect()
    }

    fn by_round(&self, figure: Figure, kind: Kind) -> BTreeMap<usize, f64> {
        let Some(values) = self.values(figure, kind) else { return BTreeMap::new() };
        if !kind.is_proxy() || !matches!(figure.row, Row::Latency(_)) {
            return values.clone();
        }
        let Some(direct) = self.values(figure, Kind::Direct) else { return BTreeMap::new() };
        values.iter().filter_map(|(round, value)| Some((*round, value - direct.get(round)?))).collect()
    }

    /// The median of all rounds.
    pub fn median(&self, figure: Figure, kind: Kind) -> Option<f64> {
        median(&self.rounds(figure, kind))
    }

    /// The smallest and the largest of several rounds.
    pub fn spread(&self, figure: Figure, kind: Kind) -> Option<(f64, f64)> {
        let rounds = self.rounds(figure, kind);
        let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (rounds.len() > 1).then_some((low, high))
    }

    /// The median over all rounds of its ratio to HAProxy in the same round.
    pub fn ratio(&self, figure: Figure, kind: Kind) -> Option<f64> {
        if kind == Kind::HaProxy {
            return None;
        }
        let (values, base) = (self.values(figure, kind)?, self.values(figure, Kind::HaProxy)?);
        let ratios: Vec<f64> = pairs(values, base).map(|(value, base)| value / base).collect();
        median(&ratios)
    }

    /// The median over all rounds of what this contender has, by what Evenkeel has in the same round: a machine that is
    /// slower for a while is so for both.
    pub fn by_ours(&self, figure: Figure, kind: Kind) -> Option<f64> {
        let (values, ours) = (self.by_round(figure, kind), self.by_round(figure, Kind::Evenkeel));
        let ratios: Vec<f64> = pairs(&values, &ours).map(|(value, ours)| value / ours).collect();
        median(&ratios)
    }

    /// Contenders with at least one of these figures, in their order.
    pub fn contenders(&self, figures: &[Figure]) -> Vec<Kind> {
        let took_part = |kind: &Kind| self.cells.iter().any(|(figure, k, _)| k == kind && figures.contains(figure));
        Kind::ALL.into_iter().filter(took_part).collect()
    }

    /// The most and the fewest rounds of these rows.
    pub fn count(&self, rows: impl Fn(Row) -> bool) -> Option<(usize, usize)> {
        let counts = self.cells.iter().filter(|(figure, _, _)| rows(figure.row)).map(|(_, _, values)| values.len());
        let counts: Vec<usize> = counts.collect();
        Some((*counts.iter().min()?, *counts.iter().max()?))
    }

    /// The proxy's threads did nothing but work in the median round of this row: what it could do at most was measured,
    /// and not what the load could send. True where there is no proxy.
    pub fn is_saturated(&self, row: Row, kind: Kind) -> bool {
        /// Per cent. The rest is what a ten-milliseconds clock and the kernel's throttling leave out.
        const BUSY: f64 = 90.0;
        let figure = Figure { row, measure: Measure::Utilisation };
        self.median(figure, kind).is_none_or(|busy| busy >= BUSY)
    }

    fn values(&self, figure: Figure, kind: Kind) -> Option<&BTreeMap<usize, f64>> {
        self.cells.iter().find(|(f, k, _)| (*f, *k) == (figure, kind)).map(|(_, _, values)| values)
    }
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

    const GET: Figure = Figure { row: Row::Get, measure: Measure::Cpu };
    const POST: Figure = Figure { row: Row::Post4K, measure: Measure::Cpu };

    #[test]
    fn values_of_an_earlier_run_stay_until_they_are_measured_again() {
        let mut table = Table::default();
        for (round, value) in [10.0, 20.0, 30.0].into_iter().enumerate() {
            table.add(GET, Kind::Evenkeel, round, value);
            table.add(POST, Kind::Evenkeel, round, value / 2.0);
        }
        table.versions.insert(Kind::Evenkeel, "0.1.0".into());
        let mut later = Table::earlier(&table.text()).unwrap();
        assert_eq!(later.text(), table.text());
        later.add(GET, Kind::Evenkeel, 0, 40.0);
        later.add(GET, Kind::Evenkeel, 1, 60.0);
        assert_eq!(later.median(GET, Kind::Evenkeel), Some(50.0));
        assert_eq!(later.median(POST, Kind::Evenkeel), Some(10.0));
        assert_eq!(later.spread(GET, Kind::Evenkeel), Some((40.0, 60.0)));
        let unknown = table.text().replace("cpu-get.cpu-us", "cpu-get.luck");
        assert!(Table::earlier(&unknown).unwrap_err().contains("cpu-get.luck"));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let mut table = Table::default();
        for (round, base) in [10.0, 20.0, 40.0].into_iter().enumerate() {
            table.add(GET, Kind::HaProxy, round, base);
            table.add(GET, Kind::Nginx, round, base * 1.5);
        }
        assert_eq!(table.ratio(GET, Kind::Nginx), Some(1.5));
        assert_eq!(table.ratio(GET, Kind::HaProxy), None);
        // By its median it would be better than either.
        for (round, value) in [11.0, 19.0, 42.0].into_iter().enumerate() {
            table.add(GET, Kind::Evenkeel, round, value * 1.5);
        }
        assert!((table.by_ours(GET, Kind::Nginx).unwrap() - 40.0 / 42.0).abs() < 1e-9);
    }

    #[test]
    fn a_proxy_that_idled_was_not_saturated() {
        let mut table = Table::default();
        let busy = Figure { row: Row::Get, measure: Measure::Utilisation };
        table.add(busy, Kind::Evenkeel, 0, 70.0);
        table.add(busy, Kind::Traefik, 0, 99.0);
        assert!(!table.is_saturated(Row::Get, Kind::Evenkeel));
        assert!(table.is_saturated(Row::Get, Kind::Traefik));
    }
}
