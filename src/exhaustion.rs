//! Whether a connection failed for want of something on this host: then no replica is to blame.

use nix::errno::Errno;
use std::io;

/// Errors of a socket or a connect that come of this process or its host: no descriptor, no free local port, no memory.
const OURS: [Errno; 5] = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM];

/// Whether a connect or an accept failed because this host lacks descriptors, ports or memory.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OURS.contains(&Errno::from_raw(code)))
}
