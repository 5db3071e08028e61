//! NEON without the dot product: widening multiply-adds of i16 into i32.
//!
//! No step can wrap: an input is 0 to 255 and a weight -128 to 127 as i16, and the accumulator stays within the
//! bound that `ConvSpec::check` established.

use std::arch::aarch64::*;

use crate::{
    Add, ConvSpec, Output, Requant, Term,
    conv::Kernel,
    pack::{BLOCK, Walk, depthwise, fill},
    rows::Taps,
};

/// Sixteen accumulators, four registers of weights and four of input out of thirty-two.
const WALK: Walk = Walk { widest: 2, group: 1, unroll: 4 };

/// A dense layer.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    weights: Vec<i16>,
    bias: Vec<i32>,
    rows: usize,
    run: usize,
}

impl Dense {
    /// # Safety
    /// The processor has NEON.
    pub(crate) unsafe fn new(spec: &ConvSpec) -> Dense {
        let bias = fill(spec.folded_bias(0), BLOCK);
        Dense { weights: WALK.dense(spec), bias, rows: spec.kernel[0], run: WALK.run(spec) }
    }
}

impl Kernel for Dense {
    type Element = i16;

    fn convert(value: u8) -> i16 {
        i16::from(value)
    }

    fn columns(&self) -> usize {
        1
    }

    fn run(&self) -> usize {
        self.run
    }

    fn lanes(&self) -> usize {
        self.bias.len()
    }

    fn row(&self, taps: &Taps<'_, i16>, acc: &mut [i32]) {
        assert!(taps.run == self.run && taps.starts.len() == self.rows);
        assert!(acc.len() == taps.width * self.lanes());
        let per_block = self.rows * self.run * BLOCK;
        let mut first = 0;
        while first < self.lanes() / BLOCK {
            let blocks = WALK.strip(self.lanes() / BLOCK - first);
            let weights = &self.weights[first * per_block..][..blocks * per_block];
            // SAFETY: `new` was told that the processor has NEON. The lengths that `strip` asks for are the
            // assertions above and the slice of weights.
            unsafe {
                match blocks {
                    1 => self.strip::<1>(taps, weights, first, acc),
                    _ => self.strip::<2>(taps, weights, first, acc),
                }
            }
            first += blocks;
        }
    }
}

impl Dense {
    /// `N` blocks of output channels for the whole row, four pixels at a time.
    ///
    /// # Safety
    /// As [`Dense::tile`], for every pixel of the row.
    #[target_feature(enable = "neon")]
    unsafe fn strip<const N: usize>(
        &self,
        taps: &Taps<'_, i16>,
        weights: &[i16],
        first: usize,
        acc: &mut [i32],
    ) {
        let mut x = 0;
        // SAFETY: the caller's promise, and each tile stays within the row.
        unsafe {
            while taps.width - x >= 4 {
                self.tile::<4, N>(taps, weights, first, x, acc);
                x += 4;
            }
            if taps.width - x >= 2 {
                self.tile::<2, N>(taps, weights, first, x, acc);
                x += 2;
            }
            if taps.width > x {
                self.tile::<1, N>(taps, weights, first, x, acc);
            }
        }
    }

    /// Pixels `x..x + P` by blocks `first..first + N`.
    ///
    /// # Safety
    /// NEON; `taps.run == self.run`, a multiple of four; `weights` is eight per kernel row, input of the run and
    /// block; `x + P` is at most `taps.width`, `first + N` at most the layer's blocks, and `acc` holds
    /// `taps.width * lanes` accumulators.
    #[target_feature(enable = "neon")]
    unsafe fn tile<const P: usize, const N: usize>(
        &self,
        taps: &Taps<'_, i16>,
        weights: &[i16],
        first: usize,
        x: usize,
        acc: &mut [i32],
    ) {
        // SAFETY: `bias` holds `lanes` values and `first + N` blocks are at most that.
        let bias: [[int32x4_t; 2]; N] = std::array::from_fn(|n| unsafe {
            let bias = self.bias.as_ptr().add((first + n) * BLOCK);
            [vld1q_s32(bias), vld1q_s32(bias.add(4))]
        });
        let mut sums = [bias; P];
        let mut words = weights.as_ptr();
        for &start in taps.starts {
            // SAFETY: `Taps::new` found `start + (width - 1) * step + run` within the elements, and `x` is less
            // than the width.
            let row = unsafe { taps.elements.as_ptr().add(start + x * taps.step) };
            for element in (0..taps.run).step_by(4) {
                // SAFETY: elements `x + p` windows on, where `x + p < width`, and within `run` of its start.
                let inputs: [int16x4_t; P] =
                    std::array::from_fn(|p| unsafe { vld1_s16(row.add(p * taps.step + element)) });
                // SAFETY: `weights` holds rows * run * N groups of eight; the loops advance over each once.
                unsafe {
                    step::<P, N, 0>(&mut sums, &inputs, words);
                    step::<P, N, 1>(&mut sums, &inputs, words.add(N * BLOCK));
                    step::<P, N, 2>(&mut sums, &inputs, words.add(2 * N * BLOCK));
                    step::<P, N, 3>(&mut sums, &inputs, words.add(3 * N * BLOCK));
                    words = words.add(4 * N * BLOCK);
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (n, &[low, high]) in sums.iter().enumerate() {
                // SAFETY: pixel `x + p < width`, block `first + n < lanes / 8`, and `acc` is `width * lanes` long.
                unsafe {
                    let place = acc.as_mut_ptr().add((x + p) * self.bias.len() + (first + n) * BLOCK);
                    vst1q_s32(place, low);
                    vst1q_s32(place.add(4), high);
                }
            }
        }
    }
}

/// One input of every pixel times its weights.
///
/// # Safety
/// NEON, and `N * 8` weights at `words`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn step<const P: usize, const N: usize, const LANE: i32>(
    sums: &mut [[[int32x4_t; 2]; N]; P],
    inputs: &[int16x4_t; P],
    words: *const i16,
) {
    // SAFETY: the caller's promise.
    let w: [int16x8_t; N] = std::array::from_fn(|n| unsafe { vld1q_s16(words.add(n * BLOCK)) });
    for (sums, &input) in sums.iter_mut().zip(inputs) {
        for ([low, high], &w) in sums.iter_mut().zip(&w) {
            *low = vmlal_lane_s16::<LANE>(*low, vget_low_s16(w), input);
            *high = vmlal_high_lane_s16::<LANE>(*high, w, input);
        }
    }
}

/// A depthwise layer, eight channels at a time.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    weights: Vec<i16>,
    bias: Vec<i32>,
    kernel: [usize; 2],
}

impl Depthwise {
    /// # Safety
    /// The processor has NEON.
    pub(crate) unsafe fn new(spec: &ConvSpec) -> Depthwise {
        let bias = fill(spec.folded_bias(0), BLOCK);
        Depthwise { weights: depthwise(spec, BLOCK), bias, kernel: spec.kernel }
    }
}

impl Kernel for Depthwise {
    type Element = i16;

    fn convert(value: u8) -> i16 {
        i16::from(value)
    }

    fn columns(&self) -> usize {
        self.kernel[1]
    }

    fn run(&self) -> usize {
        self.lanes()
    }

    fn lanes(&self) -> usize {
        self.bias.len()
    }

    fn row(&self, taps: &Taps<'_, i16>, acc: &mut [i32]) {
        assert!(taps.run == self.run() && taps.starts.len() == self.kernel[0] * self.kernel[1]);
        assert!(acc.len() == taps.width * self.lanes());
        // SAFETY: `new` was told that the processor has NEON; the assertions are what `pixels` asks for.
        unsafe { self.pixels(taps, acc) }
    }
}

impl Depthwise {
    /// # Safety
    /// NEON; `taps.run` is `lanes`, and `acc` holds `taps.width * lanes` accumulators.
    #[target_feature(enable = "neon")]
    unsafe fn pixels(&self, taps: &Taps<'_, i16>, acc: &mut [i32]) {
        for (group, weights) in self.weights.chunks_exact(taps.starts.len() * BLOCK).enumerate() {
            for x in 0..taps.width {
                // SAFETY: `bias` holds `lanes` values, and the group is within the lanes.
                let (mut low, mut high) = unsafe {
                    let bias = self.bias.as_ptr().add(group * BLOCK);
                    (vld1q_s32(bias), vld1q_s32(bias.add(4)))
                };
                for (&start, weights) in taps.starts.iter().zip(weights.chunks_exact(BLOCK)) {
                    let place = start + x * taps.step + group * BLOCK;
                    // SAFETY: the group's eight elements are within `lanes` of the window's start, which
                    // `Taps::new` found inside; `weights` is eight values.
                    let (input, w) = unsafe {
                        (vld1q_s16(taps.elements.as_ptr().add(place)), vld1q_s16(weights.as_ptr()))
                    };
                    low = vmlal_s16(low, vget_low_s16(input), vget_low_s16(w));
                    high = vmlal_high_s16(high, input, w);
                }
                // SAFETY: `acc` is `width * lanes` long, the pixel within the width and the group within the lanes.
                unsafe {
                    let place = acc.as_mut_ptr().add(x * self.bias.len() + group * BLOCK);
                    vst1q_s32(place, low);
                    vst1q_s32(place.add(4), high);
                }
            }
        }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Requant::rows`].
#[target_feature(enable = "neon")]
pub(crate) fn requant<T: Output>(requant: &Requant<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
    let (low, high, zero) = requant.bounds();
    let (low, high, zero) = (vdupq_n_f32(low), vdupq_n_f32(high), vdupq_n_s32(zero));
    requant.pixels(acc, lanes, output, |acc, mults, output| {
        let four = |i: usize| {
            // SAFETY: both hold eight values and `i` is 0 or 4.
            let (acc, mults) = unsafe { (vld1q_s32(acc.as_ptr().add(i)), vld1q_f32(mults.as_ptr().add(i))) };
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

/// Adds element by element; see [`Add::run`].
#[target_feature(enable = "neon")]
pub(crate) fn add(add: &Add, a: &[u8], b: &[u8], output: &mut [u8]) {
    let ([first, second], (low, high, zero)) = add.parts();
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
    Add::eights(a, b, output, |a, b, output| {
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
