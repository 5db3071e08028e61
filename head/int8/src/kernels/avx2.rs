//! x86-64 with AVX2: `vpmaddwd` multiplies pairs of 16-bit integers and sums each pair to 32 bits.
//!
//! No step can saturate or wrap: an input is 0 to 255 and a weight -128 to 127, both as i16, so a pair's sum is within
//! 65,280, and the accumulator stays within the bound that `ConvSpec::check` established.

use std::arch::x86_64::*;

use crate::{
    ConvSpec, Output, Term,
    dense::{DenseLanes, Strip},
    isa::Avx2,
    kernel::RowKernel,
    narrow::Narrowing,
    pack::{BLOCK, bias, depthwise},
    rows::Windows,
    sum::Sum,
};

/// Sixteen i16 at an address that one aligned 256-bit load reads.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct Words([i16; 16]);

impl Words {
    #[inline(always)]
    fn load(&self, _: Avx2) -> __m256i {
        // SAFETY: the token proves AVX2. `self` is 32 bytes, aligned to 32.
        unsafe { _mm256_load_si256(std::ptr::from_ref(self).cast()) }
    }
}

/// For six pixels by two blocks: twelve registers of accumulators, two of weights, one of inputs and one of products,
/// which is all sixteen.
impl DenseLanes for Avx2 {
    type Element = i16;
    type Step = [i16; 2];
    type Lanes = [i32; BLOCK];
    type Block = Words;
    type Weights = __m256i;
    type Inputs = __m256i;
    type Sums = __m256i;

    const GROUPS: usize = 1;
    const PIXELS: usize = 6;
    const SHIFT: i64 = 0;

    fn convert(value: u8) -> i16 {
        i16::from(value)
    }

    fn block(weights: &[i8]) -> Words {
        Words(std::array::from_fn(|i| i16::from(weights[i])))
    }

    #[inline(always)]
    fn strip<const N: usize>(self, strip: &Strip<'_, Avx2>, acc: &mut [[i32; BLOCK]]) {
        #[target_feature(enable = "avx2")]
        fn compute<const N: usize>(lanes: Avx2, strip: &Strip<'_, Avx2>, acc: &mut [[i32; BLOCK]]) {
            strip.compute::<N>(lanes, acc);
        }
        // SAFETY: the token proves AVX2.
        unsafe { compute::<N>(self, strip, acc) }
    }

    #[inline(always)]
    fn load(self, values: &[i32; BLOCK]) -> __m256i {
        // SAFETY: the token proves AVX2. `values` is 32 bytes.
        unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, sums: __m256i, values: &mut [i32; BLOCK]) {
        // SAFETY: the token proves AVX2. `values` is 32 bytes.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), sums) }
    }

    #[inline(always)]
    fn weights(self, block: &Words) -> __m256i {
        block.load(self)
    }

    /// Repeats the pair in every lane.
    #[inline(always)]
    fn inputs(self, step: [i16; 2]) -> __m256i {
        // SAFETY: the token proves AVX2. Any four bytes are an i32.
        unsafe { _mm256_set1_epi32(std::mem::transmute::<[i16; 2], i32>(step)) }
    }

    #[inline(always)]
    fn multiply_add<const GROUP: i32>(self, sums: __m256i, weights: __m256i, inputs: __m256i) -> __m256i {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(weights, inputs)) }
    }
}

/// Channels that one step of a depthwise layer computes.
const CHANNELS: usize = 16;

/// A depthwise layer. The kernel's taps are taken in pairs, the inputs of a pair interleaved channel by channel. Its
/// fields are set by [`Depthwise::new`] alone.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    cpu: Avx2,
    /// Per group of sixteen channels and pair of taps the two halves of the interleaved weights, in the order of
    /// `vpunpcklwd` and `vpunpckhwd`.
    weights: Vec<[Words; 2]>,
    /// Two blocks per group.
    bias: Vec<[i32; BLOCK]>,
    kernel: [usize; 2],
}

impl Depthwise {
    /// Packs the weights of a layer.
    pub(crate) fn new(cpu: Avx2, spec: &ConvSpec) -> Depthwise {
        let taps = spec.kernel[0] * spec.kernel[1];
        let mut weights = Vec::new();
        for group in depthwise(spec, CHANNELS).chunks_exact(taps * CHANNELS) {
            for pair in group.chunks(2 * CHANNELS) {
                let second = pair.get(CHANNELS..).filter(|second| !second.is_empty());
                // The last tap of an odd number is paired with weights of 0.
                let second = second.unwrap_or(&[0; CHANNELS]);
                weights.push([0, 4].map(|half| {
                    Words(std::array::from_fn(|i| {
                        let channel = half + i / 8 * 8 + i % 8 / 2;
                        if i % 2 == 0 { pair[channel] } else { second[channel] }
                    }))
                }));
            }
        }
        Depthwise { cpu, weights, bias: bias(spec.folded_bias(0), 2), kernel: spec.kernel }
    }

    /// Computes the accumulators of a row (pixel, block).
    #[target_feature(enable = "avx2")]
    fn pixels(&self, windows: &Windows<'_, i16>, acc: &mut [[i32; BLOCK]]) {
        assert!(windows.length() == self.lanes(), "a window of other channels");
        assert!(acc.len() == windows.width() * self.bias.len(), "accumulators of another row");
        let pairs = (self.kernel[0] * self.kernel[1]).div_ceil(2);
        for (group, weights) in self.weights.chunks_exact(pairs).enumerate() {
            let mut x = 0;
            // SAFETY: each call stays within the width. There are as many groups of weights as pairs of blocks, and
            // windows and accumulators are for as many: asserted above.
            unsafe {
                while windows.width() - x >= 4 {
                    self.step::<4>(windows, weights, group, x, acc);
                    x += 4;
                }
                while windows.width() > x {
                    self.step::<1>(windows, weights, group, x, acc);
                    x += 1;
                }
            }
        }
    }

    /// Computes pixels `x..x + P` of the sixteen channels of `group`.
    ///
    /// # Safety
    /// `x + P` is at most `windows.width()`, `group` is below half the blocks of a pixel, a window holds sixteen elements
    /// per group, and `acc` the blocks of every pixel.
    #[target_feature(enable = "avx2")]
    unsafe fn step<const P: usize>(
        &self,
        windows: &Windows<'_, i16>,
        weights: &[[Words; 2]],
        group: usize,
        x: usize,
        acc: &mut [[i32; BLOCK]],
    ) {
        let load = |start: usize, p: usize| {
            let place = start + (x + p) * windows.step() + group * CHANNELS;
            // SAFETY: `Windows` holds a whole window from `start + (x + p) * step()` on, because `x + p` is less than
            // its width, and the sixteen elements of the group are within it: the caller's promises.
            unsafe { _mm256_loadu_si256(windows.elements().as_ptr().add(place).cast()) }
        };
        let mut sums = [[_mm256_setzero_si256(); 2]; P];
        let mut add = |[first, second]: [usize; 2], [low_weights, high_weights]: &[Words; 2]| {
            let (low_weights, high_weights) = (low_weights.load(self.cpu), high_weights.load(self.cpu));
            for (p, [low, high]) in sums.iter_mut().enumerate() {
                let (a, b) = (load(first, p), load(second, p));
                *low = _mm256_add_epi32(*low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), low_weights));
                *high = _mm256_add_epi32(*high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), high_weights));
            }
        };
        let (pairs, last) = windows.starts().as_chunks::<2>();
        for (&pair, weights) in pairs.iter().zip(weights) {
            add(pair, weights);
        }
        if let (&[last], Some(weights)) = (last, weights.last()) {
            add([last, last], weights);
        }
        let blocks = self.bias.len();
        let bias = [2 * group, 2 * group + 1].map(|block| self.cpu.load(&self.bias[block]));
        for (p, &[low, high]) in sums.iter().enumerate() {
            let halves =
                [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            for (i, half) in halves.into_iter().enumerate() {
                let index = (x + p) * blocks + 2 * group + i;
                // SAFETY: the pixel is within the row and the block within the pixel: the caller's promises.
                let values = unsafe { acc.get_unchecked_mut(index) };
                self.cpu.store(_mm256_add_epi32(half, bias[i]), values);
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
        // SAFETY: the token in `self` proves AVX2.
        unsafe { self.pixels(windows, acc) }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Narrowing::by`].
pub(crate) fn narrow<T: Output>(
    _: Avx2,
    narrowing: &Narrowing<T>,
    acc: &[i32],
    lanes: usize,
    output: &mut [T],
) {
    #[target_feature(enable = "avx2")]
    fn narrow<T: Output>(narrowing: &Narrowing<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
        let (low, high, zero) = narrowing.bounds();
        let (low, high, zero) = (_mm256_set1_ps(low), _mm256_set1_ps(high), _mm256_set1_epi32(zero));
        narrowing.by::<8>(acc, lanes, output, |acc, mults, output| {
            // SAFETY: both are eight values of four bytes.
            let (acc, mults) =
                unsafe { (_mm256_loadu_si256(acc.as_ptr().cast()), _mm256_loadu_ps(mults.as_ptr())) };
            // Both conversions round halves to even, the mode that Rust code always runs in.
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), mults);
            let value = _mm256_min_ps(_mm256_max_ps(value, low), high);
            let value = _mm256_add_epi32(_mm256_cvtps_epi32(value), zero);
            // The clamp made all values fit `T`, so neither packing saturates.
            let words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
            let place = output.as_mut_ptr();
            // SAFETY: `output` is eight values of two bytes or of one, and any bits are a value of `T`.
            unsafe {
                match (size_of::<T>(), T::MIN.into() < 0) {
                    (2, _) => _mm_storeu_si128(place.cast(), words),
                    (_, true) => _mm_storel_epi64(place.cast(), _mm_packs_epi16(words, words)),
                    (_, false) => _mm_storel_epi64(place.cast(), _mm_packus_epi16(words, words)),
                }
            }
        });
    }
    // SAFETY: the token proves AVX2.
    unsafe { narrow(narrowing, acc, lanes, output) }
}

/// Adds element by element three slices of one length.
pub(crate) fn add(_: Avx2, sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    fn add(sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
        let ([first, second], (low, high, zero)) = (sum.terms(), sum.bounds());
        let (low, high, zero) = (_mm256_set1_ps(low), _mm256_set1_ps(high), _mm256_set1_epi32(zero));
        let constants = |term: Term| (_mm256_set1_epi32(i32::from(term.zero)), _mm256_set1_ps(term.mult));
        let (first, second) = (constants(first), constants(second));
        let scaled = |x: &[u8; 8], (zero, mult): (__m256i, __m256)| {
            // SAFETY: eight values of one byte.
            let x = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(x.as_ptr().cast()) });
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(x, zero)), mult)
        };
        Sum::by::<8>(a, b, output, |a, b, output| {
            let value = _mm256_add_ps(scaled(a, first), scaled(b, second));
            let value = _mm256_min_ps(_mm256_max_ps(value, low), high);
            // Rounds halves to even, the mode that Rust code always runs in.
            let value = _mm256_add_epi32(_mm256_cvtps_epi32(value), zero);
            // The clamp made all values fit u8, so neither packing saturates.
            let words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
            // SAFETY: eight values of one byte.
            unsafe { _mm_storel_epi64(output.as_mut_ptr().cast(), _mm_packus_epi16(words, words)) };
        });
    }
    // SAFETY: the token proves AVX2.
    unsafe { add(sum, a, b, output) }
}
