//! Messages that somebody else chose: what is accepted is what hyper reads, and what goes on is that same message.
//!
//! Two peers that read one stream of bytes as different messages are how requests are smuggled. So what this proxy accepts
//! hyper must accept too, with the same method, target, fields and body; and what it sends on, heads by its own code and
//! bodies in chunks of its own, hyper must read as that message and no other. The few things that hyper refuses on
//! purpose are named where they are replaced ([`requests`], [`responses`]).

mod body;
mod fields;
#[cfg(test)]
mod framing;
mod hyper;
mod message;
mod requests;
mod responses;

pub use super::http2::fuzz::frames;
pub use body::body;
pub use fields::fields;
pub use requests::head;
pub use responses::response;

/// Whether an authority is one that is passed on.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    super::syntax::is_authority(bytes)
}
