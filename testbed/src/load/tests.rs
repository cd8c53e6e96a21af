use super::*;
use crate::Origin;
use std::sync::atomic::AtomicUsize;

fn done(micros: u32, phase: u16, replica: u16) -> Done {
    Done { micros, phase, replica, ok: true, once: false, id: 0 }
}

#[test]
fn percentiles_are_by_nearest_rank() {
    let sorted: Vec<u32> = (1..=100).collect();
    let micros = |share| percentile(&sorted, share).as_micros();
    assert_eq!([micros(0.0), micros(0.5), micros(0.99), micros(0.999), micros(1.0)], [1, 50, 99, 100, 100]);
    assert_eq!(percentile(&[7], 0.5).as_micros(), 7);
    assert_eq!(percentile(&[], 0.99), Duration::ZERO);
}

#[test]
fn a_report_tells_phases_and_replicas_apart() {
    let report = Report {
        phases: vec!["steady".into(), "kill".into(), "steady".into()],
        replicas: vec!["app.1".into(), "app.2".into()],
        requests: vec![done(10, 0, 0), done(900, 1, 1), done(30, 2, 0), done(20, 0, 1)],
        losses: vec![],
    };
    assert_eq!(report.phases(), ["steady", "kill"]);
    assert_eq!(report.phase("steady").sent(), 3);
    assert_eq!(report.phase("steady").percentile(1.0).as_micros(), 30);
    assert_eq!(report.phase("kill").percentile(0.5).as_micros(), 900);
    assert_eq!(report.by_replica(), BTreeMap::from([("app.1", 2), ("app.2", 2)]));
    assert!(report.table().contains("kill"), "{}", report.table());
}

fn answering(script: impl Fn(&mut crate::Wire, usize) + Send + Sync + 'static) -> Origin {
    let serve = move |head: &crate::Head, wire: &mut crate::Wire, n: usize| {
        if wire.body(head).is_ok() {
            script(wire, n);
        }
    };
    Origin::listen("127.0.0.1:0".parse().unwrap(), serve).unwrap()
}

fn ok(wire: &mut crate::Wire) {
    let _ = wire.try_send("HTTP/1.1 200 OK\r\nX-Replica: one\r\nContent-Length: 0\r\n\r\n");
}

/// Requests to an origin, which cannot tell what it received.
fn plan(origin: &Origin, rate: f64) -> Plan {
    Plan { app: Asked::Path("/".into()), ..Plan::new(origin.address(), rate) }
}

#[test]
fn a_load_keeps_its_rate_and_its_share_of_posts() {
    let origin = answering(|wire, _| ok(wire));
    let plan = Plan { posts: 0.2, duration: Some(Duration::from_secs(2)), ..plan(&origin, 200.0) };
    let report = Load::start(plan).wait();
    // 400 expected, of a Poisson process: 5 standard deviations are 100.
    assert!((300..=500).contains(&report.sent()), "{} requests", report.sent());
    assert_eq!(report.lost(), []);
    assert_eq!(report.by_replica(), BTreeMap::from([("one", report.sent())]));
    let mut ids = report.once();
    assert!((40..=120).contains(&ids.len()), "{} POSTs", ids.len());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), report.once().len(), "ids are unique");
    assert_eq!(origin.requests(), report.sent(), "each sent once");
    assert!(origin.connections() < report.sent() / 2, "connections are kept");
}

#[test]
fn a_stall_costs_every_request_that_was_due_in_it() {
    // The first request stalls the only worker for 300 ms; those due meanwhile are answered right after.
    let gate = Arc::new(Mutex::new(()));
    let first = AtomicUsize::new(0);
    let origin = answering(move |wire, _| {
        let _held = gate.lock().unwrap();
        if first.fetch_add(1, Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        ok(wire);
    });
    let plan = Plan { spacing: Spacing::Uniform, duration: Some(Duration::from_millis(300)), ..plan(&origin, 100.0) };
    let report = Load::start(plan).wait();
    assert_eq!(report.sent(), 30);
    assert!(report.percentile(0.5) > Duration::from_millis(100), "{}", report.table());
}

#[test]
fn what_fails_is_lost_with_its_reason_and_never_sent_again() {
    let origin = answering(|wire, n| match n % 4 {
        0 => wire.reset(),
        1 => wire.close(),
        2 => wire.send("HTTP/1.1 503 No\r\nProxy-Status: test; error=none\r\nContent-Length: 0\r\n\r\n"),
        _ => ok(wire),
    });
    let plan = Plan { spacing: Spacing::Uniform, ..plan(&origin, 100.0) };
    let load = Load::start(plan);
    load.wait_sent(20);
    load.phase("late");
    load.wait_sent(20);
    let report = load.stop();
    assert_eq!(origin.requests(), report.sent());
    let share = report.lost().len() as f64 / report.sent() as f64;
    assert!((0.6..0.9).contains(&share), "{share}");
    let status = |l: &Loss| matches!(&l.kind, LossKind::Status(503, why) if why == "test; error=none");
    assert!(report.lost().iter().any(status));
    assert!(report.lost().iter().any(|l| matches!(l.kind, LossKind::Broken(_)) && l.phase == "late"));
}

#[test]
fn a_hung_server_and_a_missing_one_are_told_apart() {
    let origin = answering(|_, _| {});
    let patience = Duration::from_millis(100);
    let plan = Plan { patience, duration: Some(Duration::from_millis(50)), ..plan(&origin, 100.0) };
    let hung = Load::start(plan.clone()).wait();
    assert!(hung.lost().iter().all(|l| l.kind == LossKind::GivenUp && l.after >= patience));
    assert_eq!(hung.lost().len(), hung.sent());
    drop(origin);
    crate::eventually("the port is closed", || std::net::TcpStream::connect(&plan.target).is_err());
    let missing = Load::start(plan).wait();
    assert!(missing.lost().iter().all(|l| matches!(l.kind, LossKind::Connect(_))), "{:?}", missing.lost());
}

/// What the replica would answer to this head, with a body of these bytes.
fn answer(head: &crate::Head, body: &[u8]) -> Vec<u8> {
    let (method, target, sent) = (head.method(), head.target(), crate::unique::receipt(&[]));
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Replica: one\r\nX-Method: {method}\r\nX-Target: {target}\r\nX-Body: {sent}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let chunk =
        if body.is_empty() { vec![] } else { [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat() };
    [head.as_bytes(), &chunk, b"0\r\n\r\n"].concat()
}

/// The kinds of loss of a load whose answers `change` made of the right body.
fn changed(change: impl Fn(&crate::Head, &mut Vec<u8>) -> crate::Head + Send + Sync + 'static) -> Vec<LossKind> {
    let serve = move |head: &crate::Head, wire: &mut crate::Wire, _| {
        let parts: Vec<&str> = head.target().split(['/', '?']).collect();
        // Where the length is announced, or nothing may come, the answer's head says so; here it is about bodies.
        if head.method() != "GET" || !head.target().ends_with("chunked") {
            return wire.close();
        }
        let (id, length) = (parts[2].parse().unwrap(), parts[3].parse().unwrap());
        let mut body = Content::new(id, Way::Down, length, true).all().to_vec();
        let told = change(head, &mut body);
        let _ = wire.try_send(answer(&told, &body));
    };
    let origin = Origin::listen("127.0.0.1:0".parse().unwrap(), serve).unwrap();
    let plan = Plan {
        spacing: Spacing::Uniform,
        duration: Some(Duration::from_millis(400)),
        ..Plan::new(origin.address(), 200.0)
    };
    let load = Load::start(plan);
    std::thread::sleep(Duration::from_millis(400));
    let report = load.stop_unjudged();
    let broken = |l: &&Loss| !matches!(l.kind, LossKind::Broken(_));
    report.lost().iter().filter(broken).map(|l| l.kind.clone()).collect()
}

#[test]
fn an_answer_that_is_right_to_the_last_byte_is_no_loss() {
    assert_eq!(changed(|head, _| head.clone()), []);
}

#[test]
fn an_answer_with_another_byte_a_missing_or_a_doubled_one_is_garbled() {
    let lost = changed(|head, body| {
        match body.len() % 3 {
            0 => body.push(b'x'),
            1 => drop(body.pop()),
            _ => *body.last_mut().unwrap() ^= 1,
        }
        head.clone()
    });
    assert!(lost.len() > 10 && lost.iter().all(|kind| matches!(kind, LossKind::Garbled(_))), "{lost:?}");
}

#[test]
fn the_answer_to_another_request_is_foreign() {
    let last: Mutex<Option<crate::Head>> = Mutex::new(None);
    let lost = changed(move |head, _| last.lock().unwrap().replace(head.clone()).unwrap_or_default());
    assert!(lost.len() > 10 && lost.iter().all(|kind| matches!(kind, LossKind::Foreign(_))), "{lost:?}");
}

#[test]
#[should_panic(expected = "answers were wrong")]
fn a_wrong_answer_fails_whatever_uses_the_load() {
    let origin = answering(|wire, _| wire.send("HTTP/1.1 200 OK\r\nX-Replica: one\r\nContent-Length: 2\r\n\r\nok"));
    Load::start(Plan { duration: Some(Duration::from_millis(100)), ..Plan::new(origin.address(), 100.0) }).wait();
}
