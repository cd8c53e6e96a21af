//! The commands beside running: `ready`, `status` and `check`.

mod check;
mod client;
mod paint;
mod ready;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use check::check;
pub use ready::ready;
pub use status::status;
