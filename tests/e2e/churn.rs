//! A bad day, live: everything that Docker and Dokku do to replicas, one after the other, under a load that never
//! retries. The times are those of the shipped configuration. `make soak` is the same for ten minutes, at random.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use testbed::{Churn, Protocol, Turn};

/// One day at a time: each takes most of a core, and other tests run beside it.
static DAY: Mutex<()> = Mutex::new(());

// F4, F16, F19, F22, F23, F24, F30, F42, F44, F46
#[test]
fn a_bad_day_loses_no_get_and_no_post_that_http_lets_save_and_is_told_of() {
    a_bad_day(300.0, [Protocol::Http1, Protocol::Http1]);
}

// The same
#[test]
fn a_bad_day_of_http_2_loses_no_more() {
    a_bad_day(150.0, [Protocol::H2c, Protocol::H2c]);
}

fn a_bad_day(rate: f64, spoken: [Protocol; 2]) {
    let _alone = DAY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut day = Churn::start(env!("CARGO_BIN_EXE_evenkeel"), rate, spoken);
    day.rest(Duration::from_secs(4));
    for turn in Turn::ALL {
        day.turn(turn);
    }
    let verdict = day.end();
    // A debug build on a busy machine is no place to hold the p99 against a bar: the soak does.
    println!("{}", verdict.table());
    assert!(verdict.violations().is_empty(), "{}\n{:#?}", verdict.log(), verdict.violations());
}
