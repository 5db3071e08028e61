//! Arbitrary recordings of USB meters and arbitrary coefficients: what is accepted has finite joules.

use std::time::Duration;

use narrows_power::{Plan, Window, meter::Log, radio};

/// Reads the bytes as a meter's recording and as coefficients of radios.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let log = Log::parse(data);
    if let Ok(log) = &log
        && let Ok(placed) = log.place(&[Duration::from_secs(1)])
    {
        let measured = placed.over(&Plan::of(Window::new(Duration::from_secs(8), Duration::from_secs(20))));
        assert!(measured.gross.covered_s >= 0.0 && measured.gross.covered_s <= 12.0 + 1e-6);
    }
    let radios = std::str::from_utf8(data).ok().and_then(|text| radio::parse(text).ok());
    for radio in radios.iter().flatten() {
        assert!(radio.joules(1, 1, 1.0) >= 0.0 && radio.burst() >= 0.0);
    }
    log.is_ok() || radios.is_some()
}
