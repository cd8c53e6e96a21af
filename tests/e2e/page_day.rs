//! What the operator's page says of a bad day, turn by turn: which replica it was, since when, why, how many requests
//! failed, and what the proxy did. Nothing but the page's text is read (P20).

use crate::page::{WIDE, has_browser};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Browser, Churn, Protocol, Turn, eventually, eventually_some};

/// What the page said from the beginning of a turn to its end.
struct Told {
    /// Each text once.
    texts: Vec<String>,
    /// How long it took.
    time: Duration,
}

/// A row of what happened: so many seconds ago, to whom, and what.
#[derive(Debug)]
struct Row {
    ago: f64,
    whom: String,
    what: String,
}

impl Told {
    /// Has a turn happen while the page is read.
    fn during(page: &Browser, turn: impl FnOnce()) -> Told {
        let began = Instant::now();
        let over = AtomicBool::new(false);
        let texts = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut texts: Vec<String> = vec![];
                loop {
                    let last = over.load(Ordering::Relaxed);
                    let text = page.text();
                    if texts.last() != Some(&text) {
                        texts.push(text);
                    }
                    if last {
                        return texts;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            turn();
            over.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        Told { texts, time: began.elapsed() }
    }

    /// Asserts that one of the sentences says all of this.
    #[track_caller]
    fn sentence(&self, parts: &[&str]) {
        let sentences: Vec<_> = self.texts.iter().filter_map(|text| text.lines().find(is_sentence)).collect();
        let says = |sentence: &&str| parts.iter().all(|part| sentence.contains(part));
        assert!(sentences.iter().any(says), "no sentence says {parts:?}: {sentences:#?}");
    }

    /// What happened in this turn, as the page says it at its end.
    fn rows(&self) -> Vec<Row> {
        let text = self.texts.last().expect("the page was read");
        let (_, table) = text.split_once("What happened").expect("there is a table");
        let row = |line: &str| {
            let [ago, whom, what] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
            let ago = ago.strip_suffix(" s")?.parse().ok()?;
            Some(Row { ago, whom: whom.to_owned(), what: what.to_owned() })
        };
        let within = |row: &Row| row.ago <= self.time.as_secs_f64();
        table.lines().filter_map(row).filter(within).collect()
    }

    /// Asserts that this happened to a replica, or to `all`, in this turn.
    #[track_caller]
    fn happened(&self, whom: &str, what: &str) {
        let rows = self.rows();
        let found = rows.iter().any(|row| row.whom == whom && row.what.starts_with(what));
        assert!(found, "{whom} is not said to have been {what:?} in the last {:?}: {rows:#?}", self.time);
    }

    /// How many replicas joined.
    fn joined(&self) -> usize {
        self.rows().iter().filter(|row| row.what == "joined").count()
    }
}

fn is_sentence(line: &&str) -> bool {
    line.starts_with(['●', '▲', '✖'])
}

/// How many requests the page says have failed so far, and how many were answered with 5xx.
fn lost(page: &Browser) -> Option<u64> {
    let text = page.text();
    let line = text.lines().find(|line| line.contains(" requests since the start, "))?;
    let number = |behind: &str| {
        let digits: String =
            line.split_once(behind)?.0.rsplit(' ').next()?.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    Some(number(" failed, ")? + number(" answered with 5xx")?)
}

// P20
#[test]
fn a_bad_day_is_told_on_the_page_turn_by_turn() {
    if !has_browser() {
        return;
    }
    let mut day = Churn::start(env!("CARGO_BIN_EXE_evenkeel"), 60.0, [Protocol::Http1; 2]);
    let page = Browser::open(&format!("http://{}/", day.proxy().admin()), WIDE, false, true);
    eventually("the page is live", || page.text().contains("All well: 3 of 3 replicas"));
    for turn in Turn::ALL {
        let told = Told::during(&page, || day.turn(turn));
        println!("{}: {} texts in {:?}", turn.name(), told.texts.len(), told.time);
        let whom: Vec<String> = day.concerned().iter().map(ToString::to_string).collect();
        match turn {
            Turn::Replace => {
                whom.iter().for_each(|old| told.happened(old, "draining: DNS no longer lists it"));
                assert_eq!(told.joined(), 3);
            }
            Turn::Return => {
                told.happened(&whom[0], "suspect: ");
                told.happened(&whom[0], "draining: DNS no longer lists it");
                assert_eq!(told.joined(), 1);
            }
            Turn::Hang => {
                // "has not answered for", and then "has been down for".
                told.sentence(&[&format!("{} has ", whom[0]), " for ", "; the other 2 take its requests; "]);
                told.happened(&whom[0], "down: probe: timed out");
                told.happened(&whom[0], "up");
            }
            Turn::Nameless => {
                told.happened("all", "name does not resolve: the name does not exist");
                told.happened("all", "name resolves to 3");
            }
            Turn::Silence => {
                let dead = format!("{} has been suspect for ", whom[0]);
                let silent = "DNS has not resolved app:8080 for ";
                told.sentence(&[
                    &dead,
                    "connection refused); the other 2 take its requests; ",
                    silent,
                    "no answer in time",
                ]);
                told.happened("all", "name does not resolve: no answer in time");
            }
            Turn::Takeover => {
                told.happened(&whom[0], "suspect: ");
                told.happened(&whom[0], "draining: DNS no longer lists it");
                told.happened(&whom[0], "left");
            }
            Turn::Outage => {
                told.sentence(&["✖ ", " requests waiting, "]);
                whom.iter().for_each(|dead| told.happened(dead, "suspect: "));
                assert_eq!(told.joined(), 3);
            }
            Turn::Failing => {
                told.sentence(&[
                    &format!("{} has been ", whom[0]),
                    "; the other 2 take its requests; ",
                    " answered with 5xx by it.",
                ]);
                told.happened(&whom[0], "ejected for ");
            }
        }
        // As the clients have it.
        let known = eventually_some("the page counts what its clients lost", || {
            let known = day.load().lost();
            lost(&page).filter(|told| *told == known)
        });
        println!("{known} requests lost so far");
        eventually("all three are well again", || page.text().matches("\t● up\t").count() == 3);
    }
}
