//! The memory that requests hold: one limit over all connections, so that no number of clients exhausts the host.
//!
//! What a request may hold is bounded by other limits (`max_header`, what is kept of a body for sending it again), but
//! thousands of clients may each hold that much at once. So what is beyond the ordinary is counted, and beyond the limit
//! it is refused: a head by a 503, a body by not being kept, and thus not sent a second time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What each connection may hold uncounted: nearly every request holds less than this, and counts nothing.
const FREE: usize = 16 * 1024;

/// The bytes that all requests hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    held: AtomicUsize,
}

/// There is no memory left below the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What one request holds, released when dropped.
#[derive(Debug)]
pub(super) struct Holding<'a> {
    memory: &'a Memory,
    limit: usize,
    free: usize,
    counted: usize,
}

impl Memory {
    /// For a connection's buffers, of which [`FREE`] are not counted. `limit`: bytes of all requests together.
    pub(super) fn holding(&self, limit: usize) -> Holding<'_> {
        Holding { memory: self, limit, free: FREE, counted: 0 }
    }

    /// For what a request holds beside that: all of it counts.
    pub(super) fn extra(&self, limit: usize) -> Holding<'_> {
        Holding { memory: self, limit, free: 0, counted: 0 }
    }
}

impl Holding<'_> {
    /// From now on it holds `bytes`, or as much as before if that is too much.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Full> {
        let counted = bytes.saturating_sub(self.free);
        if counted > self.counted {
            let more = counted - self.counted;
            let before = self.memory.held.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.limit {
                self.memory.held.fetch_sub(more, Ordering::Relaxed);
                return Err(Full);
            }
        } else if counted < self.counted {
            self.memory.held.fetch_sub(self.counted - counted, Ordering::Relaxed);
        }
        self.counted = counted;
        Ok(())
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        if self.counted > 0 {
            self.memory.held.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A4
    #[test]
    fn all_requests_share_one_limit_and_give_back_what_they_held() {
        let memory = Memory::default();
        let limit = 100;
        let mut ordinary = memory.holding(limit);
        assert_eq!(ordinary.set(FREE), Ok(()), "the ordinary is free");
        let (mut first, mut second) = (memory.extra(limit), memory.extra(limit));
        assert_eq!(first.set(60), Ok(()));
        assert_eq!(second.set(41), Err(Full));
        assert_eq!(second.set(40), Ok(()));
        assert_eq!(ordinary.set(FREE + 1), Err(Full));
        assert_eq!(first.set(59), Ok(()));
        assert_eq!(ordinary.set(FREE + 1), Ok(()));
        drop((ordinary, first, second));
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
    }
}
