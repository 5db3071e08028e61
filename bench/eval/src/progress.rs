//! Progress bars on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `len` steps with the label `what`, the steps done and the time left.
#[must_use]
pub fn bar(what: &'static str, len: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta}").expect("a fixed template");
    ProgressBar::new(len as u64).with_style(style).with_message(what)
}
