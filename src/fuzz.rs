//! What `fuzz/` and the tests run on bytes that somebody else chose: each function panics where something does not hold,
//! and says whether the bytes were accepted, so that who counts can tell that both happens.
//!
//! `cargo test` runs them over `fuzz/corpus`, as it is and damaged; `make fuzz` lets libFuzzer look for more.

pub use crate::config::fuzz::config;
pub use crate::proxy::fuzz::{body, fields, frames, head, response};
pub use crate::route::fuzz::route;

#[cfg(test)]
pub(crate) use tests::{corpus, damage, seed};

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Rounds of damage for each target: a second or two.
    const ROUNDS: usize = 20_000;

    /// What a target does with a case, and whether it accepts it.
    type Run = fn(&[u8]) -> bool;

    /// The targets, each with the share of damaged cases that is accepted at least, and refused at least.
    const TARGETS: [(&str, Run, usize); 7] = [
        ("head", head, ROUNDS / 20),
        ("response", response, ROUNDS / 20),
        ("body", body, ROUNDS / 20),
        ("fields", fields, ROUNDS / 20),
        ("frames", frames, ROUNDS / 20),
        ("route", route, ROUNDS / 20),
        ("config", config, 0),
    ];

    /// The seed of a test: `TESTBED_SEED` where it is set; in CI, where a run is to tell of the change alone, always
    /// `in_ci`; else a new one each time. A test prints it, and the harness shows that with every failure.
    pub(crate) fn seed(in_ci: u64) -> u64 {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
        let fixed = match std::env::var("TESTBED_SEED") {
            Ok(seed) => Some(seed.parse().expect("TESTBED_SEED is a number")),
            Err(_) => is_ci.then_some(in_ci),
        };
        let seed = fixed.unwrap_or_else(|| fastrand::u64(..1 << 48));
        println!("seed {seed} (repeat with TESTBED_SEED={seed})");
        seed
    }

    /// The cases of a target, by the names of their files.
    pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let case = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.expect("an entry of the corpus");
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("a case"))
        };
        let mut cases: Vec<_> = entries.map(case).collect();
        cases.sort();
        cases
    }

    /// Bytes that mean something somewhere in HTTP/1, and a few that never should.
    const SPARKS: [&[u8]; 36] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"/",
        b"?",
        b"\"",
        b"<",
        b"@",
        b"0",
        b"5",
        b"+5",
        b"0x5",
        b"\0",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"http://a",
        b"HTTP/1.0",
        b"chunked",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive, X-A\r\n",
        b"Upgrade: websocket\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    /// Damages `bytes` in a few places: takes away, puts in, doubles, changes a bit.
    pub(crate) fn damage(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        for _ in 0..rng.usize(0..4) {
            let at = rng.usize(..=bytes.len());
            let end = (at + rng.usize(..12)).min(bytes.len());
            match rng.u8(..6) {
                0 => drop(bytes.drain(at..end)),
                1 | 2 => drop(bytes.splice(at..at, SPARKS[rng.usize(..SPARKS.len())].iter().copied())),
                3 => drop(bytes.splice(at..end, SPARKS[rng.usize(..SPARKS.len())].iter().copied())),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
                _ => {}
            }
        }
    }

    // T7
    #[test]
    fn every_case_of_the_corpus_holds() {
        for (name, target, _) in TARGETS {
            let cases = corpus(name);
            let accepted = cases.iter().filter(|(_, bytes)| target(bytes)).count();
            println!("{name}: {} cases, {accepted} accepted", cases.len());
            assert!(0 < accepted && accepted < cases.len(), "{name}: {accepted} of {} accepted", cases.len());
        }
    }

    // T7
    #[test]
    fn every_damaged_case_of_the_corpus_holds() {
        let seed = seed(0x6675_7a7a);
        for (name, target, least) in TARGETS {
            let mut rng = fastrand::Rng::with_seed(seed);
            let cases = corpus(name);
            let (mut accepted, mut refused) = (0, 0);
            for _ in 0..ROUNDS {
                let mut bytes = cases[rng.usize(..cases.len())].1.clone();
                // Often two, one behind the other.
                if rng.u8(..4) == 0 {
                    bytes.extend_from_slice(&cases[rng.usize(..cases.len())].1);
                }
                damage(&mut bytes, &mut rng);
                if target(&bytes) { accepted += 1 } else { refused += 1 }
            }
            println!("{name}: {accepted} accepted, {refused} refused");
            assert!(accepted > least && refused > least, "{name}: {accepted} accepted, {refused} refused");
        }
    }

    // T7: the corpus holds a case of each trick that another project, or this one, fell for
    #[test]
    fn fuzz_folder_has_each_target() {
        let manifest = include_str!("../fuzz/Cargo.toml");
        for (name, ..) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let path = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(text.contains(&format!("evenkeel::fuzz::{name}(")), "{path}");
        }
    }
}
