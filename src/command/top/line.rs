//! Lines of a screen: pieces of text that each have a style, cut to the screen's width.
//!
//! A character is taken to be one column wide. What comes from clients may hold others: the terminal is told not to wrap
//! lines, so that such a line loses its end instead of the screen its order.

use crate::command::paint::{Paint, Style};

/// One line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    pieces: Vec<(Style, String)>,
}

impl Line {
    /// With one piece.
    pub(super) fn of(style: Style, text: impl AsRef<str>) -> Line {
        Line::default().and(style, text)
    }

    /// With one more piece at its end. What would steer the terminal is shown as a dot.
    pub(super) fn and(mut self, style: Style, text: impl AsRef<str>) -> Line {
        let text = text.as_ref().chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        self.pieces.push((style, text));
        self
    }

    /// The same, all of it selected and to the end of the screen.
    pub(super) fn selected(self, width: usize) -> Line {
        let text: String = self.pieces.into_iter().map(|(_, text)| text).collect();
        Line::of(Style::Selected, format!("{text:<width$}"))
    }

    /// As a terminal of that width shows it.
    pub(super) fn draw(&self, width: usize, paint: Paint) -> String {
        let mut left = width;
        let mut drawn = String::new();
        for (style, text) in &self.pieces {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            drawn.push_str(&paint.styled(*style, &shown));
        }
        drawn
    }
}

/// A text in lines of that width, broken at spaces.
pub(super) fn wrapped(style: Style, text: &str, width: usize) -> Vec<Line> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one");
        match last.chars().count() + 1 + word.chars().count() > width && !last.is_empty() {
            true => lines.push(word.to_owned()),
            false if last.is_empty() => last.push_str(word),
            false => {
                last.push(' ');
                last.push_str(word);
            }
        }
    }
    lines.iter().map(|line| Line::of(style, line)).collect()
}

/// A value of 0 to 1 as a bar of so many columns, to an eighth of one. What is there at all is seen.
pub(super) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let least = usize::from(share > 0.0);
    let eighths = ((share.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize).max(least);
    let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    format!("{bar:·<width$}")
}

/// A value of 0 to 1 as the height of one column.
pub(super) fn spark(share: f64) -> char {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    HEIGHTS[((share.clamp(0.0, 1.0) * HEIGHTS.len() as f64) as usize).min(HEIGHTS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_the_screen_does_whatever_its_styles_are() {
        let line = Line::of(Style::Bold, "ab").and(Style::Plain, "cd").and(Style::Bad, "efg");
        assert_eq!(line.draw(5, Paint::new(false)), "abcde");
        assert_eq!(line.draw(5, Paint::new(true)), "\x1b[1mab\x1b[0mcd\x1b[31me\x1b[0m");
        assert_eq!(line.draw(0, Paint::new(true)), "");
        assert_eq!(line.selected(10).draw(80, Paint::new(true)), "\x1b[7mabcdefg   \x1b[0m");
    }

    #[test]
    fn what_a_client_wrote_does_not_steer_the_terminal() {
        let line = Line::of(Style::Plain, "GET /\x1b[2J\u{9b}1m\t\u{7f}x");
        assert_eq!(line.draw(80, Paint::new(true)), "GET /·[2J·1m··x");
    }

    #[test]
    fn text_is_broken_at_spaces_and_a_long_word_is_cut_by_the_screen() {
        let texts = |text, width| -> Vec<String> {
            wrapped(Style::Plain, text, width).iter().map(|line| line.draw(width, Paint::new(false))).collect()
        };
        assert_eq!(texts("one two three", 7), ["one two", "three"]);
        assert_eq!(texts("one", 2), ["on"]);
        assert_eq!(texts("", 2), [""]);
    }

    #[test]
    fn bars_and_heights_show_what_is_there() {
        assert_eq!([0.0, 0.5, 1.0, 0.0001].map(|share| bar(share, 4)), ["····", "██··", "████", "▏···"]);
        assert_eq!([0.0, 0.5, 1.0, 7.0].map(spark), ['▁', '▅', '█', '█']);
    }
}
