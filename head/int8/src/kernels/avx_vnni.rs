//! x86-64 with AVX-VNNI: `vpdpbusd` adds four products of an unsigned and a signed 8-bit integer to each 32-bit lane.
//!
//! No step can saturate or wrap: `vpdpbusd` sums in 32 bits, and the accumulator stays within the bound that
//! `ConvSpec::check` established.

use std::arch::x86_64::*;

use crate::{
    dense::{DenseLanes, Strip},
    isa::AvxVnni,
    pack::BLOCK,
};

/// Thirty-two weights at an address that one aligned 256-bit load reads.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct Weights([i8; 4 * BLOCK]);

/// For six pixels by two blocks: twelve registers of accumulators, two of weights and one of inputs out of sixteen.
impl DenseLanes for AvxVnni {
    type Element = u8;
    type Step = [u8; 4];
    type Lanes = [i32; BLOCK];
    type Block = Weights;
    type Weights = __m256i;
    type Inputs = __m256i;
    type Sums = __m256i;

    const GROUPS: usize = 1;
    const PIXELS: usize = 6;
    const SHIFT: i64 = 0;

    fn convert(value: u8) -> u8 {
        value
    }

    fn block(weights: &[i8]) -> Weights {
        Weights(std::array::from_fn(|i| weights[i]))
    }

    #[inline(always)]
    fn strip<const N: usize>(self, strip: &Strip<'_, AvxVnni>, acc: &mut [[i32; BLOCK]]) {
        #[target_feature(enable = "avx2,avxvnni")]
        fn compute<const N: usize>(lanes: AvxVnni, strip: &Strip<'_, AvxVnni>, acc: &mut [[i32; BLOCK]]) {
            strip.compute::<N>(lanes, acc);
        }
        // SAFETY: the token proves AVX2 and AVX-VNNI.
        unsafe { compute::<N>(self, strip, acc) }
    }

    #[inline(always)]
    fn load(self, values: &[i32; BLOCK]) -> __m256i {
        self.avx2().load(values)
    }

    #[inline(always)]
    fn store(self, sums: __m256i, values: &mut [i32; BLOCK]) {
        self.avx2().store(sums, values);
    }

    #[inline(always)]
    fn weights(self, block: &Weights) -> __m256i {
        // SAFETY: the token proves AVX2. `block` is 32 bytes, aligned to 32.
        unsafe { _mm256_load_si256(std::ptr::from_ref(block).cast()) }
    }

    /// Repeats the four inputs in every lane.
    #[inline(always)]
    fn inputs(self, step: [u8; 4]) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_epi32(i32::from_ne_bytes(step)) }
    }

    #[inline(always)]
    fn multiply_add<const GROUP: i32>(self, sums: __m256i, weights: __m256i, inputs: __m256i) -> __m256i {
        // SAFETY: the token proves AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(sums, inputs, weights) }
    }
}
