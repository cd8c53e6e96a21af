//! The commands beside running: `ready`, `status`, `check` and `hold`.

mod check;
mod client;
mod hold;
mod paint;
mod ready;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use check::check;
pub use hold::hold;
pub use ready::ready;
pub use status::status;
