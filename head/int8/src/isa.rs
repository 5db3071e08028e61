//! The instruction sets that the kernels exist for, and the proofs that this processor has one of them.
//!
//! [`Isa`] is a name that anybody can write down. A token ([`Avx2`], [`AvxVnni`], [`Avx512`], [`Neon`], [`NeonDot`]) is a
//! proof: its field is private to this file and its `detect` alone makes one, so whoever holds a token may run the
//! instructions.

use std::{fmt, str::FromStr};

/// An implementation of the kernels. All of them give the same integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, for every processor.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX2 and the dot product of 8-bit integers in 256 bits (AVX-VNNI).
    AvxVnni,
    /// x86-64 with AVX-512 and its dot product of 8-bit integers (AVX-512 F, BW and VNNI).
    Avx512,
    /// 64-bit ARM with NEON: widening multiply-add of 16-bit integers.
    Neon,
    /// 64-bit ARM with NEON and the dot product of 8-bit integers (ARMv8.2 FEAT_DotProd).
    NeonDot,
}

impl Isa {
    /// Every implementation, the portable one first and the fastest of each architecture last.
    pub const ALL: [Isa; 6] = [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Neon, Isa::NeonDot];

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
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512 => "avx512-vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }
}

/// A name that is none of an [`Isa`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kernels are called {0:?}; there are {list}", list = Isa::ALL.map(Isa::name).join(", "))]
pub struct UnknownIsa(String);

/// Parses the name of an implementation, whether this processor runs it or not.
impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names the instruction sets of this processor that the kernels or the encryption of packets use.
#[must_use]
pub fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("aes", std::arch::is_x86_feature_detected!("aes")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter_map(|(name, here)| here.then_some(name)).collect()
}

/// An implementation that this processor is known to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpu {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
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
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => AvxVnni::detect().map(Cpu::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::detect().map(Cpu::Avx512),
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
            #[cfg(target_arch = "x86_64")]
            Cpu::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(_) => Isa::Avx512,
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

/// Proof that this processor has AVX2 and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvxVnni(Avx2);

#[cfg(target_arch = "x86_64")]
impl AvxVnni {
    fn detect() -> Option<AvxVnni> {
        let avx2 = Avx2::detect()?;
        std::arch::is_x86_feature_detected!("avxvnni").then_some(AvxVnni(avx2))
    }

    /// The proof of AVX2 alone.
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
    }
}

/// Proof that this processor has AVX2, AVX-512 F, BW and VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(Avx2);

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    fn detect() -> Option<Avx512> {
        let avx2 = Avx2::detect()?;
        let all = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vnni");
        all.then_some(Avx512(avx2))
    }

    /// The proof of AVX2 alone.
    pub(crate) fn avx2(self) -> Avx2 {
        self.0
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
    fn names_are_parsed_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().ok(), Some(isa));
        }
        let unknown = "avx3".parse::<Isa>().unwrap_err().to_string();
        assert!(unknown.contains("avx3") && unknown.contains("portable, avx2, avx-vnni"), "{unknown}");
    }

    #[test]
    fn a_proof_names_the_implementation_it_was_made_for() {
        for isa in Isa::ALL {
            assert_eq!(Cpu::detect(isa).map(Cpu::isa), isa.is_supported().then_some(isa));
        }
    }
}
