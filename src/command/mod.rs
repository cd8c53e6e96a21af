//! The commands beside running: `ready`, `status`, `why`, `check`, `hold`, and the orders `drain`, `undrain`, `pause`, `resume`.

mod check;
mod client;
mod hold;
mod order;
mod paint;
mod ready;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod why;

pub use check::check;
pub use hold::hold;
pub use order::order;
pub use ready::ready;
pub use status::status;
pub use why::why;
