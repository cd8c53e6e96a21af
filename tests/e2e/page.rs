//! The operator's page in a real browser: what it says of each kind of trouble, with and without scripts.

use crate::{Bed, command, serve};
use std::io::Write;
use std::time::{Duration, Instant};
use testbed::{App, Browser, Load, Loopback, Network, Plan, ProxyConfig, Signal, Wire, eventually, eventually_some};

pub(crate) const WIDE: (u32, u32) = (1200, 900);

/// Whether a browser is here; says so loudly where none is.
pub(crate) fn has_browser() -> bool {
    let installed = Browser::is_installed();
    if !installed {
        let _ =
            std::io::stderr().write_all(b"\nSKIPPED: the page was NOT tried in a browser: no Chromium is installed\n");
    }
    installed
}

/// Three replicas behind a proxy, a load, and a page that shows it.
struct Look {
    load: Load,
    page: Browser,
    replicas: Vec<Box<dyn testbed::Container>>,
    bed: Bed,
}

impl Look {
    fn new() -> Option<Look> {
        has_browser().then(|| {
            let network = Loopback::new();
            network.keep_records();
            let replicas = network.scale("app", &App::replica().env("MEAN_MS", 2), 3);
            let bed = Bed::around(network, vec![], |c| c.set("upstream.app.probe.path", "/ping"));
            bed.proxy.wait_serving("/");
            let load = Load::start(Plan::new(bed.proxy.address(), 100.0));
            let page = Browser::open(&url(&bed), WIDE, false, true);
            let look = Look { load, page, replicas, bed };
            look.wait(&["live", "All well: 3 of 3 replicas"]);
            look
        })
    }

    /// Waits until the page says all of this, and returns its text.
    #[track_caller]
    fn wait(&self, said: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let text = self.page.text();
            if said.iter().all(|part| text.contains(part)) {
                return text;
            }
            assert!(start.elapsed() < testbed::PATIENCE, "the page does not say {said:?}, but:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn headline(&self) -> String {
        self.page.value("document.getElementById('headline').innerText").as_str().unwrap_or_default().to_owned()
    }
}

fn url(bed: &Bed) -> String {
    format!("http://{}/", bed.proxy.admin())
}

// P20
#[test]
fn a_replica_that_is_killed_is_told_with_its_reason_and_what_callers_met() {
    let Some(look) = Look::new() else { return };
    let killed = look.replicas[0].address().to_string();
    look.replicas[0].signal(Signal::SIGKILL);
    let text = look.wait(&["(probe: connection refused); the other 2 take its requests; callers notice nothing"]);
    let headline = look.headline();
    assert!(headline.starts_with("▲ ") && headline.contains(&killed), "{headline}");
    // Its row, and the time line.
    assert!(text.contains("gets no requests"), "{text}");
    let events = look.page.value("[...document.querySelectorAll('table')].at(-1).innerText").to_string();
    assert!(events.contains(&killed) && (events.contains("suspect") || events.contains("down")), "{events}");
    assert!(look.load.stop().lost().is_empty());
}

// P20
#[test]
fn replicas_that_hang_are_an_outage_and_requests_that_fail_are_counted() {
    let Some(look) = Look::new() else { return };
    look.replicas.iter().for_each(|replica| replica.pause());
    look.wait(&["Nobody has answered for ", "has not answered for ", "requests waiting"]);
    assert!(look.headline().starts_with("✖ "), "{}", look.headline());
    look.replicas.iter().for_each(|replica| replica.signal(Signal::SIGKILL));
    let text =
        look.wait(&["Nobody has answered for ", "connection refused", "failed in the last minute", "Failed requests"]);
    assert!(!text.contains(" 0 requests failed"), "{text}");
    drop(look.load);
}

// P20
#[test]
fn a_slow_replica_is_named_with_its_share_and_orders_are_told() {
    let Some(look) = Look::new() else { return };
    let network = &look.bed.network;
    let slow = network.start("app", &App::replica().env("MEAN_MS", 80));
    let slow = slow.address().to_string();
    // The share is of slots that are over.
    look.wait(&["slower than the others; it gets ", "callers notice nothing"]);
    assert!(look.headline().contains(&slow), "{}", look.headline());
    let drained = look.replicas[0].address().ip().to_string();
    assert!(command(&look.bed.proxy, &["drain", &drained]).output().unwrap().status.success());
    assert!(command(&look.bed.proxy, &["pause", "app"]).output().unwrap().status.success());
    look.wait(&["Paused by an operator: ", &format!("drained by an operator: {drained}"), "paused by "]);
    assert!(command(&look.bed.proxy, &["resume", "app"]).output().unwrap().status.success());
    look.wait(&["resumed by "]);
    drop(look.load);
}

// P20
#[test]
fn the_hour_is_drawn_and_a_moment_of_it_can_be_chosen_by_keyboard() {
    let Some(look) = Look::new() else { return };
    eventually("a slot of the history is over", || look.page.value("document.querySelectorAll('.moment').length") != 0);
    let text = look.wait(&["requests, 0 failed", "p50", "p99"]);
    assert!(text.contains("app, the last "), "{text}");
    // The second comes thirty seconds later, so that this is the only one.
    look.page.value("document.querySelector('.strip').focus()");
    look.page.press("ArrowLeft", 37);
    look.wait(&["a moment of the past", "Replicas then", "Back to the present"]);
    let address = look.replicas[0].address().to_string();
    assert!(look.page.text().contains(&address));
    look.page.press("Escape", 27);
    look.wait(&["live", "All well"]);
    drop(look.load);
}

// P20
#[test]
fn without_scripts_in_the_dark_and_on_a_narrow_screen_it_says_the_same() {
    if !has_browser() {
        return;
    }
    let network = Loopback::new();
    let origin = network.origin("app", |head, wire, _| match head.method() {
        "POST" => wire.close(),
        _ => serve(head, wire),
    });
    let bed = Bed::around(network, vec![origin], |c| c);
    // What a client writes is text there, and nothing else.
    let evil = "POST /&lt;script&gt;'&amp HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(bed.ask(evil).status, 502);
    let page = Browser::open(&url(&bed), (360, 700), true, false);
    let text = eventually_some("the page is there", || {
        Some(page.text()).filter(|text| text.contains("Failed requests") && text.contains("Replicas"))
    });
    assert!(text.contains("POST /&lt;script&gt;'&amp"), "{text}");
    assert!(text.contains("as of this page's loading"), "{text}");
    // Nothing but the tables is wider than the screen, and they scroll by themselves.
    assert_eq!(page.value("document.documentElement.scrollWidth <= 360"), true);
    let shade = page.value("getComputedStyle(document.body).backgroundColor").to_string();
    assert!(shade.contains("rgb(21, 23, 26)"), "{shade}");
}

// P20
#[test]
fn fifty_open_pages_keep_neither_callers_nor_scrapers_waiting() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 3);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let open = || {
        let mut page = Wire::connect(bed.proxy.admin());
        page.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        (page.head().unwrap().first, page)
    };
    let (heads, pages): (Vec<_>, Vec<_>) = (0..70).map(|_| open()).unzip();
    assert_eq!(heads.iter().filter(|first| *first == "HTTP/1.1 200 OK").count(), 64, "{heads:?}");
    assert!(heads[64..].iter().all(|first| first.contains("503")), "{heads:?}");
    let load = Load::start(Plan::new(bed.proxy.address(), 200.0));
    while load.sent() < 600 {
        assert!(bed.proxy.ready() && bed.proxy.metrics().contains("evenkeel_build_info"));
    }
    assert!(load.stop().lost().is_empty());
    drop(pages);
    eventually("there is room again", || open().0 == "HTTP/1.1 200 OK");
}

// P20
#[test]
fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let network = Loopback::new();
    let _replicas = network.scale("app", &App::replica(), 3);
    let bed = Bed::around(network, vec![], |c| c);
    bed.proxy.wait_serving("/");
    let get = |path: &str| {
        let mut wire = Wire::connect(bed.proxy.admin());
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        wire.response().unwrap()
    };
    let parts = ["/", "/page.css", "/page.js"].map(get);
    let size: usize = parts.iter().map(|part| part.body.len()).sum();
    assert!(parts.iter().all(|part| part.status == 200) && size < 30_000, "{size} bytes without a history");
    assert!(parts[0].get("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    assert!(parts.iter().all(|part| !part.text().contains("//")
        || part.get("content-type").is_some_and(|t| t.starts_with("text/javascript"))));
}

// P20, P21
#[test]
fn why_a_request_went_where_it_went_is_asked_on_the_page_itself() {
    if !has_browser() {
        return;
    }
    let bed = Bed::new(|head, wire, _| if head.target() == "/broken" { wire.close() } else { serve(head, wire) });
    assert_eq!(bed.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: order 7/ü\r\n\r\n").status, 200);
    assert_eq!(bed.ask("POST /broken HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 502);
    let page = Browser::open(&url(&bed), WIDE, false, true);
    let says = |text: &str| eventually(&format!("the page says {text:?}"), || page.text().contains(text));
    says("Failed requests");
    // Its policy lets the form go to the proxy.
    page.value("document.getElementById('id').value = 'order 7/ü'; document.forms[0].requestSubmit(); true");
    says("X-Request-Id order 7/ü");
    page.value(&format!("location.assign('{}'); true", url(&bed)));
    says("Failed requests");
    let click = "[...document.querySelectorAll('td a')].find((a) => a.innerText === 'why').click()";
    eventually("the link tells why", || {
        page.value(click);
        page.text().contains("answered with 502: the replica closed the connection without a response")
    });
}

// P20, F70
#[test]
fn a_reload_is_told_and_one_that_was_refused_with_its_reason() {
    let Some(look) = Look::new() else { return };
    let config = ProxyConfig::new(&look.bed.network, "app").set("upstream.app.probe.path", "/ping");
    look.bed.proxy.write_config(&config.set("server.drain", "4s").to_toml());
    let text = look.wait(&[", reloaded ", "All well"]);
    assert!(text.contains("\nC\n"), "there is a flag on the hour: {text}");
    let bad = ProxyConfig::new(&look.bed.network, "app").set("upstream.app.waiting", "1s");
    look.bed.proxy.write_config(&bad.to_toml());
    look.wait(&["The configuration was not reloaded, the old one holds: ", "unknown key waiting", ", not reloaded "]);
    assert!(look.headline().starts_with("▲ "), "{}", look.headline());
    assert!(look.load.stop().lost().is_empty());
}
