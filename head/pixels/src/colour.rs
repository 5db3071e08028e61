//! Brightness and colour to RGB, by the coefficients of ITU-R BT.601 or BT.709.

use narrows_video::Colour;

/// Fractional bits of the samples that come in, and of the coefficients.
const SAMPLE: u32 = 5;
const COEFFICIENT: u32 = 13;
/// Fractional bits of the sums.
const SUM: u32 = 4;

/// The coefficients of a conversion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    brightness: i16,
    red: i16,
    green: [i16; 2],
    blue: i16,
    /// What is added to every sum.
    offset: i16,
}

impl Matrix {
    pub(crate) fn of(colour: Colour) -> Self {
        let (red, blue) = if colour.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
        let green = 1.0 - red - blue;
        // In the limited range brightness has 219 steps above 16 and colour 224.
        let (y, c) = if colour.full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |value: f64| (value * f64::from(1u32 << COEFFICIENT)).round() as i16;
        // Samples are less 128; black is at 0 or 16.
        let black = if colour.full_range { 0.0 } else { 16.0 };
        let offset = (128.0 - black) * y * f64::from(1u32 << SUM) + f64::from(1u32 << (SUM - 1));
        Matrix {
            brightness: fixed(y),
            red: fixed(2.0 * (1.0 - red) * c),
            green: [fixed(2.0 * (1.0 - blue) * blue / green * c), fixed(2.0 * (1.0 - red) * red / green * c)],
            blue: fixed(2.0 * (1.0 - blue) * c),
            offset: offset.round() as i16,
        }
    }
}

/// A product with [`SUM`] fractional bits.
#[inline(always)]
fn product(sample: i16, coefficient: i16) -> i16 {
    ((i32::from(sample) * i32::from(coefficient)) >> 16) as i16
}

/// The sample with two more bits, so that a product's upper half has [`SUM`] fractional bits.
#[inline(always)]
fn raised(sample: i16) -> i16 {
    const BITS: u32 = 16 + SUM - SAMPLE - COEFFICIENT;
    sample.wrapping_shl(BITS)
}

#[inline(always)]
fn byte(sum: i16) -> i32 {
    i32::from((sum >> SUM).clamp(0, 255))
}

const LANES: usize = 32;

/// Converts runs of brightness and the two colours to pixels: red in the lowest byte, green, blue.
#[inline(always)]
pub(crate) fn convert(matrix: &Matrix, [ys, us, vs]: [&[i16]; 3], pixels: &mut [i32]) {
    let runs = ys.chunks_exact(LANES).zip(us.chunks_exact(LANES)).zip(vs.chunks_exact(LANES));
    for (((ys, us), vs), pixels) in runs.zip(pixels.chunks_exact_mut(LANES)) {
        let mut channels = [[0i16; LANES]; 3];
        let [reds, greens, blues] = &mut channels;
        for lane in 0..LANES {
            let (y, u, v) = (raised(ys[lane]), raised(us[lane]), raised(vs[lane]));
            let y = product(y, matrix.brightness).wrapping_add(matrix.offset);
            reds[lane] = y.wrapping_add(product(v, matrix.red)) >> SUM;
            let green = product(u, matrix.green[0]).wrapping_add(product(v, matrix.green[1]));
            greens[lane] = y.wrapping_sub(green) >> SUM;
            blues[lane] = y.wrapping_add(product(u, matrix.blue)) >> SUM;
        }
        for (lane, pixel) in pixels.iter_mut().enumerate() {
            let clamp = |value: i16| value.clamp(0, 255) as u16;
            let low = clamp(channels[0][lane]) | clamp(channels[1][lane]) << 8;
            *pixel = i32::from(low) | i32::from(clamp(channels[2][lane])) << 16;
        }
    }
}

/// Converts brightness alone.
#[inline(always)]
pub(crate) fn grey(matrix: &Matrix, ys: &[i16], pixels: &mut [i32]) {
    for (&y, pixel) in ys.iter().zip(pixels) {
        *pixel = byte(product(raised(y), matrix.brightness).wrapping_add(matrix.offset)) * 0x01_01_01;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_standards() {
        for (full_range, bt709) in [(true, false), (true, true), (false, false), (false, true)] {
            let matrix = Matrix::of(Colour { full_range, bt709 });
            let (kr, kb) = if bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
            let (black, yr, cr) = if full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
            let mut worst = 0.0f64;
            for y in (0..=255).step_by(15) {
                for u in (0..=255).step_by(15) {
                    for v in (0..=255).step_by(15) {
                        let sample = |value: i32| [((value - 128) << SAMPLE) as i16; LANES];
                        let mut pixels = [0; LANES];
                        convert(&matrix, [&sample(y), &sample(u), &sample(v)], &mut pixels);
                        let (y, u, v) = (
                            (f64::from(y) - black) / yr,
                            (f64::from(u) - 128.0) / cr,
                            (f64::from(v) - 128.0) / cr,
                        );
                        let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
                        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
                        for (found, wanted) in pixels[3].to_le_bytes().into_iter().zip([r, g, b]) {
                            worst = worst.max((f64::from(found) - (wanted * 255.0).clamp(0.0, 255.0)).abs());
                        }
                    }
                }
            }
            assert!(worst < 0.8, "{full_range} {bt709}: {worst}");
        }
    }
}
