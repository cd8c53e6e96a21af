//! A set of HTTP statuses, as `probe.healthy` lists them: `["2xx", 424]`.

use super::limits;
use super::value::{Value, excerpt, integer, quoted};
use std::fmt;
use std::ops::RangeInclusive;

/// A set of HTTP statuses. `Display` writes it as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// What passes where nothing is said: any 2xx.
    pub fn success() -> Self {
        Statuses(vec![200..=299])
    }

    /// Whether this status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// Whether no status is one of them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and one more.
    #[must_use]
    pub fn with(&self, status: u16) -> Self {
        let mut all = self.clone();
        all.0.push(status..=status);
        all
    }
}

impl<const N: usize> From<[u16; N]> for Statuses {
    fn from(statuses: [u16; N]) -> Self {
        Statuses(statuses.into_iter().map(|status| status..=status).collect())
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) if first % 100 == 0 && last == first + 99 => format!("\"{}xx\"", first / 100),
            (first, last) => format!("\"{first}-{last}\""),
        };
        write!(f, "[{}]", self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// A list of statuses, at least one: numbers, classes such as `"2xx"`, ranges such as `"200-299"`.
pub(super) fn statuses(value: &Value) -> Result<Statuses, String> {
    let all = match value {
        Value::List(values) if values.is_empty() => {
            return Err("is empty, so nothing would ever do; leave it out".into());
        }
        Value::List(values) => values.iter().map(one).collect::<Result<_, _>>()?,
        Value::Text { text, .. } => {
            return Err(format!("is a string where a list belongs; write [{}]", excerpt(quoted(text))));
        }
        Value::Integer(number) => return Err(format!("is a number where a list belongs; write [{number}]")),
        _ => return Err("is no list of statuses; write [\"2xx\", 424]".into()),
    };
    Ok(Statuses(all))
}

fn one(value: &Value) -> Result<RangeInclusive<u16>, String> {
    let range = match value {
        Value::Text { text, .. } => class(text).or_else(|| between(text)),
        _ => None,
    };
    match (range, value) {
        (Some(range), _) if is_within(&range) => Ok(range),
        (Some(_), _) => {
            Err(format!("has {value}, which is out of bounds; write statuses from 100 to 599, the lower one first"))
        }
        (None, Value::Text { text, raw }) if raw.is_some() || text.parse::<i64>().is_err() => match text.parse() {
            Ok(status) if is_within(&(status..=status)) => Ok(status..=status),
            _ => Err(format!(
                "has {}, which is no status; write a number such as 200, a class such as \"2xx\", or a range such as \
                 \"200-299\"",
                excerpt(quoted(text))
            )),
        },
        (None, value) => {
            let number = integer(limits::STATUS)(value).map_err(|problem| format!("has {value}, which {problem}"))?;
            let status = u16::try_from(number).expect("limits.rs keeps statuses within their type");
            Ok(status..=status)
        }
    }
}

fn is_within(range: &RangeInclusive<u16>) -> bool {
    let known = |status: &u16| limits::STATUS.contains(&u64::from(*status));
    range.start() <= range.end() && known(range.start()) && known(range.end())
}

/// `2xx`, in either case.
fn class(text: &str) -> Option<RangeInclusive<u16>> {
    let digit = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"))?;
    let class: u16 = digit.parse().ok().filter(|class| (0..=9).contains(class) && digit.len() == 1)?;
    Some(100 * class..=100 * class + 99)
}

/// `200-299`.
fn between(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_shown_as_the_file_has_them() {
        let statuses = Statuses(vec![200..=299, 424..=424, 300..=302]);
        assert_eq!(statuses.to_string(), "[\"2xx\", 424, \"300-302\"]");
        assert_eq!(Statuses::success().with(301).to_string(), "[\"2xx\", 301]");
        assert!(statuses.contains(299) && statuses.contains(424) && !statuses.contains(303));
    }
}
