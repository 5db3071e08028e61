//! A second implementation of the resize, written from section 3 of BUNDLE.md alone, and the comparison with the first.

use image::{Rgb, RgbImage};

use super::fit;
use crate::{Filter, Fit, Geometry};

/// Start and length of the window along a side, in pixels of the image.
type Span = (f64, f64);

/// The steps of section 3 from the image to the input of the network.
fn reference(image: &RgbImage, geometry: &Geometry) -> Vec<u8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let short = width.min(height);
    let span = |side: usize, cut: usize| -> Span {
        match geometry.fit {
            Fit::Stretch => (0.0, side as f64),
            Fit::Crop { short_side } => {
                let resized = (2 * side * short_side + short) / (2 * short);
                let scale = side as f64 / resized as f64;
                let start = ((resized - cut) / 2) as f64 * scale;
                (start, (cut as f64 * scale).min(side as f64 - start))
            }
        }
    };
    let (left, wide) = span(width, geometry.width);
    let (top, high) = span(height, geometry.height);
    let pixels: Vec<[u8; 3]> = image.pixels().map(|pixel| pixel.0).collect();
    if geometry.width as f64 > wide && (geometry.height as f64) < high {
        let lower = vertical(&pixels, width, (top, high), geometry.height, geometry.filter);
        return horizontal(&lower, width, (left, wide), geometry.width, geometry.filter).concat();
    }
    let reach = 2.0 * (high / geometry.height as f64).max(1.0) + 1.0;
    let first = (top - reach).floor().max(0.0) as usize;
    let last = (top + high + reach).ceil().min(height as f64) as usize;
    let rows = &pixels[first * width..last * width];
    let narrower = horizontal(rows, width, (left, wide), geometry.width, geometry.filter);
    vertical(&narrower, geometry.width, (top - first as f64, high), geometry.height, geometry.filter).concat()
}

fn horizontal(pixels: &[[u8; 3]], width: usize, span: Span, n: usize, filter: Filter) -> Vec<[u8; 3]> {
    let Some((outputs, precision)) = weights(width, span, n, filter) else {
        let start = span.0 as usize;
        return pixels.chunks_exact(width).flat_map(|row| row[start..start + n].to_vec()).collect();
    };
    let row = |row: &[[u8; 3]]| -> Vec<[u8; 3]> {
        outputs.iter().map(|(start, ks)| mix(ks, precision, |j| row[start + j])).collect()
    };
    pixels.chunks_exact(width).flat_map(row).collect()
}

fn vertical(pixels: &[[u8; 3]], width: usize, span: Span, n: usize, filter: Filter) -> Vec<[u8; 3]> {
    let Some((outputs, precision)) = weights(pixels.len() / width, span, n, filter) else {
        return pixels[span.0 as usize * width..][..n * width].to_vec();
    };
    let row = |(start, ks): &(usize, Vec<i32>)| -> Vec<[u8; 3]> {
        (0..width).map(|x| mix(ks, precision, |j| pixels[(start + j) * width + x])).collect()
    };
    outputs.iter().flat_map(row).collect()
}

/// The fixed-point sum of one output pixel.
fn mix(ks: &[i32], precision: u32, pixel: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
    let mut sums = [1 << (precision - 1); 3];
    for (j, k) in ks.iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(pixel(j)) {
            *sum += k * i32::from(value);
        }
    }
    sums.map(|sum| (sum >> precision).clamp(0, 255) as u8)
}

/// The first pixel that an output takes, and the integer weights of the pixels from there on.
type Taps = (usize, Vec<i32>);

/// The taps of each of `n` outputs, and the precision of their weights in bits; nothing where pixels are copied.
fn weights(size: usize, (start, length): Span, n: usize, filter: Filter) -> Option<(Vec<Taps>, u32)> {
    if n as f64 == length && start == start.round() {
        return None;
    }
    let (function, support): (fn(f64) -> f64, f64) = match filter {
        Filter::Box => (|x| if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }, 0.5),
        Filter::Bilinear => (|x| (1.0 - x.abs()).max(0.0), 1.0),
        Filter::Bicubic => (
            |x| match x.abs() {
                x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
                _ => 0.0,
            },
            2.0,
        ),
    };
    let scale = ((start + length) - start) / n as f64;
    let widened = scale.max(1.0);
    let radius = support * widened;
    let mut outputs = Vec::new();
    for i in 0..n {
        let center = start + (i as f64 + 0.5) * scale;
        let first = (center - radius).floor().max(0.0) as usize;
        let last = (center + radius).ceil().min(size as f64) as usize;
        let mut ws: Vec<f64> =
            (first..last).map(|j| function((j as f64 - (center - 0.5)) * (1.0 / widened))).collect();
        let sum: f64 = ws.iter().sum();
        ws.iter_mut().for_each(|w| *w /= sum);
        outputs.push((first, ws));
    }
    let largest = outputs.iter().flat_map(|(_, ws)| ws).copied().fold(0.0, f64::max);
    let full = |p: &u32| (largest * f64::from(1u32 << (p + 1))).round() >= 32768.0;
    let precision = (0..21).find(full).unwrap_or(21);
    let integer = |w: f64| (w * f64::from(1u32 << precision)).round() as i32;
    let outputs =
        outputs.into_iter().map(|(first, ws)| (first, ws.into_iter().map(integer).collect())).collect();
    Some((outputs, precision))
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = width.wrapping_mul(2_654_435_761) ^ height | 1;
    RgbImage::from_fn(width, height, |_, _| {
        Rgb([0; 3].map(|_: u8| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            // Black and white often, so that the bicubic filter overshoots and is clamped.
            match state >> 30 {
                0 => 0,
                1 => 255,
                _ => (state >> 11) as u8,
            }
        }))
    })
}

#[test]
fn the_resize_is_what_the_document_says_bit_for_bit() {
    let sizes = [
        (96, 64),
        (97, 61),
        (33, 201),
        (40, 40),
        (31, 300),
        (7, 90),
        (250, 9),
        (64, 48),
        (1, 1),
        (2, 37),
        (129, 65),
        (90, 40),
    ];
    let fits = [Fit::Stretch, Fit::Crop { short_side: 40 }, Fit::Crop { short_side: 46 }];
    for filter in [Filter::Bicubic, Filter::Bilinear, Filter::Box] {
        for fit_to in fits {
            for (width, height) in [(40, 40), (40, 24)] {
                let geometry = Geometry { name: "test".to_owned(), width, height, fit: fit_to, filter };
                for (w, h) in sizes {
                    let image = noise(w, h);
                    let (found, wanted) = (fit(&image, &geometry), reference(&image, &geometry));
                    let wrong = found.iter().zip(&wanted).filter(|(a, b)| a != b).count();
                    assert!(
                        found.len() == wanted.len() && wrong == 0,
                        "{w}×{h} to {geometry:?}: {wrong} wrong"
                    );
                }
            }
        }
    }
}
