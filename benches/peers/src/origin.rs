//! The replicas: HTTP servers on addresses of 127.0.0.0/8 that share a port, as containers of one app do. At once and
//! as cheaply as possible for what a proxy costs; after a service time, by a number of workers, for how it balances.

use crate::process::Cores;
use crate::timer;
use crate::wire::Wire;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How one replica answers; may be changed while it runs.
#[derive(Debug)]
pub struct Conduct {
    /// Mean of the exponentially distributed service time, microseconds; 0 is at once.
    pub mean: AtomicU32,
    /// Answers 500 at once.
    pub fails: AtomicBool,
    /// Requests answered.
    pub served: AtomicU64,
    /// Requests served at a time; the others queue.
    workers: usize,
}

impl Conduct {
    /// Answers at once, however many come.
    pub fn instant() -> Conduct {
        Conduct::slow(Duration::ZERO, 0)
    }

    /// Takes this long on average, with so many workers.
    pub fn slow(mean: Duration, workers: usize) -> Conduct {
        Conduct {
            mean: AtomicU32::new(mean.as_micros() as u32),
            fails: AtomicBool::new(false),
            served: AtomicU64::new(0),
            workers,
        }
    }

    /// From now on.
    pub fn set_mean(&self, mean: Duration) {
        self.mean.store(mean.as_micros() as u32, Ordering::Relaxed);
    }
}

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
        let first = TcpListener::bind((ip(0), 0))?;
        let port = first.local_addr()?.port();
        let others = (1..count).map(|index| TcpListener::bind((ip(index), port)));
        if let Ok(listeners) = std::iter::once(Ok(first)).chain(others).collect::<io::Result<Vec<_>>>() {
            let addresses = (0..count).map(|index| (ip(index), port).into()).collect();
            return Ok((listeners, addresses));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free on 127.0.0.2 and its neighbours"))
}

struct Replica {
    conduct: Arc<Conduct>,
    workers: Semaphore,
    random: Cell<Option<fastrand::Rng>>,
    /// Whole responses by the length of their body.
    bodies: RefCell<HashMap<usize, Rc<[u8]>>>,
}

async fn serve(listener: TcpListener, conduct: Arc<Conduct>, seed: u64) {
    listener.set_nonblocking(true).expect("a listener");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let workers = if conduct.workers == 0 { Semaphore::MAX_PERMITS } else { conduct.workers };
    let replica = Rc::new(Replica {
        conduct,
        workers: Semaphore::new(workers),
        random: Cell::new(Some(fastrand::Rng::with_seed(seed))),
        bodies: RefCell::default(),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let replica = replica.clone();
        tokio::task::spawn_local(async move {
            let mut wire = Wire::new(stream);
            while let Ok(Some(request)) = wire.request().await {
                if replica.answer(&request.target, &mut wire).await.is_err() || !request.keep {
                    break;
                }
            }
        });
    }
}

impl Replica {
    async fn answer(&self, target: &str, wire: &mut Wire) -> io::Result<()> {
        let conduct = &self.conduct;
        if conduct.fails.load(Ordering::Relaxed) {
            conduct.served.fetch_add(1, Ordering::Relaxed);
            return wire.send(&response("500 Internal Server Error", 0)).await;
        }
        let mean = conduct.mean.load(Ordering::Relaxed);
        if mean > 0 {
            let _worker = self.workers.acquire().await.expect("it is never closed");
            timer::sleep(self.service_time(mean)).await;
        }
        conduct.served.fetch_add(1, Ordering::Relaxed);
        let length = target.strip_prefix("/bytes/").and_then(|n| n.parse().ok()).unwrap_or(0);
        let whole = self.bodies.borrow_mut().entry(length).or_insert_with(|| response("200 OK", length).into()).clone();
        wire.send(&whole).await
    }

    fn service_time(&self, mean: u32) -> Duration {
        let mut random = self.random.take().expect("put back below");
        let time = -(1.0 - random.f64()).ln() * f64::from(mean);
        self.random.set(Some(random));
        Duration::from_nanos((time * 1e3) as u64)
    }
}

/// What a plain app answers: a status, its usual fields, a body.
fn response(status: &str, length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: origin\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let mut whole = head.into_bytes();
    whole.resize(whole.len() + length, b'x');
    whole
}
