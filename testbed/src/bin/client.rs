//! The app that calls the proxy: sends requests at a steady rate, never again what failed, and tells at SIGTERM what became
//! of them, as one line of JSON (see `Report::to_json`).
//!
//! `TARGET` is whom to ask, such as `proxy:8080`; a name is resolved for each connection. `RATE` is in requests a second,
//! `GET_PATH` what to ask for of an app that is not the testbed's replica. With `KEEP=no` every request has a connection of its own.

#![allow(clippy::disallowed_methods)] // it lives in real time

use std::time::{SystemTime, UNIX_EPOCH};
use testbed::{Asked, Load, Plan};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut plan = Plan::new(std::env::var("TARGET")?, std::env::var("RATE")?.parse()?);
    plan.app = std::env::var("GET_PATH").map_or(plan.app, Asked::Path);
    plan.keep = !std::env::var("KEEP").is_ok_and(|keep| keep == "no");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let load = runtime.block_on(async {
        let mut told = signal(SignalKind::terminate())?;
        let load = Load::start(plan);
        told.recv().await;
        Ok::<_, std::io::Error>(load)
    })?;
    println!("{}", load.stop().to_json(start));
    Ok(())
}
