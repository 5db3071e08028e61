//! Which instructions the kernels use, found out at run time.

use std::fmt;

/// An implementation of the kernels. All give the same integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, every processor.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// 64-bit ARM, widening multiply-add.
    Neon,
    /// 64-bit ARM with the dot product extension (ARMv8.2 FEAT_DotProd).
    NeonDot,
}

impl Isa {
    /// Every implementation, the plainest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Neon, Isa::NeonDot];

    /// The fastest implementation that this processor runs.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_supported()).unwrap_or(Isa::Portable)
    }

    /// Whether this processor runs it.
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[allow(unreachable_patterns, reason = "which arms exist depends on the architecture")]
            _ => false,
        }
    }

    /// Its name in logs and reports.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_implementation_is_supported() {
        assert!(Isa::detect().is_supported());
        assert!(Isa::Portable.is_supported());
    }

    #[test]
    fn foreign_architecture_is_not_supported() {
        let foreign = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
        assert!(!foreign.is_supported());
    }
}
