//! A pattern of processor load by which the recording of an external meter is aligned with the run.
#![expect(clippy::disallowed_methods, reason = "the pattern is played on the system's clock")]

use std::{
    hint::spin_loop,
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Sampler, Window};

/// Busy (true) and idle chips: the Barker sequence of length 13, whose autocorrelation has a single peak.
pub const CHIPS: [bool; 13] =
    [true, true, true, true, true, false, false, true, true, false, true, false, true];

/// Duration of a chip: five readings of a meter that samples at 10 Hz.
pub const CHIP: Duration = Duration::from_millis(500);

/// Duration of the pattern.
pub const LENGTH: Duration = CHIP.saturating_mul(CHIPS.len() as u32);

/// Idle time before and after the pattern, so that its edges show.
pub const QUIET: Duration = Duration::from_secs(1);

/// Plays the pattern on every processor core and returns its window on the clock of the sampler. Between chips it calls
/// `stop`, and ends once that returns true.
///
/// # Errors
/// [`Error::Device`] if it was stopped.
pub fn play(sampler: &Sampler, stop: &(dyn Fn() -> bool + Sync)) -> Result<Window, Error> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::sleep(QUIET);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut end = began;
                for busy in CHIPS {
                    end += CHIP;
                    match busy {
                        _ if stop() => return,
                        true => {
                            while Instant::now() < end {
                                spin_loop();
                            }
                        }
                        false => thread::sleep(end.saturating_duration_since(Instant::now())),
                    }
                }
            });
        }
    });
    if stop() {
        return Err(Error::Device("the marker was interrupted".to_owned()));
    }
    thread::sleep(QUIET);
    let from = sampler.time_of(began);
    Ok(Window::new(from, from + LENGTH))
}
