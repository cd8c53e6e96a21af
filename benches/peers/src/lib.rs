//! What measures Evenkeel beside its peers, in one run, on this machine.
//!
//! ```text
//! peer     who is measured, expertly configured   install  where their programs come from
//! row      what is measured           cost, balance     how
//! origin   the replicas    dns  their name server    load  the clients    wire  their HTTP    timer  exact sleeps
//! process  processor time, memory, processors     table    medians, ratios, Markdown     picture  the same, drawn
//! bin/pick.rs   what a pick costs, without a network
//! ```
//!
//! All contenders run at once and are measured in turn, several rounds, so that what the machine does otherwise
//! meets everyone alike. Processor time per request is the steadiest figure: it barely depends on who else is busy.
//!
//! The testbed is for what must be *true*, with hyper on both sides; this is for what must be *cheap to measure*: origin
//! and load take a few microseconds a request, so that a proxy of ten is seen.

#![allow(clippy::disallowed_methods)] // measuring is reading the clock

pub mod balance;
pub mod cost;
pub mod dns;
pub mod install;
pub mod load;
pub mod origin;
pub mod peer;
pub mod picture;
pub mod process;
pub mod row;
pub mod table;
pub mod timer;
pub mod wire;
