//! What `evenkeel top` shows of what it knows: what is selected and looked at closer, in which order; and what a key does.
//! Pure: what is to be asked of the proxy comes out as an [`Action`], and its answer comes in as an [`Update`].

use crate::admin::Overview;
use crate::admin::status::{EndpointStatus, FailedRequest, UpstreamStatus};
use crate::admin::verb::{Replica, Verb};
use std::cmp::Reverse;
use std::net::SocketAddr;

/// Lines that a page key moves by, for a view whose height is not known here.
const PAGE: usize = 10;

/// A key, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A letter, digit or sign.
    Char(char),
    /// To the one above.
    Up,
    /// To the one below.
    Down,
    /// Some above.
    PageUp,
    /// Some below.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// Closer.
    Enter,
    /// Back.
    Back,
    /// To the end of the program.
    Quit,
}

/// What the program has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// End.
    Quit,
    /// Give the proxy this order.
    Order(Verb),
    /// Ask why this request went where it went.
    Why(String),
}

/// What the proxy said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Update {
    /// How things are, or why that is not known.
    Overview(Box<Result<Overview, String>>),
    /// What came of an order.
    Ordered(Result<Vec<String>, String>),
    /// How a request went.
    Why(Result<String, String>),
}

/// By what the replicas of an upstream are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As DNS and their age have it.
    #[default]
    Age,
    /// What is wrong comes first.
    State,
    /// The most come first.
    InFlight,
    /// The slowest come first.
    P99,
    /// The most come first.
    Requests,
    /// The most come first.
    Failed,
}

impl Sort {
    const ALL: [Sort; 6] = [Sort::Age, Sort::State, Sort::InFlight, Sort::P99, Sort::Requests, Sort::Failed];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Age => "age",
            Sort::State => "state",
            Sort::InFlight => "in flight",
            Sort::P99 => "p99",
            Sort::Requests => "requests",
            Sort::Failed => "failed",
        }
    }

    fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }
}

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    /// All upstreams with their replicas.
    #[default]
    Replicas,
    /// The selected replica.
    Replica,
    /// The failed requests; one of them is selected, counted from the newest.
    Failures(usize),
    /// How one of them went, from this line on; where it came from.
    Why { text: String, from: usize, failure: usize },
    /// The keys.
    Help,
}

/// A replica, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selected {
    upstream: String,
    id: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct View {
    /// What was told last.
    pub(super) overview: Overview,
    /// Why nothing was told since.
    pub(super) problem: Option<String>,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    /// What came of the last order.
    pub(super) message: Option<Result<String, String>>,
    /// An order that waits for a yes.
    pub(super) asked: Option<Verb>,
    selected: Option<Selected>,
    /// Where the selected one stood, for when it is gone.
    index: usize,
}

impl View {
    /// Takes in what the proxy said.
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Overview(told) => match *told {
                Ok(overview) => {
                    let failure = self.chosen_failure();
                    self.overview = overview;
                    self.problem = None;
                    // The replica that was looked at is no longer there.
                    if self.pane == Pane::Replica && self.selected().is_none() {
                        self.pane = Pane::Replicas;
                        self.message = Some(Err("The replica has left.".to_owned()));
                    }
                    self.select(self.index());
                    self.keep_failure(failure);
                }
                Err(problem) => self.problem = Some(problem),
            },
            Update::Ordered(result) => self.message = Some(result.map(|lines| lines.join("; "))),
            Update::Why(Ok(text)) => {
                // Whoever went elsewhere meanwhile stays there.
                if let Pane::Failures(failure) = self.pane {
                    self.pane = Pane::Why { text, from: 0, failure };
                }
            }
            Update::Why(Err(problem)) => self.message = Some(Err(problem)),
        }
    }

    /// Does what a key means, and says what else there is to do.
    pub(super) fn press(&mut self, key: Key) -> Option<Action> {
        if key == Key::Quit {
            return Some(Action::Quit);
        }
        self.message = None;
        if let Some(verb) = self.asked.take() {
            return matches!(key, Key::Char('y' | 'Y')).then_some(Action::Order(verb));
        }
        match key {
            Key::Char('q') => return Some(Action::Quit),
            Key::Char('?' | 'h') => self.pane = Pane::Help,
            Key::Char('f') => self.pane = Pane::Failures(0),
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('d') if self.is_of_replicas() => self.asked = self.drain(),
            Key::Char('p') if self.is_of_replicas() => self.asked = self.pause(),
            Key::Enter => return self.look_closer(),
            Key::Back => self.go_back(),
            Key::Up | Key::Char('k') => self.move_by(|at, _| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.move_by(|at, _| at + 1),
            Key::PageUp => self.move_by(|at, _| at.saturating_sub(PAGE)),
            Key::PageDown => self.move_by(|at, _| at + PAGE),
            Key::Home => self.move_by(|_, _| 0),
            Key::End => self.move_by(|_, count| count),
            Key::Char(_) | Key::Quit => {}
        }
        None
    }

    /// The replicas of an upstream, by their places in its list, as they are sorted.
    pub(super) fn order(&self, upstream: usize) -> Vec<usize> {
        let UpstreamStatus { endpoints, .. } = &self.overview.status.upstreams[upstream];
        let extra = self.overview.upstreams.get(upstream).map_or(&[][..], |overview| &overview.replicas);
        let p99 = |at: usize| extra.get(at).and_then(|replica| replica.p99_seconds).unwrap_or(0.0);
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        match self.sort {
            Sort::Age => {}
            Sort::State => order.sort_by_key(|at| Reverse(endpoints[*at].level())),
            Sort::InFlight => order.sort_by_key(|at| Reverse(endpoints[*at].in_flight)),
            Sort::P99 => order.sort_by(|a, b| p99(*b).total_cmp(&p99(*a))),
            Sort::Requests => order.sort_by_key(|at| Reverse(endpoints[*at].requests)),
            Sort::Failed => order.sort_by_key(|at| Reverse(endpoints[*at].failures)),
        }
        order
    }

    /// Whether this replica is the selected one.
    pub(super) fn is_selected(&self, upstream: &UpstreamStatus, endpoint: &EndpointStatus) -> bool {
        self.selected.as_ref().is_some_and(|selected| selected.id == endpoint.id && selected.upstream == upstream.name)
    }

    /// The selected replica: the places of its upstream and of itself.
    pub(super) fn selected(&self) -> Option<(usize, usize)> {
        let upstreams = &self.overview.status.upstreams;
        self.rows().into_iter().find(|(u, at)| self.is_selected(&upstreams[*u], &upstreams[*u].endpoints[*at]))
    }

    /// The failed requests of all upstreams, the newest first, each with its upstream's name.
    pub(super) fn failures(&self) -> Vec<(&str, &FailedRequest)> {
        let mut all = Vec::new();
        for upstream in &self.overview.status.upstreams {
            all.extend(upstream.failures.iter().map(|failure| (upstream.name.as_str(), failure)));
        }
        all.sort_by(|a, b| a.1.seconds_ago.total_cmp(&b.1.seconds_ago));
        all
    }

    /// Whether a replica is chosen in this pane.
    fn is_of_replicas(&self) -> bool {
        matches!(self.pane, Pane::Replicas | Pane::Replica)
    }

    /// The name of the failed request that is chosen.
    fn chosen_failure(&self) -> Option<String> {
        let Pane::Failures(at) = self.pane else { return None };
        self.failures().get(at).map(|(_, failure)| failure.id.clone())
    }

    /// Chooses the failed request of that name wherever it stands now, as far as it is known.
    fn keep_failure(&mut self, id: Option<String>) {
        let Some(id) = id else { return };
        let failures = self.failures();
        let last = failures.len().saturating_sub(1);
        let at = failures.iter().position(|(_, failure)| failure.id == id).unwrap_or(last);
        self.pane = Pane::Failures(at);
    }

    /// All replicas in the order of the screen.
    fn rows(&self) -> Vec<(usize, usize)> {
        let upstreams = 0..self.overview.status.upstreams.len();
        upstreams.flat_map(|upstream| self.order(upstream).into_iter().map(move |at| (upstream, at))).collect()
    }

    /// Where the selected replica stands on the screen, or stood.
    fn index(&self) -> usize {
        let selected = self.selected();
        self.rows().iter().position(|row| Some(*row) == selected).unwrap_or(self.index)
    }

    fn select(&mut self, index: usize) {
        let rows = self.rows();
        self.index = index.min(rows.len().saturating_sub(1));
        let upstreams = &self.overview.status.upstreams;
        self.selected = rows.get(self.index).map(|(upstream, at)| {
            let upstream = &upstreams[*upstream];
            Selected { upstream: upstream.name.clone(), id: upstream.endpoints[*at].id }
        });
    }

    fn move_by(&mut self, to: impl Fn(usize, usize) -> usize) {
        match &mut self.pane {
            Pane::Why { text, from, .. } => {
                let last = text.lines().count().saturating_sub(1);
                *from = to(*from, last).min(last);
            }
            Pane::Failures(at) => {
                let at = *at;
                let last = self.failures().len().saturating_sub(1);
                self.pane = Pane::Failures(to(at, last).min(last));
            }
            Pane::Help => {}
            Pane::Replicas | Pane::Replica => {
                let count = self.rows().len();
                self.select(to(self.index(), count));
            }
        }
    }

    fn look_closer(&mut self) -> Option<Action> {
        match self.pane {
            Pane::Replicas if self.selected().is_some() => self.pane = Pane::Replica,
            Pane::Failures(at) => return self.failures().get(at).map(|(_, failure)| Action::Why(failure.id.clone())),
            _ => {}
        }
        None
    }

    fn go_back(&mut self) {
        self.pane = match self.pane {
            Pane::Why { failure, .. } => Pane::Failures(failure),
            _ => Pane::Replicas,
        };
    }

    /// Takes the selected replica out of use, or back.
    fn drain(&self) -> Option<Verb> {
        let (upstream, at) = self.selected()?;
        let upstream = &self.overview.status.upstreams[upstream];
        let endpoint = &upstream.endpoints[at];
        let ip = endpoint.address.parse::<SocketAddr>().ok()?.ip();
        let replica = Replica { ip, port: None, upstream: Some(upstream.name.clone()) };
        Some(if endpoint.drained { Verb::Undrain(replica) } else { Verb::Drain(replica) })
    }

    /// Has the requests of the selected replica's upstream wait, or go on. Without any replica it is the first upstream's.
    fn pause(&self) -> Option<Verb> {
        let upstream = self.selected().map_or(0, |(upstream, _)| upstream);
        let upstream = self.overview.status.upstreams.get(upstream)?;
        let name = upstream.name.clone();
        Some(if upstream.paused { Verb::Resume(name) } else { Verb::Pause(name) })
    }
}
