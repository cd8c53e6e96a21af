//! Which lines of a head go on, against a model that is written from RFC 9110 section 7.6.1 and knows no spans.

use super::message::{goes_on, options};
use crate::proxy::fields::Fields;

const START: &[u8] = b"GET / HTTP/1.1\r\n";

/// The lines of a head: those of this hop stay, and every other byte goes on. True if they are accepted.
pub fn fields(lines: &[u8]) -> bool {
    // The empty line that ends a head is found before its lines are read.
    let end = lines.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(lines.len(), |at| at + 2);
    let lines = if lines.starts_with(b"\r\n") { b"" } else { &lines[..end] };
    let head = [START, lines, b"\r\n"].concat();
    let Ok(fields) = Fields::read(&head, START.len()) else { return false };
    let all: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let name = |line: &[u8]| line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_lowercase();
    let value = |line: &[u8]| line.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec();
    let named: Vec<Vec<u8>> = all
        .iter()
        .filter(|line| name(line) == b"connection")
        .flat_map(|line| options(&value(line)).collect::<Vec<_>>())
        .collect();
    for keep_encoding in [false, true] {
        let expected: Vec<&[u8]> = all
            .iter()
            .copied()
            .filter(|line| goes_on(&name(line), &named) || (keep_encoding && name(line) == b"transfer-encoding"))
            .collect();
        let mut out = Vec::new();
        fields.write(&head, keep_encoding, &mut out);
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.concat().escape_ascii().to_string(),
            "of {}",
            lines.escape_ascii()
        );
    }
    true
}
