//! Colours and emphasis on a terminal.

use crate::admin::headline::Level;
use std::io::{IsTerminal, stdout};

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Bold.
    Bold,
    /// Less than the rest.
    Dim,
    /// All is well.
    Good,
    /// Something is wrong, and callers hardly notice.
    Doubtful,
    /// Callers notice.
    Bad,
    /// In the colours of a selection.
    Selected,
}

impl Style {
    /// The parameter of the control sequence that sets it (ECMA-48, SGR).
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "0",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Doubtful => "33",
            Style::Bad => "31",
            Style::Selected => "7",
        }
    }

    fn is_colour(self) -> bool {
        matches!(self, Style::Good | Style::Doubtful | Style::Bad)
    }
}

impl From<Level> for Style {
    fn from(level: Level) -> Style {
        match level {
            Level::Good => Style::Good,
            Level::Doubtful => Style::Doubtful,
            Level::Bad => Style::Bad,
        }
    }
}

/// What may be used: nothing where no terminal is, and no colours where none are wanted (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    terminal: bool,
    colours: bool,
}

impl Paint {
    /// As standard output likes it.
    pub(super) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = stdout().is_terminal();
        Paint { terminal: terminal && !unwanted, colours: terminal && !unwanted }
    }

    /// For a screen of which a program has all: emphasis is there even where no colours are wanted.
    pub(super) fn for_screen() -> Self {
        Paint { terminal: true, ..Paint::for_stdout() }
    }

    #[cfg(test)]
    pub(super) fn new(on: bool) -> Self {
        Paint { terminal: on, colours: on }
    }

    /// The text in that style, and what follows it in none.
    pub(super) fn styled(self, style: Style, text: &str) -> String {
        let is_shown = self.terminal && (self.colours || !style.is_colour());
        match is_shown && style != Style::Plain && !text.is_empty() {
            true => format!("\x1b[{}m{text}\x1b[0m", style.code()),
            false => text.to_owned(),
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.styled(Style::Bold, text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.styled(Style::Dim, text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.styled(Style::Good, text)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        self.styled(Style::Doubtful, text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.styled(Style::Bad, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_coloured_where_nobody_sees_it() {
        assert_eq!(Paint::new(false).bad("down"), "down");
        assert_eq!(Paint::new(true).bad("down"), "\x1b[31mdown\x1b[0m");
        let without_colours = Paint { terminal: true, colours: false };
        assert_eq!(without_colours.bad("down"), "down");
        assert_eq!(without_colours.styled(Style::Selected, "down"), "\x1b[7mdown\x1b[0m");
    }
}
