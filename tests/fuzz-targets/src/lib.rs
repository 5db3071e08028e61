//! What each fuzz target does with its bytes: parses them and checks what must hold for input that is accepted.
//!
//! `tests/fuzz` gives these functions to libFuzzer. On a stable compiler a test runs them on the seed corpus,
//! `tests/fuzz/corpus-seed`, which the example `seeds` writes.
//!
//! ```
//! assert!(narrows_fuzz_targets::meter::run(b"time,watts\n0,5\n1,5\n"));
//! assert!(!narrows_fuzz_targets::meter::run(b"a page of HTML"));
//! ```

#[path = "../../../codec/tests/generate/mod.rs"]
mod generate;

pub mod enrolment;
pub mod frame;
pub mod hello;
pub mod image;
pub mod manifest;
pub mod meter;
pub mod packet;
pub mod stream;
pub mod tables;

/// A fuzz target: returns whether a parser accepts the bytes, and panics where a promise about accepted input is broken.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("enrolment", enrolment::run),
    ("frame", frame::run),
    ("hello", hello::run),
    ("image", image::run),
    ("manifest", manifest::run),
    ("meter", meter::run),
    ("packet", packet::run),
    ("stream", stream::run),
    ("tables", tables::run),
];
