//! Each promise and each fault of `docs/promises.md` has a test that names it in the comment above it, as `// P5` or
//! `// F42`, and no comment names one that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names in a text: P or F, a number, perhaps an `a`.
fn names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let is_name = |word: &&str| {
        let digits = word.strip_prefix(['P', 'F']).map(|rest| rest.strip_suffix('a').unwrap_or(rest));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    words.filter(is_name).map(Into::into).collect()
}

/// What the document says: every name, and those of which it says why they have no test.
fn document() -> (BTreeSet<String>, BTreeSet<String>) {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/promises.md")).expect("docs/promises.md");
    let mut all = vec![];
    let mut untested = vec![];
    let mut section = "";
    for line in text.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        match section {
            "Promises" => all.extend(line.strip_prefix("- **").map(|l| names(&l[..l.find("**").unwrap_or(0)]))),
            "Faults" => all.extend(line.strip_prefix("| ").and_then(|l| l.split(" | ").next()).map(names)),
            "Without a test" => untested.extend(line.strip_prefix("- **").map(names)),
            _ => {}
        }
    }
    let all: Vec<String> = all.into_iter().flatten().collect();
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "a name stands twice in {all:?}");
    assert!(set.len() > 90, "not even a hundred promises and faults were found: {set:?}");
    (set, untested.into_iter().flatten().collect())
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("a folder of the repository").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Where each name stands in the comment above a test, and in which comments names stand that are above none.
fn comments() -> (BTreeMap<String, String>, Vec<String>) {
    let mut files = vec![];
    ["src", "tests", "testbed", "examples"]
        .iter()
        .for_each(|folder| sources(&Path::new(ROOT).join(folder), &mut files));
    let (mut tests, mut others) = (BTreeMap::new(), vec![]);
    for file in files.iter().filter(|file| !file.ends_with("tests/promises.rs")) {
        let text = fs::read_to_string(file).expect("a source is text");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (i, line) in lines.iter().enumerate() {
            let Some(comment) = line.strip_prefix("// ") else { continue };
            let above = lines[i..].iter().find(|l| !l.starts_with("//") && !l.starts_with("#["));
            let is_test = above.is_some_and(|l| l.starts_with("fn ") || l.starts_with("async fn "));
            for name in names(comment) {
                let place = format!("{}:{}: {line}", file.display(), i + 1);
                if is_test {
                    tests.insert(name, place);
                } else {
                    others.push(place);
                }
            }
        }
    }
    (tests, others)
}

#[test]
fn every_promise_and_every_fault_has_a_test_or_a_reason_why_not() {
    let (all, untested) = document();
    let (tests, _) = comments();
    let missing: Vec<_> = all.iter().filter(|n| !tests.contains_key(*n) && !untested.contains(*n)).collect();
    assert!(missing.is_empty(), "no test names {missing:?} in a comment above it, as `// F42`");
    let both: Vec<_> = untested.iter().filter(|n| tests.contains_key(*n) || !all.contains(*n)).collect();
    assert!(both.is_empty(), "docs/promises.md lists as without a test what has one, or is none: {both:?}");
}

#[test]
fn a_comment_names_only_what_is_promised_and_stands_above_a_test() {
    let (all, _) = document();
    let (tests, others) = comments();
    let unknown: Vec<_> = tests.iter().filter(|(name, _)| !all.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/promises.md has none of these: {unknown:#?}");
    assert!(others.is_empty(), "no test is below these: {others:#?}");
}
