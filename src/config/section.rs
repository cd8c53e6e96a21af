//! A table of the file while it is read: hands out values by key, collects every problem with its place, and knows in
//! the end which keys nobody asked for.
//!
//! Not serde: it stops at the first problem, and cannot say which table an unknown key is in.

use super::value::Value;
use super::{ConfigError, Env};
use std::cell::{Cell, RefCell};
use std::fmt::{self, Display};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What all sections of one file share.
pub(super) struct Reader<'a> {
    pub(super) env: Env<'a>,
    file: &'a str,
    problems: RefCell<Vec<String>>,
    names_upstream: Cell<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, env: Env<'a>) -> Self {
        Reader { env, file, problems: RefCell::default(), names_upstream: Cell::new(false) }
    }

    /// A problem of the file.
    pub(super) fn problem(&self, problem: impl Display) {
        self.problems.borrow_mut().push(format!("{}: {problem}", self.file));
    }

    /// A problem of something else, which says itself where it is.
    pub(super) fn foreign_problem(&self, problem: String) {
        self.problems.borrow_mut().push(problem);
    }

    /// How many problems there are by now: what is checked across keys is checked only if each of them is right.
    pub(super) fn problems(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Whether a value has named the variable `UPSTREAM`.
    pub(super) fn names_upstream(&self) -> bool {
        self.names_upstream.get()
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, ConfigError> {
        let problems = self.problems.into_inner();
        if problems.is_empty() { Ok(value) } else { Err(ConfigError { problems }) }
    }
}

/// One table.
pub(super) struct Section<'r, 'd> {
    reader: &'r Reader<'r>,
    /// What stands before a key in messages: `upstream "web": ` and `probe.`
    place: String,
    prefix: &'static str,
    table: DeTable<'d>,
    known: Vec<&'static str>,
}

impl<'r, 'd> Section<'r, 'd> {
    pub(super) fn new(reader: &'r Reader<'r>, place: String, prefix: &'static str, table: DeTable<'d>) -> Self {
        Section { reader, place, prefix, table, known: Vec::new() }
    }

    /// The value of `key`, if it is there and `parse` takes it; what `parse` says against it becomes a problem.
    pub(super) fn take<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let raw = self.take_raw(key)?;
        let mut named = |name: &str| self.reader.names_upstream.set(self.reader.names_upstream() || name == "UPSTREAM");
        match Value::new(&raw, self.reader.env, &mut named) {
            Ok(value) => match parse(&value) {
                Ok(parsed) => Some(parsed),
                Err(problem) => self.refuse(key, format_args!("({value}) {}", value.show(&problem))),
            },
            Err(problem) => self.refuse(key, problem),
        }
    }

    /// Whether `key` is there, well or badly written, and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of `key` as it stands in the file, for what is not a plain value.
    pub(super) fn take_raw(&mut self, key: &'static str) -> Option<DeValue<'d>> {
        self.known.push(key);
        self.table.remove(key).map(Spanned::into_inner)
    }

    /// The table under `key`; `header` is how to write it.
    pub(super) fn take_table(&mut self, key: &'static str, header: &str) -> Option<DeTable<'d>> {
        match self.take_raw(key)? {
            DeValue::Table(table) => Some(table),
            other => self.refuse(key, format_args!("is {}; write it as a table: {header}", kind(&other))),
        }
    }

    /// Reports a problem of `key`.
    pub(super) fn refuse<T>(&self, key: &str, problem: impl Display) -> Option<T> {
        self.reader.problem(format_args!("{}{}{key} {problem}", self.place, self.prefix));
        None
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn end(self) {
        for (key, _) in &self.table {
            let key: &str = key.get_ref();
            let remedy = match nearest(key, &self.known) {
                Some(known) => format!("did you mean {known}?"),
                None => "remove it, or move it to the table that knows it".to_owned(),
            };
            self.reader.problem(format_args!(
                "{}unknown key {}{} (known here: {}); {remedy}",
                self.place,
                self.prefix,
                Key(key),
                self.known.join(", ")
            ));
        }
    }
}

/// A key as TOML writes it: bare if it can be, else in quotes, and not endless.
pub(super) struct Key<'a>(pub(super) &'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match self.0 {
            key if !key.is_empty() && key.len() <= 64 && key.bytes().all(bare) => f.write_str(key),
            key => f.write_str(&super::value::quoted(key)),
        }
    }
}

/// What a value is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The one of `known` that `word` was probably meant to be: at most a third of it mistyped.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer than any key that could be meant; bounds the work.
    if word.len() > 64 {
        return None;
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_").into_bytes();
    let word = plain(word);
    known
        .iter()
        .map(|known| (distance(&word, &plain(known)), *known))
        .filter(|(distance, known)| distance * 3 <= known.len().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Edits from `a` to `b`: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}
