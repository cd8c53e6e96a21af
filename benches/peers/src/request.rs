//! What is sent, and what must come back. Where an answer could be mistaken for another's, each request is the only one
//! of its kind: its target holds a number, and the body of its answer is made from that number.

use crate::wire::Head;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// Before the number in the target of a request that is the only one of its kind.
const NUMBERED: &str = "/numbered/";

/// The longest body of an answer to one.
const LONGEST: usize = 2048;

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Arc<[u8]>,
    /// Each is sent on a connection of its own.
    pub close: bool,
    answer: Answer,
}

/// What is known of a right answer: a proxy that answers by itself must not win.
#[derive(Clone, Debug)]
enum Answer {
    /// That its status is 200.
    Status,
    /// The length of its body, too.
    Length(u64),
    /// Its body, which is made from the request's number; `bytes` is the head without its first line.
    Numbered,
}

impl Request {
    /// `GET target`, answered with a body of this length.
    pub fn get(host: &str, target: &str, answer: Option<u64>) -> Request {
        Request::of(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(), false, answer)
    }

    /// The same, each on a connection of its own.
    pub fn get_once(host: &str, target: &str, answer: Option<u64>) -> Request {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Request::of(text.into_bytes(), true, answer)
    }

    /// The same with a head of this many bytes or a few more, as cookies make them.
    pub fn get_with_head(host: &str, target: &str, answer: Option<u64>, length: usize) -> Request {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\n\r\n", "c".repeat(length));
        Request::of(text.into_bytes(), false, answer)
    }

    /// `POST target` with a body of this length.
    pub fn post(host: &str, target: &str, length: usize, answer: Option<u64>) -> Request {
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + length, b'x');
        Request::of(bytes, false, answer)
    }

    /// GETs each of which is the only one of its kind, and whose answers are compared byte by byte.
    pub fn numbered(host: &str) -> Request {
        let bytes = format!(" HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes().into();
        Request { bytes, close: false, answer: Answer::Numbered }
    }

    fn of(bytes: Vec<u8>, close: bool, answer: Option<u64>) -> Request {
        Request { bytes: bytes.into(), close, answer: answer.map_or(Answer::Status, Answer::Length) }
    }

    /// What is sent as the request with this number.
    pub fn bytes(&self, number: u64) -> Cow<'_, [u8]> {
        match self.answer {
            Answer::Numbered => {
                let mut whole = format!("GET {NUMBERED}{number}").into_bytes();
                whole.extend_from_slice(&self.bytes);
                whole.into()
            }
            _ => Cow::Borrowed(&self.bytes),
        }
    }

    /// The answer's body is compared and must be kept.
    pub fn compares(&self) -> bool {
        matches!(self.answer, Answer::Numbered)
    }

    /// Whether this is the right answer to the request with this number.
    ///
    /// # Errors
    /// It is not; what is wrong with it.
    pub fn check(&self, number: u64, head: &Head, body: &[u8]) -> io::Result<()> {
        match self.answer {
            _ if head.status != 200 => Err(io::Error::other(format!("status {}", head.status))),
            Answer::Length(length) if length != head.length => {
                Err(io::Error::other(format!("{} bytes of body", head.length)))
            }
            Answer::Numbered if body != numbered_body(number) => {
                Err(io::Error::other("THE ANSWER TO ANOTHER REQUEST, or a damaged one"))
            }
            _ => Ok(()),
        }
    }
}

/// The number in this target, if it has one.
pub fn number(target: &str) -> Option<u64> {
    target.strip_prefix(NUMBERED)?.parse().ok()
}

/// The body of the answer to the request with this number: bytes and a length that hardly another one has.
pub fn numbered_body(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut body = format!("{number} ").into_bytes();
    let length = body.len() + random.usize(..LONGEST);
    body.resize_with(length, || random.u8(..));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_another_request_is_a_wrong_one() {
        let request = Request::numbered("app.internal");
        let text = String::from_utf8(request.bytes(7).into_owned()).unwrap();
        let target = text.split(' ').nth(1).unwrap();
        assert_eq!(number(target), Some(7));
        let head = Head::answered(200, 0);
        assert!(request.check(7, &head, &numbered_body(7)).is_ok());
        assert!(request.check(7, &head, &numbered_body(8)).is_err());
        assert!(request.check(7, &head, &numbered_body(7)[..2]).is_err());
        assert!(request.check(7, &Head::answered(503, 0), &numbered_body(7)).is_err());
    }
}
