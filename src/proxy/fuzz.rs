//! Mutated messages, many of them: what goes on is held against a model, and what is accepted against hyper.
//!
//! Each test draws from a corpus and damages it; the seed is fixed so that a failure repeats, and `EVENKEEL_SEED` tries
//! another. Two peers that read one stream of bytes as different messages are how requests are smuggled, so what our reading
//! accepts and hyper's accepts too must be the same messages, bodies and all.

mod framing;
mod headers;

/// The seed of a test.
fn seed(default: u64) -> u64 {
    let seed = std::env::var("EVENKEEL_SEED").ok().map_or(default, |seed| seed.parse().expect("a number"));
    println!("seed {seed} (repeat with EVENKEEL_SEED={seed})");
    seed
}

/// Bytes that mean something somewhere in HTTP/1, and a few that never should.
const SPARKS: [&[u8]; 26] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"+5",
    b"0x5",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Damages `bytes` in a few places: takes away, puts in, doubles, changes a bit.
fn damage(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
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
