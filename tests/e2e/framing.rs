//! Messages that come in pieces, and messages that come glued together: what passes is the same however the bytes came.

use crate::{Bed, serve};
use testbed::{Ending, Head, Loopback, Wire, eventually};

/// Answers with what was asked.
fn echo(head: &Head, wire: &mut Wire) {
    if let Ok(body) = wire.body(head) {
        let _ = wire.try_send(answer(&asked(head.method(), head.target(), &body)));
    }
}

fn asked(method: &str, target: &str, body: &[u8]) -> String {
    format!("{method} {target} {}", String::from_utf8_lossy(body))
}

fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// A request with a body of known length.
fn sized(method: &str, target: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request whose body comes in chunks.
fn chunked(method: &str, target: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunks(body))
}

fn chunks(body: &str) -> String {
    let (first, second) = body.split_at(body.len() / 2);
    let chunk =
        |piece: &str| if piece.is_empty() { String::new() } else { format!("{:x}\r\n{piece}\r\n", piece.len()) };
    format!("{}{}0\r\n\r\n", chunk(first), chunk(second))
}

fn in_pieces(wire: &mut Wire, bytes: &str, size: usize) {
    for piece in bytes.as_bytes().chunks(size) {
        wire.send(piece);
    }
}

#[test]
fn pipelined_requests_with_bodies_stay_in_step() {
    let bed = Bed::new(|head, wire, _| echo(head, wire));
    // Empty, small enough to come with its head, more than one read of a head brings, more than one read brings.
    let bodies = ["".to_owned(), "small".to_owned(), "m".repeat(20_000), "l".repeat(150_000)];
    let mut requests = String::new();
    let mut expected = vec![];
    for (n, body) in bodies.iter().enumerate() {
        for request in [sized("POST", &format!("/{n}"), body), chunked("POST", &format!("/{n}"), body)] {
            requests += &request;
            requests += "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
            expected.push(asked("POST", &format!("/{n}"), body.as_bytes()));
            expected.push("GET /next ".into());
        }
    }
    for size in [100_000, 4000] {
        let mut wire = bed.client();
        let mut writer = Wire::over(wire.stream().unwrap().try_clone().unwrap());
        let sent = requests.clone();
        let sender = std::thread::spawn(move || {
            in_pieces(&mut writer, &sent, size);
            writer
        });
        for expected in &expected {
            let text = wire.response().unwrap().text();
            assert!(text == *expected, "{:.60} instead of {:.60}, in pieces of {size}", text, expected);
        }
        sender.join().unwrap();
    }
}

#[test]
fn a_message_passes_whole_however_it_is_cut() {
    let bed = Bed::new(|head, wire, _| {
        let Ok(body) = wire.body(head) else { return };
        let text = asked(head.method(), "", &body);
        let size = head.get("x-size").and_then(|size| size.parse().ok()).unwrap_or(1000);
        match head.target() {
            "/sized" => in_pieces(wire, &answer(&text), size),
            "/interim" => in_pieces(wire, &format!("HTTP/1.1 100 Continue\r\n\r\n{}", answer(&text)), size),
            "/chunked" => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                in_pieces(wire, &format!("{head}{}", chunks(&text)), size);
            }
            _ => {
                in_pieces(wire, &format!("HTTP/1.0 200 OK\r\n\r\n{text}"), size);
                wire.close();
            }
        }
    });
    for size in [1, 7, 100] {
        let mut wire = bed.client();
        for target in ["/sized", "/interim", "/chunked", "/to-close"] {
            for request in [sized("PUT", target, "0123456789"), chunked("PUT", target, "0123456789")] {
                let request = request.replacen("Host", &format!("X-Size: {size}\r\nHost"), 1);
                in_pieces(&mut wire, &request, size);
                let mut response = wire.response().unwrap();
                if target == "/interim" {
                    assert_eq!(response.status, 100);
                    response = wire.response().unwrap();
                }
                assert_eq!(response.text(), "PUT  0123456789", "{target} in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_put_that_is_sent_again_is_sent_whole() {
    let network = Loopback::new();
    let breaking = network.origin("app", |head, wire, _| {
        let _ = wire.body(head);
        wire.reset();
    });
    let healthy = network.origin("app", |head, wire, _| echo(head, wire));
    let bed = Bed::around(network, vec![breaking, healthy], |c| c);
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    let long = "l".repeat(50_000);
    for request in
        [sized("PUT", "/", "small"), chunked("PUT", "/", "small"), sized("PUT", "/", &long), chunked("PUT", "/", &long)]
    {
        let body = if request.len() > long.len() { &long } else { "small" };
        let before = bed.origin().requests();
        eventually("one met the replica that breaks", || {
            let text = bed.ask(&request).text();
            assert!(text == asked("PUT", "/", body.as_bytes()), "{text:.60} for {request:.60}");
            bed.origin().requests() > before
        });
    }
}

#[test]
fn the_last_answer_of_a_connection_comes_whole_and_ends_it() {
    let bed = Bed::new(|head, wire, _| match head.target() {
        "/large" => {
            let _ = wire.try_send(answer(&"x".repeat(1_000_000)));
        }
        _ => serve(head, wire),
    });
    let close = "Host: a\r\nConnection: close\r\n";
    for (request, length) in [
        (format!("GET / HTTP/1.1\r\n{close}\r\n"), 3),
        (format!("GET /large HTTP/1.1\r\n{close}\r\n"), 1_000_000),
        (format!("POST / HTTP/1.1\r\n{close}Content-Length: 5\r\n\r\nhello"), 3),
        // More than was announced: it must not cost the answer.
        (format!("GET /large HTTP/1.1\r\n{close}\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 1_000_000),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 3),
    ] {
        let mut wire = bed.client();
        wire.send(&request);
        let response = wire.response().unwrap_or_else(|cut| panic!("{request:?}: {cut:?}"));
        assert_eq!(response.body.len(), length, "{request:?}");
        assert_eq!(wire.ending(), (Ending::Closed, vec![]), "{request:?}");
    }
}

// H5
#[test]
fn a_response_in_malformed_chunks_is_502_or_cut_and_never_looks_whole() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bed = Bed::new(move |head_of, wire, _| {
        let (first, second) = match head_of.target() {
            "/empty-size" => ("2\r\nok\r\n\r\n\r\n", ""),
            "/extension" => ("2;\n\r\nok\r\n0\r\n\r\n", ""),
            "/bare-lf" => ("2\nok\n0\n\n", ""),
            _ => ("2\r\nok\r\n", "\r\n\r\n"),
        };
        wire.send(format!("{head}{first}"));
        if !second.is_empty() {
            // The rest comes once the client has seen that much.
            std::thread::sleep(std::time::Duration::from_millis(300));
            wire.send(second);
        }
    });
    for target in ["/empty-size", "/extension", "/bare-lf"] {
        let mut wire = bed.client();
        wire.get(target);
        let response = wire.response().unwrap();
        crate::assert_own(&response, 502);
        assert!(response.text().contains("chunks"), "{target}: {}", response.text());
    }
    let mut wire = bed.client();
    wire.get("/late");
    let cut = wire.response().unwrap_err();
    assert_eq!((cut.ending, cut.body.as_slice()), (Ending::Reset, b"ok".as_slice()), "{cut:?}");
}
