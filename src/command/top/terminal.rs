//! The terminal that `evenkeel top` has for itself while it runs: its keys, its size, and what is drawn on it.

use super::line::Line;
use super::view::Key;
use crate::command::paint::Paint;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use std::io::{self, Write, stdout};
use tokio::sync::mpsc::{Receiver, channel};

/// Keys that were pressed and not looked at yet; more wait in the terminal.
const KEYS: usize = 16;

/// What comes from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A key that means something.
    Key(Key),
    /// It has another size now.
    Resized,
}

/// The terminal, as it was found once this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    paint: Paint,
}

impl Terminal {
    /// Takes it over.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open() -> io::Result<Terminal> {
        enable_raw_mode()?;
        let terminal = Terminal { paint: Paint::for_screen() };
        let mut out = stdout();
        queue!(out, EnterAlternateScreen, DisableLineWrap, Hide)?;
        out.flush()?;
        Ok(terminal)
    }

    /// Its size in columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        let (width, height) = size().unwrap_or((80, 24));
        (usize::from(width), usize::from(height))
    }

    /// Draws the whole screen over the last one: nothing flickers.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn draw(&self, lines: &[Line]) -> io::Result<()> {
        let (width, _) = self.size();
        let mut frame = Vec::new();
        queue!(frame, BeginSynchronizedUpdate)?;
        for (y, line) in lines.iter().enumerate() {
            let y = u16::try_from(y).unwrap_or(u16::MAX);
            // Cleared first: behind a line that is as wide as the screen it would take the last character.
            queue!(frame, MoveTo(0, y), Clear(ClearType::UntilNewLine), Print(line.draw(width, self.paint)))?;
        }
        // A screen is drawn to its last line: there is nothing below.
        queue!(frame, EndSynchronizedUpdate)?;
        let mut out = stdout().lock();
        out.write_all(&frame)?;
        out.flush()
    }

    /// What comes from it, read by a thread that lasts as long as the process. It ends with the terminal.
    pub(super) fn inputs(&self) -> Receiver<Input> {
        let (sender, inputs) = channel(KEYS);
        std::thread::spawn(move || {
            while let Ok(event) = read() {
                let Some(input) = input(&event) else { continue };
                if sender.blocking_send(input).is_err() {
                    return;
                }
            }
        });
        inputs
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut out = stdout();
        // Where it is gone nobody misses this.
        let _ = queue!(out, Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}

fn input(event: &Event) -> Option<Input> {
    let key = match event {
        Event::Resize(..) => return Some(Input::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let held = key.modifiers.contains(KeyModifiers::CONTROL);
    let key = match key.code {
        // The terminal makes no signals of these any more.
        KeyCode::Char('c' | 'd' | '\\') if held => Key::Quit,
        KeyCode::Char(_) if held => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter | KeyCode::Right => Key::Enter,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => Key::Back,
        _ => return None,
    };
    Some(Input::Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;

    #[test]
    fn control_c_ends_it_and_other_control_keys_are_no_letters() {
        let of = |code, modifiers| input(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Input::Key(Key::Quit)));
        assert_eq!(of(KeyCode::Char('p'), KeyModifiers::CONTROL), None, "no upstream is paused by a slip");
        assert_eq!(of(KeyCode::Char('p'), KeyModifiers::NONE), Some(Input::Key(Key::Char('p'))));
        assert_eq!(of(KeyCode::Left, KeyModifiers::NONE), Some(Input::Key(Key::Back)));
        assert_eq!(input(&Event::Resize(80, 24)), Some(Input::Resized));
    }
}
