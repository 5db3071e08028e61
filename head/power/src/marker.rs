//! A pattern that is played into the load, so that a meter with a clock of its own can be aligned with the run.
#![expect(clippy::disallowed_methods, reason = "the pattern is played on the system's clock")]

use std::{
    hint::spin_loop,
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Sampler, Window};

/// Busy and idle, in turn: the Barker sequence of 13, which correlates with itself at no other offset.
pub const CHIPS: [bool; 13] =
    [true, true, true, true, true, false, false, true, true, false, true, false, true];

/// How long each of [`CHIPS`] lasts: five readings of a meter with 10 Hz.
pub const CHIP: Duration = Duration::from_millis(500);

/// How long the whole pattern lasts.
pub const LENGTH: Duration = CHIP.saturating_mul(CHIPS.len() as u32);

/// Idle time around the pattern, so that its edges stand out.
pub const QUIET: Duration = Duration::from_secs(1);

/// Plays the pattern on every processor core and returns when on the sampler's clock it was.
/// `stop` is asked between chips; once it is true the rest is left out.
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
