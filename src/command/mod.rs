//! The commands beside running: `ready`, `status`, `check`, `hold`, and the orders `drain`, `undrain`, `pause`, `resume`.

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

pub use check::check;
pub use hold::hold;
pub use order::order;
pub use ready::ready;
pub use status::status;
