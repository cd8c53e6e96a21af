//! A response's head as its replica should have written it.
//!
//! A request that is not well-formed is refused: what its client meant, another server may read otherwise. Of a response
//! RFC 9112 asks that a proxy mend it, as its replica cannot be asked: white space before a colon (section 5.1), folded lines
//! (5.2), lines that end in a bare LF (2.2), and one length said twice (6.3). So the client gets lines that have one
//! reading. Where the flaw is in what delimits the message, even that would be a guess, and the response is refused.

use super::fields::{Fault, elements, plain_number, trim};

/// Fields by which the message is delimited, or on which this hop acts.
const DELIMITING: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"connection", b"upgrade"];

/// The head `raw`, which ends in an empty line, in lines that are well-formed. What cannot be mended stays, and is found by
/// whoever reads them.
pub(super) fn mended(raw: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 8);
    let mut lines = raw.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    out.extend_from_slice(lines.next().ok_or(Fault::Shape)?);
    out.extend_from_slice(b"\r\n");
    // Whether a folded line may follow: it continues a field, and none that delimits.
    let mut foldable = false;
    let mut length = None;
    let mut chunked = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        if line[0] == b' ' || line[0] == b'\t' {
            if !foldable {
                return Err(Fault::Shape);
            }
            out.truncate(out.len() - 2);
            out.push(b' ');
            out.extend_from_slice(trim(line));
            out.extend_from_slice(b"\r\n");
            continue;
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::Shape)?;
        let (name, value) = (trim(&line[..colon]), &line[colon + 1..]);
        let delimits = DELIMITING.iter().any(|field| name.eq_ignore_ascii_case(field));
        if delimits && name.len() < colon {
            return Err(Fault::Space);
        }
        foldable = !delimits;
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = one_number(value).ok_or(Fault::Length)?;
            match length.replace(number) {
                None => push(&mut out, name, format!(" {number}").as_bytes()),
                Some(before) if before == number => {}
                Some(_) => return Err(Fault::Length),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Two codings, be they both `chunked`, are not one.
            if chunked || !is_chunked(value) {
                return Err(Fault::Encoding);
            }
            chunked = true;
            push(&mut out, name, b" chunked");
        } else {
            push(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The number that a list consists of, however often.
fn one_number(value: &[u8]) -> Option<u64> {
    let mut numbers = elements(value).map(plain_number);
    let first = numbers.next()??;
    numbers.all(|number| number == Some(first)).then_some(first)
}

/// Whether a list is `chunked` and nothing else.
fn is_chunked(value: &[u8]) -> bool {
    let mut codings = elements(value);
    codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::response::ResponseHead;

    fn mend(lines: &str) -> Result<String, Fault> {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let out = String::from_utf8(mended(head.as_bytes())?).unwrap();
        Ok(out.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|out| out.strip_suffix("\r\n")).unwrap().to_owned())
    }

    // D9, H6, H9
    #[test]
    fn what_has_one_meaning_is_written_so_that_it_has_one_reading() {
        for (sent, expected) in [
            ("A: 1\r\nB:2 \r\n", "A: 1\r\nB:2 \r\n"),
            ("A : 1\r\nB \t:2\r\n", "A: 1\r\nB:2\r\n"),
            ("A: 1\r\n 2\r\n\t3 \r\nB: 4\r\n", "A: 1 2 3\r\nB: 4\r\n"),
            ("A: 1\r\n \r\nB: 4\r\n", "A: 1 \r\nB: 4\r\n"),
            ("A: 1\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
            ("Content-Length: 5\r\nA: 1\r\ncontent-length:5\r\n", "Content-Length: 5\r\nA: 1\r\n"),
            ("Content-Length: 5, 5,5\r\n", "Content-Length: 5\r\n"),
            ("Transfer-Encoding: chunked,\r\n", "Transfer-Encoding: chunked\r\n"),
            ("transfer-encoding: , Chunked\r\n", "transfer-encoding: chunked\r\n"),
        ] {
            assert_eq!(mend(sent).as_deref(), Ok(expected), "{sent:?}");
        }
        assert_eq!(mended(b"HTTP/1.1 200 OK\nA: 1\n\n").unwrap(), b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n");
    }

    // T7
    #[test]
    fn controls_are_no_white_space() {
        for lines in ["A: 1\r\n \r2\r\n", "A: 1\r\n \x0c2\r\n", "A\x0c: 1\r\n", "A\r: 1\r\n", "A: 1\x0c\r\n"] {
            let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            let strict = ResponseHead::read(head.as_bytes(), 200, false);
            assert_eq!(strict.err(), Some(Fault::Shape), "{lines:?}");
        }
        assert_eq!(mend("Content-Length: 5\x0c\r\n"), Err(Fault::Length));
        assert_eq!(mend("Transfer-Encoding: \rchunked\r\n"), Err(Fault::Encoding));
    }

    // D9, H6
    #[test]
    fn what_delimits_the_message_is_not_guessed() {
        for (sent, fault) in [
            ("Content-Length : 5\r\n", Fault::Space),
            ("Transfer-Encoding\t: chunked\r\n", Fault::Space),
            ("connection : close\r\n", Fault::Space),
            ("Content-Length: 5\r\n 6\r\n", Fault::Shape),
            ("Content-Length: 5\r\n \r\n", Fault::Shape),
            ("Transfer-Encoding:\r\n chunked\r\n", Fault::Encoding),
            ("Transfer-Encoding: chunked\r\n , gzip\r\n", Fault::Shape),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Fault::Length),
            ("Content-Length: 5, 6\r\n", Fault::Length),
            ("Content-Length: ,\r\n", Fault::Length),
            ("Content-Length: +5\r\n", Fault::Length),
            ("Transfer-Encoding: chunked, chunked\r\n", Fault::Encoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Encoding),
            ("Transfer-Encoding: gzip, chunked\r\n", Fault::Encoding),
            (" A: 1\r\n", Fault::Shape),
            ("nonsense\r\n", Fault::Shape),
        ] {
            assert_eq!(mend(sent), Err(fault), "{sent:?}");
        }
    }
}
