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
}

/// `tchar` (RFC 9110 section 5.6.2).
static TOKEN: Class = Class::alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// Whether a method or a field's name may have this byte.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN.has(byte)
}

/// Whether a field's value, a reason phrase or a chunk extension may have this byte: HTAB, SP, VCHAR and obs-text (RFC
/// 9110 section 5.5).
pub(super) fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}
