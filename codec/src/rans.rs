//! Interleaved range ANS (FORMAT.md, sections 4.2 and 4.3): 32-bit states, 16-bit words.
//!
//! Encoder and decoder choose between [`portable`] loops and those for AVX2, which write and read the same words.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod entry;
pub(crate) mod lookup;
mod portable;
pub(crate) mod table_set;
pub(crate) mod words;
