//! Colours on a terminal.

use std::io::{IsTerminal, stdout};

/// Whether to use colours: a terminal, and nobody asked for none (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// As standard output likes it.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint { on: stdout().is_terminal() && !unwanted }
    }

    #[cfg(test)]
    pub(super) fn new(on: bool) -> Self {
        Paint { on }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_coloured_where_nobody_sees_it() {
        assert_eq!(Paint::new(false).bad("down"), "down");
        assert_eq!(Paint::new(true).bad("down"), "\x1b[31mdown\x1b[0m");
    }
}
