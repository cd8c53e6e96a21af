//! A listener that accepts without asking in vain.
//!
//! Where no connection waits, accept(2) has made a socket and a file before it finds that out, and drops them. So after each
//! connection the kernel is asked with poll(2) whether there is another, which takes a tenth of that. It is a twentieth of
//! what a connection with one request costs.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A listener of a worker.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// Of mio's kind: it accepts sockets that do not block, in one call.
    listener: mio::net::TcpListener,
    /// The same socket for the runtime to watch. It is no stream, but the runtime's listeners only say that a connection
    /// waits by accepting it, and this kind of socket says it by itself.
    watched: TcpStream,
    /// A connection was accepted since the runtime last told of one, which may have been the only one.
    accepted: bool,
}

impl Acceptor {
    /// Of a listener that does not block.
    ///
    /// # Errors
    /// The runtime cannot watch it, or no descriptor is left.
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        let watched = std::net::TcpStream::from(OwnedFd::from(listener.try_clone()?));
        Ok(Acceptor {
            listener: mio::net::TcpListener::from_std(listener),
            watched: TcpStream::from_std(watched)?,
            accepted: false,
        })
    }

    /// The next connection. Nothing is lost where this is dropped before it is ready.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            poll_fn(|cx| self.watched.poll_read_ready(cx)).await?;
            if let Some(result) = self.accept_if_told() {
                return result;
            }
        }
    }

    /// The next connection, if the runtime was told of some and one of them is still there.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept_if_told(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let next = || match self.accepted && !is_waited_for(&self.listener) {
            // The runtime forgets what it was told of until now.
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => accept(&self.listener),
        };
        let result = self.watched.try_io(Interest::READABLE, next);
        let nobody = matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.accepted = !nobody;
        (!nobody).then_some(result)
    }

    /// A connection that is there now, whether or not the runtime was told of it.
    pub(super) fn accept_at_once(&self) -> Option<(TcpStream, SocketAddr)> {
        accept(&self.listener).ok()
    }
}

/// Whether a connection waits to be accepted. Who cannot be asked is tried.
fn is_waited_for(listener: &mio::net::TcpListener) -> bool {
    poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
}

fn accept(listener: &mio::net::TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    let stream = std::net::TcpStream::from(OwnedFd::from(stream));
    Ok((TcpStream::from_std(stream)?, peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Client;
    use std::time::Duration;
    use tokio::time::timeout;

    fn acceptor() -> (Acceptor, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Acceptor::new(listener).unwrap(), address)
    }

    #[tokio::test]
    async fn whoever_connects_is_accepted_however_many_come_at_once() {
        let (mut acceptor, address) = acceptor();
        for round in 0..20 {
            let clients: Vec<_> = (0..round % 4 + 1).map(|_| Client::connect(address).unwrap()).collect();
            for client in &clients {
                let (_, peer) = acceptor.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
            }
        }
    }

    #[tokio::test]
    async fn those_who_came_together_are_there_without_waiting() {
        let (mut acceptor, address) = acceptor();
        let clients: Vec<_> = (0..3).map(|_| Client::connect(address).unwrap()).collect();
        let mut peers = vec![acceptor.accept().await.unwrap().1];
        while let Some(next) = acceptor.accept_if_told() {
            peers.push(next.unwrap().1);
        }
        assert_eq!(peers, clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
        assert!(timeout(Duration::from_millis(20), acceptor.accept()).await.is_err(), "that were all");
    }

    #[tokio::test]
    async fn one_that_comes_while_nobody_waits_for_it_is_not_overlooked() {
        let (mut acceptor, address) = acceptor();
        for _ in 0..20 {
            let waits = timeout(Duration::from_millis(2), acceptor.accept()).await;
            assert!(waits.is_err(), "nobody has come");
            let client = Client::connect(address).unwrap();
            let (_, peer) = acceptor.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn one_that_another_has_accepted_is_no_error() {
        let (mut acceptor, address) = acceptor();
        let _first = Client::connect(address).unwrap();
        // The runtime hears of it, and it is gone.
        assert!(timeout(Duration::from_secs(30), acceptor.watched.readable()).await.is_ok());
        assert!(acceptor.accept_at_once().is_some());
        assert!(timeout(Duration::from_millis(20), acceptor.accept()).await.is_err());
        let second = Client::connect(address).unwrap();
        assert_eq!(acceptor.accept().await.unwrap().1, second.local_addr().unwrap());
    }
}
