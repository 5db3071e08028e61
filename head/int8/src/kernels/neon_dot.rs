//! 64-bit ARM with the dot product extension: `sdot` adds four products of 8-bit integers to each 32-bit lane.
//!
//! The input is read as `x - 128`, which is x with its top bit flipped; `ConvSpec::folded_bias` makes up for it. No step
//! can wrap: the accumulator stays within the bound that `ConvSpec::check` established.

use std::arch::{aarch64::*, asm};

use crate::{
    dense::{DenseLanes, Strip},
    isa::NeonDot,
    pack::BLOCK,
};

/// For four pixels by two blocks: sixteen registers of accumulators, four of weights and one of inputs out of
/// thirty-two.
impl DenseLanes for NeonDot {
    type Element = i8;
    type Step = [i8; 4];
    type Lanes = [i32; BLOCK];
    type Block = [i8; 4 * BLOCK];
    type Weights = [int8x16_t; 2];
    type Inputs = int8x16_t;
    type Sums = [int32x4_t; 2];

    const GROUPS: usize = 1;
    const PIXELS: usize = 4;
    const SHIFT: i64 = 128;

    fn convert(value: u8) -> i8 {
        (value ^ 0x80) as i8
    }

    fn block(weights: &[i8]) -> [i8; 4 * BLOCK] {
        std::array::from_fn(|i| weights[i])
    }

    #[inline(always)]
    fn strip<const N: usize>(self, strip: &Strip<'_, NeonDot>, acc: &mut [[i32; BLOCK]]) {
        #[target_feature(enable = "neon,dotprod")]
        fn compute<const N: usize>(lanes: NeonDot, strip: &Strip<'_, NeonDot>, acc: &mut [[i32; BLOCK]]) {
            strip.compute::<N>(lanes, acc);
        }
        // SAFETY: the token proves NEON and the dot product.
        unsafe { compute::<N>(self, strip, acc) }
    }

    #[inline(always)]
    fn load(self, values: &[i32; BLOCK]) -> [int32x4_t; 2] {
        self.neon().load(values)
    }

    #[inline(always)]
    fn store(self, sums: [int32x4_t; 2], values: &mut [i32; BLOCK]) {
        self.neon().store(sums, values);
    }

    #[inline(always)]
    fn weights(self, block: &[i8; 4 * BLOCK]) -> [int8x16_t; 2] {
        let (halves, _) = block.as_chunks::<16>();
        // SAFETY: the token proves NEON. Each half is sixteen values.
        unsafe { [vld1q_s8(halves[0].as_ptr()), vld1q_s8(halves[1].as_ptr())] }
    }

    /// Puts the four inputs in the first lane of 32 bits.
    #[inline(always)]
    fn inputs(self, step: [i8; 4]) -> int8x16_t {
        let four = u32::from_ne_bytes(step.map(|input| input as u8));
        // SAFETY: the token proves NEON.
        unsafe { vreinterpretq_s8_u32(vsetq_lane_u32::<0>(four, vdupq_n_u32(0))) }
    }

    #[inline(always)]
    fn multiply_add<const GROUP: i32>(
        self,
        [low, high]: [int32x4_t; 2],
        weights: [int8x16_t; 2],
        inputs: int8x16_t,
    ) -> [int32x4_t; 2] {
        // SAFETY: the token proves NEON and the dot product.
        unsafe { [dot(low, weights[0], inputs), dot(high, weights[1], inputs)] }
    }
}

/// Adds to each lane of `sum` the four products of the lane's weights and the first four inputs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, weights: int8x16_t, inputs: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the features of the function promise.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {weights:v}.16b, {inputs:v}.4b[0]",
            sum = inout(vreg) sum,
            weights = in(vreg) weights,
            inputs = in(vreg) inputs,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
