//! From planes to the input of a network: size and colour in one go.
//!
//! Every plane is resampled from its own resolution to that of the input, first down its columns, then along its rows, with
//! the filter and the window of BUNDLE.md, section 3; what comes out is converted to RGB. Between the steps values keep
//! fractional bits and are not clamped, so rounding differs from that of an RGB image that is resized. All of it is integers:
//! the result is the same on every processor.

use fearless_simd::{Level, Simd, dispatch, i16x8, i32x4, prelude::*, u8x16};
use narrows_models::{Geometry, image::Window};

use crate::{
    colour::{self, Matrix},
    planes::{GROUP, Planes, grow},
    taps::{Key, Taps},
};

/// Converts [`Planes`] to the inputs of networks, with buffers that are kept from frame to frame.
#[derive(Debug, Default)]
pub struct Converter {
    /// The weights of each plane, across and down.
    taps: [[Taps; 2]; 3],
    /// A plane resampled down: rows of the input's height, columns of the plane.
    lower: Vec<i16>,
    /// The same with rows and columns exchanged.
    turned: Vec<i16>,
    /// The planes of the input, column by column.
    columns: [Vec<i16>; 3],
    /// Pixels of the input, column by column, four bytes each.
    pixels: Vec<i32>,
    /// Where the samples of an output begin.
    runs: Vec<usize>,
}

impl Converter {
    /// Fills `pixels` with the input that `geometry` describes: u8, rows of RGB pixels.
    ///
    /// # Panics
    /// If the planes do not [cover](Planes::cover) it.
    pub fn fit(&mut self, planes: &Planes, geometry: &Geometry, pixels: &mut Vec<u8>) {
        assert!(planes.cover(geometry), "planes are read that were not decoded");
        pixels.resize(geometry.width * geometry.height * 3, 0);
        let level = Level::new();
        dispatch!(level, simd => self.run(simd, planes, geometry, pixels));
    }

    #[inline(always)]
    fn run<S: Simd>(&mut self, simd: S, planes: &Planes, geometry: &Geometry, pixels: &mut [u8]) {
        let window = Window::of(planes.width, planes.height, geometry);
        let high = geometry.height.next_multiple_of(GROUP);
        let all = geometry.width * high;
        for (index, plane) in planes.planes.iter().enumerate().take(planes.count) {
            let [across, down] = &mut self.taps[index];
            let key =
                |size, start, length, count| Key { size, start, length, count, filter: geometry.filter };
            let scale = (plane.across, plane.down);
            across.set(key(plane.columns, window.left * scale.0, window.width * scale.0, geometry.width));
            down.set(key(plane.rows, window.top * scale.1, window.height * scale.1, geometry.height));
            let wide = plane.stride;
            grow(&mut self.lower, wide * high);
            let mut rows = self.lower[..wide * high].chunks_exact_mut(wide);
            for ((sample, weights), row) in down.outputs().zip(&mut rows) {
                self.runs.clear();
                self.runs.extend((sample..).take(weights.len()).map(|row| (row - plane.top) * wide));
                mix(&plane.samples, &self.runs, weights, row);
            }
            grow(&mut self.turned, wide * high);
            turn(simd, &self.lower[..wide * high], wide, high, &mut self.turned[..wide * high]);
            let columns = &mut self.columns[index];
            grow(columns, all);
            for ((sample, weights), column) in across.outputs().zip(columns.chunks_exact_mut(high)) {
                self.runs.clear();
                self.runs.extend((sample..).take(weights.len()).map(|column| plane.place(column) * high));
                mix(&self.turned, &self.runs, weights, column);
            }
        }
        grow(&mut self.pixels, all);
        let matrix = Matrix::of(planes.colour);
        let [ys, us, vs] = &self.columns;
        match planes.count {
            1 => colour::grey(&matrix, &ys[..all], &mut self.pixels),
            _ => colour::convert(&matrix, [&ys[..all], &us[..all], &vs[..all]], &mut self.pixels),
        }
        lay(simd, &self.pixels[..all], geometry.width, high, pixels);
    }
}

/// Sums runs of samples by their weights. The sums have one fractional bit less than the samples.
#[inline(always)]
fn mix(samples: &[i16], runs: &[usize], weights: &[i16], sums: &mut [i16]) {
    const FOUR: usize = 4 * GROUP;
    // Every product is rounded down, by half a unit in the mean.
    let begin = [(weights.len() / 2) as i16; GROUP];
    let (fours, rest) = sums.as_chunks_mut::<FOUR>();
    let done = fours.len() * FOUR;
    for (at, sums) in (0..).step_by(FOUR).zip(fours) {
        let (mut a, mut b, mut c, mut d) = (begin, begin, begin, begin);
        for (&run, &weight) in runs.iter().zip(weights) {
            let samples = &samples[run + at..][..FOUR];
            add(&mut a, &samples[..GROUP], weight);
            add(&mut b, &samples[GROUP..2 * GROUP], weight);
            add(&mut c, &samples[2 * GROUP..3 * GROUP], weight);
            add(&mut d, &samples[3 * GROUP..], weight);
        }
        for (sums, acc) in sums.as_chunks_mut().0.iter_mut().zip([a, b, c, d]) {
            *sums = acc;
        }
    }
    let (pairs, rest) = rest.as_chunks_mut::<{ 2 * GROUP }>();
    for sums in pairs.iter_mut() {
        let (mut a, mut b) = (begin, begin);
        for (&run, &weight) in runs.iter().zip(weights) {
            let samples = &samples[run + done..][..2 * GROUP];
            add(&mut a, &samples[..GROUP], weight);
            add(&mut b, &samples[GROUP..], weight);
        }
        for (sums, acc) in sums.as_chunks_mut().0.iter_mut().zip([a, b]) {
            *sums = acc;
        }
    }
    let done = done + pairs.len() * 2 * GROUP;
    if let [sums] = rest.as_chunks_mut::<GROUP>().0 {
        let mut acc = begin;
        for (&run, &weight) in runs.iter().zip(weights) {
            add(&mut acc, &samples[run + done..][..GROUP], weight);
        }
        *sums = acc;
    }
}

#[inline(always)]
fn add(acc: &mut [i16; GROUP], samples: &[i16], weight: i16) {
    for (acc, &sample) in acc.iter_mut().zip(samples) {
        *acc = acc.wrapping_add(((i32::from(sample) * i32::from(weight)) >> 16) as i16);
    }
}

/// Exchanges `high` rows of `wide` samples with columns.
#[inline(always)]
fn turn<S: Simd>(simd: S, from: &[i16], wide: usize, high: usize, to: &mut [i16]) {
    for (row, lines) in from.chunks_exact(8 * wide).enumerate() {
        for (column, to) in to.chunks_exact_mut(8 * high).enumerate() {
            let lines = &lines[8 * column..][..7 * wide + 8];
            let [a0, a1, a2, a3, a4, a5, a6, a7]: [i16x8<S>; 8] =
                std::array::from_fn(|line| i16x8::from_slice(simd, &lines[line * wide..][..8]));
            let pair = |a: i16x8<S>, b: i16x8<S>| (a.zip_low(b), a.zip_high(b));
            let ((b0, b1), (b2, b3)) = (pair(a0, a4), pair(a1, a5));
            let ((b4, b5), (b6, b7)) = (pair(a2, a6), pair(a3, a7));
            let ((c0, c1), (c2, c3)) = (pair(b0, b4), pair(b2, b6));
            let ((c4, c5), (c6, c7)) = (pair(b1, b5), pair(b3, b7));
            let ((d0, d1), (d2, d3)) = (pair(c0, c2), pair(c1, c3));
            let ((d4, d5), (d6, d7)) = (pair(c4, c6), pair(c5, c7));
            let to = &mut to[8 * row..][..7 * high + 8];
            for (line, run) in [d0, d1, d2, d3, d4, d5, d6, d7].into_iter().enumerate() {
                run.store_slice(&mut to[line * high..][..8]);
            }
        }
    }
}

/// Writes rows of RGB from columns of pixels of four bytes, `high` apart.
#[inline(always)]
fn lay<S: Simd>(simd: S, columns: &[i32], width: usize, high: usize, rows: &mut [u8]) {
    let keep = u8x16::from_slice(simd, &[0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0]);
    let stride = 3 * width;
    for (row, lines) in rows.chunks_mut(4 * stride).enumerate() {
        let mut column = 0;
        // A store of four pixels writes four bytes more, which the next one overwrites.
        while lines.len() == 4 * stride && column + 6 <= width {
            let from = &columns[column * high + 4 * row..][..3 * high + 4];
            let [a0, a1, a2, a3]: [i32x4<S>; 4] =
                std::array::from_fn(|x| i32x4::from_slice(simd, &from[x * high..][..4]));
            let (b0, b1) = (a0.zip_low(a2), a0.zip_high(a2));
            let (b2, b3) = (a1.zip_low(a3), a1.zip_high(a3));
            let pixels = [b0.zip_low(b2), b0.zip_high(b2), b1.zip_low(b3), b1.zip_high(b3)];
            let to = &mut lines[3 * column..][..3 * stride + 16];
            for (line, pixels) in pixels.into_iter().enumerate() {
                let bytes: u8x16<S> = pixels.bitcast();
                bytes.swizzle_dyn_within_blocks(keep).store_slice(&mut to[line * stride..][..16]);
            }
            column += 4;
        }
        for (line, to) in lines.chunks_exact_mut(stride).enumerate() {
            for (x, to) in to.chunks_exact_mut(3).enumerate().skip(column) {
                let [r, g, b, _] = columns[x * high + 4 * row + line].to_le_bytes();
                to.copy_from_slice(&[r, g, b]);
            }
        }
    }
}
