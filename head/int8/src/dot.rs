//! NEON with the dot product extension: four i8 products added into each i32 lane by `sdot`.
//!
//! The input is read as `x - 128`, which is x with its top bit flipped; `ConvSpec::folded_bias` makes up for it.
//! No step can wrap: the accumulator stays within the bound that `ConvSpec::check` established.

use std::arch::{aarch64::*, asm};

use crate::{
    ConvSpec,
    conv::Kernel,
    pack::{BLOCK, Walk, fill},
    rows::Taps,
};

/// Sixteen accumulators, four registers of weights and one of input out of thirty-two.
const WALK: Walk = Walk { widest: 2, group: 4, unroll: 4 };

/// A dense layer.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    weights: Vec<i8>,
    bias: Vec<i32>,
    rows: usize,
    run: usize,
}

impl Dense {
    /// # Safety
    /// The processor has NEON and its dot product.
    pub(crate) unsafe fn new(spec: &ConvSpec) -> Dense {
        let bias = fill(spec.folded_bias(128), BLOCK);
        Dense { weights: WALK.dense(spec), bias, rows: spec.kernel[0], run: WALK.run(spec) }
    }
}

impl Kernel for Dense {
    type Element = i8;

    fn convert(value: u8) -> i8 {
        (value ^ 0x80) as i8
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

    fn row(&self, taps: &Taps<'_, i8>, acc: &mut [i32]) {
        assert!(taps.run == self.run && taps.starts.len() == self.rows);
        assert!(acc.len() == taps.width * self.lanes());
        let per_block = self.rows * self.run * BLOCK;
        let mut first = 0;
        while first < self.lanes() / BLOCK {
            let blocks = WALK.strip(self.lanes() / BLOCK - first);
            let weights = &self.weights[first * per_block..][..blocks * per_block];
            // SAFETY: `new` was told that the processor has the dot product. The lengths that `strip` asks for are
            // the assertions above and the slice of weights.
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
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn strip<const N: usize>(
        &self,
        taps: &Taps<'_, i8>,
        weights: &[i8],
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
    /// NEON and dot product; `taps.run == self.run`, a multiple of four; `weights` is eight per kernel row, input of
    /// the run and block; `x + P` is at most `taps.width`, `first + N` at most the layer's blocks, and `acc` holds
    /// `taps.width * lanes` accumulators.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tile<const P: usize, const N: usize>(
        &self,
        taps: &Taps<'_, i8>,
        weights: &[i8],
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
        let mut bytes = weights.as_ptr();
        for &start in taps.starts {
            // SAFETY: `Taps::new` found `start + (width - 1) * step + run` within the elements, and `x` is less
            // than the width.
            let row = unsafe { taps.elements.as_ptr().add(start + x * taps.step) };
            for element in (0..taps.run).step_by(4) {
                // SAFETY: `weights` holds rows * run / 4 * N groups of thirty-two; the loops advance over each once.
                let w: [[int8x16_t; 2]; N] = std::array::from_fn(|n| unsafe {
                    let bytes = bytes.add(n * 4 * BLOCK);
                    [vld1q_s8(bytes), vld1q_s8(bytes.add(16))]
                });
                // SAFETY: at most one past the end of the last iteration's weights.
                bytes = unsafe { bytes.add(N * 4 * BLOCK) };
                for (p, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: four elements `x + p` windows on, where `x + p < width`, within `run` of its start.
                    let four = unsafe { row.add(p * taps.step + element).cast::<u32>().read_unaligned() };
                    let input = vreinterpretq_s8_u32(vsetq_lane_u32::<0>(four, vdupq_n_u32(0)));
                    for ([low, high], &[w, v]) in sums.iter_mut().zip(&w) {
                        *low = dot(*low, w, input);
                        *high = dot(*high, v, input);
                    }
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

/// Adds to each lane the four products of its weights and the first four inputs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, weights: int8x16_t, input: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the function's features promise.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {weights:v}.16b, {input:v}.4b[0]",
            sum = inout(vreg) sum,
            weights = in(vreg) weights,
            input = in(vreg) input,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
