//! What keys and news do to a view.

use super::super::view::*;
use crate::admin::Overview;
use crate::admin::overview::{ReplicaOverview, UpstreamOverview};
use crate::admin::status::{EndpointStatus, FailedRequest, Status, UpstreamStatus};
use crate::admin::verb::{Replica, Verb};

/// Two upstreams, with the replicas 1 to 3 and 4.
fn overview() -> Overview {
    let endpoint = |id: u64| EndpointStatus {
        id,
        address: format!("10.0.0.{id}:8080"),
        usable: true,
        weight: 1.0,
        in_flight: [0, 1, 3, 2, 9][id as usize],
        requests: 10 * id,
        ..EndpointStatus::default()
    };
    let upstream = |name: &str, ids: &[u64]| UpstreamStatus {
        name: name.into(),
        endpoints: ids.iter().map(|id| endpoint(*id)).collect(),
        ..UpstreamStatus::default()
    };
    let mut upstreams = vec![upstream("app", &[1, 2, 3]), upstream("db", &[4])];
    upstreams[0].endpoints[2].usable = false;
    let failed = |id: &str, seconds_ago| FailedRequest { id: id.into(), seconds_ago, ..FailedRequest::default() };
    upstreams[0].failures = vec![failed("old", 9.0), failed("new", 1.0)];
    upstreams[1].failures = vec![failed("middle", 4.0)];
    let replica = |p99| ReplicaOverview { p99_seconds: p99, ..ReplicaOverview::default() };
    let extra = UpstreamOverview {
        replicas: vec![replica(Some(0.1)), replica(None), replica(Some(0.2))],
        ..UpstreamOverview::default()
    };
    Overview {
        status: Status { upstreams, ..Status::default() },
        upstreams: vec![extra, UpstreamOverview::default()],
        ..Overview::default()
    }
}

fn view() -> View {
    let mut view = View::default();
    view.update(Update::Overview(Box::new(Ok(overview()))));
    view
}

fn selected(view: &View) -> u64 {
    let (upstream, at) = view.selected().unwrap();
    view.overview.status.upstreams[upstream].endpoints[at].id
}

#[test]
fn the_selection_follows_its_replica_through_orders_and_news() {
    let mut view = view();
    assert_eq!(selected(&view), 1);
    view.press(Key::Down);
    assert_eq!(selected(&view), 2);
    for order in [[2, 0, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 1, 2], [0, 1, 2]] {
        view.press(Key::Char('s'));
        assert_eq!(view.order(0), order, "{:?}", view.sort);
        assert_eq!(selected(&view), 2);
    }
    view.press(Key::End);
    assert_eq!(selected(&view), 4);
    view.press(Key::Down);
    assert_eq!(selected(&view), 4, "there is none below");
    view.press(Key::Up);
    assert_eq!(selected(&view), 3);
    // It leaves: the one in its place is selected.
    let mut less = overview();
    less.status.upstreams[0].endpoints.remove(2);
    view.update(Update::Overview(Box::new(Ok(less))));
    assert_eq!(selected(&view), 4);
    view.update(Update::Overview(Box::new(Ok(Overview::default()))));
    assert_eq!(view.selected(), None);
    for key in [Key::Up, Key::Down, Key::End, Key::Enter, Key::Char('d'), Key::Char('p'), Key::Char('f')] {
        assert_eq!(view.press(key), None, "there is nobody it could be about");
    }
}

#[test]
fn orders_are_given_only_after_a_yes_and_undo_what_is_done() {
    let mut view = view();
    view.press(Key::Down);
    let replica =
        |upstream: &str| Replica { ip: "10.0.0.2".parse().unwrap(), port: None, upstream: Some(upstream.into()) };
    view.press(Key::Char('d'));
    assert_eq!(view.asked, Some(Verb::Drain(replica("app"))));
    assert_eq!(view.press(Key::Enter), None, "that is no yes");
    assert_eq!(view.press(Key::Char('y')), None, "it is not asked any more");
    view.press(Key::Char('d'));
    assert_eq!(view.press(Key::Char('y')), Some(Action::Order(Verb::Drain(replica("app")))));
    view.update(Update::Ordered(Ok(vec!["done".into()])));
    assert_eq!(view.message, Some(Ok("done".into())));

    let mut drained = overview();
    drained.status.upstreams[0].endpoints[1].drained = true;
    drained.status.upstreams[0].paused = true;
    view.update(Update::Overview(Box::new(Ok(drained))));
    view.press(Key::Char('d'));
    assert_eq!(view.asked, Some(Verb::Undrain(replica("app"))));
    view.press(Key::Char('n'));
    view.press(Key::Char('p'));
    assert_eq!(view.asked, Some(Verb::Resume("app".into())));
    view.press(Key::Back);
    view.press(Key::End);
    view.press(Key::Char('p'));
    assert_eq!(view.press(Key::Char('y')), Some(Action::Order(Verb::Pause("db".into()))));
}

#[test]
fn failed_requests_are_listed_newest_first_and_each_can_be_asked_about() {
    let mut view = view();
    view.press(Key::Char('f'));
    let names: Vec<_> = view.failures().iter().map(|(upstream, failure)| (*upstream, failure.id.as_str())).collect();
    assert_eq!(names, [("app", "new"), ("db", "middle"), ("app", "old")]);
    view.press(Key::Down);
    // The list is renewed: what is chosen stays so.
    let mut more = overview();
    more.status.upstreams[0].failures.push(FailedRequest { id: "newest".into(), ..FailedRequest::default() });
    view.update(Update::Overview(Box::new(Ok(more))));
    assert_eq!(view.press(Key::Enter), Some(Action::Why("middle".into())));
    view.update(Update::Overview(Box::new(Ok(overview()))));
    view.update(Update::Why(Ok("one\ntwo\nthree\n".into())));
    view.press(Key::PageDown);
    assert_eq!(view.pane, Pane::Why { text: "one\ntwo\nthree\n".into(), from: 2, failure: 1 });
    view.press(Key::Back);
    assert_eq!(view.pane, Pane::Failures(1));
    view.press(Key::Back);
    assert_eq!(view.pane, Pane::Replicas);
    assert_eq!(view.press(Key::Char('q')), Some(Action::Quit));
}

#[test]
fn what_was_known_stays_while_the_proxy_does_not_answer() {
    let mut view = view();
    view.update(Update::Overview(Box::new(Err("nobody listens".into()))));
    view.update(Update::Overview(Box::new(Err("nobody listens".into()))));
    assert_eq!(view.problem.as_deref(), Some("nobody listens"));
    assert_eq!(view.overview, overview());
    view.update(Update::Overview(Box::new(Ok(overview()))));
    assert_eq!(view.problem, None);
}
