//! x86-64 with AVX-512 and VNNI: `vpdpbusd` adds four products of an unsigned and a signed 8-bit integer to each of
//! sixteen 32-bit lanes.
//!
//! No step can saturate or wrap: `vpdpbusd` sums in 32 bits, and the accumulator stays within the bound that
//! `ConvSpec::check` established.

use std::arch::x86_64::*;

use crate::{
    ConvSpec, Output, Term,
    dense::{DenseLanes, Strip},
    isa::Avx512,
    kernel::RowKernel,
    narrow::Narrowing,
    pack::{bias, depthwise},
    rows::Windows,
    sum::Sum,
};

/// Channels that one register holds accumulators for.
const LANES: usize = 16;

/// The weights of four inputs for sixteen channels, at an address that one aligned load reads.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Weights([i8; 4 * LANES]);

impl Weights {
    #[inline(always)]
    fn load(&self, _: Avx512) -> __m512i {
        // SAFETY: the token proves AVX-512 F. `self` is 64 bytes, aligned to 64.
        unsafe { _mm512_load_si512(std::ptr::from_ref(self).cast()) }
    }
}

/// For six pixels by two blocks: twelve registers of accumulators, two of weights and one of inputs out of thirty-two.
impl DenseLanes for Avx512 {
    type Element = u8;
    type Step = [u8; 4];
    type Lanes = [i32; LANES];
    type Block = Weights;
    type Weights = __m512i;
    type Inputs = __m512i;
    type Sums = __m512i;

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
    fn strip<const N: usize>(self, strip: &Strip<'_, Avx512>, acc: &mut [[i32; LANES]]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn compute<const N: usize>(lanes: Avx512, strip: &Strip<'_, Avx512>, acc: &mut [[i32; LANES]]) {
            strip.compute::<N>(lanes, acc);
        }
        // SAFETY: the token proves AVX-512 F, BW and VNNI.
        unsafe { compute::<N>(self, strip, acc) }
    }

    #[inline(always)]
    fn load(self, values: &[i32; LANES]) -> __m512i {
        // SAFETY: the token proves AVX-512 F. `values` is 64 bytes.
        unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, sums: __m512i, values: &mut [i32; LANES]) {
        // SAFETY: the token proves AVX-512 F. `values` is 64 bytes.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), sums) }
    }

    #[inline(always)]
    fn weights(self, block: &Weights) -> __m512i {
        block.load(self)
    }

    /// Repeats the four inputs in every lane.
    #[inline(always)]
    fn inputs(self, step: [u8; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_set1_epi32(i32::from_ne_bytes(step)) }
    }

    #[inline(always)]
    fn multiply_add<const GROUP: i32>(self, sums: __m512i, weights: __m512i, inputs: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, inputs, weights) }
    }
}

/// Kernel rows whose inputs one lane holds, a byte each.
const ROWS: usize = 4;

/// Most groups of [`ROWS`] rows of a kernel.
const GROUPS: usize = 2;

/// A depthwise layer with a kernel of 3 by 3 or 5 by 5 and a stride of one or two.
///
/// The inputs under a column of the kernel are gathered into the bytes of a lane, one channel per lane, and stay in a
/// register for all pixels whose windows share the column. Its fields are set by [`Depthwise::new`] alone.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    cpu: Avx512,
    /// Block of sixteen channels, kernel column, group of kernel rows. Weights of rows that do not exist are 0.
    weights: Vec<[Weights; GROUPS]>,
    bias: Vec<[i32; LANES]>,
    channels: usize,
    side: usize,
    stride: usize,
}

impl Depthwise {
    /// Packs the weights of a layer; `None` if its kernel or stride has another size.
    pub(crate) fn new(cpu: Avx512, spec: &ConvSpec) -> Option<Depthwise> {
        let ([side, width], stride) = (spec.kernel, spec.stride[1]);
        if side != width || ![3, 5].contains(&side) || ![1, 2].contains(&stride) {
            return None;
        }
        let mut weights = Vec::new();
        for block in depthwise(spec, LANES).chunks_exact(side * side * LANES) {
            weights.extend((0..side).map(|column| {
                std::array::from_fn(|group| {
                    Weights(std::array::from_fn(|i| {
                        let (channel, row) = (i / ROWS, group * ROWS + i % ROWS);
                        block.get((row * side + column) * LANES + channel).map_or(0, |&weight| weight as i8)
                    }))
                })
            }));
        }
        let bias = bias(spec.folded_bias(0), 1);
        Some(Depthwise { cpu, weights, bias, channels: spec.in_channels, side, stride })
    }

    /// Computes the accumulators of a row (pixel, block) for a kernel of `K` by `K` and a stride of `S`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn pixels<const K: usize, const S: usize>(&self, windows: &Windows<'_, u8>, acc: &mut [[i32; LANES]]) {
        assert!(self.side == K && windows.length() == self.window_length(), "a window of other channels");
        assert!(windows.step() == S * self.channels, "windows of another stride");
        let rows: &[usize; K] = windows.starts().try_into().expect("one start per kernel row");
        let blocks = self.bias.len();
        assert!(acc.len() == windows.width() * blocks, "accumulators of another row");
        for (block, (weights, bias)) in self.weights.chunks_exact(K).zip(&self.bias).enumerate() {
            // SAFETY: `x + k` is a column of the window of an output below the width, which is within `Windows`, and the
            // sixteen elements of the block are within the window's length, which has room for whole blocks.
            let gather = |column: usize| unsafe {
                let place = windows.elements().as_ptr().add(column * self.channels + block * LANES);
                self.gather(place, rows)
            };
            let bias = self.cpu.load(bias);
            // The `K` columns under the window of an output, of which the last `S` are new. The loops count to constants
            // and use indices, so that the compiler unrolls them and keeps the columns in registers.
            let mut columns = [[_mm512_setzero_si512(); GROUPS]; K];
            for k in 0..K - S {
                columns[k + S] = gather(k);
            }
            for x in 0..windows.width() {
                for k in 0..K {
                    columns[k] = if k + S < K { columns[k + S] } else { gather(x * S + k) };
                }
                let mut sums = [bias, _mm512_setzero_si512()];
                for k in 0..K {
                    for group in 0..K.div_ceil(ROWS) {
                        let weights = weights[k][group].load(self.cpu);
                        sums[group] = _mm512_dpbusd_epi32(sums[group], columns[k][group], weights);
                    }
                }
                let [first, second] = sums;
                let sum = if K > ROWS { _mm512_add_epi32(first, second) } else { first };
                self.cpu.store(sum, &mut acc[x * blocks + block]);
            }
        }
    }

    /// Gathers the inputs of sixteen channels under a column of the kernel, whose rows begin `rows` elements behind
    /// `place`, into the bytes of each channel's lanes.
    ///
    /// # Safety
    /// Sixteen elements can be read at every one of these places.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn gather<const K: usize>(&self, place: *const u8, rows: &[usize; K]) -> [__m512i; GROUPS] {
        // SAFETY: the caller's promise.
        let row = |row: usize| unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(place.add(rows[row]).cast())) };
        let mut groups = [_mm512_setzero_si512(); GROUPS];
        groups[0] = _mm512_or_si512(row(0), _mm512_slli_epi32::<8>(row(1)));
        groups[0] = _mm512_or_si512(groups[0], _mm512_slli_epi32::<16>(row(2)));
        if K > ROWS {
            groups[0] = _mm512_or_si512(groups[0], _mm512_slli_epi32::<24>(row(3)));
            groups[1] = row(ROWS);
        }
        groups
    }
}

impl RowKernel for Depthwise {
    type Element = u8;

    fn convert(value: u8) -> u8 {
        value
    }

    fn columns(&self) -> usize {
        1
    }

    fn window_length(&self) -> usize {
        (self.side - 1) * self.channels + self.lanes()
    }

    fn lanes(&self) -> usize {
        self.bias.len() * LANES
    }

    fn row(&self, windows: &Windows<'_, u8>, acc: &mut [i32]) {
        let (acc, _) = acc.as_chunks_mut();
        // SAFETY: the token in `self` proves AVX-512 F, BW and VNNI.
        unsafe {
            match (self.side, self.stride) {
                (3, 1) => self.pixels::<3, 1>(windows, acc),
                (3, _) => self.pixels::<3, 2>(windows, acc),
                (_, 1) => self.pixels::<5, 1>(windows, acc),
                (_, _) => self.pixels::<5, 2>(windows, acc),
            }
        }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Narrowing::by`].
pub(crate) fn narrow<T: Output>(
    _: Avx512,
    narrowing: &Narrowing<T>,
    acc: &[i32],
    lanes: usize,
    output: &mut [T],
) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn narrow<T: Output>(narrowing: &Narrowing<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
        let (low, high, zero) = narrowing.bounds();
        let (low, high, zero) = (_mm512_set1_ps(low), _mm512_set1_ps(high), _mm512_set1_epi32(zero));
        narrowing.by::<LANES>(acc, lanes, output, |acc, mults, output| {
            // SAFETY: both are sixteen values of four bytes.
            let (acc, mults) =
                unsafe { (_mm512_loadu_si512(acc.as_ptr().cast()), _mm512_loadu_ps(mults.as_ptr())) };
            // Both conversions round halves to even, the mode that Rust code always runs in.
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), mults);
            let value = _mm512_min_ps(_mm512_max_ps(value, low), high);
            let value = _mm512_add_epi32(_mm512_cvtps_epi32(value), zero);
            let place = output.as_mut_ptr();
            // The clamp made all values fit `T`, so its low bytes are the value.
            // SAFETY: `output` is sixteen values of two bytes or of one, and any bits are a value of `T`.
            unsafe {
                match size_of::<T>() {
                    2 => _mm256_storeu_si256(place.cast(), _mm512_cvtepi32_epi16(value)),
                    _ => _mm_storeu_si128(place.cast(), _mm512_cvtepi32_epi8(value)),
                }
            }
        });
    }
    // SAFETY: the token proves AVX-512 F and BW.
    unsafe { narrow(narrowing, acc, lanes, output) }
}

/// Adds element by element three slices of one length.
pub(crate) fn add(_: Avx512, sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add(sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
        let ([first, second], (low, high, zero)) = (sum.terms(), sum.bounds());
        let (low, high, zero) = (_mm512_set1_ps(low), _mm512_set1_ps(high), _mm512_set1_epi32(zero));
        let constants = |term: Term| (_mm512_set1_epi32(i32::from(term.zero)), _mm512_set1_ps(term.mult));
        let (first, second) = (constants(first), constants(second));
        let scaled = |x: &[u8; LANES], (zero, mult): (__m512i, __m512)| {
            // SAFETY: sixteen values of one byte.
            let x = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(x.as_ptr().cast()) });
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(x, zero)), mult)
        };
        Sum::by::<LANES>(a, b, output, |a, b, output| {
            let value = _mm512_add_ps(scaled(a, first), scaled(b, second));
            let value = _mm512_min_ps(_mm512_max_ps(value, low), high);
            // Rounds halves to even, the mode that Rust code always runs in.
            let value = _mm512_add_epi32(_mm512_cvtps_epi32(value), zero);
            // SAFETY: sixteen values of one byte, which the clamp made all values fit.
            unsafe { _mm_storeu_si128(output.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(value)) };
        });
    }
    // SAFETY: the token proves AVX-512 F and BW.
    unsafe { add(sum, a, b, output) }
}
