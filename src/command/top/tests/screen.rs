//! Screens, as they are drawn.

use super::super::screen::draw;
use super::super::view::{Key, Update, View};
use crate::admin::Overview;
use crate::admin::headline::{Headline, Level};
use crate::admin::hour::{Column, Hour};
use crate::admin::overview::UpstreamOverview;
use crate::admin::status::{EndpointStatus, FailedRequest, Occurrence, Status, UpstreamStatus};
use crate::command::paint::Paint;

fn view(replicas: u64) -> View {
    let endpoint = |id: u64| EndpointStatus {
        id,
        address: format!("10.0.0.{id}:8080"),
        usable: id != 2,
        weight: 1.0,
        in_flight: 2,
        score: Some(3.0),
        ..EndpointStatus::default()
    };
    let column = |n: u32| Column { rate: f64::from(n), failed: u32::from(n == 7), ..Column::default() };
    let columns = [None, None].into_iter().chain((0..10).map(|n| Some(column(n)))).collect();
    let upstream = UpstreamStatus {
        name: "app".into(),
        address: "app:8080".into(),
        waiting: 40,
        max_waiting: 80,
        waiting_callers: 2,
        next_waited_seconds: Some(1.5),
        endpoints: (1..=replicas).map(endpoint).collect(),
        timeline: vec![Occurrence {
            seconds_ago: 4.0,
            address: Some("10.0.0.2:8080".into()),
            kind: "down".into(),
            what: "down: refused".into(),
        }],
        failures: vec![FailedRequest {
            method: "GET".into(),
            target: "/\x1b[2J".into(),
            text: "it broke".into(),
            ..FailedRequest::default()
        }],
        ..UpstreamStatus::default()
    };
    let extra = UpstreamOverview {
        rate: Some(412.4),
        p50_seconds: Some(0.002),
        hour: Hour { column_seconds: 10.0, columns },
        ..UpstreamOverview::default()
    };
    let headline = Headline { level: Level::Doubtful, text: "10.0.0.2:8080 is down".into() };
    let status = Status { version: "1".into(), upstreams: vec![upstream], ..Status::default() };
    let mut view = View::default();
    view.update(Update::Overview(Box::new(Ok(Overview { headline, status, upstreams: vec![extra] }))));
    view
}

fn shown(view: &View, width: usize, height: usize) -> Vec<String> {
    let lines = draw(view, width, height);
    lines.iter().map(|line| line.draw(width, Paint::new(false)).trim_end().to_owned()).collect()
}

#[test]
fn the_screen_has_the_sentence_the_hour_the_queue_and_each_replica() {
    let screen = shown(&view(3), 200, 30);
    assert_eq!(screen.len(), 30);
    assert!(screen[0].starts_with("evenkeel 1 · up 0.0 s · ready"), "{screen:#?}");
    assert_eq!(screen[1], "▲ 10.0.0.2:8080 is down");
    assert!(screen[3].starts_with("app = app:8080  ▲ 2 of 3 replicas usable  412/s  p50 2.0 ms  p99 -"), "{screen:#?}");
    assert_eq!(screen[4], "  requests/s  ▁▁▂▃▄▅▆▇██ ≤ 9/s");
    assert!(
        screen[6].starts_with(
            "  queue       ██████████·········· 40 of 80 from 2 clients; the next one has waited for 1.5 s"
        ),
        "{screen:#?}"
    );
    assert!(screen[9].contains("10.0.0.2:8080  ✖ "), "{screen:#?}");
    assert!(screen.iter().any(|line| line.ends_with("4.0 s ago  10.0.0.2:8080 down: refused")), "{screen:#?}");
    assert!(screen[29].starts_with("↑↓ choose"), "{screen:#?}");
}

#[test]
fn a_small_screen_shows_what_is_chosen_and_nothing_beyond_its_edges() {
    let mut view = view(40);
    view.press(Key::End);
    for (width, height) in [(40, 12), (20, 8), (1, 1), (0, 0), (500, 300)] {
        let screen = shown(&view, width, height);
        assert!(screen.len() <= height && screen.iter().all(|line| line.chars().count() <= width), "{screen:#?}");
    }
    let screen = shown(&view, 60, 12);
    assert!(screen.iter().any(|line| line.contains("10.0.0.40:8080")), "{screen:#?}");
    view.press(Key::Home);
    let screen = shown(&view, 60, 12);
    assert!(screen.iter().any(|line| line.contains("10.0.0.1:8080")), "{screen:#?}");
}

#[test]
fn closer_looks_tell_what_happened_to_one_replica_and_which_requests_failed() {
    let mut view = view(3);
    view.press(Key::Down);
    view.press(Key::Enter);
    let screen = shown(&view, 120, 30).join("\n");
    assert!(screen.contains("replica       10.0.0.2:8080 of app") && screen.contains("down: refused"), "{screen}");
    view.press(Key::Up);
    let screen = shown(&view, 120, 30).join("\n");
    assert!(screen.contains("10.0.0.1:8080 of app") && screen.contains("Nothing has happened"), "{screen}");
    view.press(Key::Char('f'));
    let screen = shown(&view, 120, 30).join("\n");
    assert!(screen.contains("app: it broke after 0 µs (nobody was tried)  GET /·[2J"), "{screen}");
    view.press(Key::Char('?'));
    assert!(shown(&view, 120, 30).join("\n").contains("pause its upstream"));
    view.press(Key::Back);
    view.press(Key::Char('d'));
    let screen = shown(&view, 120, 30).join("\n");
    assert!(screen.contains("Drain 10.0.0.1 of app? It gets nothing new"), "{screen}");
}

#[test]
fn a_proxy_that_is_not_there_is_told_with_what_was_known_before() {
    let mut view = view(3);
    view.update(Update::Overview(Box::new(Err("no evenkeel listens on 127.0.0.1:9180".into()))));
    let screen = shown(&view, 100, 30).join("\n");
    assert!(screen.contains("✖ no evenkeel listens on 127.0.0.1:9180\nWhat is below is from before."), "{screen}");
    assert!(screen.contains("10.0.0.1:8080"), "{screen}");
    let mut new = View::default();
    new.update(Update::Overview(Box::new(Err("nobody".into()))));
    assert_eq!(shown(&new, 100, 30)[0], "✖ nobody");
}
