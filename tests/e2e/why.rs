//! Why a request went where it went: `evenkeel why`, `/why` and the page's links, after the request itself.

use crate::{Bed, POST, command, gate, ok, serve};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testbed::{Loopback, Origin, Wire, eventually, eventually_some};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What `evenkeel why` with these arguments prints, and whether it succeeds.
fn why(bed: &Bed, arguments: &[&str]) -> (bool, String) {
    let said = command(&bed.proxy, &[&["why"], arguments].concat()).output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    (said.status.success(), String::from_utf8(text).unwrap())
}

/// The same, of a request that ended a moment ago.
fn why_known(bed: &Bed, id: &str) -> String {
    eventually_some(&format!("{id} is known"), || Some(why(bed, &[id])).filter(|(known, _)| *known)).1
}

fn get(fields: &str) -> String {
    format!("GET /ping?token=s3cret HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")
}

/// The only line of `text` that contains all of `parts`.
#[track_caller]
fn line<'a>(text: &'a str, parts: &[&str]) -> &'a str {
    let lines: Vec<_> = text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).collect();
    assert_eq!(lines.len(), 1, "{parts:?} in {text}");
    lines[0]
}

// P21
#[test]
fn the_candidates_of_a_request_are_told_with_what_they_had_and_why_they_lost() {
    let (open, wait) = gate();
    let wait = std::sync::Arc::new(wait);
    let network = Loopback::new();
    let origins = (0..3)
        .map(|_| {
            let wait = wait.clone();
            network.origin("app", move |head, wire, _| {
                if head.target() == "/hold" {
                    wait();
                }
                ok(wire);
            })
        })
        .collect();
    let bed = Bed::around(network, origins, |c| c);
    bed.proxy.wait_up("app", &bed.origins.iter().map(Origin::address).collect::<Vec<_>>());
    let mut held: Vec<_> = (0..2).map(|_| bed.client()).collect();
    for (index, wire) in held.iter_mut().enumerate() {
        wire.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n");
        eventually("it is held", || bed.proxy.status()["requests"] == index + 1);
    }
    assert_eq!(bed.ask(get("X-Request-Id: order 7/ü?\r\n")).status, 200);
    let text = why_known(&bed, "order 7/ü?");
    assert!(text.starts_with("GET /ping?… from 127."), "{text}");
    assert!(text.contains(", X-Request-Id order 7/ü?\n") && !text.contains("s3cret"), "{text}");
    let winner = line(&text, &["was picked of 3 candidates: the lowest score"]);
    let winner = winner.split_whitespace().find(|word| word.contains(":80")).unwrap();
    line(&text, &[winner, " 0 in flight ", "weight 1.0 ", "score 1.0 ", "picked"]);
    let lost: Vec<_> = text.lines().filter(|line| line.contains("1 in flight")).collect();
    assert!(
        lost.len() == 2 && lost.iter().all(|line| line.contains("score 2.0 ") && line.ends_with("a higher score")),
        "{text}"
    );
    line(&text, &[winner, "to ", "connection"]);
    line(&text, &["answered with 200"]);
    open();
    held.iter_mut().for_each(|wire| assert_eq!(wire.response().unwrap().status, 200));
}

// P21
#[test]
fn a_request_that_was_tried_twice_is_told_with_what_failed_and_is_found_by_its_trace() {
    let network = Loopback::new();
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let origins = (0..2)
        .map(|_| {
            let asked = asked.clone();
            // Whoever is asked first hangs up.
            network.origin(
                "app",
                move |_, wire, _| {
                    if asked.fetch_add(1, Ordering::SeqCst) == 0 { wire.close() } else { ok(wire) }
                },
            )
        })
        .collect();
    let bed = Bed::around(network, origins, |c| c);
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    assert_eq!(bed.ask(get(&format!("traceparent: {traceparent}\r\n"))).status, 200);
    let text = why_known(&bed, TRACE);
    assert_eq!(
        why(&bed, &[&traceparent]).1.lines().skip(1).collect::<Vec<_>>(),
        text.lines().skip(1).collect::<Vec<_>>()
    );
    println!("{text}");
    let failed = line(&text, &[" failed at ", "closed the connection without a response"]);
    let first = failed.split_whitespace().nth(4).unwrap().trim_end_matches(':');
    assert!(text.lines().any(|line| line.contains(first) && line.ends_with("tried before")), "{text}");
    line(&text, &["answered with 200"]);
    // Whoever knows none of its names has its number.
    let number = line(&text, &["id ", &traceparent]).split([' ', ',']).nth(1).unwrap();
    assert_eq!(why_known(&bed, number).lines().nth(1), text.lines().nth(1));
    assert!(why(&bed, &["--last"]).1.contains(number));
}

// P21
#[test]
fn a_request_that_waited_is_told_so() {
    let (open, wait) = gate();
    let bed = Bed::with(
        |c| c.set("upstream.app.max_in_flight", 1).set("upstream.app.wait", "30s"),
        move |head, wire, _| {
            if head.target() == "/hold" {
                wait();
            }
            serve(head, wire);
        },
    );
    let mut held = bed.client();
    held.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n");
    eventually("it is held", || bed.proxy.status()["requests"] == 1);
    let mut waiting = bed.client();
    waiting.send(get("X-Request-ID: w\r\n"));
    eventually("the other waits", || bed.proxy.status()["upstreams"][0]["waiting"] == 1);
    std::thread::sleep(Duration::from_millis(20));
    open();
    assert_eq!(waiting.response().unwrap().status, 200);
    let text = why_known(&bed, "w");
    line(&text, &[&bed.origin().address().to_string(), " had room first, after the request had waited for its turn"]);
    line(&text, &["answered with 200; it waited ", " ms in all"]);
}

// P21
#[test]
fn a_failed_request_is_found_by_its_line_in_the_log_when_a_thousand_others_came_after_it() {
    let bed = Bed::new(|head, wire, _| if head.method() == "POST" { wire.close() } else { serve(head, wire) });
    assert_eq!(bed.ask(get("X-Request-Id: early\r\n")).status, 200);
    why_known(&bed, "early");
    let post = POST.replace("\r\n\r\n", "\r\nX-Secret: s3cret\r\n\r\n");
    assert_eq!(bed.ask(post).status, 502);
    let logged = bed.proxy.wait_for_line("request failed");
    let id = logged.split("id=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("the line has an id");
    let mut wire = bed.client();
    for _ in 0..1100 {
        wire.send(get(""));
        assert_eq!(wire.response().unwrap().status, 200);
    }
    eventually("the early one is forgotten", || !why(&bed, &["early"]).0);
    let text = why_known(&bed, id);
    assert!(text.starts_with("POST / from 127."), "{text}");
    let address = bed.origin().address().to_string();
    line(&text, &[&address, "was the only candidate"]);
    line(&text, &["answered with 502: the replica closed the connection without a response"]);
    assert!(!text.contains("s3cret"), "{text}");
    // The page has it under its failed requests.
    let page = ask_admin(&bed, "/");
    let link = page.split("href=\"why/").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
    assert_eq!(ask_admin(&bed, &format!("/why/{link}")).lines().nth(1), text.lines().nth(1));
}

// P21
#[test]
fn who_is_unknown_is_said_to_be_with_what_could_be_known() {
    let bed = Bed::new(serve_any);
    let (known, text) = why(&bed, &["--last"]);
    assert!(!known && text.starts_with("evenkeel: no request has ended yet"), "{text}");
    let (known, text) = why(&bed, &["no such"]);
    assert!(!known && text.starts_with("evenkeel: \"no such\" is the name of none of the last thousand"), "{text}");
    assert!(!why(&bed, &[]).0 && !why(&bed, &["--last", "no such"]).0);
    // Whoever asks with anything else than a name is told as well, and nothing is longer than it should be.
    let long = "a".repeat(5000);
    let mut wire = Wire::connect(bed.proxy.admin());
    wire.send(format!("GET /why/{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(wire.response().unwrap().status, 404);
    assert_eq!(bed.ask(get(&format!("X-Request-Id: {long}\r\n"))).status, 200);
    let text = eventually_some("it is known", || Some(why(&bed, &["--last"])).filter(|(known, _)| *known)).1;
    assert!(text.len() < 1000, "{text}");
}

fn serve_any(head: &testbed::Head, wire: &mut Wire, _: usize) {
    serve(head, wire);
}

fn ask_admin(bed: &Bed, path: &str) -> String {
    let mut wire = Wire::connect(bed.proxy.admin());
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let response = wire.response().unwrap();
    assert_eq!(response.status, 200);
    response.text()
}
