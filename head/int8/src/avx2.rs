//! AVX2: pairs of i16 multiplied and added into i32 by `vpmaddwd`.
//!
//! No step can saturate or wrap: an input is 0 to 255 and a weight -128 to 127 as i16, so a pair's sum is within
//! 65,280 and the accumulator within the bound that `ConvSpec::check` established.

use std::arch::x86_64::*;

use crate::{
    Add, ConvSpec, Output, Requant, Term,
    conv::Kernel,
    pack::{BLOCK, Walk, Words, depthwise, fill, words},
    rows::Taps,
};

/// For six pixels twelve accumulators, two registers of weights, one of input and one of products: all sixteen.
const WALK: Walk = Walk { widest: 2, group: 2, unroll: 2 };

/// A dense layer.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    weights: Vec<Words>,
    bias: Vec<i32>,
    rows: usize,
    run: usize,
}

impl Dense {
    /// # Safety
    /// The processor has AVX2.
    pub(crate) unsafe fn new(spec: &ConvSpec) -> Dense {
        let weights = words(&WALK.dense::<i16>(spec));
        let bias = fill(spec.folded_bias(0), BLOCK);
        Dense { weights, bias, rows: spec.kernel[0], run: WALK.run(spec) }
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
        let pairs = self.run / 2;
        let mut first = 0;
        while first < self.lanes() / BLOCK {
            let blocks = WALK.strip(self.lanes() / BLOCK - first);
            let weights = &self.weights[first * self.rows * pairs..][..blocks * self.rows * pairs];
            // SAFETY: `new` was told that the processor has AVX2. The lengths that `strip` asks for are the
            // assertions above and the slice of weights.
            unsafe {
                match blocks {
                    1 => self.strip::<6, 1>(taps, weights, first, acc),
                    _ => self.strip::<6, 2>(taps, weights, first, acc),
                }
            }
            first += blocks;
        }
    }
}

impl Dense {
    /// `N` blocks of output channels for the whole row, `P` pixels at a time.
    ///
    /// # Safety
    /// As [`Dense::tile`], for every pixel of the row.
    #[target_feature(enable = "avx2")]
    unsafe fn strip<const P: usize, const N: usize>(
        &self,
        taps: &Taps<'_, i16>,
        weights: &[Words],
        first: usize,
        acc: &mut [i32],
    ) {
        let mut x = 0;
        // SAFETY: the caller's promise, and each tile stays within the row.
        unsafe {
            while taps.width - x >= P {
                self.tile::<P, N>(taps, weights, first, x, acc);
                x += P;
            }
            if taps.width - x >= 4 {
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
    /// AVX2; `taps.run == self.run`; `weights` is one [`Words`] per kernel row, pair and block; `x + P` is at most
    /// `taps.width`, `first + N` at most the layer's blocks, and `acc` holds `taps.width * lanes` accumulators.
    #[target_feature(enable = "avx2")]
    unsafe fn tile<const P: usize, const N: usize>(
        &self,
        taps: &Taps<'_, i16>,
        weights: &[Words],
        first: usize,
        x: usize,
        acc: &mut [i32],
    ) {
        // SAFETY: `bias` holds `lanes` values and `first + N` blocks are at most that.
        let bias: [__m256i; N] = std::array::from_fn(|n| unsafe {
            _mm256_loadu_si256(self.bias.as_ptr().add((first + n) * BLOCK).cast())
        });
        let mut sums = [bias; P];
        let mut words = weights.as_ptr();
        for &start in taps.starts {
            // SAFETY: `Taps::new` found `start + (width - 1) * step + run` within the elements, and `x` is less
            // than the width.
            let row = unsafe { taps.elements.as_ptr().add(start + x * taps.step) };
            for pair in 0..taps.run / 2 {
                // SAFETY: `weights` holds rows * pairs * N; the loops advance over each once. `Words` is aligned
                // to 32 bytes.
                let w: [__m256i; N] =
                    std::array::from_fn(|n| unsafe { _mm256_load_si256(words.add(n).cast()) });
                // SAFETY: at most one past the end of the last iteration's weights.
                words = unsafe { words.add(N) };
                for (p, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: elements `x + p` windows on, where `x + p < width`, and within `run` of its start.
                    let input = unsafe { row.add(p * taps.step + 2 * pair).cast::<i32>().read_unaligned() };
                    let input = _mm256_set1_epi32(input);
                    for n in 0..N {
                        sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(w[n], input));
                    }
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                // SAFETY: pixel `x + p < width`, block `first + n < lanes / 8`, and `acc` is `width * lanes` long.
                unsafe {
                    let place = acc.as_mut_ptr().add((x + p) * self.bias.len() + (first + n) * BLOCK);
                    _mm256_storeu_si256(place.cast(), sum);
                }
            }
        }
    }
}

/// Channels that one depthwise step computes.
const LANES: usize = 16;

/// A depthwise layer: taps taken two at a time, their inputs interleaved channel by channel.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    /// Two per group of sixteen channels and pair of taps, in the order of `vpunpcklwd` and `vpunpckhwd`.
    weights: Vec<Words>,
    bias: Vec<i32>,
    kernel: [usize; 2],
}

impl Depthwise {
    /// # Safety
    /// The processor has AVX2.
    pub(crate) unsafe fn new(spec: &ConvSpec) -> Depthwise {
        let taps = spec.kernel[0] * spec.kernel[1];
        let mut weights = Vec::new();
        for group in depthwise(spec, LANES).chunks_exact(taps * LANES) {
            for pair in group.chunks(2 * LANES) {
                let second = pair.get(LANES..).filter(|second| !second.is_empty()).unwrap_or(&[0; LANES]);
                for half in [0, 4] {
                    weights.push(Words(std::array::from_fn(|i| {
                        let channel = half + i / 8 * 8 + i % 8 / 2;
                        if i % 2 == 0 { pair[channel] } else { second[channel] }
                    })));
                }
            }
        }
        let bias = fill(spec.folded_bias(0), LANES);
        Depthwise { weights, bias, kernel: spec.kernel }
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
        // SAFETY: `new` was told that the processor has AVX2; the assertions are what `pixels` asks for.
        unsafe { self.pixels(taps, acc) }
    }
}

impl Depthwise {
    /// # Safety
    /// AVX2; `taps.run` is `lanes`, and `acc` holds `taps.width * lanes` accumulators.
    #[target_feature(enable = "avx2")]
    unsafe fn pixels(&self, taps: &Taps<'_, i16>, acc: &mut [i32]) {
        let per_group = taps.starts.len().div_ceil(2) * 2;
        for (group, weights) in self.weights.chunks_exact(per_group).enumerate() {
            let mut x = 0;
            // SAFETY: the caller's promise; each step stays within the row.
            unsafe {
                while taps.width - x >= 4 {
                    self.step::<4>(taps, weights, group, x, acc);
                    x += 4;
                }
                while taps.width > x {
                    self.step::<1>(taps, weights, group, x, acc);
                    x += 1;
                }
            }
        }
    }

    /// Pixels `x..x + P` of the sixteen channels of `group`.
    ///
    /// # Safety
    /// As [`Depthwise::pixels`]; `x + P` is at most `taps.width`, the group within `lanes`, and `weights` two for
    /// every two taps.
    #[target_feature(enable = "avx2")]
    unsafe fn step<const P: usize>(
        &self,
        taps: &Taps<'_, i16>,
        weights: &[Words],
        group: usize,
        x: usize,
        acc: &mut [i32],
    ) {
        let load = |start: usize, p: usize| {
            let place = start + (x + p) * taps.step + group * LANES;
            // SAFETY: the group's sixteen elements are within `lanes` of the window's start, which `Taps::new`
            // found inside for every pixel below the width.
            unsafe { _mm256_loadu_si256(taps.elements.as_ptr().add(place).cast()) }
        };
        let mut sums = [[_mm256_setzero_si256(); 2]; P];
        let mut add = |[first, second]: [usize; 2], [w, v]: &[Words; 2]| {
            // SAFETY: `Words` is 32 bytes, aligned to as many.
            let (w, v) = unsafe {
                let (w, v): (*const Words, *const Words) = (w, v);
                (_mm256_load_si256(w.cast()), _mm256_load_si256(v.cast()))
            };
            for (p, [low, high]) in sums.iter_mut().enumerate() {
                let (a, b) = (load(first, p), load(second, p));
                *low = _mm256_add_epi32(*low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
                *high = _mm256_add_epi32(*high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), v));
            }
        };
        let (weights, _) = weights.as_chunks::<2>();
        let (pairs, last) = taps.starts.as_chunks::<2>();
        for (&pair, weights) in pairs.iter().zip(weights) {
            add(pair, weights);
        }
        if let (&[last], Some(weights)) = (last, weights.last()) {
            // An odd last tap is paired with itself and a weight of 0.
            add([last, last], weights);
        }
        for (p, &[low, high]) in sums.iter().enumerate() {
            let halves =
                [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            for (i, half) in halves.into_iter().enumerate() {
                let lane = group * LANES + i * BLOCK;
                // SAFETY: `bias` holds `lanes` values and `acc` `width * lanes`; the group is within the lanes.
                unsafe {
                    let bias = _mm256_loadu_si256(self.bias.as_ptr().add(lane).cast());
                    let place = acc.as_mut_ptr().add((x + p) * self.bias.len() + lane);
                    _mm256_storeu_si256(place.cast(), _mm256_add_epi32(half, bias));
                }
            }
        }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Requant::rows`].
#[target_feature(enable = "avx2")]
pub(crate) fn requant<T: Output>(requant: &Requant<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
    let (low, high, zero) = requant.bounds();
    let (low, high, zero) = (_mm256_set1_ps(low), _mm256_set1_ps(high), _mm256_set1_epi32(zero));
    requant.pixels(acc, lanes, output, |acc, mults, output| {
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

/// Adds element by element; see [`Add::run`].
#[target_feature(enable = "avx2")]
pub(crate) fn add(add: &Add, a: &[u8], b: &[u8], output: &mut [u8]) {
    let ([first, second], (low, high, zero)) = add.parts();
    let (low, high, zero) = (_mm256_set1_ps(low), _mm256_set1_ps(high), _mm256_set1_epi32(zero));
    let constants = |term: Term| (_mm256_set1_epi32(i32::from(term.zero)), _mm256_set1_ps(term.mult));
    let (first, second) = (constants(first), constants(second));
    let scaled = |x: &[u8; 8], (zero, mult): (__m256i, __m256)| {
        // SAFETY: eight values of one byte.
        let x = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(x.as_ptr().cast()) });
        _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(x, zero)), mult)
    };
    Add::eights(a, b, output, |a, b, output| {
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
