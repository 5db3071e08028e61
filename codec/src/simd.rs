//! Which instructions of the processor may be used. The one door to `fearless_simd`, whose tokens prove that the
//! processor has them, so that they can be used without `unsafe`.
//!
//! The portable code is the truth: a token changes how fast bytes come out, and never which.

#[cfg(target_arch = "x86_64")]
pub(crate) use fearless_simd::Avx2;

/// What this processor has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Simd {
    #[cfg(target_arch = "x86_64")]
    pub(crate) avx2: Option<Avx2>,
}

impl Simd {
    /// All that this processor has and the crate uses.
    pub(crate) fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: fearless_simd::Level::new().as_avx2(),
        }
    }
}
