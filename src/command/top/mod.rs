//! `evenkeel top`: the running proxy on a whole terminal, renewed each second, with keys to sort, to look closer, and to
//! drain or pause.

mod body;
mod charts;
mod failures;
mod line;
mod replica;
mod replicas;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use super::{client, order, why};
use crate::admin::Overview;
use crate::config::Sockets;
use std::io::{self, IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;
use terminal::{Input, Terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::sleep;
use view::{Action, Update, View};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows the process that has these sockets until it is told to end, also while that process is not there.
pub async fn top(sockets: Sockets) -> ExitCode {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        eprintln!(
            "evenkeel: `top` needs a terminal, which containers have only if they are asked to (docker exec -it); \
             `evenkeel status` prints the same once, `evenkeel status --watch` each second"
        );
        return ExitCode::FAILURE;
    }
    match show(sockets).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel: the terminal cannot be used: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(sockets: Sockets) -> io::Result<()> {
    let mut ended = signal(SignalKind::terminate())?;
    let mut left = signal(SignalKind::hangup())?;
    let terminal = Terminal::open()?;
    let mut inputs = terminal.inputs();
    let (answers, mut updates) = channel(1);
    tokio::spawn(look(sockets, answers.clone()));
    let mut view = View::default();
    let mut acting = JoinSet::new();
    loop {
        let (width, height) = terminal.size();
        terminal.draw(&screen::draw(&view, width, height))?;
        let action = tokio::select! {
            Some(update) = updates.recv() => {
                view.update(update);
                None
            }
            input = inputs.recv() => match input {
                Some(Input::Key(key)) => view.press(key),
                Some(Input::Resized) => None,
                None => Some(Action::Quit),
            },
            _ = ended.recv() => Some(Action::Quit),
            _ = left.recv() => Some(Action::Quit),
        };
        match action {
            Some(Action::Quit) => break,
            Some(action) => {
                acting.spawn(act(sockets, action, answers.clone()));
                while acting.try_join_next().is_some() {}
            }
            None => {}
        }
    }
    drop(terminal);
    // An order that was given is carried out all the same, and what came of it is said.
    loop {
        tokio::select! {
            biased;
            Some(update) = updates.recv() => match update {
                Update::Ordered(Ok(lines)) => lines.iter().for_each(|line| println!("{line}")),
                Update::Ordered(Err(problem)) => eprintln!("evenkeel: {problem}"),
                Update::Overview(_) | Update::Why(_) => {}
            },
            acted = acting.join_next() => if acted.is_none() { return Ok(()) },
        }
    }
}

/// Asks how things are, again and again.
async fn look(sockets: Sockets, answers: Sender<Update>) {
    loop {
        let overview = client::fetch::<Overview>(&sockets, "/overview").await;
        if answers.send(Update::Overview(Box::new(overview))).await.is_err() {
            return;
        }
        sleep(PERIOD).await;
    }
}

/// Has the proxy do something, and looks at once at what came of it.
async fn act(sockets: Sockets, action: Action, answers: Sender<Update>) {
    let update = match action {
        Action::Order(verb) => Update::Ordered(order::give(&sockets, &verb).await.map(|done| done.lines)),
        Action::Why(id) => Update::Why(why::ask(&sockets, Some(&id)).await),
        Action::Quit => return,
    };
    let ordered = matches!(update, Update::Ordered(Ok(_)));
    // Whoever asked has left where this fails.
    let _ = answers.send(update).await;
    if ordered {
        let overview = client::fetch::<Overview>(&sockets, "/overview").await;
        let _ = answers.send(Update::Overview(Box::new(overview))).await;
    }
}
