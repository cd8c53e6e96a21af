//! A connection to a replica between two requests: both handles of its socket.

use super::kept::{Keep, Rest};
use super::socket::{Peeked, Reader, Writer};

/// A connection whose last request and response are whole.
#[derive(Debug)]
pub struct Connection {
    pub(super) reader: Box<Reader>,
    pub(super) writer: Writer,
}

impl Keep for Connection {
    fn rest(&self) -> Rest {
        self.reader.news().into()
    }

    fn certain_rest(&self) -> Rest {
        self.reader.peek().into()
    }
}

impl From<Peeked> for Rest {
    fn from(peeked: Peeked) -> Rest {
        match peeked {
            Peeked::Nothing => Rest::Quiet,
            Peeked::Data => Rest::Spoken,
            Peeked::End | Peeked::Broken => Rest::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::{Idle, Kept};
    use super::super::socket;
    use super::*;
    use std::time::{Duration, Instant};
    use tokio::net::{TcpListener, TcpStream};

    const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

    // H10
    #[tokio::test]
    #[allow(clippy::disallowed_methods)] // any moment will do, and the kernel is waited for
    async fn what_may_not_be_sent_twice_goes_to_no_connection_that_only_the_kernel_knows_to_be_closed() {
        let kept = Kept::new(1);
        let start = Instant::now();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keep = async |since| {
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (reader, writer) = socket::split(near.unwrap());
            kept.put(Idle { connection: Connection { reader, writer }, since, generation: 0 }, 2);
            far.unwrap().0
        };
        let _first = keep(start).await;
        let later = start + Duration::from_secs(1);
        kept.sweep(IDLE_TIMEOUT, later);
        let second = keep(later).await;
        let take = |once| kept.take(once, 0, IDLE_TIMEOUT, later);
        let idle = take(true).expect("a replica that leaves them open for a second leaves it for a moment");
        drop(second);
        let heard = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            idle.connection.certain_rest() == Rest::Closed
        });
        assert!(heard, "the kernel is asked");
        assert_eq!(idle.connection.rest(), Rest::Quiet, "the runtime had no turn since then");
        kept.put(idle, 2);
        assert!(take(true).is_none());
        assert_eq!(kept.sweep(IDLE_TIMEOUT, later).closed, 1, "it was seen");
    }
}
