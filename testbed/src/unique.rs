//! Requests of which no two are alike, and the one answer that is right for each.
//!
//! The id decides every byte that is sent and every byte that comes back, so that neither side has to remember a body. The
//! replica tells in its answer which method, which target and what body it received; the client compares that with what
//! it sent, and each byte of the answer's body with what the id says. An answer to another request, or one of which a
//! byte is missing, doubled or another's, cannot pass.

use crate::load::LossKind;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

/// The largest body, of a request or a response: beyond the 64 KiB of a request that the proxy keeps for another attempt,
/// and beyond what the buffers of a few sockets take at once.
pub const LARGEST: u32 = 160 << 10;

/// A request with a larger body is not kept, so it is not sent again once its first byte was.
const KEPT: u32 = 64 << 10;

/// What the replica is asked for by such a request: `/unique/ID/SIZE`, with `?chunked` for a response without a length.
pub const PATH: &str = "unique";

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Different for each.
    pub id: u64,
    /// What it asks for.
    pub method: Method,
    upload: Size,
    download: Size,
}

/// A body's length, and whether it is told beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    bytes: u32,
    chunked: bool,
}

/// Which way a body goes: the two of one request differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With the request.
    Up,
    /// With the response.
    Down,
}

impl Unique {
    /// Draws a request: this share of them POSTs and this one of PUTs, which have bodies, the others GET, HEAD and OPTIONS.
    pub fn draw(id: u64, rng: &mut fastrand::Rng, posts: f64, puts: f64) -> Unique {
        let kind = rng.f64();
        let method = match rng.u32(..20) {
            _ if kind < posts => Method::POST,
            _ if kind < posts + puts => Method::PUT,
            0 => Method::HEAD,
            1 => Method::OPTIONS,
            _ => Method::GET,
        };
        let upload = if kind < posts + puts { Size::draw(rng) } else { Size::default() };
        Unique { id, method, upload, download: Size::draw(rng) }
    }

    /// Its target.
    pub fn target(&self) -> String {
        let chunked = if self.download.chunked { "?chunked" } else { "" };
        format!("/{PATH}/{}/{}{chunked}", self.id, self.download.bytes)
    }

    /// What is sent.
    pub fn request(&self) -> Request<Content> {
        let request = Request::builder().method(&self.method).uri(self.target()).header("host", "app.test");
        request.body(self.content(Way::Up)).expect("a target without surprises")
    }

    /// Whether the proxy may send it again: it is idempotent, and its body is kept.
    pub fn repeatable(&self) -> bool {
        self.method != Method::POST && self.upload.bytes <= KEPT
    }

    /// Whether it may move to another replica while the first may still be running it.
    pub fn movable(&self) -> bool {
        !matches!(self.method, Method::POST | Method::PUT)
    }

    /// A body of its, from the first byte.
    pub fn content(&self, way: Way) -> Content {
        let size = if way == Way::Up { self.upload } else { self.download };
        Content::new(self.id, way, size.bytes, size.chunked)
    }

    /// The answer's head, held against this request: the method and the target always, what came of the body where
    /// the replica has read it. `streams`: the end of a stream tells as well that there is no body.
    ///
    /// # Errors
    /// [`LossKind::Foreign`] or [`LossKind::Garbled`].
    pub fn compare_head(&self, head: &HeaderMap, read: bool, streams: bool) -> Result<(), LossKind> {
        let field = |name: &str| head.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (method, target) = (field("x-method"), field("x-target"));
        if method != self.method.as_str() || target != self.target() {
            return Err(LossKind::Foreign(format!("{} {} got that of {method} {target}", self.method, self.target())));
        }
        let sent = receipt(self.content(Way::Up).all());
        if read && field("x-body") != sent {
            let came = field("x-body");
            return Err(LossKind::Garbled(format!(
                "{} {} sent {sent}, received was {came}",
                self.method,
                self.target()
            )));
        }
        // An empty answer to HEAD need not announce that it is empty.
        let told = !self.download.chunked && (!(streams || self.method == Method::HEAD) || self.download.bytes > 0);
        let length = head.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        if read && told && length != Some(self.download.bytes.to_string().as_str()) {
            return Err(LossKind::Garbled(format!("{} {} announces {length:?}", self.method, self.target())));
        }
        Ok(())
    }

    /// The body that must come, for this method.
    pub fn expected(&self) -> Content {
        if self.method == Method::HEAD { Content::new(self.id, Way::Down, 0, false) } else { self.content(Way::Down) }
    }
}

impl Size {
    /// Mostly small, some beyond a buffer of the proxy's, a few beyond what it keeps of a request; one in eight empty.
    fn draw(rng: &mut fastrand::Rng) -> Size {
        let bytes = match rng.u32(..40) {
            0..5 => 0,
            5..25 => rng.u32(1..1 << 10),
            25..36 => rng.u32(1 << 10..16 << 10),
            36..39 => rng.u32(16 << 10..=KEPT),
            _ => rng.u32(KEPT + 1..=LARGEST),
        };
        Size { bytes, chunked: rng.bool() }
    }
}

/// What a replica tells of the body that it received, as `X-Body`.
pub fn receipt(body: &[u8]) -> String {
    format!("{}-{:08x}", body.len(), crc32fast::hash(body))
}

/// A body that its request's id decides.
#[derive(Clone, Debug)]
pub struct Content {
    /// The whole of it: a cut of [`noise`].
    bytes: Bytes,
    /// Where in [`noise`] it begins.
    start: usize,
    at: usize,
    chunked: bool,
}

impl Content {
    /// `length` bytes, [`LARGEST`] at most.
    pub fn new(id: u64, way: Way, length: u32, chunked: bool) -> Content {
        let length = length.min(LARGEST) as usize;
        let start = mix(id ^ if way == Way::Up { 0 } else { 1 << 63 }) as usize % (NOISE - LARGEST as usize);
        Content { bytes: noise().slice(start..start + length), start, at: 0, chunked }
    }

    /// All of it.
    pub fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether these are the bytes that come next.
    pub fn continues_with(&mut self, bytes: &[u8]) -> bool {
        let next = self.bytes.get(self.at..self.at + bytes.len());
        self.at += bytes.len();
        next == Some(bytes)
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let ours = self.get_mut();
        let left = ours.left();
        if left == 0 {
            return Poll::Ready(None);
        }
        // A frame is a chunk: of any size up to the proxy's buffer and beyond it.
        let chunk = 1 + mix((ours.start + ours.at) as u64) as usize % (24 << 10);
        let most = if ours.chunked { chunk } else { left };
        let piece = ours.bytes.slice(ours.at..ours.at + most.min(left));
        ours.at += piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        // An empty one in chunks is sent as such.
        !self.chunked && self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked { SizeHint::default() } else { SizeHint::with_exact(self.left() as u64) }
    }
}

/// Bytes of [`noise`]: there are 96 Ki places where the largest body can begin.
const NOISE: usize = LARGEST as usize + (96 << 10);

/// The same in every process.
fn noise() -> &'static Bytes {
    static NOISE_BYTES: OnceLock<Bytes> = OnceLock::new();
    NOISE_BYTES.get_or_init(|| {
        let mut bytes = vec![0; NOISE];
        fastrand::Rng::with_seed(0x5eed).fill(&mut bytes);
        bytes.into()
    })
}

/// The finalizer of SplitMix64: neighbouring ids land far apart.
fn mix(id: u64) -> u64 {
    let z = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The fields by which a replica says which request it answers.
pub fn answer_fields(method: &Method, target: &str, into: &mut HeaderMap) {
    into.insert("x-method", HeaderValue::from_str(method.as_str()).expect("a method is a token"));
    if let Ok(target) = HeaderValue::from_str(target) {
        into.insert("x-target", target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(to: &Unique) -> HeaderMap {
        let mut head = HeaderMap::new();
        answer_fields(&to.method, &to.target(), &mut head);
        head.insert("x-body", receipt(to.content(Way::Up).all()).parse().unwrap());
        if !to.download.chunked {
            head.insert(CONTENT_LENGTH, to.download.bytes.into());
        }
        head
    }

    #[test]
    fn requests_are_of_every_size_and_kind() {
        let mut rng = fastrand::Rng::with_seed(1);
        let all: Vec<Unique> = (0..4000).map(|id| Unique::draw(id, &mut rng, 0.2, 0.1)).collect();
        let share = |is: &dyn Fn(&Unique) -> bool| all.iter().filter(|u| is(u)).count() as f64 / all.len() as f64;
        assert!((0.17..0.23).contains(&share(&|u| u.method == Method::POST)));
        assert!((0.08..0.12).contains(&share(&|u| u.method == Method::PUT)));
        for method in [Method::HEAD, Method::OPTIONS] {
            assert!((0.02..0.05).contains(&share(&|u| u.method == method)), "{method}");
        }
        assert!(share(&|u| u.upload.bytes > KEPT) > 0.002 && share(&|u| u.download.bytes > KEPT) > 0.01);
        assert!(share(&|u| u.download.bytes == 0) > 0.1 && share(&|u| u.upload.chunked) > 0.1);
        assert!(all.iter().all(|u| u.movable() <= u.repeatable()));
        let post = all.iter().find(|u| u.method == Method::POST).unwrap();
        assert!(!post.repeatable() && !post.movable());
    }

    #[test]
    fn the_bodies_of_two_requests_and_of_both_ways_differ() {
        let bodies: Vec<Content> =
            (0..50).flat_map(|id| [Way::Up, Way::Down].map(|way| Content::new(id, way, 1000, false))).collect();
        for (i, a) in bodies.iter().enumerate() {
            assert!(bodies[..i].iter().all(|b| b.all() != a.all()));
            assert_eq!(
                a.all(),
                Content::new(i as u64 / 2, if i % 2 == 0 { Way::Up } else { Way::Down }, 1000, true).all()
            );
        }
        assert_eq!(Content::new(7, Way::Up, LARGEST, false).left(), LARGEST as usize);
    }

    #[test]
    fn an_answer_to_another_request_is_foreign_and_one_with_another_body_garbled() {
        let mut rng = fastrand::Rng::with_seed(2);
        let [one, two] = [1, 2].map(|id| Unique::draw(id, &mut rng, 1.0, 0.0));
        assert_eq!(one.compare_head(&answer(&one), true, false), Ok(()));
        assert!(matches!(one.compare_head(&answer(&two), true, false), Err(LossKind::Foreign(_))));
        assert!(matches!(one.compare_head(&HeaderMap::new(), false, false), Err(LossKind::Foreign(_))));
        let mut torn = answer(&one);
        torn.insert("x-body", receipt(b"the rest of it").parse().unwrap());
        assert!(matches!(one.compare_head(&torn, true, false), Err(LossKind::Garbled(_))));
        let mut method = answer(&one);
        method.insert("x-method", HeaderValue::from_static("PUT"));
        assert!(matches!(one.compare_head(&method, true, false), Err(LossKind::Foreign(_))));
    }

    #[test]
    fn a_body_is_compared_to_its_last_byte() {
        let whole = Content::new(9, Way::Down, 5000, false);
        let bytes = whole.all().to_vec();
        let mut good = whole.clone();
        assert!(good.continues_with(&bytes[..1]) && good.continues_with(&bytes[1..]) && good.left() == 0);
        assert!(!good.continues_with(b"x"), "one byte too many");
        let mut doubled = whole.clone();
        assert!(doubled.continues_with(&bytes[..100]) && !doubled.continues_with(&bytes[50..]));
        let mut short = whole;
        assert!(short.continues_with(&bytes[..4999]) && short.left() == 1);
    }
}
