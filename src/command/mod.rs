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

use std::process::ExitCode;

pub use check::check;
pub use hold::hold;
pub use order::order;
pub use ready::ready;
pub use status::status;
pub use top::top;
pub use why::why;

/// Prints a text as it is, or what is wrong to standard error; the exit status that goes with it.
pub fn print(text: Result<String, String>) -> ExitCode {
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("evenkeel: {problem}");
            ExitCode::FAILURE
        }
    }
}
