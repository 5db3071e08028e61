//! Dense convolution in tiles of pixels by output channels, written once for all vector instruction sets.
//!
//! A tile keeps its accumulators in registers. For each kernel row it reads the inputs under the kernel in steps; every
//! input of a step is multiplied by the weights of the tile's output channels. [`DenseLanes`] names the few
//! instructions that differ between processors.
//!
//! Its methods are compiled into each caller (`inline(always)`): the body of a tile becomes part of the function in
//! which [`DenseLanes::strip`] enables the instructions.

use std::{fmt::Debug, hint::black_box};

use crate::{
    ConvSpec,
    kernel::RowKernel,
    pack::{Array, DenseLayout, bias},
    rows::Windows,
};

/// Most blocks of output channels in a tile.
const BLOCKS: usize = 2;

/// Most pixels in a tile.
const PIXELS: usize = 6;

/// The instructions of a dense kernel. A value is the proof that this processor has them.
pub(crate) trait DenseLanes: Copy + Debug {
    /// An input value as the kernel reads it.
    type Element: Copy;
    /// The inputs that one step reads: an array of [`DenseLanes::Element`].
    type Step: Array<Self::Element>;
    /// Accumulators of one block of output channels in memory.
    type Lanes: Array<i32> + Debug;
    /// The weights of one group of inputs for one block of output channels, in memory.
    type Block: Copy + Debug;
    /// The same in registers.
    type Weights: Copy;
    /// The inputs of one step in registers.
    type Inputs: Copy;
    /// [`DenseLanes::Lanes`] in registers.
    type Sums: Copy;

    /// Groups of inputs in a step, 1 or 4. The products of a group are summed by one instruction.
    const GROUPS: usize;
    /// Pixels of the widest tile, 4 or 6: as many as the registers hold accumulators for.
    const PIXELS: usize;
    /// What [`DenseLanes::convert`] subtracts from an input value.
    const SHIFT: i64;

    /// Converts one stored input value to `value - SHIFT`.
    fn convert(value: u8) -> Self::Element;

    /// Packs the weights of one block, in the order of [`DenseLayout::pack`].
    fn block(weights: &[i8]) -> Self::Block;

    /// Runs [`Strip::compute`] in a function that has the instructions enabled.
    fn strip<const N: usize>(self, strip: &Strip<'_, Self>, acc: &mut [Self::Lanes]);

    /// Reads accumulators.
    fn load(self, values: &Self::Lanes) -> Self::Sums;

    /// Writes accumulators.
    fn store(self, sums: Self::Sums, values: &mut Self::Lanes);

    /// Reads the weights of a block.
    fn weights(self, block: &Self::Block) -> Self::Weights;

    /// Reads the inputs of a step.
    fn inputs(self, step: Self::Step) -> Self::Inputs;

    /// Adds the products of the inputs of group `GROUP` of a step and their weights.
    fn multiply_add<const GROUP: i32>(
        self,
        sums: Self::Sums,
        weights: Self::Weights,
        inputs: Self::Inputs,
    ) -> Self::Sums;
}

/// A dense layer. Its fields are set by [`Dense::new`] alone: `weights` holds [`DenseLanes::GROUPS`] blocks per strip
/// block, kernel row and step.
#[derive(Debug, Clone)]
pub(crate) struct Dense<L: DenseLanes> {
    lanes: L,
    weights: Vec<L::Block>,
    bias: Vec<L::Lanes>,
    rows: usize,
    steps: usize,
}

impl<L: DenseLanes> Dense<L> {
    const LANES: usize = <L::Lanes as Array<i32>>::LENGTH;
    const LAYOUT: DenseLayout = DenseLayout {
        block: Self::LANES,
        blocks: BLOCKS,
        group: <L::Step as Array<L::Element>>::LENGTH / L::GROUPS,
        step: <L::Step as Array<L::Element>>::LENGTH,
    };

    /// Packs the weights of a layer; `lanes` proves that this processor can run it.
    pub(crate) fn new(lanes: L, spec: &ConvSpec) -> Dense<L> {
        let weights = Self::LAYOUT.pack(spec);
        Dense {
            lanes,
            weights: weights.chunks_exact(Self::LAYOUT.group * Self::LANES).map(L::block).collect(),
            bias: bias(spec.folded_bias(L::SHIFT), 1),
            rows: spec.kernel[0],
            steps: Self::LAYOUT.window_length(spec) / Self::LAYOUT.step,
        }
    }
}

impl<L: DenseLanes> RowKernel for Dense<L> {
    type Element = L::Element;

    fn convert(value: u8) -> L::Element {
        L::convert(value)
    }

    fn columns(&self) -> usize {
        1
    }

    fn window_length(&self) -> usize {
        self.steps * Self::LAYOUT.step
    }

    fn lanes(&self) -> usize {
        self.bias.len() * Self::LANES
    }

    fn row(&self, windows: &Windows<'_, L::Element>, acc: &mut [i32]) {
        assert!(windows.starts().len() == self.rows, "one window per kernel row");
        let acc = L::Lanes::chunks_mut(acc);
        let blocks = self.bias.len();
        let mut strip =
            Strip { windows, weights: &self.weights, bias: &self.bias, steps: self.steps, first: 0 };
        while strip.first < blocks {
            match Self::LAYOUT.strip(blocks - strip.first) {
                1 => self.lanes.strip::<1>(&strip, acc),
                _ => self.lanes.strip::<BLOCKS>(&strip, acc),
            }
            strip.first += BLOCKS;
        }
    }
}

/// Some blocks of output channels of one output row.
pub(crate) struct Strip<'a, L: DenseLanes> {
    windows: &'a Windows<'a, L::Element>,
    /// Of the layer: strip, kernel row, step, group, block.
    weights: &'a [L::Block],
    /// Of the layer.
    bias: &'a [L::Lanes],
    /// Steps of a window.
    steps: usize,
    /// First block of the strip.
    first: usize,
}

impl<L: DenseLanes> Strip<'_, L> {
    /// Computes `N` blocks of output channels for the whole row, [`DenseLanes::PIXELS`] pixels at a time; `acc` holds
    /// the accumulators of the row (pixel, block).
    #[inline(always)]
    pub(crate) fn compute<const N: usize>(&self, lanes: L, acc: &mut [L::Lanes]) {
        let per_block = self.windows.starts().len() * self.steps * L::GROUPS;
        let (weights, _) = self.weights[self.first * per_block..][..N * per_block].as_chunks::<N>();
        let (width, mut x) = (self.windows.width(), 0);
        // Opaque, so that the inner loop keeps one address per pixel in a register; the compiler would rather work the
        // multiples out again for every step, which costs a tenth more instructions.
        let offsets = black_box(std::array::from_fn(|p| p * self.windows.step()));
        while L::PIXELS >= PIXELS && width - x >= PIXELS {
            self.tile::<PIXELS, N>(lanes, weights, x, &offsets, acc);
            x += PIXELS;
        }
        while width - x >= 4 {
            self.tile::<4, N>(lanes, weights, x, &offsets, acc);
            x += 4;
        }
        if width - x >= 2 {
            self.tile::<2, N>(lanes, weights, x, &offsets, acc);
            x += 2;
        }
        if width > x {
            self.tile::<1, N>(lanes, weights, x, &offsets, acc);
        }
    }

    /// Computes pixels `x..x + P`; `offsets[p]` is `p * windows.step()`.
    #[inline(always)]
    fn tile<const P: usize, const N: usize>(
        &self,
        lanes: L,
        weights: &[[L::Block; N]],
        x: usize,
        offsets: &[usize; PIXELS],
        acc: &mut [L::Lanes],
    ) {
        let length = <L::Step as Array<L::Element>>::LENGTH;
        let (windows, blocks) = (self.windows, self.bias.len());
        assert!(x + P <= windows.width() && self.steps * length <= windows.length(), "outside the row");
        assert!((x + P - 1) * blocks + self.first + N <= acc.len(), "outside the accumulators");
        let bias = &self.bias[self.first..][..N];
        let mut bias_sums = [lanes.load(&bias[0]); N];
        for n in 1..N {
            bias_sums[n] = lanes.load(&bias[n]);
        }
        let mut sums = [bias_sums; P];
        let rows = weights.chunks_exact(self.steps * L::GROUPS);
        for (&start, row) in windows.starts().iter().zip(rows) {
            let mut pixels = [windows.elements().as_ptr(); P];
            for (p, pixel) in pixels.iter_mut().enumerate() {
                // SAFETY: `Windows` holds `length()` elements from `start + (x + p) * step()` on, because `x + p` is below
                // its width: asserted above.
                *pixel = unsafe { pixel.add(start + x * windows.step() + offsets[p]) };
            }
            for (step, groups) in row.chunks_exact(L::GROUPS).enumerate() {
                // SAFETY: this step of the window ends at `(step + 1) * length <= self.steps * length`, which is at most
                // `length()`: asserted above. `L::Step` is an array of `length` elements; the read needs no alignment.
                let window =
                    |p: usize| unsafe { pixels[p].add(step * length).cast::<L::Step>().read_unaligned() };
                add_group::<L, P, N, 0>(lanes, &mut sums, &groups[0], window);
                if L::GROUPS == 4 {
                    add_group::<L, P, N, 1>(lanes, &mut sums, &groups[1], window);
                    add_group::<L, P, N, 2>(lanes, &mut sums, &groups[2], window);
                    add_group::<L, P, N, 3>(lanes, &mut sums, &groups[3], window);
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (n, &sums) in sums.iter().enumerate() {
                let index = (x + p) * blocks + self.first + n;
                // SAFETY: `p < P` and `n < N`, so the index is below the bound asserted above.
                lanes.store(sums, unsafe { acc.get_unchecked_mut(index) });
            }
        }
    }
}

/// Adds the products of one group of inputs, for `P` pixels by `N` blocks. `window` reads the step of a pixel; the
/// compiler reads it once for all groups.
#[inline(always)]
fn add_group<L: DenseLanes, const P: usize, const N: usize, const GROUP: i32>(
    lanes: L,
    sums: &mut [[L::Sums; N]; P],
    blocks: &[L::Block; N],
    window: impl Fn(usize) -> L::Step,
) {
    let mut weights = [lanes.weights(&blocks[0]); N];
    for n in 1..N {
        weights[n] = lanes.weights(&blocks[n]);
    }
    for (p, sums) in sums.iter_mut().enumerate() {
        let inputs = lanes.inputs(window(p));
        for (sums, &weights) in sums.iter_mut().zip(&weights) {
            *sums = lanes.multiply_add::<GROUP>(*sums, weights, inputs);
        }
    }
}
