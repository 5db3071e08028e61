//! Messages on how far a measurement is.

use std::io::{Write, stderr};

/// Says on standard error what is done now; without a reader of it there is nobody to tell.
pub(super) fn progress(what: &str) {
    let _ = writeln!(stderr(), "narrows-head board: {what}");
}
