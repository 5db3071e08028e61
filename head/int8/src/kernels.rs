//! The arithmetic, one file per family of processors.
//!
//! [`portable`] is written from the formulas of `models/BUNDLE.md` and is what the others are tested against, bit for
//! bit. The others take a token of [`isa`](crate::isa) as the proof that their instructions may be run.

pub(crate) mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dot;
