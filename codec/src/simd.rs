//! The vector instructions that the processor has, as `fearless_simd` tokens. A token proves that its instructions can be
//! executed, so that no `unsafe` is needed. It changes how fast packets are coded, never their bytes.

#[cfg(target_arch = "x86_64")]
pub(crate) use fearless_simd::Avx2;

/// The instructions that may be used. None by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Simd {
    #[cfg(target_arch = "x86_64")]
    pub(crate) avx2: Option<Avx2>,
}

impl Simd {
    /// All instructions that this processor has and the crate uses.
    pub(crate) fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: fearless_simd::Level::new().as_avx2(),
        }
    }

    /// Runs `work` compiled for the instructions that may be used.
    #[inline(always)]
    pub(crate) fn vectorize<T>(self, work: impl FnOnce() -> T) -> T {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2 {
            return fearless_simd::Simd::vectorize(avx2, work);
        }
        work()
    }
}
