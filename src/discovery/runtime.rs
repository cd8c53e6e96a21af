//! The sockets by which DNS is asked: those of hickory's tokio provider, but for UDP ones that notice a server which is not
//! there.
//!
//! The kernel tells a connected socket, and no other, that nobody listens at the server's port; tokio wakes who reads for that
//! only if asked to. Without both, the question waits for its time-out, and the next server is asked half a second later,
//! each time.

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;

type Running<'a, T> = Pin<Box<dyn Send + Future<Output = io::Result<T>> + 'a>>;

/// Opens sockets for hickory.
#[derive(Clone, Default)]
pub(super) struct Sockets(TokioRuntimeProvider);

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> Running<'static, Self::Tcp> {
        self.0.connect_tcp(server, local, wait)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Running<'static, Connected> {
        // hickory asks for one that is not connected, for systems on which `sendto` fails then; on Linux it does not.
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected(socket))
        })
    }
}

/// A UDP socket that is connected to its server.
pub(super) struct Connected(UdpSocket);

impl Connected {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            match self.0.try_recv_from(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => return received,
            }
            // Where there is no error after all, this clears the readiness that said so.
            let refusal = || self.0.take_error()?.ok_or_else(|| ErrorKind::WouldBlock.into());
            match self.0.try_io(Interest::ERROR, refusal) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(error) | Err(error) => return Err(error),
            }
        }
    }
}

impl DnsUdpSocket for Connected {
    type Time = <UdpSocket as DnsUdpSocket>::Time;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.0, cx, buffer)
    }

    fn recv_from<'a, 'b, 'c>(&'a self, buffer: &'b mut [u8]) -> Running<'c, (usize, SocketAddr)>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.receive(buffer))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buffer: &[u8], server: SocketAddr) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.0, cx, buffer, server)
    }
}
