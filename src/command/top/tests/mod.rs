//! What is chosen and drawn, without a terminal.

mod screen;
mod view;
