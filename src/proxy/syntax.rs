//! Which bytes may stand where in a message of HTTP/1: the character classes of RFC 9110, RFC 9112 and RFC 3986.

/// A set of bytes.
struct Class([bool; 256]);

impl Class {
    /// ASCII letters, digits and these `marks`.
    const fn alphanumeric_and(marks: &[u8]) -> Class {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < marks.len() {
            set[marks[at] as usize] = true;
            at += 1;
        }
        Class(set)
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    fn has_all(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.has(*byte))
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
static TOKEN: Class = Class::alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// `reg-name` (RFC 3986 section 3.2.2).
static NAME: Class = Class::alphanumeric_and(b"-._~!$&'()*+,;=%");

/// What stands in the brackets of `IP-literal` (RFC 3986 section 3.2.2).
static LITERAL: Class = Class::alphanumeric_and(b"-._~!$&'()*+,;=:");

/// Whether a method or a field's name may have this byte.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN.has(byte)
}

/// How many of these bytes, from the first on, a method or a field's name may have.
pub(super) fn token_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !TOKEN.has(*byte)).unwrap_or(bytes.len())
}

/// Whether this is a method or a field's name.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && TOKEN.has_all(bytes)
}

/// Whether a field's value, a reason phrase or a chunk extension may have this byte: HTAB, SP, VCHAR and obs-text (RFC
/// 9110 section 5.5).
pub(super) fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Whether a value is in order. Nearly all are, and without any control character, which shows in eight bytes at a time.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    // The last eight overlap those before them.
    let is_plain = bytes.last_chunk().is_some_and(|last| {
        let (words, _) = bytes.as_chunks();
        words.iter().all(has_no_control) && has_no_control(last)
    });
    is_plain || bytes.iter().all(|byte| is_text_byte(*byte))
}

/// Whether none of eight bytes is a control character. By the tests for a byte below a bound and for a byte of zero in
/// Anderson, Bit Twiddling Hacks: a borrow can only come from a byte that is found anyway.
fn has_no_control(bytes: &[u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_ne_bytes(*bytes);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let without_delete = word ^ (ONES * 0x7f);
    let delete = without_delete.wrapping_sub(ONES) & !without_delete;
    (below_space | delete) & (ONES * 0x80) == 0
}

/// Whether a request's target may have this byte. RFC 3986 has fewer, but clients send `{`, `"` and their like raw, and
/// servers and proxies take them. Not so `#`: where a path ends, there opinions differ.
pub(super) fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// Whether this is a host that is not empty, perhaps with a port: what `Host` holds (RFC 9110 section 7.2), and the
/// authority of a target, in which user information is not allowed (RFC 9110 section 4.2.4).
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            if end == 0 || !LITERAL.has_all(&rest[..end]) {
                return false;
            }
            (None, &rest[end + 1..])
        }
        None => {
            let (host, port) = bytes.split_at(memchr::memchr(b':', bytes).unwrap_or(bytes.len()));
            (Some(host), port)
        }
    };
    let is_port = port.is_empty() || (port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit));
    is_port && host.is_none_or(is_name)
}

/// Whether this is a `reg-name` that is not empty: each `%` begins an octet in hexadecimal digits.
fn is_name(bytes: &[u8]) -> bool {
    let is_octet = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    !bytes.is_empty() && NAME.has_all(bytes) && memchr::memchr_iter(b'%', bytes).all(is_octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_is_seen_wherever_it_stands_and_whatever_stands_beside_it() {
        for length in 0..=20 {
            for neighbour in [b'a', b' ', 0x80, 0xff, b'\t'] {
                let mut value = vec![neighbour; length];
                assert!(is_text(&value), "{value:?}");
                for at in 0..length {
                    for byte in 0..=255 {
                        value[at] = byte;
                        assert_eq!(is_text(&value), is_text_byte(byte), "{value:?}");
                    }
                    value[at] = neighbour;
                }
            }
        }
    }

    // H9, D20
    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        let hosts = [
            "a",
            "A.b.",
            "a_b",
            "a:80",
            "a:",
            "10.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "[v1.a:b]",
            "a,b",
            "%C3%A4",
            "x~!$&'()*+;=",
        ];
        for host in hosts {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        let others = [
            "",
            ":80",
            "a/b",
            "a b",
            "a\tb",
            "http://a/",
            "u@a",
            "a\\b",
            "a\"b",
            "a?b",
            "a#b",
            "a:x",
            "a:80:80",
            "a:-1",
            "[::1",
            "[]",
            "[::1]x",
            "[a@b]",
            "::1",
            "a%b",
            "a%4",
            "%zz",
            "ä",
            "a\0",
            "<a>",
            "a|b",
            "a^b",
            "a`b",
            "{a}",
        ];
        for other in others {
            assert!(!is_authority(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn text_has_no_controls_but_tabs() {
        for byte in 0..=255 {
            let expected = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!((is_text_byte(byte), is_text(&[b'a', byte, b'b'])), (expected, expected), "{byte}");
        }
        assert!(is_text(b""));
    }
}
