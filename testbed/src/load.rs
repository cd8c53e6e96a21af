//! An open-loop load: requests leave when they are due, however slowly the answers come, and are never sent again.
//!
//! Latency counts from the moment a request was *due*, so a stall costs what every request of it would have waited
//! (no coordinated omission). Connections are kept and reused, last one first, as clients do. One that was found closed
//! before anything of the request was written is replaced; whatever fails after that is lost, and told as lost.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
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
    /// The share of POSTs, 0 to 1. A POST goes to `/count?id=N` with an id of its own and a small body.
    pub posts: f64,
    /// The target of GETs.
    pub path: String,
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
    /// GETs of `/`, at random times.
    pub fn new(target: impl ToString, rate: f64) -> Plan {
        Plan {
            target: target.to_string(),
            rate,
            spacing: Spacing::Poisson,
            posts: 0.0,
            path: "/".into(),
            keep: true,
            answers: vec![200],
            duration: None,
            patience: Duration::from_secs(20),
            seed: crate::seed(),
        }
    }
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
            posts: AtomicU64::new(0),
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

    /// POSTs that were sent and have not ended.
    pub fn posts_under_way(&self) -> u64 {
        self.shared.posts.load(Ordering::Relaxed)
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
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits for the plan's duration to end and for what is under way, and reports.
    pub fn wait(mut self) -> Report {
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

/// A request that did not end in a whole answer 200.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// When it was due, from the start.
    pub due: Duration,
    /// How long after that it was lost.
    pub after: Duration,
    /// The phase in which it was due.
    pub phase: String,
    /// The id, of a POST.
    pub post: Option<u64>,
    /// What came instead.
    pub kind: LossKind,
}

/// What came instead of a whole answer of the app's.
#[derive(Clone, Debug, PartialEq)]
pub enum LossKind {
    /// The connect failed.
    Connect(String),
    /// The connection ended, or what came was not HTTP.
    Broken(String),
    /// No whole answer within the plan's patience.
    GivenUp,
    /// Another status; with `Proxy-Status` where the proxy gave one.
    Status(u16, String),
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

    /// The ids of all POSTs, answered or lost.
    pub fn posts(&self) -> Vec<u64> {
        self.requests.iter().filter_map(|r| r.post).collect()
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
            json!({"due": due, "after": after, "post": l.post, "kind": format!("{:?}", l.kind)})
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
    post: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    sent: AtomicU64,
    /// POSTs under way.
    posts: AtomicU64,
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

    fn record(&self, phase: usize, due: Duration, after: Duration, post: Option<u64>, end: Result<String, LossKind>) {
        let mut book = self.book();
        let ok = end.is_ok();
        let mut replica = 0;
        match end {
            Ok(name) => {
                let known = book.replicas.iter().position(|r| *r == name);
                replica = known.unwrap_or_else(|| {
                    book.replicas.push(name);
                    book.replicas.len() - 1
                });
            }
            Err(kind) => {
                let phase = book.phases[phase].clone();
                book.losses.push(Loss { due, after, phase, post, kind });
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        let micros = after.as_micros().min(u32::MAX.into()) as u32;
        book.requests.push(Done { micros, phase: phase as u16, replica: replica as u16, ok, post });
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections kept at most, as clients' pools have it: after an outage with thousands of waiting requests the others are
/// closed.
const MOST_IDLE: usize = 128;

/// How long a connect may take before the request is lost.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;

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
        let post = (rng.f64() < plan.posts).then(|| {
            next_id += 1;
            next_id
        });
        let phase = shared.book().phases.len() - 1;
        shared.sent.fetch_add(1, Ordering::Relaxed);
        shared.posts.fetch_add(u64::from(post.is_some()), Ordering::Relaxed);
        let (ours, idle, shared, at) = (plan.clone(), idle.clone(), shared.clone(), due);
        tasks.spawn_local(async move {
            let end = match tokio::time::timeout(ours.patience, send(&ours, &idle, post)).await {
                Ok(end) => end,
                Err(_) => Err(LossKind::GivenUp),
            };
            shared.posts.fetch_sub(u64::from(post.is_some()), Ordering::Relaxed);
            shared.record(phase, at, start.elapsed().saturating_sub(at), post, end);
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

/// Sends one request and reads its answer to the end; the name of the replica that gave it.
async fn send(plan: &Plan, idle: &Mutex<Vec<Sender>>, post: Option<u64>) -> Result<String, LossKind> {
    let (method, path, body) = match post {
        Some(id) => ("POST", format!("/count?id={id}"), Bytes::from(id.to_string())),
        None => ("GET", plan.path.clone(), Bytes::new()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "app.test")
        .body(Full::new(body))
        .expect("a path that the test wrote");
    let broken = |e: hyper::Error| LossKind::Broken(explain(&e));
    let (response, sender) = loop {
        let kept = idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut sender = match kept {
            Some(sender) if sender.is_closed() => continue,
            Some(sender) => sender,
            None => connect(&plan.target).await?,
        };
        if sender.ready().await.is_err() {
            continue;
        }
        match sender.try_send_request(request).await {
            Ok(response) => break (response, sender),
            Err(mut e) => match e.take_message() {
                // Nothing of it was written: the connection was closed while it lay idle.
                Some(unsent) => request = unsent,
                None => return Err(broken(e.into_error())),
            },
        }
    };
    let status = response.status().as_u16();
    let field = |name: &str| {
        let value = response.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (replica, proxy_status) = (field("x-replica"), field("proxy-status"));
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(broken)?;
    }
    let mut idle = idle.lock().unwrap_or_else(|e| e.into_inner());
    if plan.keep && idle.len() < MOST_IDLE {
        idle.push(sender);
    }
    if plan.answers.contains(&status) { Ok(replica) } else { Err(LossKind::Status(status, proxy_status)) }
}

async fn connect(to: &str) -> Result<Sender, LossKind> {
    let refused = |e: &dyn std::error::Error| LossKind::Connect(e.to_string());
    let first = tokio::net::lookup_host(to).await.map_err(|e| refused(&e))?.next();
    let first = first.ok_or_else(|| LossKind::Connect(format!("{to} has no address")))?;
    // A container that is gone may leave an address at which nobody even refuses.
    let connecting = tokio::time::timeout(CONNECT_PATIENCE, tokio::net::TcpStream::connect(first));
    let stream = connecting.await.map_err(|e| refused(&e))?.map_err(|e| refused(&e))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| refused(&e))?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// The error with its causes: hyper's own words say only which part failed.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text += &format!(": {e}");
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests;
