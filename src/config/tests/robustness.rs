//! Thousands of damaged files: none makes the parser panic, and what it accepts is within every bound.

use super::{SHIPPED, web};
use crate::config::fuzz::judged;

/// Runs of a seed.
const RUNS: usize = 6000;

const VARS: [(&str, &str); 4] = [("A", "1"), ("EMPTY", ""), ("HOSTILE", "${A}\"\n\u{0}"), ("NAME", "app:80")];

#[test]
fn a_damaged_file_is_refused_with_reasons_or_is_within_every_bound() {
    let seed = crate::fuzz::seed(0x6b65_656c);
    let mut random = fastrand::Rng::with_seed(seed);
    let corpus = [
        SHIPPED.to_owned(),
        SHIPPED.replace("\n#", "\n").replace(" Routes", "# Routes"),
        web("host = \"upstream\"\nprobe = { path = \"/${A}\", healthy = [\"${A}00\"] }"),
        web(
            "[upstream.b]\naddress = \"[::1]:80\"\n[[route]]\nhost = \"x\"\nupstream = \"b\"\n[[route]]\nupstream = \"web\"",
        ),
    ];
    let words = [
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "]]",
        "=",
        ".",
        "\n",
        "#",
        "\"\"\"",
        "{",
        "}",
        ",",
        "0",
        "-1",
        "1e999",
        "nan",
        "true",
        "9223372036854775807",
        "18446744073709551616",
        "0x7fffffffffffffff",
        "1979-05-27",
        "\"1s\"",
        "\"999999999y\"",
        "\"18446744073709551615s\"",
        "\"0s\"",
        "\"1us\"",
        "\"1EiB\"",
        "\"0.1B\"",
        "\"99999999999999999999EB\"",
        "${A}",
        "${EMPTY}",
        "${HOSTILE}",
        "${NAME}",
        "${NAME",
        "$",
        "$$",
        "${:-}",
        "${X:-}",
        "\"off\"",
        "\"http://\"",
        "\"[::]:0\"",
        "é",
        "\u{0}",
        "\u{feff}",
        "..",
        "//",
        "/",
        "server",
        "upstream",
        "route",
        "probe",
        "path",
        "host",
        "[[route]]\nupstream = \"web\"\n",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for run in 0..RUNS {
        let mut text = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..4) {
            damage(&mut text, &words, &mut random);
        }
        let result = std::panic::catch_unwind(|| judged(&text, &|name| super::lookup(&VARS, name)));
        match result.unwrap_or_else(|_| panic!("seed {seed}, run {run}: panicked at\n{text}")) {
            Ok(true) => accepted += 1,
            Ok(false) => refused += 1,
            Err(wrong) => panic!("seed {seed}, run {run}: {wrong}"),
        }
    }
    // Damage that is always refused, or never, would test half of it.
    assert!(accepted > RUNS / 20 && refused > RUNS / 20, "seed {seed}: {accepted} accepted, {refused} refused");
}

fn damage(text: &mut String, words: &[&str], random: &mut fastrand::Rng) {
    let edge = |text: &str, random: &mut fastrand::Rng| {
        let mut at = random.usize(..=text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (a, b) = (edge(text, random), edge(text, random));
    let (start, end) = (a.min(b), a.max(b).min(a.min(b) + 40));
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    match random.u8(..6) {
        0 => text.replace_range(start..end, ""),
        1 => text.insert_str(start, words[random.usize(..words.len())]),
        2 => text.replace_range(start..end, words[random.usize(..words.len())]),
        3 => {
            // A value for another: the likeliest to be TOML still.
            let values: Vec<_> = text.match_indices(" = ").map(|(at, _)| at + 3).collect();
            if !values.is_empty() {
                let at = values[random.usize(..values.len())];
                let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
                text.replace_range(at..end, words[random.usize(..words.len())]);
            }
        }
        4 => {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if !lines.is_empty() {
                let line = &lines[random.usize(..lines.len())];
                text.push('\n');
                text.push_str(line);
            }
        }
        _ => {
            let mut lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                lines.remove(random.usize(..lines.len()));
            }
            *text = lines.join("\n");
        }
    }
}

#[test]
fn the_running_process_is_found_by_a_file_that_is_wrong_by_now() {
    let env = |name: &str| (name == "ADMIN").then(|| "10.0.0.1:9999".to_owned());
    let admin = |text: &str| super::super::check::sockets(text, &env).admin.map(|admin| admin.to_string());
    let cases = [
        ("", Some("127.0.0.1:9180")),
        ("not TOML", Some("127.0.0.1:9180")),
        ("[server]\nadmin = \"1.2.3.4:5\"\n[upstream.x]\naddres = \"x:80\"\n", Some("1.2.3.4:5")),
        ("[server]\nlisten = 7\nadmin = \"${ADMIN}\"\n[upstream.x\n", Some("10.0.0.1:9999")),
        ("[server]\nadmin = \"off\"\nnonsense", None),
    ];
    for (text, expected) in cases {
        assert_eq!(admin(text).as_deref(), expected, "{text}");
    }
}
