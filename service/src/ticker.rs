//! Timers of what a service does regularly.

use std::{future::pending, time::Duration};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// A timer that ticks at once and then `every` so long. Ticks that were missed are not caught up on. It is made in a Tokio runtime.
#[must_use]
pub fn ticker(every: Duration) -> Interval {
    let mut ticker = interval(every);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// Waits for the next tick, for ever where there is no timer.
pub async fn next_tick(ticker: &mut Option<Interval>) {
    match ticker {
        Some(ticker) => drop(ticker.tick().await),
        None => pending().await,
    }
}
