//! Arbitrary recordings of USB meters and arbitrary coefficients: what is accepted has finite joules.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use narrows_power::{Plan, Window, meter::Log, radio};

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = Log::parse(data)
        && let Ok(placed) = log.place(&[Duration::from_secs(1)])
    {
        let measured = placed.over(&Plan::of(Window::new(Duration::from_secs(8), Duration::from_secs(20))));
        assert!(measured.gross.covered_s >= 0.0 && measured.gross.covered_s <= 12.0 + 1e-6);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(radios) = radio::parse(text)
    {
        for radio in radios {
            assert!(radio.joules(1, 1, 1.0) >= 0.0 && radio.burst() >= 0.0);
        }
    }
});
