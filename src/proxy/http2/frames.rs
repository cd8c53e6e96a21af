//! The strict look at a client's frames as they come, before h2 acts on them. Pure.
//!
//! h2 is right about what is a violation, but often calls it by a general name where RFC 9113 has a particular one, and lets
//! some pass that do no harm to it alone: a frame on a stream that its sender had ended, a pseudo-field in trailers. A peer
//! that is told exactly what it did wrong can be mended. And frames that cost work and ask for nothing are counted here.

use super::{Code, FRAME, MAX_STREAMS};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes before a frame's payload (RFC 9113 section 4.1).
const HEADER: usize = 9;

/// Streams of which it is remembered whether their sender has ended them. Of older ones nothing is known: who was answered
/// before it had sent all may never end its stream.
const REMEMBERED: usize = 4 * MAX_STREAMS as usize;

/// Frames in a second that ask for nothing: settings, pings, priorities, empty data, resets and window updates. Go's clients
/// send two window updates for each 4 KiB that they read: this is 200 MB/s of it. A flood sends a million.
const MAX_IDLE: u32 = 100_000;

/// Those of them that have to be answered: settings and pings. gRPC's clients measure the round trip with a ping for data
/// that came, one at a time: so many a second are those of a round trip of a tenth of a millisecond.
const MAX_ASKED: u32 = 10_000;

const SECOND: Duration = Duration::from_secs(1);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// A kind that nobody has defined, which is ignored (RFC 9113 section 4.1).
const UNKNOWN: u8 = 0xfb;

/// Where in a frame's header its kind stands.
const KIND: usize = 3;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// SETTINGS_INITIAL_WINDOW_SIZE, and the largest it may be (RFC 9113 section 6.5.2).
const INITIAL_WINDOW: u16 = 4;
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Watches the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    header: [u8; HEADER],
    /// Bytes of it that came.
    known: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The latest stream that the client opened.
    last: u32,
    /// The latest streams, and whether it has ended them.
    streams: VecDeque<(u32, bool)>,
    /// A block of fields has begun that is not whole: only the rest of it may follow.
    in_block: bool,
    settings: Settings,
    block: Block,
    /// Frames in the second that began then: that ask for nothing, and of these that have to be answered.
    since: Option<Instant>,
    idle: u32,
    asked: u32,
}

/// A setting on its way in.
#[derive(Debug, Default)]
struct Settings {
    pair: [u8; 6],
    known: usize,
}

/// A block of fields on its way in, perhaps in several frames.
#[derive(Debug, Default)]
struct Block {
    /// Bytes of the frame that come before its part of the block, and behind it.
    before: usize,
    behind: usize,
    /// The first byte is the padding's length.
    padded: bool,
    trailers: bool,
    /// What comes next.
    next: Next,
}

/// Where in a block of HPACK (RFC 7541 section 6) the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Field,
    /// More of a number.
    Number {
        of: Of,
        value: u64,
        shift: u32,
        huffman: bool,
    },
    NameLength,
    ValueLength,
    /// So many bytes of a name, of which none came yet.
    Name {
        left: u64,
        huffman: bool,
    },
    /// So many bytes of a text.
    Text {
        left: u64,
        name: bool,
    },
}

/// What a number is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// A whole field by its index, or the size of the table.
    Field {
        index: bool,
    },
    /// A name by its index.
    Name,
    NameLength,
    ValueLength,
}

impl Frames {
    /// Of a client's connection, from its preface on.
    pub(super) fn new() -> Self {
        Frames {
            preface: super::PREFACE.len(),
            header: [0; HEADER],
            known: 0,
            left: 0,
            last: 0,
            streams: VecDeque::new(),
            in_block: false,
            settings: Settings::default(),
            block: Block::default(),
            since: None,
            idle: 0,
            asked: 0,
        }
    }

    /// Looks at the bytes that came next; `now` is asked only where frames have to be counted.
    ///
    /// A client's GOAWAY is hidden from h2, which would close the connection: it says which of the streams that a server
    /// opened were served, of which there are none, and the client's own go on.
    ///
    /// # Errors
    /// The error that ends the connection (RFC 9113 section 7).
    pub(super) fn feed(&mut self, bytes: &mut [u8], now: impl Fn() -> Instant) -> Result<(), Code> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        let mut rest = &mut bytes[skipped..];
        while !rest.is_empty() {
            if self.known < HEADER {
                let count = (HEADER - self.known).min(rest.len());
                self.header[self.known..self.known + count].copy_from_slice(&rest[..count]);
                if let Some(kind) = KIND.checked_sub(self.known).filter(|at| *at < count && rest[*at] == GOAWAY) {
                    rest[kind] = UNKNOWN;
                }
                self.known += count;
                rest = &mut rest[count..];
                if self.known < HEADER {
                    break;
                }
                self.left =
                    usize::from(self.header[0]) << 16 | usize::from(self.header[1]) << 8 | usize::from(self.header[2]);
                self.begin(&now)?;
            }
            let count = self.left.min(rest.len());
            self.payload(&rest[..count])?;
            self.left -= count;
            rest = &mut rest[count..];
            if self.left == 0 {
                self.end()?;
                self.known = 0;
            }
        }
        Ok(())
    }

    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn has(&self, flag: u8) -> bool {
        self.header[4] & flag != 0
    }

    fn stream(&self) -> u32 {
        u32::from_be_bytes([self.header[5], self.header[6], self.header[7], self.header[8]]) & MAX_WINDOW
    }

    /// A frame's header is there.
    fn begin(&mut self, now: &impl Fn() -> Instant) -> Result<(), Code> {
        let length = self.left;
        let fits = match self.kind() {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            PING => length == 8,
            SETTINGS if self.has(ACK) => length == 0,
            SETTINGS => length.is_multiple_of(6),
            GOAWAY => length >= 8,
            _ => true,
        };
        if !fits || length > FRAME as usize {
            return Err(Code::FRAME_SIZE);
        }
        match self.kind() {
            SETTINGS | PING if !self.has(ACK) => self.count(true, now)?,
            SETTINGS | PING | PRIORITY | RST_STREAM | WINDOW_UPDATE => self.count(false, now)?,
            DATA if length == 0 && !self.has(END_STREAM) => self.count(false, now)?,
            _ => {}
        }
        if self.in_block != (self.kind() == CONTINUATION) {
            return Err(Code::PROTOCOL);
        }
        let stream = self.stream();
        match self.kind() {
            GOAWAY if stream != 0 => return Err(Code::PROTOCOL),
            DATA if self.is_ended(stream) => return Err(Code::STREAM_CLOSED),
            HEADERS => {
                self.block = Block {
                    before: if self.has(WITH_PRIORITY) { 5 } else { 0 },
                    behind: 0,
                    padded: self.has(PADDED),
                    trailers: stream <= self.last,
                    next: Next::Field,
                };
                if self.is_ended(stream) {
                    return Err(Code::STREAM_CLOSED);
                }
                if stream > self.last {
                    self.last = stream;
                    self.remember(stream);
                }
            }
            // Its frames have neither padding nor priority.
            CONTINUATION => (self.block.before, self.block.behind, self.block.padded) = (0, 0, false),
            SETTINGS => self.settings = Settings::default(),
            _ => {}
        }
        Ok(())
    }

    /// Whether the client has ended a stream that it had opened, as far as that is remembered.
    fn is_ended(&self, stream: u32) -> bool {
        let found = self.streams.binary_search_by_key(&stream, |(stream, _)| *stream);
        found.is_ok_and(|at| self.streams[at].1)
    }

    fn remember(&mut self, stream: u32) {
        if self.streams.len() == REMEMBERED {
            self.streams.pop_front();
        }
        self.streams.push_back((stream, false));
    }

    fn ended(&mut self, stream: u32) {
        if let Ok(at) = self.streams.binary_search_by_key(&stream, |(stream, _)| *stream) {
            self.streams[at].1 = true;
        }
    }

    fn count(&mut self, asked: bool, now: &impl Fn() -> Instant) -> Result<(), Code> {
        self.idle += 1;
        self.asked += u32::from(asked);
        if self.idle <= MAX_IDLE && self.asked <= MAX_ASKED {
            return Ok(());
        }
        // Only now does it matter how long that took.
        let now = now();
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < SECOND) {
            return Err(Code::ENHANCE_YOUR_CALM);
        }
        (self.since, self.idle, self.asked) = (Some(now), 0, 0);
        Ok(())
    }

    /// Some of a frame's payload.
    fn payload(&mut self, bytes: &[u8]) -> Result<(), Code> {
        match self.kind() {
            SETTINGS => bytes.iter().try_for_each(|byte| self.settings.feed(*byte)),
            HEADERS | CONTINUATION => self.block.frame(bytes, self.left),
            _ => Ok(()),
        }
    }

    /// A frame is whole.
    fn end(&mut self) -> Result<(), Code> {
        let stream = self.stream();
        if matches!(self.kind(), HEADERS | CONTINUATION) {
            self.in_block = !self.has(END_HEADERS);
            if !self.in_block && self.block.next != Next::Field {
                return Err(Code::COMPRESSION);
            }
        }
        if self.kind() == RST_STREAM || (matches!(self.kind(), DATA | HEADERS) && self.has(END_STREAM)) {
            self.ended(stream);
        }
        Ok(())
    }
}

impl Settings {
    fn feed(&mut self, byte: u8) -> Result<(), Code> {
        self.pair[self.known] = byte;
        self.known += 1;
        if self.known < self.pair.len() {
            return Ok(());
        }
        self.known = 0;
        let [a, b, value @ ..] = self.pair;
        let too_large = u16::from_be_bytes([a, b]) == INITIAL_WINDOW && u32::from_be_bytes(value) > MAX_WINDOW;
        if too_large { Err(Code::FLOW_CONTROL) } else { Ok(()) }
    }
}

impl Block {
    /// Some of a frame's payload, of which `left` bytes come with these and behind them.
    fn frame(&mut self, bytes: &[u8], left: usize) -> Result<(), Code> {
        let (mut bytes, mut left) = (bytes, left);
        if self.padded
            && let Some((padding, rest)) = bytes.split_first()
        {
            self.padded = false;
            self.behind = usize::from(*padding);
            (bytes, left) = (rest, left - 1);
        }
        let before = self.before.min(bytes.len());
        self.before -= before;
        (bytes, left) = (&bytes[before..], left - before);
        // What is longer than its frame h2 refuses.
        let count = left.saturating_sub(self.behind).min(bytes.len());
        self.feed(&bytes[..count])
    }

    /// Some of the block.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Code> {
        let mut rest = bytes;
        while let Some((byte, behind)) = rest.split_first() {
            if let Next::Text { left, name } = self.next {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = &rest[count..];
                self.next = Block::behind_text(left - count as u64, name);
                continue;
            }
            self.next = self.after(*byte)?;
            rest = behind;
        }
        Ok(())
    }

    /// What comes behind a text of which so much is left.
    fn behind_text(left: u64, name: bool) -> Next {
        match (left, name) {
            (0, true) => Next::ValueLength,
            (0, false) => Next::Field,
            _ => Next::Text { left, name },
        }
    }

    /// What comes behind this byte.
    fn after(&self, byte: u8) -> Result<Next, Code> {
        match self.next {
            Next::Field if byte & 0x80 != 0 => self.number(byte, 7, Of::Field { index: true }),
            Next::Field if byte & 0xc0 == 0x40 => self.name(byte, 6),
            Next::Field if byte & 0xe0 == 0x20 => self.number(byte, 5, Of::Field { index: false }),
            Next::Field => self.name(byte, 4),
            Next::NameLength => self.number(byte, 7, Of::NameLength),
            Next::ValueLength => self.number(byte, 7, Of::ValueLength),
            Next::Number { of, value, shift, huffman } => {
                let value = value + (u64::from(byte & 0x7f) << shift);
                match (byte & 0x80, shift) {
                    (0, _) => self.complete(of, value, huffman),
                    // Five bytes are more than any number needs here.
                    (_, 28..) => Err(Code::COMPRESSION),
                    _ => Ok(Next::Number { of, value, shift: shift + 7, huffman }),
                }
            }
            Next::Name { left, huffman } => {
                // Pseudo-fields belong at the beginning of a message (RFC 9113 section 8.1). In Huffman's code the colon is
                // 1011100.
                let pseudo = if huffman { byte & 0xfe == 0xb8 } else { byte == b':' };
                if self.trailers && pseudo {
                    return Err(Code::PROTOCOL);
                }
                Ok(Block::behind_text(left - 1, true))
            }
            Next::Text { left, name } => Ok(Block::behind_text(left - 1, name)),
        }
    }

    /// A field whose name has an index, or follows.
    fn name(&self, byte: u8, bits: u32) -> Result<Next, Code> {
        if byte & ((1 << bits) - 1) == 0 { Ok(Next::NameLength) } else { self.number(byte, bits, Of::Name) }
    }

    /// A number that begins in the last bits of this byte (RFC 7541 section 5.1).
    fn number(&self, byte: u8, bits: u32, of: Of) -> Result<Next, Code> {
        let most = (1_u8 << bits) - 1;
        let value = u64::from(byte & most);
        let huffman = byte & 0x80 != 0;
        if byte & most == most {
            return Ok(Next::Number { of, value, shift: 0, huffman });
        }
        self.complete(of, value, huffman)
    }

    /// What comes behind a number.
    fn complete(&self, of: Of, value: u64, huffman: bool) -> Result<Next, Code> {
        // The first fourteen names of the static table are those of pseudo-fields (RFC 7541 appendix A).
        let pseudo = (1..=14).contains(&value);
        match of {
            Of::Field { index: true } if value == 0 => Err(Code::COMPRESSION),
            Of::Field { index: true } | Of::Name if self.trailers && pseudo => Err(Code::PROTOCOL),
            Of::Field { .. } => Ok(Next::Field),
            Of::Name => Ok(Next::ValueLength),
            Of::NameLength if value == 0 => Ok(Next::ValueLength),
            Of::NameLength => Ok(Next::Name { left: value, huffman }),
            Of::ValueLength => Ok(Block::behind_text(value, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// What is said of these frames, which is the same however they are cut.
    fn judged(frames: &[Vec<u8>]) -> Result<(), Code> {
        let bytes = [super::super::PREFACE, &frames.concat()].concat();
        let now = crate::clock::now();
        let verdict = |size: usize| {
            let mut watch = Frames::new();
            bytes.clone().chunks_mut(size).try_for_each(|piece| watch.feed(piece, || now))
        };
        let whole = verdict(bytes.len());
        for size in [1, 2, 3, 7, 100] {
            assert_eq!(verdict(size), whole, "in pieces of {size}");
        }
        whole
    }

    /// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: a`.
    const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

    #[test]
    fn frames_of_the_wrong_size_are_called_that() {
        for (kind, flags, length) in [
            (PRIORITY, 0, 4),
            (RST_STREAM, 0, 3),
            (SETTINGS, 0, 5),
            (SETTINGS, ACK, 6),
            (PING, 0, 7),
            (WINDOW_UPDATE, 0, 3),
        ] {
            assert_eq!(judged(&[frame(kind, flags, 0, &vec![0; length])]), Err(Code::FRAME_SIZE), "{kind}");
        }
        assert_eq!(judged(&[frame(DATA, 0, 1, &vec![0; FRAME as usize + 1])]), Err(Code::FRAME_SIZE));
        let whole = [(PRIORITY, 0, 5), (SETTINGS, 0, 12), (SETTINGS, ACK, 0), (PING, 0, 8), (WINDOW_UPDATE, 0, 4)];
        let whole = whole.map(|(kind, flags, length)| frame(kind, flags, 0, &vec![0; length]));
        assert_eq!(judged(&whole), Ok(()));
    }

    #[test]
    fn a_clients_goaway_ends_nothing() {
        let mut bytes = [super::super::PREFACE, &frame(GOAWAY, 0, 0, &[0; 8]), &frame(PING, 0, 0, &[0; 8])].concat();
        let mut watch = Frames::new();
        bytes.chunks_mut(5).for_each(|piece| watch.feed(piece, crate::clock::now).unwrap());
        assert_eq!((bytes[24 + KIND], bytes[24 + HEADER + 8 + KIND]), (UNKNOWN, PING));
        assert_eq!(judged(&[frame(GOAWAY, 0, 1, &[0; 8])]), Err(Code::PROTOCOL));
        assert_eq!(judged(&[frame(GOAWAY, 0, 0, &[0; 7])]), Err(Code::FRAME_SIZE));
    }

    #[test]
    fn a_window_has_a_largest_size() {
        let setting = |value: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &value.to_be_bytes()].concat());
        assert_eq!(judged(&[setting(MAX_WINDOW)]), Ok(()));
        assert_eq!(judged(&[setting(MAX_WINDOW + 1)]), Err(Code::FLOW_CONTROL));
    }

    #[test]
    fn nothing_follows_on_a_stream_that_its_sender_has_ended() {
        let headers = |flags, stream| frame(HEADERS, flags | END_HEADERS, stream, GET);
        let ended = headers(END_STREAM, 1);
        assert_eq!(judged(&[ended.clone(), frame(DATA, END_STREAM, 1, b"x")]), Err(Code::STREAM_CLOSED));
        assert_eq!(judged(&[ended.clone(), headers(END_STREAM, 1)]), Err(Code::STREAM_CLOSED));
        let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
        assert_eq!(judged(&[headers(0, 1), reset.clone(), frame(DATA, 0, 1, b"x")]), Err(Code::STREAM_CLOSED));
        // But for what says nothing new of it.
        assert_eq!(judged(&[ended, reset, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])]), Ok(()));
        let body = frame(DATA, 0, 1, b"x");
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x00, 0x01, b'a', 0x01, b'b']);
        assert_eq!(judged(&[headers(0, 1), headers(END_STREAM, 3), body, trailers]), Ok(()));
    }

    #[test]
    fn what_is_forgotten_is_not_judged() {
        let mut frames: Vec<_> =
            (0..2 * REMEMBERED as u32).map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, GET)).collect();
        frames.push(frame(DATA, END_STREAM, 1, b"x"));
        assert_eq!(judged(&frames), Ok(()));
    }

    #[test]
    fn a_block_of_fields_ends_where_a_field_does() {
        let block = |bytes: &[u8]| judged(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes)]);
        assert_eq!(block(GET), Ok(()));
        assert_eq!(block(b"\x40"), Err(Code::COMPRESSION), "a name is missing");
        assert_eq!(block(&[0x40, 1, b'a', 0x7f, 0x80]), Err(Code::COMPRESSION), "a number without end");
        assert_eq!(block(&[0x40, 1, b'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(Code::COMPRESSION), "a large one");
        assert_eq!(block(&[0x80]), Err(Code::COMPRESSION), "no field has this index");
        assert_eq!(
            block(&[0x3f, 0xe1, 0x1f, 0x0f, 0x10, 0x83, 1, 2, 3]),
            Ok(()),
            "a table's size, a name by its index"
        );
        let padded = [&[2, 0, 0, 0, 0, 16][..], GET, &[0, 0]].concat();
        let flags = END_HEADERS | END_STREAM | PADDED | WITH_PRIORITY;
        assert_eq!(judged(&[frame(HEADERS, flags, 1, &padded)]), Ok(()));
        let (first, second) = GET.split_at(4);
        let cut = [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)];
        assert_eq!(judged(&cut), Ok(()));
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        for block in [&[0x82][..], &[0x41, 1, b'a'], &[0x00, 2, b':', b'a', 0], &[0x00, 0x82, 0xb8, 0xff, 0]] {
            let begin = frame(HEADERS, END_HEADERS, 1, GET);
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
            assert_eq!(judged(&[begin, trailers]), Err(Code::PROTOCOL), "{block:?}");
        }
    }

    #[test]
    fn who_asks_for_nothing_thousands_of_times_a_second_is_told_to_calm_down() {
        let start = crate::clock::now();
        let flood = |kind, length, every: Duration, most: u32| {
            let mut bytes = frame(kind, 0, 0, &vec![0; length]);
            let mut watch = Frames::new();
            watch.feed(&mut super::super::PREFACE.to_vec(), || start).unwrap();
            (0..most).find(|n| watch.feed(&mut bytes, || start + every * *n).is_err())
        };
        let micro = Duration::from_micros(1);
        assert!(flood(PING, 8, micro, 100_000).is_some_and(|n| n <= 2 * MAX_ASKED + 2));
        assert!(flood(SETTINGS, 0, micro, 100_000).is_some());
        assert!(flood(PRIORITY, 5, micro, 1_000_000).is_some_and(|n| n <= 2 * MAX_IDLE + 2));
        assert!(flood(DATA, 0, micro, 1_000_000).is_some());
        assert_eq!(flood(PING, 8, Duration::from_millis(2), 100_000), None, "five hundred a second");
    }
}
