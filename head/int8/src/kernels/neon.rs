//! 64-bit ARM with NEON and without the dot product: widening multiply-adds of 16-bit integers into 32 bits.
//!
//! No step can wrap: an input is 0 to 255 and a weight -128 to 127, both as i16, and the accumulator stays within the
//! bound that `ConvSpec::check` established.

use std::arch::aarch64::*;

use crate::{
    ConvSpec, Output, Term,
    dense::{DenseLanes, Strip},
    isa::Neon,
    kernel::RowKernel,
    narrow::Narrowing,
    pack::{BLOCK, bias, depthwise},
    rows::Windows,
    sum::Sum,
};

/// For four pixels by two blocks: sixteen registers of accumulators, two of weights and four of inputs out of
/// thirty-two.
impl DenseLanes for Neon {
    type Element = i16;
    type Step = [i16; 4];
    type Lanes = [i32; BLOCK];
    type Block = [i16; BLOCK];
    type Weights = int16x8_t;
    type Inputs = int16x4_t;
    type Sums = [int32x4_t; 2];

    const GROUPS: usize = 4;
    const PIXELS: usize = 4;
    const SHIFT: i64 = 0;

    fn convert(value: u8) -> i16 {
        i16::from(value)
    }

    fn block(weights: &[i8]) -> [i16; BLOCK] {
        std::array::from_fn(|i| i16::from(weights[i]))
    }

    #[inline(always)]
    fn strip<const N: usize>(self, strip: &Strip<'_, Neon>, acc: &mut [[i32; BLOCK]]) {
        #[target_feature(enable = "neon")]
        fn compute<const N: usize>(lanes: Neon, strip: &Strip<'_, Neon>, acc: &mut [[i32; BLOCK]]) {
            strip.compute::<N>(lanes, acc);
        }
        // SAFETY: the token proves NEON.
        unsafe { compute::<N>(self, strip, acc) }
    }

    #[inline(always)]
    fn load(self, values: &[i32; BLOCK]) -> [int32x4_t; 2] {
        let (values, _) = values.as_chunks::<4>();
        // SAFETY: the token proves NEON. Each half is four values.
        unsafe { [vld1q_s32(values[0].as_ptr()), vld1q_s32(values[1].as_ptr())] }
    }

    #[inline(always)]
    fn store(self, [low, high]: [int32x4_t; 2], values: &mut [i32; BLOCK]) {
        let (values, _) = values.as_chunks_mut::<4>();
        // SAFETY: the token proves NEON. Each half is four values.
        unsafe {
            vst1q_s32(values[0].as_mut_ptr(), low);
            vst1q_s32(values[1].as_mut_ptr(), high);
        }
    }

    #[inline(always)]
    fn weights(self, block: &[i16; BLOCK]) -> int16x8_t {
        // SAFETY: the token proves NEON. `block` is eight values.
        unsafe { vld1q_s16(block.as_ptr()) }
    }

    #[inline(always)]
    fn inputs(self, step: [i16; 4]) -> int16x4_t {
        // SAFETY: the token proves NEON. `step` is four values.
        unsafe { vld1_s16(step.as_ptr()) }
    }

    #[inline(always)]
    fn multiply_add<const GROUP: i32>(
        self,
        [low, high]: [int32x4_t; 2],
        weights: int16x8_t,
        inputs: int16x4_t,
    ) -> [int32x4_t; 2] {
        // SAFETY: the token proves NEON.
        unsafe {
            [
                vmlal_lane_s16::<GROUP>(low, vget_low_s16(weights), inputs),
                vmlal_high_lane_s16::<GROUP>(high, weights, inputs),
            ]
        }
    }
}

/// A depthwise layer, eight channels at a time. Its fields are set by [`Depthwise::new`] alone.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    cpu: Neon,
    /// Block of channels, tap.
    weights: Vec<[i16; BLOCK]>,
    bias: Vec<[i32; BLOCK]>,
    kernel: [usize; 2],
}

impl Depthwise {
    /// Packs the weights of a layer.
    pub(crate) fn new(cpu: Neon, spec: &ConvSpec) -> Depthwise {
        let weights = depthwise(spec, BLOCK).as_chunks().0.to_vec();
        Depthwise { cpu, weights, bias: bias(spec.folded_bias(0), 1), kernel: spec.kernel }
    }

    #[target_feature(enable = "neon")]
    fn pixels(&self, windows: &Windows<'_, i16>, acc: &mut [[i32; BLOCK]]) {
        assert!(windows.length() == self.lanes(), "a window of other channels");
        let blocks = self.bias.len();
        let taps = self.kernel[0] * self.kernel[1];
        for ((block, weights), bias) in self.weights.chunks_exact(taps).enumerate().zip(&self.bias) {
            for x in 0..windows.width() {
                let [mut low, mut high] = self.cpu.load(bias);
                for (&start, weights) in windows.starts().iter().zip(weights) {
                    let place = start + x * windows.step() + block * BLOCK;
                    // SAFETY: `Windows` holds a whole window from `start + x * step()` on, because `x` is less than
                    // its width. The eight elements of the block are within it: `block` is less than `blocks`, and a
                    // window is `blocks * BLOCK` elements, asserted above.
                    let input = unsafe { vld1q_s16(windows.elements().as_ptr().add(place)) };
                    let weights = self.cpu.weights(weights);
                    low = vmlal_s16(low, vget_low_s16(input), vget_low_s16(weights));
                    high = vmlal_high_s16(high, input, weights);
                }
                self.cpu.store([low, high], &mut acc[x * blocks + block]);
            }
        }
    }
}

impl RowKernel for Depthwise {
    type Element = i16;

    fn convert(value: u8) -> i16 {
        i16::from(value)
    }

    fn columns(&self) -> usize {
        self.kernel[1]
    }

    fn window_length(&self) -> usize {
        self.lanes()
    }

    fn lanes(&self) -> usize {
        self.bias.len() * BLOCK
    }

    fn row(&self, windows: &Windows<'_, i16>, acc: &mut [i32]) {
        let (acc, _) = acc.as_chunks_mut::<BLOCK>();
        // SAFETY: the token in `self` proves NEON.
        unsafe { self.pixels(windows, acc) }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Narrowing::by`].
pub(crate) fn narrow<T: Output>(
    _: Neon,
    narrowing: &Narrowing<T>,
    acc: &[i32],
    lanes: usize,
    output: &mut [T],
) {
    #[target_feature(enable = "neon")]
    fn narrow<T: Output>(narrowing: &Narrowing<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
        let (low, high, zero) = narrowing.bounds();
        let (low, high, zero) = (vdupq_n_f32(low), vdupq_n_f32(high), vdupq_n_s32(zero));
        narrowing.by::<8>(acc, lanes, output, |acc, mults, output| {
            let four = |i: usize| {
                // SAFETY: both hold eight values and `i` is 0 or 4.
                let (acc, mults) =
                    unsafe { (vld1q_s32(acc.as_ptr().add(i)), vld1q_f32(mults.as_ptr().add(i))) };
                // Both conversions round halves to even, the mode that Rust code always runs in.
                let value = vmulq_f32(vcvtq_f32_s32(acc), mults);
                let value = vminq_f32(vmaxq_f32(value, low), high);
                vmovn_s32(vaddq_s32(vcvtnq_s32_f32(value), zero))
            };
            // The clamp made all values fit `T`, so what narrowing drops is their sign.
            let words = vcombine_s16(four(0), four(4));
            let place = output.as_mut_ptr();
            // SAFETY: `output` is eight values of two bytes or of one, and any bits are a value of `T`.
            unsafe {
                match size_of::<T>() {
                    2 => vst1q_s16(place.cast(), words),
                    _ => vst1_s8(place.cast(), vmovn_s16(words)),
                }
            }
        });
    }
    // SAFETY: the token proves NEON.
    unsafe { narrow(narrowing, acc, lanes, output) }
}

/// Adds element by element three slices of one length.
pub(crate) fn add(_: Neon, sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
    #[target_feature(enable = "neon")]
    fn add(sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
        let ([first, second], (low, high, zero)) = (sum.terms(), sum.bounds());
        let (low, high, zero) = (vdupq_n_f32(low), vdupq_n_f32(high), vdupq_n_s32(zero));
        let constants = |term: Term| (vdup_n_u8(term.zero), vdupq_n_f32(term.mult));
        let (first, second) = (constants(first), constants(second));
        let scaled = |x: &[u8; 8], (zero, mult): (uint8x8_t, float32x4_t)| {
            // SAFETY: eight values of one byte.
            let x = vreinterpretq_s16_u16(vsubl_u8(unsafe { vld1_u8(x.as_ptr()) }, zero));
            let [low, high] = [vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)];
            // Products and their sum stay apart: fused they would round once.
            [vmulq_f32(vcvtq_f32_s32(low), mult), vmulq_f32(vcvtq_f32_s32(high), mult)]
        };
        Sum::by::<8>(a, b, output, |a, b, output| {
            let ([a, c], [b, d]) = (scaled(a, first), scaled(b, second));
            let four = |value| {
                let value = vminq_f32(vmaxq_f32(value, low), high);
                // Rounds halves to even.
                vmovn_s32(vaddq_s32(vcvtnq_s32_f32(value), zero))
            };
            // The clamp made all values fit u8, so what narrowing drops is their sign.
            let words = vcombine_s16(four(vaddq_f32(a, b)), four(vaddq_f32(c, d)));
            // SAFETY: eight values of one byte.
            unsafe { vst1_u8(output.as_mut_ptr(), vreinterpret_u8_s8(vmovn_s16(words))) };
        });
    }
    // SAFETY: the token proves NEON.
    unsafe { add(sum, a, b, output) }
}
