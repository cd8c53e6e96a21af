//! What belongs to one worker thread.

use crate::clock;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// How often a worker notes that it runs. Half of [`crate::pool::HANDOVER`]: the other half is left for the connect that
/// has to end within it. Twenty wake-ups a second cost a hundredth of a per cent of a core.
const BEAT: Duration = Duration::from_millis(50);

/// Read buffers that lie ready. As many as one round of the runtime may have in use; a request takes one and gives it back
/// within microseconds.
const SPARE: usize = 16;

/// Triples of head buffers that lie ready: a request holds one for as long as it runs.
const SPARE_HEADS: usize = 64;

/// A buffer that grew beyond this is not kept: a head with room to spare.
const SPARE_SIZE: usize = 16 * 1024;

thread_local! {
    static BEAT_AT: Cell<Option<Instant>> = const { Cell::new(None) };
    static INDEX: Cell<usize> = const { Cell::new(0) };
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<Vec<Heads>> = const { RefCell::new(Vec::new()) };
    static RNG: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
}

/// Names this thread, from 0. Threads that never said so share the name 0.
pub fn enter(index: usize) {
    INDEX.set(index);
}

/// This thread's name.
pub fn index() -> usize {
    INDEX.get()
}

/// Notes, as long as it is polled, that this thread runs and hears of its sockets.
pub async fn beat() {
    loop {
        BEAT_AT.set(Some(clock::now()));
        tokio::time::sleep(BEAT).await;
    }
}

/// The earliest moment at which something can have happened of which this thread heard just now: it was last known to
/// run then. A thread that was stopped, or waited for a processor, hears late.
pub fn heard_since(now: Instant) -> Instant {
    BEAT_AT.get().unwrap_or(now)
}

/// This thread's source of random numbers.
pub fn with_rng<R>(f: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
    RNG.with_borrow_mut(f)
}

/// A buffer to read into: `own` if it is one, else a spare one.
pub fn buffer(own: BytesMut) -> BytesMut {
    if own.capacity() > 0 { own } else { BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default() }
}

/// Takes back a buffer that nobody reads into.
pub fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    if (1..=SPARE_SIZE).contains(&buffer.capacity()) {
        // Where the thread is ending there is nobody to keep it for.
        let _ = BUFFERS.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        });
    }
}

/// The buffers of one request's heads.
#[derive(Debug, Default)]
pub struct Heads {
    /// The request's as it came.
    pub client: Vec<u8>,
    /// The request's on its way to the replica.
    pub request: Vec<u8>,
    /// The response's on its way to the client.
    pub response: Vec<u8>,
}

/// Buffers for a request: a connection at rest holds none.
pub fn heads() -> Heads {
    HEADS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes back the buffers of a request that is over.
pub fn give_back_heads(heads: Heads) {
    if [&heads.client, &heads.request, &heads.response].iter().all(|buffer| buffer.capacity() <= SPARE_SIZE) {
        // As with `give_back`.
        let _ = HEADS.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_HEADS {
                spare.push(heads);
            }
        });
    }
}
