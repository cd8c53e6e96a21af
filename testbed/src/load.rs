//! An open-loop load: requests leave when they are due, however slowly the answers come, and are never sent again.
//!
//! Latency counts from the moment a request was *due*, so a stall costs what every request of it would have waited
//! (no coordinated omission). Connections are kept and reused, last one first, as clients do. One that was found closed
//! before anything of the request was written is replaced; whatever fails after that is lost, and told as lost.
//!
//! No two requests are alike ([`Unique`]), and each answer is compared with its request to the last byte. An answer to
//! another request or with other bytes ends the load with a panic.

use crate::http2::explain;
use crate::unique::{Content, Unique, Way};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to: an address and port, or a name and port. A name is resolved for each connection, and the first address
    /// is the only one that is tried.
    pub target: String,
    /// Requests a second.
    pub rate: f64,
    /// How they are spaced.
    pub spacing: Spacing,
    /// The share of POSTs, 0 to 1.
    pub posts: f64,
    /// The share of PUTs, 0 to 1. The others are GETs, with a HEAD or an OPTIONS now and then.
    pub puts: f64,
    /// Whom the requests are made for.
    pub app: Asked,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whether connections are kept for further requests.
    pub keep: bool,
    /// Statuses that are the app's answers; any other is a loss.
    pub answers: Vec<u16>,
    /// When to stop by itself; else at [`Load::stop`].
    pub duration: Option<Duration>,
    /// How long one request may take before it is given up and lost.
    pub patience: Duration,
    /// Decides spacing, order and ids.
    pub seed: u64,
}

impl Plan {
    /// Requests to the testbed's replica that may move to another one, at random times.
    pub fn new(target: impl ToString, rate: f64) -> Plan {
        Plan {
            target: target.to_string(),
            rate,
            spacing: Spacing::Poisson,
            posts: 0.0,
            puts: 0.0,
            app: Asked::Replica,
            protocol: Protocol::Http1,
            keep: true,
            answers: vec![200],
            duration: None,
            patience: Duration::from_secs(20),
            seed: crate::seed(),
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge: all requests share a few connections.
    H2c,
}

/// The app that answers, which decides what can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The testbed's replica: every answer tells which request it is for, and every byte of it is known beforehand.
    Replica,
    /// Another app, which answers this path with no body at all; the query is an id of the request's own.
    Path(String),
}

/// The time from one request to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Exponentially distributed: independent users.
    Poisson,
    /// Always the same.
    Uniform,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts it, in a thread of its own.
    pub fn start(plan: Plan) -> Load {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            done: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            book: Mutex::new(Book { phases: vec!["start".into()], ..Book::default() }),
        });
        let ours = shared.clone();
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                tokio::task::LocalSet::new().block_on(&runtime, run(plan, ours));
            })
            .expect("a thread");
        Load { shared, thread: Some(thread) }
    }

    /// Requests due from now on belong to this phase of the report. A name may come again.
    pub fn phase(&self, name: &str) {
        self.shared.book().phases.push(name.into());
    }

    /// The time on the load's own clock, which a [`Loss`] tells its times on.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Its counts, for another thread.
    pub fn watch(&self) -> LoadWatch {
        LoadWatch(self.shared.clone())
    }

    /// Requests that were sent and have not ended, of those that may not move to another replica while they run.
    pub fn bound_under_way(&self) -> u64 {
        self.shared.bound.load(Ordering::Relaxed)
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Requests sent so far that ended, well or not.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Requests lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Waits until `count` more requests have been sent.
    pub fn wait_sent(&self, count: u64) {
        let goal = self.sent() + count;
        crate::eventually(&format!("{count} more requests are sent"), || self.sent() >= goal);
    }

    /// Sends nothing more, waits for what is under way, and reports.
    ///
    /// # Panics
    /// As [`Load::wait`].
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits for the plan's duration to end and for what is under way, and reports.
    ///
    /// # Panics
    /// When an answer was another request's, or had other bytes than its own.
    pub fn wait(self) -> Report {
        let report = self.end();
        let wrong: Vec<_> = report.lost().iter().filter(|l| l.kind.is_wrong()).collect();
        assert!(wrong.is_empty(), "{} answers were wrong: {wrong:#?}", wrong.len());
        report
    }

    /// As [`Load::stop`], where wrong answers are for the caller to judge.
    pub(crate) fn stop_unjudged(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.end()
    }

    fn end(mut self) -> Report {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load does not panic");
        }
        let book = std::mem::take(&mut *self.shared.book());
        Report { phases: book.phases, replicas: book.replicas, requests: book.requests, losses: book.losses }
    }
}

/// Counts of a load, for another thread to look at while it runs.
#[derive(Clone, Debug)]
pub struct LoadWatch(Arc<Shared>);

impl LoadWatch {
    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Requests lost so far.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// A request that did not end in the whole answer that is right for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// When it was due, from the start.
    pub due: Duration,
    /// How long after that it was lost.
    pub after: Duration,
    /// The phase in which it was due.
    pub phase: String,
    /// Its id.
    pub id: u64,
    /// Its method.
    pub method: Method,
    /// Whether the proxy might have sent it again; see [`Unique::repeatable`].
    pub repeatable: bool,
    /// The replica that had begun to answer, by its own word; else empty.
    pub replica: String,
    /// What came instead.
    pub kind: LossKind,
}

/// What came instead of the whole and right answer.
#[derive(Clone, Debug, PartialEq)]
pub enum LossKind {
    /// The connect failed.
    Connect(String),
    /// The connection ended without an answer, or what came was not HTTP.
    Broken(String),
    /// It ended within the answer.
    Cut(String),
    /// No whole answer within the plan's patience.
    GivenUp,
    /// Another status; with `Proxy-Status` where the proxy gave one.
    Status(u16, String),
    /// An answer to another request, or nobody's.
    Foreign(String),
    /// Its own answer with other bytes, or of a request that arrived with other bytes.
    Garbled(String),
}

impl LossKind {
    /// Whether this must never be, whatever happens to replicas.
    pub fn is_wrong(&self) -> bool {
        matches!(self, LossKind::Foreign(_) | LossKind::Garbled(_))
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    phases: Vec<String>,
    replicas: Vec<String>,
    requests: Vec<Done>,
    losses: Vec<Loss>,
}

impl Report {
    /// How many requests were sent.
    pub fn sent(&self) -> usize {
        self.requests.len()
    }

    /// Those that were lost.
    pub fn lost(&self) -> &[Loss] {
        &self.losses
    }

    /// The ids of all that may not be sent twice, answered or lost: POSTs, and what has a body that is not kept.
    pub fn once(&self) -> Vec<u64> {
        self.requests.iter().filter(|r| r.once).map(|r| r.id).collect()
    }

    /// The names of the phases, in the order of their first coming.
    pub fn phases(&self) -> Vec<&str> {
        let mut names: Vec<&str> = vec![];
        for name in &self.phases {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Only what was due in phases of this name.
    pub fn phase(&self, name: &str) -> Report {
        let belongs = |index: u16| self.phases[index as usize] == name;
        Report {
            phases: self.phases.clone(),
            replicas: self.replicas.clone(),
            requests: self.requests.iter().filter(|r| belongs(r.phase)).copied().collect(),
            losses: self.losses.iter().filter(|l| l.phase == name).cloned().collect(),
        }
    }

    /// The latency that this share (0.99) of all *answered* requests did not exceed; zero when none was answered.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut latencies: Vec<u32> = self.requests.iter().filter(|r| r.ok).map(|r| r.micros).collect();
        latencies.sort_unstable();
        percentile(&latencies, share)
    }

    /// How many answers each replica gave.
    pub fn by_replica(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for request in self.requests.iter().filter(|r| r.ok) {
            *counts.entry(self.replicas[request.replica as usize].as_str()).or_default() += 1;
        }
        counts
    }

    /// What was sent, what was lost and when, and latencies in milliseconds; `start` is the load's, in milliseconds of the
    /// time of day.
    pub fn to_json(&self, start: u128) -> serde_json::Value {
        let loss = |l: &Loss| {
            let (due, after) = (l.due.as_millis(), l.after.as_millis());
            json!({"due": due, "after": after, "method": l.method.as_str(), "kind": format!("{:?}", l.kind)})
        };
        let [p50, p99] = [0.5, 0.99].map(|share| self.percentile(share).as_secs_f64() * 1e3);
        let losses: Vec<_> = self.losses.iter().map(loss).collect();
        json!({"start": start as u64, "sent": self.sent(), "losses": losses, "p50": p50, "p99": p99})
    }

    /// A line for each phase: sent, lost, p50, p99, p99.9.
    pub fn table(&self) -> String {
        let mut text = format!("{:<28}{:>9}{:>7}{:>10}{:>10}{:>10}\n", "", "requests", "lost", "p50", "p99", "p99.9");
        let millis = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1e3);
        let names = self.phases();
        let parts = names.iter().map(|name| (*name, self.phase(name)));
        let whole = (names.len() > 1).then(|| ("all", self.clone()));
        for (name, part) in parts.chain(whole).filter(|(_, part)| part.sent() > 0) {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|p| millis(part.percentile(p)));
            let (sent, lost) = (part.sent(), part.lost().len());
            text += &format!("{name:<28}{sent:>9}{lost:>7}{p50:>10}{p99:>10}{p999:>10}\n");
        }
        text
    }
}

/// The smallest value that `share` of the sorted values do not exceed (the nearest-rank definition).
fn percentile(sorted: &[u32], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let micros = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0);
    Duration::from_micros(micros.into())
}

/// One request's end, small: a soak keeps a million.
#[derive(Clone, Copy, Debug)]
struct Done {
    micros: u32,
    phase: u16,
    replica: u16,
    ok: bool,
    once: bool,
    id: u64,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    sent: AtomicU64,
    /// Requests under way that may not move.
    bound: AtomicU64,
    done: AtomicU64,
    lost: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    phases: Vec<String>,
    replicas: Vec<String>,
    requests: Vec<Done>,
    losses: Vec<Loss>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn record(&self, phase: usize, due: Duration, after: Duration, request: &Unique, end: End) {
        let mut book = self.book();
        let ok = end.outcome.is_ok();
        let mut replica = 0;
        match end.outcome {
            Ok(()) => {
                let known = book.replicas.iter().position(|r| *r == end.replica);
                replica = known.unwrap_or_else(|| {
                    book.replicas.push(end.replica);
                    book.replicas.len() - 1
                });
            }
            Err(kind) => {
                let phase = book.phases[phase].clone();
                let (id, method, repeatable) = (request.id, request.method.clone(), request.repeatable());
                book.losses.push(Loss { due, after, phase, id, method, repeatable, replica: end.replica, kind });
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        let micros = after.as_micros().min(u32::MAX.into()) as u32;
        let (phase, replica) = (phase as u16, replica as u16);
        book.requests.push(Done { micros, phase, replica, ok, once: !request.repeatable(), id: request.id });
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections kept at most, as clients' pools have it: after an outage with thousands of waiting requests the others are
/// closed.
const MOST_IDLE: usize = 128;

/// How long a connect may take before the request is lost.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Connections of HTTP/2 that all requests share.
const SHARED: usize = 4;

/// A connection, or a place on one.
enum Sender {
    Http1(http1::SendRequest<Content>),
    H2c(http2::SendRequest<Content>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::H2c(sender) => sender.is_closed(),
        }
    }

    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Sender::Http1(sender) => sender.ready().await,
            Sender::H2c(sender) => sender.ready().await,
        }
    }

    async fn send(&mut self, request: Request<Content>) -> Result<Response<Incoming>, TrySendError<Request<Content>>> {
        match self {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::H2c(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Runs what a connection of HTTP/2 has to do beside its requests.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// How one request ended, and who answered, as far as that is known.
struct End {
    replica: String,
    outcome: Result<(), LossKind>,
}

async fn run(plan: Plan, shared: Arc<Shared>) {
    let plan = Rc::new(plan);
    let idle: Rc<Mutex<Vec<Sender>>> = Rc::default();
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    // Ids of different runs against the same replicas must differ as well.
    let mut next_id = rng.u64(..1 << 40) << 20;
    let start = shared.start;
    let mut due = Duration::ZERO;
    let mut tasks = tokio::task::JoinSet::new();
    while !shared.stop.load(Ordering::Relaxed) && plan.duration.is_none_or(|d| due < d) {
        let late = start.elapsed();
        if due > late {
            // Short naps, so that a stop is noticed at any rate.
            tokio::time::sleep((due - late).min(Duration::from_millis(50))).await;
            continue;
        }
        next_id += 1;
        let mut request = Unique::draw(next_id, &mut rng, plan.posts, plan.puts);
        if request.movable() && plan.app != Asked::Replica {
            request.method = Method::GET;
        }
        let phase = shared.book().phases.len() - 1;
        shared.sent.fetch_add(1, Ordering::Relaxed);
        let bound = u64::from(!request.movable());
        shared.bound.fetch_add(bound, Ordering::Relaxed);
        let (ours, idle, shared, at) = (plan.clone(), idle.clone(), shared.clone(), due);
        tasks.spawn_local(async move {
            let mut end = End { replica: String::new(), outcome: Err(LossKind::GivenUp) };
            if let Ok(outcome) =
                tokio::time::timeout(ours.patience, send(&ours, &idle, &request, &mut end.replica)).await
            {
                end.outcome = outcome;
            }
            shared.bound.fetch_sub(bound, Ordering::Relaxed);
            shared.record(phase, at, start.elapsed().saturating_sub(at), &request, end);
        });
        while tasks.try_join_next().is_some() {}
        let gap = match plan.spacing {
            Spacing::Uniform => 1.0,
            // The inverse of the exponential distribution; 1 - f64() is never 0.
            Spacing::Poisson => -(1.0 - rng.f64()).ln(),
        };
        due += Duration::from_secs_f64(gap / plan.rate);
    }
    while tasks.join_next().await.is_some() {}
}

/// Sends one request, reads its answer to the end and compares the two. `replica` is who answers, as soon as it is known.
async fn send(plan: &Plan, idle: &Mutex<Vec<Sender>>, unique: &Unique, replica: &mut String) -> Result<(), LossKind> {
    let mut request = match &plan.app {
        Asked::Replica => unique.request(),
        Asked::Path(path) => {
            let request = Request::builder().method(&unique.method).uri(format!("{path}?id={}", unique.id));
            request.header("host", "app.test").body(unique.content(Way::Up)).expect("a path that the test wrote")
        }
    };
    if plan.protocol == Protocol::H2c {
        // The host is a part of what is asked for.
        let host = request.headers_mut().remove(HOST).expect("the request has one");
        let uri = format!("http://{}{}", host.to_str().expect("a name"), request.uri());
        *request.uri_mut() = uri.parse::<Uri>().expect("a path behind a name");
    }
    let (response, sender) = loop {
        let kept = take(plan, idle);
        let mut sender = match kept {
            Some(sender) if sender.is_closed() => continue,
            Some(sender) => sender,
            None => connect(plan, idle).await?,
        };
        if sender.ready().await.is_err() {
            continue;
        }
        match sender.send(request).await {
            Ok(response) => break (response, sender),
            Err(mut e) => match e.take_message() {
                // Nothing of it was written: the connection was closed while it lay idle.
                Some(unsent) => request = unsent,
                None => return Err(LossKind::Broken(explain(&e.into_error()))),
            },
        }
    };
    let (head, mut body) = response.into_parts();
    let field = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (status, proxy_status) = (head.status.as_u16(), field("proxy-status"));
    *replica = field("x-replica");
    let answered = plan.answers.contains(&status);
    let by_replica = plan.app == Asked::Replica;
    // What the proxy says by itself names no request; whatever comes from a replica does.
    if by_replica && (proxy_status.is_empty() || !replica.is_empty()) {
        unique.compare_head(&head.headers, answered, plan.protocol == Protocol::H2c)?;
    }
    let mut expected = match plan.app {
        Asked::Replica => unique.expected(),
        Asked::Path(_) => Content::new(unique.id, Way::Down, 0, false),
    };
    let wrong = |what: &str| LossKind::Garbled(format!("{} {}: {what}", unique.method, unique.target()));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| LossKind::Cut(explain(&e)))?;
        if answered && !frame.data_ref().is_none_or(|data| expected.continues_with(data)) {
            return Err(wrong("other bytes came"));
        }
    }
    if !answered {
        keep(plan, idle, sender);
        return Err(LossKind::Status(status, proxy_status));
    }
    if expected.left() > 0 {
        return Err(wrong(&format!("{} bytes at the end did not come", expected.left())));
    }
    keep(plan, idle, sender);
    Ok(())
}

/// A connection that may be used: the one used last, or, where requests share them, each in its turn.
fn take(plan: &Plan, idle: &Mutex<Vec<Sender>>) -> Option<Sender> {
    let mut idle = idle.lock().unwrap_or_else(|e| e.into_inner());
    if plan.protocol == Protocol::Http1 {
        return idle.pop();
    }
    idle.retain(|sender| !sender.is_closed());
    if idle.len() < SHARED {
        return None;
    }
    idle.rotate_left(1);
    match &idle[0] {
        Sender::H2c(sender) => Some(Sender::H2c(sender.clone())),
        Sender::Http1(_) => None,
    }
}

fn keep(plan: &Plan, idle: &Mutex<Vec<Sender>>, sender: Sender) {
    let mut idle = idle.lock().unwrap_or_else(|e| e.into_inner());
    if plan.keep && plan.protocol == Protocol::Http1 && idle.len() < MOST_IDLE {
        idle.push(sender);
    }
}

async fn connect(plan: &Plan, shared: &Mutex<Vec<Sender>>) -> Result<Sender, LossKind> {
    let to = &plan.target;
    let refused = |e: &dyn std::error::Error| LossKind::Connect(e.to_string());
    let first = tokio::net::lookup_host(to).await.map_err(|e| refused(&e))?.next();
    let first = first.ok_or_else(|| LossKind::Connect(format!("{to} has no address")))?;
    // A container that is gone may leave an address at which nobody even refuses.
    let connecting = tokio::time::timeout(CONNECT_PATIENCE, tokio::net::TcpStream::connect(first));
    let stream = connecting.await.map_err(|e| refused(&e))?.map_err(|e| refused(&e))?;
    let _ = stream.set_nodelay(true);
    if plan.protocol == Protocol::Http1 {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| refused(&e))?;
        tokio::task::spawn_local(connection);
        return Ok(Sender::Http1(sender));
    }
    let (sender, connection) = http2::handshake(Local, TokioIo::new(stream)).await.map_err(|e| refused(&e))?;
    tokio::task::spawn_local(connection);
    if plan.keep {
        shared.lock().unwrap_or_else(|e| e.into_inner()).push(Sender::H2c(sender.clone()));
    }
    Ok(Sender::H2c(sender))
}

#[cfg(test)]
mod tests;
