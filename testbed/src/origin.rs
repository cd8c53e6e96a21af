//! A replica that a test scripts byte by byte: for everything that a well-behaved server would never do.

use crate::wire::{Head, Wire};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A listening socket whose connections run a script, one thread each.
///
/// The script is called with each request's head, the connection, and how many requests came before, over all
/// connections. It reads the body if it wants it, sends what it likes, and closes or resets the connection or leaves it
/// for the next request. Connections without a request (a probe by TCP connect) do not reach it.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    when_dropped: Option<Box<dyn FnOnce() + Send>>,
}

impl Origin {
    /// Listens at `address` from now on.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn listen(
        address: SocketAddr,
        script: impl Fn(&Head, &mut Wire, usize) + Send + Sync + 'static,
    ) -> io::Result<Origin> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            stop: Arc::default(),
            refuses: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            heads: Mutex::new(vec![]),
        });
        let (ours, script) = (shared.clone(), Arc::new(script));
        std::thread::Builder::new().name(format!("origin {address}")).spawn(move || {
            for stream in listener.incoming() {
                if ours.stop.load(Ordering::Relaxed) || ours.refuses.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let wire = Wire::until(stream, ours.stop.clone());
                let (ours, script) = (ours.clone(), script.clone());
                ours.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || ours.serve(wire, &*script));
            }
        })?;
        Ok(Origin { address, shared, when_dropped: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of all requests so far, in the order of their coming.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.heads.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// How many requests came so far.
    pub fn requests(&self) -> usize {
        self.shared.heads.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// How many connections were opened so far, those of probes included.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections that brought a request are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Refuses connections from now on; those that are open stay.
    pub fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::Relaxed);
        self.wake();
        crate::eventually("it refuses", || TcpStream::connect(self.address).is_err());
    }

    /// Wakes the listening thread, which then closes its socket.
    fn wake(&self) {
        let _ = TcpStream::connect(self.address);
    }

    pub(crate) fn when_dropped(mut self, action: impl FnOnce() + Send + 'static) -> Origin {
        self.when_dropped = Some(Box::new(action));
        self
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(action) = self.when_dropped.take() {
            action();
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
    }
}

struct Shared {
    stop: Arc<AtomicBool>,
    refuses: AtomicBool,
    connections: AtomicUsize,
    open: AtomicUsize,
    heads: Mutex<Vec<Head>>,
}

impl Shared {
    fn serve(&self, mut wire: Wire, script: &dyn Fn(&Head, &mut Wire, usize)) {
        /// One more open connection, until dropped.
        struct Open<'a>(&'a AtomicUsize);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let mut open = None;
        while !wire.finished() {
            // A kept connection may rest longer than a script waits for bytes; only its end ends it.
            let head = match wire.head() {
                Ok(head) => head,
                Err(cut) if cut.ending == crate::Ending::Silent && cut.body.is_empty() => continue,
                Err(_) => return,
            };
            open.get_or_insert_with(|| {
                self.open.fetch_add(1, Ordering::Relaxed);
                Open(&self.open)
            });
            let before = {
                let mut heads = self.heads.lock().unwrap_or_else(|e| e.into_inner());
                heads.push(head.clone());
                heads.len() - 1
            };
            script(&head, &mut wire, before);
        }
    }
}
