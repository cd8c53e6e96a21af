//! The commands beside running: `ready`, `status`, `top`, `why`, `check`, `init`, `hold`, and the orders `drain`, `undrain`, `pause`, `resume`.

mod check;
mod client;
mod hold;
pub mod init;
mod order;
mod paint;
mod ready;
mod status;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod why;

pub use check::check;
pub use hold::hold;
pub use order::order;
pub use ready::ready;
pub use status::status;
pub use top::top;
pub use why::why;
