//! The instruction sets that the kernels exist for, and the proofs that this processor has one of them.
//!
//! [`Isa`] is a name that anybody can write down. A token ([`Avx2`], [`Neon`], [`NeonDot`]) is a proof: its field is
//! private to this file and its `detect` alone makes one, so whoever holds a token may run the instructions.

use std::fmt;

/// An implementation of the kernels. All of them give the same integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, for every processor.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// 64-bit ARM with NEON: widening multiply-add of 16-bit integers.
    Neon,
    /// 64-bit ARM with NEON and the dot product of 8-bit integers (ARMv8.2 FEAT_DotProd).
    NeonDot,
}

impl Isa {
    /// Every implementation, the portable one first and the fastest of each architecture last.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Neon, Isa::NeonDot];

    /// Returns the fastest implementation that this processor runs.
    #[must_use]
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_supported()).unwrap_or(Isa::Portable)
    }

    /// Whether this processor runs the implementation.
    #[must_use]
    pub fn is_supported(self) -> bool {
        Cpu::detect(self).is_some()
    }

    /// Name in logs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An implementation that this processor is known to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpu {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "aarch64")]
    NeonDot(NeonDot),
}

impl Cpu {
    /// Proves that this processor runs `isa`; `None` if it does not.
    pub(crate) fn detect(isa: Isa) -> Option<Cpu> {
        match isa {
            Isa::Portable => Some(Cpu::Portable),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::detect().map(Cpu::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::detect().map(Cpu::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => NeonDot::detect().map(Cpu::NeonDot),
            #[allow(unreachable_patterns, reason = "which arms exist depends on the architecture")]
            _ => None,
        }
    }

    /// The name of the implementation.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Cpu::Portable => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonDot(_) => Isa::NeonDot,
        }
    }
}

/// Proof that this processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Avx2> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

/// Proof that this processor has NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    fn detect() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Proof that this processor has NEON and the dot product extension.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeonDot(Neon);

#[cfg(target_arch = "aarch64")]
impl NeonDot {
    fn detect() -> Option<NeonDot> {
        let neon = Neon::detect()?;
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(NeonDot(neon))
    }

    /// The proof of NEON alone.
    pub(crate) fn neon(self) -> Neon {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_implementation_is_supported() {
        assert!(Isa::detect().is_supported());
        assert!(Isa::Portable.is_supported());
    }

    #[test]
    fn implementation_of_another_architecture_is_not_supported() {
        let foreign = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
        assert!(!foreign.is_supported());
    }

    #[test]
    fn a_proof_names_the_implementation_it_was_made_for() {
        for isa in Isa::ALL {
            assert_eq!(Cpu::detect(isa).map(Cpu::isa), isa.is_supported().then_some(isa));
        }
    }
}
