//! The context model: the mean and the table of each symbol from the symbols coded before it (FORMAT.md, section 5.3).
//!
//! [`state`] keeps the planes of a feature and codes channel after channel. It computes with a [`kernel`], portable or
//! for AVX2, on 16 symbols at once.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod kernel;
mod lanes;
mod layout;
pub(crate) mod model;
mod phase;
mod portable;
pub(crate) mod state;
