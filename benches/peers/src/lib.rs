//! What measures Evenkeel beside its peers, in one run, on this machine.
//!
//! ```text
//! main     the command line        run       a whole run, row by row
//! row      what is measured        figure    its numbers       kind      who takes part
//! peer     contenders as processes           configuration     what they are told      install   where they come from
//! cost, memory, balance, scenario  how it is measured; taken   what that gives
//! scene    a contender before replicas of its own
//! origin   the replicas            conduct   how they behave   dns       their name server
//! load     the clients             request   what they send    record    what became of it
//! wire     their HTTP              timer     exact sleeps      process   processor time, memory, processors
//! table    all values, kept in a file        lines     the tables of them      readme, picture   for the reader
//! bin/pick.rs   what a pick costs, without a network
//! ```
//!
//! All contenders run at once and are measured in turn, several rounds, so that what the machine does otherwise
//! meets everyone alike. Processor time per request is the steadiest figure: it barely depends on who else is busy. What
//! is measured at rates far below what a processor carries is measured for several of them at the same time.
//!
//! The testbed is for what must be *true*, with hyper on both sides; this is for what must be *cheap to measure*: origin
//! and load take a few microseconds a request, so that a proxy of ten is seen.

#![allow(clippy::disallowed_methods)] // measuring is reading the clock

pub mod balance;
pub mod conduct;
pub mod configuration;
pub mod cost;
pub mod dns;
pub mod figure;
pub mod install;
pub mod kind;
pub mod lines;
pub mod load;
pub mod memory;
pub mod origin;
pub mod peer;
pub mod picture;
pub mod process;
pub mod readme;
pub mod record;
pub mod request;
pub mod row;
pub mod run;
pub mod scenario;
pub mod scene;
pub mod table;
pub mod taken;
pub mod timer;
pub mod wire;
