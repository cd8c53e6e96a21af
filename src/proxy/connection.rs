//! A connection to a replica between two requests: both handles of its socket.

use super::kept::Keep;
use super::socket::{Peeked, Reader, Writer};

/// A connection whose last request and response are whole.
#[derive(Debug)]
pub struct Connection {
    pub(super) reader: Box<Reader>,
    pub(super) writer: Writer,
}

impl Keep for Connection {
    fn is_quiet(&self) -> bool {
        self.reader.is_quiet()
    }

    fn is_certainly_quiet(&self) -> bool {
        self.reader.peek() == Peeked::Nothing
    }
}
