//! Writes what was measured into the README and the page of benchmarks, between markers, so that every figure in them was
//! made by one command: `<!-- bench:NAME -->` begins a part, `<!-- bench:end -->` ends it.

use crate::figure::Measure;
use crate::kind::Kind;
use crate::lines::{Line, Section};
use crate::row::Row;
use crate::table::Table;

const END: &str = "<!-- bench:end -->";

/// The names of all parts.
const PARTS: [&str; 8] = ["short", "conditions", "costs", "balance", "trouble", "notes", "pick", "better"];

/// By so much another contender must be better to be said so: less than that changes places from run to run.
const CLEARLY: f64 = 1.05;

/// The text with all its parts made anew.
///
/// # Errors
/// A marker that is unknown or has no end.
pub fn update(text: &str, table: &Table) -> Result<String, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = next(rest)? {
        let (_, behind) = after.split_once(END).ok_or_else(|| format!("`bench:{name}` has no `{END}`"))?;
        let part = part(name, table).ok_or_else(|| format!("there is no part `bench:{name}`"))?;
        whole.push_str(&format!("{before}<!-- bench:{name} -->\n{}\n{END}", part.trim_end()));
        rest = behind;
    }
    Ok(whole + rest)
}

/// The parts that stand in none of these texts.
pub fn missing<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let whole: String = texts.collect();
    PARTS.into_iter().filter(|name| !whole.contains(&format!("<!-- bench:{name} -->"))).collect()
}

/// What is before the next part, its name, and what is behind its first marker.
fn next(text: &str) -> Result<Option<(&str, &str, &str)>, String> {
    let Some((before, marked)) = text.split_once("<!-- bench:") else { return Ok(None) };
    let (name, after) = marked.split_once(" -->").ok_or("a marker without ` -->`")?;
    Ok(Some((before, name, after)))
}

fn part(name: &str, table: &Table) -> Option<String> {
    match name {
        "conditions" => Some(conditions(table)),
        "pick" => Some(table.pick.clone()),
        "better" => Some(better(table)),
        "notes" => Some(notes(table)),
        "short" => Some(Section::Short.markdown(table)),
        _ => {
            let section = Section::ALL.into_iter().find(|section| section.key() == name)?;
            Some(section.markdown(table))
        }
    }
}

/// Where, with what and how often it was measured.
pub fn conditions(table: &Table) -> String {
    let versions: Vec<String> = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some(format!("{} {}", kind.name(), table.versions.get(&kind)?)))
        .collect();
    let rounds = |rows: fn(Row) -> bool| match table.count(rows) {
        Some((least, most)) if least == most => format!("{most}"),
        Some((least, most)) => format!("{least} to {most}"),
        None => "no".into(),
    };
    format!(
        "{}. {}. Rounds: {} of costs, {} of balance, {} of trouble.\n{}.",
        table.machine,
        table.scheduling,
        rounds(Row::is_cost),
        rounds(|row| matches!(row, Row::Balance(_) | Row::Failing | Row::Recovery)),
        rounds(|row| !row.is_cost() && !matches!(row, Row::Balance(_) | Row::Failing | Row::Recovery)),
        versions.join(", ")
    )
}

/// Where a contender is clearly better than Evenkeel, line by line.
pub fn better(table: &Table) -> String {
    let mut text = String::new();
    for line in Section::ALL.into_iter().flat_map(Section::lines) {
        let better = better_ones(&line, table);
        if !better.is_empty() {
            text.push_str(&format!("- {}: {}\n", line.title, better.join(", ")));
        }
    }
    if text.is_empty() { "- nowhere\n".into() } else { text }
}

/// Those that are clearly better by a figure of this line, and their value.
fn better_ones(line: &Line, table: &Table) -> Vec<String> {
    let mut named = vec![];
    for figure in line.figures.iter().filter(|figure| figure.measure.is_judged()) {
        let of = |kind: Kind| table.median(*figure, kind).filter(|_| line.compares(table, kind));
        let Some(ours) = of(Kind::Evenkeel) else { continue };
        // By the medians, and round by round as well: medians of few rounds may be of different hours of a machine.
        let is_better = |kind: Kind, value: f64| {
            let ratio = table.by_ours(*figure, kind).unwrap_or(value / ours);
            match figure.measure {
                Measure::Rate => value > ours * CLEARLY && ratio > CLEARLY,
                _ => value * CLEARLY < ours && (ratio * CLEARLY < 1.0 || value <= 0.0),
            }
        };
        let others = Kind::ALL.into_iter().filter(|kind| kind.is_proxy() && *kind != Kind::Evenkeel);
        let better = others.filter_map(|kind| Some((kind, of(kind)?))).filter(|(kind, value)| is_better(*kind, *value));
        let show = |value| figure.measure.show(value);
        named.extend(better.map(|(kind, value)| format!("{} {} (ours {})", kind.name(), show(value), show(ours))));
    }
    named
}

/// What the reader must know of single figures.
pub fn notes(table: &Table) -> String {
    let withheld = Kind::ALL.into_iter().any(|kind| !table.is_saturated(Row::Get, kind));
    let mut text = String::new();
    if withheld {
        text.push_str(
            "- “–” at saturation: the proxy idled for more than a tenth of the time, since the load and the replicas, \
             which share the other processors, had no more to give\n",
        );
    }
    table.notes().iter().for_each(|note| text.push_str(&format!("- {note}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Figure;

    fn table() -> Table {
        let mut table = Table::default();
        table.add(Figure { row: Row::Get, measure: Measure::Cpu }, Kind::Evenkeel, 0, 20.0);
        table.add(Figure { row: Row::Get, measure: Measure::Cpu }, Kind::Nginx, 0, 10.0);
        table.add(Figure { row: Row::Get, measure: Measure::Cpu }, Kind::HaProxy, 0, 19.9);
        table
    }

    #[test]
    fn parts_are_made_anew_and_the_rest_stays() {
        let text = "before\n<!-- bench:costs -->\nold\n<!-- bench:end -->\nafter\n";
        let updated = update(text, &table()).unwrap();
        assert!(updated.starts_with("before\n<!-- bench:costs -->\n| |"), "{updated}");
        assert!(updated.ends_with("<!-- bench:end -->\nafter\n") && !updated.contains("old"), "{updated}");
        assert_eq!(update(&updated, &table()).unwrap(), updated, "twice is the same as once");
        assert!(update("<!-- bench:luck -->\n<!-- bench:end -->", &table()).is_err());
        assert!(update("<!-- bench:costs -->\n", &table()).is_err());
    }

    #[test]
    fn each_part_can_be_made_and_is_missed_where_no_file_has_it() {
        let whole: String = PARTS.map(|name| format!("<!-- bench:{name} -->\n{END}\n")).concat();
        let updated = update(&whole, &table()).unwrap();
        let (first, second) = updated.split_at(updated.find("<!-- bench:trouble -->").unwrap());
        assert_eq!(missing([first, second].into_iter()), [""; 0], "they may stand in several files");
        assert_eq!(missing([first].into_iter()), ["trouble", "notes", "pick", "better"]);
    }

    #[test]
    fn the_short_table_says_what_the_long_ones_say() {
        let text = Section::Short.markdown(&table());
        assert!(text.contains("| CPU per request, empty GET | 20.0 µs | 19.9 µs | 10.0 µs |"), "{text}");
        for line in Section::Short.lines() {
            let mut long = Section::ALL.into_iter().flat_map(Section::lines);
            assert!(long.any(|long| long.figures.contains(&line.figures[0])), "{}", line.title);
        }
    }

    #[test]
    fn a_peer_that_is_clearly_better_is_named() {
        let text = better(&table());
        assert!(text.contains("nginx 10.0 µs (ours 20.0 µs)"), "{text}");
        assert!(!text.contains("HAProxy"), "{text}");
    }
}
