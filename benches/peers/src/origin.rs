//! The replicas: HTTP servers on addresses of 127.0.0.0/8 that share a port, as containers of one app do. At once and
//! as cheaply as possible for what a proxy costs; after a service time, by a number of workers, for how it balances.
//!
//! ```text
//! /ping        answered 200 at once, whatever the replica does else
//! /boom        no answer: the handler breaks, and its connection is closed
//! /break       the same in the middle of an answer
//! /bytes/N     a body of N bytes            /numbered/N   the body of `request::numbered_body`
//! ```

use crate::conduct::{Conduct, Then};
use crate::configuration::CHECK;
use crate::process::Cores;
use crate::request;
use crate::timer;
use crate::wire::Wire;
use nix::sys::socket::Backlog;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// A path whose handler breaks before it answers.
pub const BOOM: &str = "/boom";
/// One whose handler breaks while it answers.
pub const BREAK: &str = "/break";

/// Before a handler breaks: what a request takes to get to the place where it does.
const UNTIL_BROKEN: Duration = Duration::from_millis(1);

/// Connections that may wait for being accepted: a burst of a thousand must not meet the kernel's second of patience.
const BACKLOG: i32 = 4096;

/// Replicas of one app, served by one thread; they end when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where they listen: one port, an address each.
    pub addresses: Vec<SocketAddr>,
    /// How they answer.
    pub conduct: Vec<Arc<Conduct>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Origin {
    /// Starts a replica for each conduct, on 127.0.0.2 and the addresses after it.
    pub fn start(conduct: Vec<Conduct>, cores: &Cores, seed: u64) -> io::Result<Origin> {
        let conduct: Vec<_> = conduct.into_iter().map(Arc::new).collect();
        let (listeners, addresses) = listen(conduct.len())?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (cores, ours) = (cores.clone(), conduct.clone());
        std::thread::Builder::new().name("origin".into()).spawn(move || {
            cores.pin_load();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let tasks = tokio::task::LocalSet::new();
            for (index, (listener, conduct)) in listeners.into_iter().zip(ours).enumerate() {
                tasks.spawn_local(serve(listener, conduct, seed + index as u64));
            }
            tasks.block_on(&runtime, async { drop(stopped.await) });
        })?;
        Ok(Origin { addresses, conduct, stop: Some(stop) })
    }

    /// Requests answered so far, by replica.
    pub fn served(&self) -> Vec<u64> {
        self.conduct.iter().map(|one| one.served.load(Ordering::Relaxed)).collect()
    }

    /// Requests that have no answer yet, of all replicas.
    pub fn in_flight(&self) -> u64 {
        self.conduct.iter().map(|one| one.in_flight.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

/// A port that is free on all of these addresses.
fn listen(count: usize) -> io::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let ip = |index: usize| Ipv4Addr::new(127, 0, (index / 250) as u8, (2 + index % 250) as u8);
    for _ in 0..100 {
        let first = bind((ip(0), 0).into())?;
        let port = first.local_addr()?.port();
        let others = (1..count).map(|index| bind((ip(index), port).into()));
        if let Ok(listeners) = std::iter::once(Ok(first)).chain(others).collect::<io::Result<Vec<_>>>() {
            let addresses = (0..count).map(|index| (ip(index), port).into()).collect();
            return Ok((listeners, addresses));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free on 127.0.0.2 and its neighbours"))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Replica {
    conduct: Arc<Conduct>,
    workers: Semaphore,
    random: Cell<Option<fastrand::Rng>>,
    /// Whole responses by the length of their body.
    bodies: RefCell<HashMap<usize, Rc<[u8]>>>,
}

/// Listens while it is up.
async fn serve(listener: TcpListener, conduct: Arc<Conduct>, seed: u64) {
    let address = listener.local_addr().expect("it is bound");
    let workers = if conduct.workers == 0 { Semaphore::MAX_PERMITS } else { conduct.workers };
    let mut life = conduct.life();
    let replica = Rc::new(Replica {
        conduct,
        workers: Semaphore::new(workers),
        random: Cell::new(Some(fastrand::Rng::with_seed(seed))),
        bodies: RefCell::default(),
    });
    let mut bound = Some(listener);
    loop {
        let listener = match bound.take() {
            Some(listener) => listener,
            None => bind(address).expect("no one else takes an address of ours"),
        };
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        while *life.borrow_and_update() {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    tokio::task::spawn_local(replica.clone().connection(Wire::new(stream)));
                }
                _ = life.changed() => {}
            }
        }
        drop(listener);
        if life.wait_for(|up| *up).await.is_err() {
            return;
        }
    }
}

impl Replica {
    /// One connection, until either side ends it.
    async fn connection(self: Rc<Replica>, mut wire: Wire) {
        let mut life = self.conduct.life();
        let killed = tokio::select! {
            () = self.converse(&mut wire) => false,
            _ = life.wait_for(|up| !up) => true,
        };
        if killed {
            wire.reset();
        }
    }

    async fn converse(&self, wire: &mut Wire) {
        while let Ok(Some(request)) = wire.request().await {
            let run = Run::begin(&self.conduct);
            if self.answer(&request.target, wire).await.is_err() {
                break;
            }
            drop(run);
            match self.conduct.then {
                Then::Stays if request.keep => {}
                Then::Stays | Then::Closes => break,
                Then::ClosesWithin(most) => {
                    // Requests that come meanwhile are not read, as by a server that has decided to close.
                    let time = self.random(|random| random.f64());
                    timer::sleep(most.mul_f64(time)).await;
                    break;
                }
            }
        }
    }

    async fn answer(&self, target: &str, wire: &mut Wire) -> io::Result<()> {
        let conduct = &self.conduct;
        match target {
            CHECK => return wire.send(&response("200 OK", b"")).await,
            BOOM | BREAK => {
                timer::sleep(UNTIL_BROKEN).await;
                if target == BREAK {
                    let whole = response("200 OK", &[b'x'; 1024]);
                    wire.send(&whole[..whole.len() - 512]).await?;
                }
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ if conduct.fails.load(Ordering::Relaxed) => {
                conduct.served.fetch_add(1, Ordering::Relaxed);
                return wire.send(&response("500 Internal Server Error", b"")).await;
            }
            _ => {}
        }
        let number = request::number(target);
        if let Some(number) = number {
            conduct.ledger.ran(number);
        }
        let bearable = conduct.capacity.as_ref().map(|capacity| capacity.take());
        if matches!(bearable, Some(None)) {
            return wire.send(&response("424 Failed Dependency", b"")).await;
        }
        if conduct.mean() > 0 {
            tokio::select! {
                () = self.work() => {}
                () = wire.left(), if conduct.notices => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        conduct.served.fetch_add(1, Ordering::Relaxed);
        if let Some(number) = number {
            return wire.send(&response("200 OK", &request::numbered_body(number))).await;
        }
        let length = target.strip_prefix("/bytes/").and_then(|n| n.parse().ok()).unwrap_or(0);
        let make = || response("200 OK", &vec![b'x'; length]).into();
        let whole = self.bodies.borrow_mut().entry(length).or_insert_with(make).clone();
        wire.send(&whole).await
    }

    /// Waits for a worker, and until it is done.
    async fn work(&self) {
        let _worker = self.workers.acquire().await.expect("it is never closed");
        let mean = f64::from(self.conduct.mean());
        let micros = if self.conduct.steady { mean } else { self.random(|random| -(1.0 - random.f64()).ln() * mean) };
        timer::sleep(Duration::from_nanos((micros * 1e3) as u64)).await;
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        let mut random = self.random.take().expect("put back below");
        let drawn = draw(&mut random);
        self.random.set(Some(random));
        drawn
    }
}

/// A request that has no answer yet.
struct Run<'a>(&'a Conduct);

impl Run<'_> {
    fn begin(conduct: &Conduct) -> Run<'_> {
        conduct.in_flight.fetch_add(1, Ordering::Relaxed);
        Run(conduct)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a plain app answers: a status, its usual fields, a body.
fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: origin\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut whole = head.into_bytes();
    whole.extend_from_slice(body);
    whole
}
