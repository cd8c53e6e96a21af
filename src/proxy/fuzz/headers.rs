//! Which lines of a head go on, against a model that is written from RFC 9110 section 7.6.1 and knows no spans.

use super::{damage, seed};
use crate::proxy::fields::Fields;

/// Lines as clients and replicas send them, many for this hop alone.
const LINES: [&str; 26] = [
    "Host: a",
    "hOST:b:80",
    "Accept:  */*  ",
    "X-Empty:",
    "Cookie: a=b; c=\"d, e\"",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Connection: keep-alive, X-Hop",
    "connection:\tx-other , ,TE",
    "Connection: Cookie, Host, X-Forwarded-For, Content-Length",
    "Connection: Upgrade, HTTP2-Settings",
    "X-Hop: 1",
    "x-hop:2",
    "X-Other: 3",
    "X-Forwarded-For: 10.0.0.1",
    "HTTP2-Settings: AAA",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Trailer: Expires",
    "Upgrade: h2c",
    "Upgrade: websocket",
    "Date: today",
    "Connection",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Never passed on, whoever names them.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", ""];

/// Never taken away because `Connection` names them.
const NEEDED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "authorization",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

fn name(line: &str) -> Option<String> {
    line.split_once(':').map(|(name, _)| name.trim_end().to_ascii_lowercase())
}

/// The lines that go on, as they came.
fn model(lines: &[String]) -> String {
    let options = |line: &String| {
        let (_, value) = line.split_once(':').unwrap_or_default();
        value.split(',').map(|option| option.trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let connections = lines.iter().filter(|line| name(line).as_deref() == Some("connection"));
    let named: Vec<String> = connections.flat_map(options).filter(|n| !NEEDED.contains(&n.as_str())).collect();
    let stays = |line: &&String| {
        let name = name(line).expect("a field line");
        HOP_BY_HOP.contains(&name.as_str()) || (named.contains(&name) && !name.is_empty())
    };
    lines.iter().filter(|line| !stays(line)).map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn the_lines_of_this_hop_stay_and_every_other_byte_passes() {
    let seed = seed(0x6865_6164);
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = "GET / HTTP/1.1\r\n";
    let (mut accepted, mut shortened) = (0, 0);
    for round in 0..60_000 {
        let mut lines: Vec<String> = vec![];
        for _ in 0..rng.usize(0..10) {
            let mut line = LINES[rng.usize(..LINES.len())].as_bytes().to_vec();
            if rng.u8(..4) == 0 {
                damage(&mut line, &mut rng);
                line.retain(|b| matches!(b, b'\t' | 0x20..=0x7e));
            }
            let line = String::from_utf8(line).expect("only ASCII is left");
            // A line without a name is no field line: the parser before refuses it.
            if !line.is_empty() && !line.starts_with([' ', '\t', ':']) {
                lines.push(line);
            }
        }
        let head = format!("{start}{}\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
        let Ok(fields) = Fields::read(head.as_bytes(), start.len()) else { continue };
        let mut out = Vec::new();
        fields.write(head.as_bytes(), false, &mut out);
        let (found, expected) = (String::from_utf8(out).expect("text stays text"), model(&lines));
        assert_eq!(found, expected, "seed {seed}, round {round}:\n{head}");
        accepted += 1;
        shortened += u32::from(found.len() + start.len() + 2 < head.len());
        // With the encoding kept, its line is all that comes on top.
        let mut kept = Vec::new();
        fields.write(head.as_bytes(), true, &mut kept);
        let encodings = lines.iter().filter(|line| name(line).as_deref() == Some("transfer-encoding"));
        let encoding: usize = encodings.map(|line| line.len() + 2).sum();
        assert_eq!(kept.len(), found.len() + encoding, "seed {seed}, round {round}:\n{head}");
    }
    assert!(accepted > 10_000 && shortened > 5_000, "seed {seed}: {accepted} accepted, {shortened} shortened");
}
