//! What is between a screen's head and its foot: lines, of which there may be more than there is room for.

use super::line::Line;

/// All of it.
pub(super) struct Body {
    pub(super) lines: Vec<Line>,
    pub(super) focus: Focus,
}

/// The line that has to be on the screen.
pub(super) enum Focus {
    /// At its top.
    Top(usize),
    /// Anywhere.
    Seen(usize),
}
