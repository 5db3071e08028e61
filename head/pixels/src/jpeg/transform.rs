//! The inverse cosine transform of a row of blocks, at full size or at a half, a quarter or an eighth of it.
//!
//! Sample k of every block lies beside sample k of the next one, so that a vector holds the same sample of neighbouring
//! blocks and the transform needs no transposition. At full size it is that of Arai, Agui and Nakajima (1988), whose
//! scale factors are part of the quantiser; at n/8 it is the transform of n points over the first n × n coefficients.

use std::f64::consts::SQRT_2;

use crate::planes::FRACTION;

/// Fractional bits of coefficients.
const COEFFICIENT: u32 = 5;

/// Bits of [`quantiser`] below those of coefficients.
pub(super) const QUANTISER: u32 = 10;

/// The factors of the coefficients of an axis at a size of 8, 4, 2 and 1 samples, without the common one over √8.
const FACTORS: [[f64; 8]; 4] = [
    [1.0, 1.387_039_845, 1.306_562_965, 1.175_875_602, 1.0, 0.785_694_958, 0.541_196_100, 0.275_899_379],
    // √2, and 1 for the coefficient that is multiplied by the cosine of 45°.
    [1.0, SQRT_2, 1.0, SQRT_2, 0.0, 0.0, 0.0, 0.0],
    [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
];

/// What a coefficient is multiplied by where blocks become `size` × `size` samples, at [`QUANTISER`] more fractional bits
/// than the product has.
pub(super) fn quantiser(step: u16, row: usize, column: usize, size: usize) -> i32 {
    let factors = FACTORS[3 - size.trailing_zeros() as usize];
    let factor = f64::from(step) * factors[row] * factors[column] / 8.0;
    (factor * f64::from(1u32 << (COEFFICIENT + QUANTISER))).round() as i32
}

/// The upper half of a product by a factor below 1/2, given in 65536ths.
#[inline(always)]
fn part(value: i16, factor: i16) -> i16 {
    ((i32::from(value) * i32::from(factor)) >> 16) as i16
}

/// The transform of 8 points.
#[inline(always)]
fn eight(c: [i16; 8]) -> [i16; 8] {
    let [c0, c1, c2, c3, c4, c5, c6, c7] = c;
    let add = i16::wrapping_add;
    let sub = i16::wrapping_sub;
    // By √2: 1 + 0.41421.
    let root = |x: i16| add(x, part(x, 27146));
    let (a0, a1) = (add(c0, c4), sub(c0, c4));
    let a3 = add(c2, c6);
    let a2 = sub(root(sub(c2, c6)), a3);
    let (e0, e1, e2, e3) = (add(a0, a3), add(a1, a2), sub(a1, a2), sub(a0, a3));
    let (z13, z10, z11, z12) = (add(c5, c3), sub(c5, c3), add(c1, c7), sub(c1, c7));
    let o0 = add(z11, z13);
    let turned = root(sub(z11, z13));
    // By 1.84776, 1.08239 and 2.61313.
    let sum = add(z10, z12);
    let z5 = sub(add(sum, sum), part(sum, 9977));
    let t10 = sub(add(z12, part(z12, 5400)), z5);
    let t12 = add(sub(z5, add(z10, add(z10, z10))), part(z10, 25354));
    let o1 = sub(t12, o0);
    let o2 = sub(turned, o1);
    let o3 = add(t10, o2);
    [add(e0, o0), add(e1, o1), add(e2, o2), sub(e3, o3), add(e3, o3), sub(e2, o2), sub(e1, o1), sub(e0, o0)]
}

/// The transform of 4 points.
#[inline(always)]
fn four(c: [i16; 4]) -> [i16; 4] {
    let [c0, c1, c2, c3] = c;
    let add = i16::wrapping_add;
    let sub = i16::wrapping_sub;
    // By the cosines of 22.5° and 67.5°.
    let long = |x: i16| sub(x, part(x, 4989));
    let short = |x: i16| part(x, 25080);
    let (e0, e1) = (add(c0, c2), sub(c0, c2));
    let (o0, o1) = (add(long(c1), short(c3)), sub(short(c1), long(c3)));
    [add(e0, o0), add(e1, o1), sub(e1, o1), sub(e0, o0)]
}

#[inline(always)]
fn two([c0, c1]: [i16; 2]) -> [i16; 2] {
    [c0.wrapping_add(c1), c0.wrapping_sub(c1)]
}

/// Transforms a row of blocks: from `size`² runs of coefficients, in rows, to `size` rows of samples. A run has one of each
/// block, `spare` as much room as the coefficients, which are zero afterwards.
#[inline(always)]
pub(super) fn transform(
    size: usize,
    coefficients: &mut [i16],
    spare: &mut [i16],
    rows: &mut [i16],
    blocks: usize,
) {
    match size {
        8 => transform_with::<8>(coefficients, spare, rows, blocks, eight),
        4 => transform_with::<4>(coefficients, spare, rows, blocks, four),
        2 => transform_with::<2>(coefficients, spare, rows, blocks, two),
        _ => transform_with::<1>(coefficients, spare, rows, blocks, |c| c),
    }
}

#[inline(always)]
fn transform_with<const N: usize>(
    coefficients: &mut [i16],
    spare: &mut [i16],
    rows: &mut [i16],
    blocks: usize,
    points: impl Fn([i16; N]) -> [i16; N] + Copy,
) {
    const LANES: usize = 16;
    let run = N * blocks;
    for column in 0..N {
        for begin in (0..blocks).step_by(LANES) {
            let mut input = [[0; LANES]; N];
            for (row, input) in input.iter_mut().enumerate() {
                let from = &mut coefficients[row * run + column * blocks + begin..][..LANES];
                input.copy_from_slice(from);
                from.fill(0);
            }
            // Columns are written as rows, which are read as columns below.
            for (row, output) in along(input, points).iter().enumerate() {
                spare[column * run + row * blocks + begin..][..LANES].copy_from_slice(output);
            }
        }
    }
    for row in 0..N {
        for begin in (0..blocks).step_by(LANES) {
            let mut input = [[0; LANES]; N];
            for (column, input) in input.iter_mut().enumerate() {
                input.copy_from_slice(&spare[column * run + row * blocks + begin..][..LANES]);
            }
            for (column, output) in along(input, points).iter().enumerate() {
                let to = &mut rows[row * run + column * blocks + begin..][..LANES];
                for (to, sample) in to.iter_mut().zip(output) {
                    // As a decoder to 8 bits clamps.
                    const LOW: i16 = -128 << COEFFICIENT;
                    const HIGH: i16 = 127 << COEFFICIENT;
                    *to = (*sample).clamp(LOW, HIGH) << (FRACTION - COEFFICIENT);
                }
            }
        }
    }
}

/// Transforms points of which each has a lane for every block.
#[inline(always)]
fn along<const N: usize, const LANES: usize>(
    input: [[i16; LANES]; N],
    points: impl Fn([i16; N]) -> [i16; N],
) -> [[i16; LANES]; N] {
    let mut output = [[0; LANES]; N];
    for lane in 0..LANES {
        let values = points(std::array::from_fn(|point| input[point][lane]));
        for (output, value) in output.iter_mut().zip(values) {
            output[lane] = value;
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inverse transform by its definition, at a size of `n` samples.
    fn definition(coefficients: &[[f64; 8]; 8], n: usize) -> Vec<f64> {
        let cosine = |u: usize, x: usize| {
            let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / (2 * n) as f64).cos()
        };
        let sample = |x: usize, y: usize| {
            let terms = (0..n * n).map(|at| {
                let (v, u) = (at / n, at % n);
                coefficients[v][u] * cosine(u, x) * cosine(v, y)
            });
            // Two over n for the transform, n over 8 for the size.
            terms.sum::<f64>() * 2.0 / 8.0
        };
        (0..n * n).map(|at| sample(at % n, at / n)).collect()
    }

    #[test]
    fn every_size_is_the_transform_of_its_definition() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i32
        };
        const BLOCKS: usize = 32;
        for size in [8, 4, 2, 1] {
            let mut worst = 0.0f64;
            let mut all = vec![0; size * size * BLOCKS];
            let mut wanted = Vec::new();
            for block in 0..BLOCKS {
                let mut coefficients = [[0.0; 8]; 8];
                for (v, row) in coefficients.iter_mut().enumerate() {
                    for (u, coefficient) in row.iter_mut().enumerate() {
                        let most = if (u, v) == (0, 0) { 600 } else { 240 / (1 + u + v) as i32 };
                        let value = random() % (2 * most) - most;
                        *coefficient = f64::from(value);
                        if u < size && v < size {
                            let product = value * quantiser(1, v, u, size);
                            all[(v * size + u) * BLOCKS + block] =
                                ((product + (1 << (QUANTISER - 1))) >> QUANTISER) as i16;
                        }
                    }
                }
                wanted.push(definition(&coefficients, size));
            }
            let (mut spare, mut rows) = (all.clone(), vec![0; all.len()]);
            transform(size, &mut all, &mut spare, &mut rows, BLOCKS);
            assert!(all.iter().all(|coefficient| *coefficient == 0));
            for (block, wanted) in wanted.iter().enumerate() {
                for (at, wanted) in wanted.iter().enumerate() {
                    let (y, x) = (at / size, at % size);
                    let found = f64::from(rows[(y * size + x) * BLOCKS + block]) / f64::from(1 << FRACTION);
                    worst = worst.max((found - wanted.clamp(-128.0, 127.0)).abs());
                }
            }
            assert!(worst < 1.0, "{size}: {worst}");
        }
    }
}
