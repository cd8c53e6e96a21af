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
