//! The chunked transfer coding (RFC 9112 section 7.1): bytes in, what they mean out.
//!
//! Where a body ends is where the next message begins, so nothing is forgiven here that another implementation might
//! read differently: a size has at least one digit, every line ends in CRLF, and no control byte stands in an extension
//! or a trailer. The one liberty is white space behind a size, which some servers pad with and which HAProxy, nginx and
//! hyper accept alike.

use super::guard::MAX_LINES;
use super::syntax::{is_text_byte, is_token_byte};

/// How many bytes of sizes and extensions may come in excess of the data. They are read and dropped, so that without a
/// limit one byte that passes could cost any number that do not. Each byte of data earns one back: a signature in each
/// chunk, the longest use in practice, is less than a hundred bytes.
const EXTENSION_CREDIT: u32 = 16 * 1024;

/// The longest trailer section. One holds a digest or a status; 8 KiB is what servers commonly allow a whole head.
const MAX_TRAILERS: u32 = 8 * 1024;

/// The largest chunk, exclusive: 2^60. One more digit must never overflow, in whatever the peer behind counts.
const MAX_SIZE: u64 = 1 << 60;

/// Where in a chunked body the bytes are; can stop and go on at any of them.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    state: State,
    /// The size of the current chunk while it is read, then what is still to come of its data.
    left: u64,
    /// Bytes of size lines that may still come, see [`EXTENSION_CREDIT`].
    credit: u32,
    /// Bytes of the trailer section so far, and its lines.
    trailers: u32,
    lines: usize,
    /// See [`Decoder::is_canonical`].
    canonical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Size,
    /// Behind a digit.
    Digits,
    /// In white space behind the size.
    Padding,
    /// In an extension.
    Extension,
    /// Behind the CR of a size line.
    SizeLf,
    /// In the data of a chunk.
    Data,
    /// Behind the data of a chunk, before its CRLF.
    DataCr,
    /// Behind the CR of that.
    DataLf,
    /// At the start of a line of the trailer section.
    Line,
    /// In the name of a trailer.
    Name,
    /// In its value.
    Value,
    /// Behind the CR of a trailer.
    ValueLf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
    /// The body is whole.
    End,
}

/// What [`Decoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// This many bytes say how the body is delimited. They come first.
    pub(super) framing: usize,
    pub(super) found: Found,
}

/// What follows the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet: all bytes were framing.
    Nothing,
    /// This many bytes of the body.
    Data(usize),
    /// This many bytes of the trailer section: field lines, well-formed, each with its CRLF; more of it may follow.
    Trailers(usize),
    /// The end of the body. What follows belongs to the next message.
    End,
}

/// The bytes are no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Decoder {
    /// Before the first byte of a body.
    pub(super) fn new() -> Self {
        Decoder { state: State::Size, left: 0, credit: EXTENSION_CREDIT, trailers: 0, lines: 0, canonical: true }
    }

    /// Whether the end was found.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes of the current chunk are still to come.
    pub(super) fn left_of_chunk(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Whether all so far is what a sender would write who leaves no choice to the reader: sizes without leading zeros
    /// or padding, no extensions, no trailers. Such a body may pass as it came.
    pub(super) fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Reads on in `bytes`, which follow those of the last step. Stops behind a piece of data or trailers, and where the
    /// bytes or the body end.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        let mut framing = 0;
        while !self.is_done()
            && let Some(byte) = bytes.get(framing)
        {
            if self.state == State::Data {
                let count = self.data(bytes.len() - framing);
                return Ok(Step { framing, found: Found::Data(count) });
            }
            if self.is_trailer(*byte) {
                let count = self.trailer(&bytes[framing..])?;
                return Ok(Step { framing, found: Found::Trailers(count) });
            }
            self.state = self.after(*byte)?;
            framing += 1;
        }
        Ok(Step { framing, found: if self.is_done() { Found::End } else { Found::Nothing } })
    }

    /// How many of the next `here` bytes are the chunk's data.
    fn data(&mut self, here: usize) -> usize {
        let count = usize::try_from(self.left).map_or(here, |left| left.min(here));
        self.left -= count as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        let earned = u32::try_from(count).unwrap_or(EXTENSION_CREDIT);
        self.credit = self.credit.saturating_add(earned).min(EXTENSION_CREDIT);
        count
    }

    /// Whether the next byte belongs to a line of the trailer section that is not empty.
    fn is_trailer(&self, byte: u8) -> bool {
        matches!(self.state, State::Name | State::Value | State::ValueLf)
            || (self.state == State::Line && byte != b'\r')
    }

    /// How many of these bytes are lines of the trailer section.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        self.canonical = false;
        let mut count = 0;
        while let Some(byte) = bytes.get(count).filter(|byte| self.is_trailer(**byte)) {
            self.lines += usize::from(self.state == State::Line);
            self.state = self.after(*byte)?;
            self.trailers += 1;
            // As many as a head may have: they pass, and others have such a limit, too.
            if self.trailers > MAX_TRAILERS || self.lines > MAX_LINES {
                return Err(Malformed);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Where this byte leads, which is none of a chunk's data.
    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // Whatever follows a zero shows it to be a leading one.
                self.canonical &= self.state == State::Size || self.left > 0;
                // Below 2^60 before, so that this cannot overflow.
                let size = self.left * 16 + char::from(byte).to_digit(16).map_or(0, u64::from);
                if size >= MAX_SIZE {
                    return Err(Malformed);
                }
                self.left = size;
                self.spend(State::Digits)
            }
            (State::Digits | State::Padding, b' ' | b'\t') => {
                self.canonical = false;
                self.spend(State::Padding)
            }
            (State::Digits | State::Padding, b';') => {
                self.canonical = false;
                self.spend(State::Extension)
            }
            (State::Digits | State::Padding | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, byte) if is_text_byte(byte) => self.spend(State::Extension),
            (State::SizeLf, b'\n') => Ok(if self.left == 0 { State::Line } else { State::Data }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Line, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::End),
            (State::Line | State::Name, byte) if is_token_byte(byte) => Ok(State::Name),
            (State::Name, b':') => Ok(State::Value),
            (State::Value, b'\r') => Ok(State::ValueLf),
            (State::Value, byte) if is_text_byte(byte) => Ok(State::Value),
            (State::ValueLf, b'\n') => Ok(State::Line),
            _ => Err(Malformed),
        }
    }

    /// Pays for a byte of a size line.
    fn spend(&mut self, next: State) -> Result<State, Malformed> {
        self.credit = self.credit.checked_sub(1).ok_or(Malformed)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body, trailers, how many bytes the body took, and whether it is canonical.
    type Read = (Vec<u8>, Vec<u8>, usize, bool);

    /// What comes of these bytes, `size` at a time. `Ok(None)`: the body is not whole.
    fn read(bytes: &[u8], size: usize) -> Result<Option<Read>, Malformed> {
        let (mut body, mut trailers, mut used) = (vec![], vec![], 0);
        let mut decoder = Decoder::new();
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            loop {
                let Step { framing, found } = decoder.decode(rest)?;
                rest = &rest[framing..];
                used += framing;
                let (Found::Data(count) | Found::Trailers(count)) = found else {
                    assert_eq!(found == Found::End, decoder.is_done());
                    break;
                };
                assert!(count > 0);
                let kept = if matches!(found, Found::Data(_)) { &mut body } else { &mut trailers };
                kept.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
                used += count;
            }
        }
        Ok(decoder.is_done().then(|| (body, trailers, used, decoder.is_canonical())))
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_come() {
        let long = format!("{}0\r\n\r\n", format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(20));
        for (sent, body, trailers, canonical) in [
            ("0\r\n\r\n", "", "", true),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", "", true),
            ("1\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n", "a0123456789", "", true),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "", true),
            ("005\r\nhello\r\n0\r\n\r\n", "hello", "", false),
            ("5\r\nhello\r\n00\r\n\r\n", "hello", "", false),
            ("5 \t\r\nhello\r\n0\r\n\r\n", "hello", "", false),
            ("5 ; a = \"b;\tä\" ;c\r\nhello\r\n0;z\r\n\r\n", "hello", "", false),
            ("0\r\nA: 1\r\nb:\r\n\r\n", "", "A: 1\r\nb:\r\n", false),
            (&long, &"x".repeat(20 * 1024), "", true),
        ] {
            let next = "GET / HTTP/1.1\r\n";
            let all = format!("{sent}{next}");
            for size in [1, 2, 3, 7, 1000, all.len()] {
                let (found, section, used, as_sent) = read(all.as_bytes(), size).unwrap().unwrap();
                assert_eq!(String::from_utf8_lossy(&found), body, "{sent:?} by {size}");
                assert_eq!(String::from_utf8_lossy(&section), trailers, "{sent:?} by {size}");
                assert_eq!((used, as_sent), (sent.len(), canonical), "{sent:?} by {size}");
            }
            for cut in 0..sent.len() {
                assert_eq!(read(&sent.as_bytes()[..cut], 1000), Ok(None), "{sent:?} cut at {cut}");
            }
        }
    }

    // H5
    #[test]
    fn what_another_could_read_as_another_body_is_refused() {
        let long = |before: &str, count: usize, after: &str| format!("{before}{}{after}", "a".repeat(count));
        let extension = long("1;", EXTENSION_CREDIT as usize, "\r\na\r\n0\r\n\r\n");
        let zeros = format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(EXTENSION_CREDIT as usize));
        let many = "1;aaa\r\na\r\n".repeat(5000);
        let trailer = long("0\r\nA: ", MAX_TRAILERS as usize, "\r\n\r\n");
        let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(MAX_TRAILERS as usize / 6 + 1));
        for sent in [
            // The smuggled request of H5: a LF ends no extension.
            "2;\nxx\r\n27\r\n\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            // A size without a digit is none.
            "\r\n\r\n",
            " \r\n\r\n",
            ";\r\n\r\n",
            ";a=b\r\n\r\n",
            "2\r\nok\r\n\r\n\r\n",
            // Nor is anything but hexadecimal digits.
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5_\r\nhello\r\n0\r\n\r\n",
            "g\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "1000000000000000\r\nx",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nx",
            // Every line ends in CRLF.
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5\r\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            // An extension is text.
            "5;a\0b\r\nhello\r\n0\r\n\r\n",
            "5;\x7f\r\nhello\r\n0\r\n\r\n",
            // A trailer is a field line.
            "0\r\nnonsense\r\n\r\n",
            "0\r\nA : 1\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\n A: 1\r\n\r\n",
            "0\r\nA: 1\r\n 2\r\n\r\n",
            "0\r\nA: 1\n\r\n",
            "0\r\nA: 1\r2\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            // All of it has its limits.
            &extension,
            &zeros,
            &many,
            &trailer,
            &trailers,
        ] {
            for size in [1, 3, 1000] {
                assert_eq!(read(sent.as_bytes(), size), Err(Malformed), "{sent:.100?} by {size}");
            }
        }
    }

    #[test]
    fn a_signature_in_each_chunk_of_a_long_body_passes() {
        let chunk = format!("1000;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "x".repeat(4096));
        let body = chunk.repeat(1000) + "0\r\n\r\n";
        let (found, ..) = read(body.as_bytes(), 10_000).unwrap().unwrap();
        assert_eq!(found.len(), 4096 * 1000);
    }

    #[test]
    fn a_body_that_was_refused_stays_refused_however_often_it_is_asked_for() {
        let mut decoder = Decoder::new();
        for _ in 0..3 {
            assert_eq!(decoder.decode("f".repeat(40).as_bytes()), Err(Malformed));
        }
    }
}
