//! Frames as planes against the same frames as images: decoded whole, converted to RGB, and resized.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_models::{Filter, Fit, Geometry, image};
use narrows_pixels::{Converter, JpegDecoder, Planes};
use narrows_video::{Raw, RawFormat, Sampling};
use proptest::prelude::*;

/// A photo of 768 × 512 pixels or so, of which tests cut what they need.
const PHOTO: &[u8] = include_bytes!("../../../bench/photos/road/street.jpg");

fn photo(width: u32, height: u32) -> image::RgbImage {
    let whole = image::decode(PHOTO).expect("a JPEG");
    let view = Geometry::new("", (width as usize, height as usize), Fit::Stretch, Filter::Bicubic);
    image::RgbImage::from_raw(width, height, image::fit(&whole, &view)).expect("three bytes a pixel")
}

fn jpeg(image: &image::RgbImage, quality: u8, sampling: SamplingFactor, restart: Option<u16>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(sampling);
    if let Some(interval) = restart {
        encoder.set_restart_interval(interval);
    }
    encoder
        .encode(image.as_raw(), image.width() as u16, image.height() as u16, ColorType::Rgb)
        .expect("a size that a JPEG can have");
    file
}

fn photo_view() -> Geometry {
    Geometry::new("photo", (224, 224), Fit::Crop { short_side: 256 }, Filter::Bicubic)
}

fn frame_view() -> Geometry {
    Geometry::new("frame", (480, 360), Fit::Stretch, Filter::Bicubic)
}

/// The input by both ways: planes, and the image.
fn both(file: &[u8], views: &[Geometry], view: &Geometry) -> (Vec<u8>, Vec<u8>) {
    let (mut planes, mut pixels) = (Planes::default(), Vec::new());
    JpegDecoder::default().decode(file, views, &mut planes).expect("a JPEG as cameras write it");
    Converter::default().fit(&planes, view, &mut pixels);
    (pixels, image::fit(&image::decode(file).expect("a JPEG"), view))
}

/// Mean and largest distance.
fn distance(a: &[u8], b: &[u8]) -> (f64, u8) {
    assert_eq!(a.len(), b.len());
    let all = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (all.clone().map(f64::from).sum::<f64>() / a.len() as f64, all.max().unwrap_or(0))
}

#[test]
fn a_frame_as_planes_is_the_image_to_about_a_level() {
    let image = photo(640, 480);
    for (sampling, most) in
        [(SamplingFactor::F_1_1, 0.5), (SamplingFactor::F_2_1, 1.0), (SamplingFactor::F_2_2, 1.0)]
    {
        for quality in [60, 85, 95] {
            let file = jpeg(&image, quality, sampling, None);
            for view in [photo_view(), frame_view()] {
                let (found, wanted) = both(&file, std::slice::from_ref(&view), &view);
                let (mean, largest) = distance(&found, &wanted);
                println!("{sampling:?} {quality} {}: mean {mean:.3}, largest {largest}", view.name);
                assert!(mean < most, "{sampling:?} {quality} {}: {mean} {largest}", view.name);
            }
        }
    }
}

#[test]
fn larger_frames_are_decoded_smaller_and_look_the_same() {
    for (width, height, most) in [(960, 720, 1.5), (1280, 720, 2.0), (1920, 1080, 2.5), (2600, 2400, 3.0)] {
        let file = jpeg(&photo(width, height), 85, SamplingFactor::F_2_2, None);
        let (found, wanted) = both(&file, &[photo_view()], &photo_view());
        let (mean, largest) = distance(&found, &wanted);
        println!("{width}x{height}: mean {mean:.3}, largest {largest}");
        assert!(mean < most, "{width}×{height}: {mean} {largest}");
    }
}

#[test]
fn planes_for_two_inputs_hold_enough_for_both() {
    let file = jpeg(&photo(640, 480), 85, SamplingFactor::F_2_2, Some(7));
    let views = [photo_view(), frame_view()];
    for view in &views {
        let (found, wanted) = both(&file, &views, view);
        assert!(distance(&found, &wanted).0 < 1.0, "{}", view.name);
    }
    let mut planes = Planes::default();
    JpegDecoder::default().decode(&file, &views[..1], &mut planes).unwrap();
    assert!(planes.cover(&views[0]) && !planes.cover(&views[1]));
}

#[test]
fn what_cameras_do_not_write_is_left_and_never_panics() {
    let file = jpeg(&photo(64, 48), 85, SamplingFactor::F_2_2, Some(3));
    let (mut decoder, mut planes) = (JpegDecoder::default(), Planes::default());
    for end in 0..file.len() - 2 {
        assert!(decoder.decode(&file[..end], &[photo_view()], &mut planes).is_err(), "{end}");
        assert!(!planes.cover(&photo_view()));
    }
    let mut state = 7u32;
    for _ in 0..20_000 {
        let mut damaged = file.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 8) as usize % damaged.len();
            damaged[at] ^= 1 << (state & 7);
        }
        // Some damage makes a file of another size.
        let size = image::decode_as(&damaged, image::ImageFormat::Jpeg, 1 << 16);
        if size.is_ok() && decoder.decode(&damaged, &[photo_view()], &mut planes).is_ok() {
            Converter::default().fit(&planes, &photo_view(), &mut Vec::new());
        }
    }
    for (kind, file) in [("PNG", &b"\x89PNG\r\n\x1a\n"[..]), ("nothing", b"")] {
        assert!(decoder.decode(file, &[photo_view()], &mut planes).is_err(), "{kind}");
    }
}

#[test]
fn a_frame_without_tables_uses_the_standard_ones() {
    let file = jpeg(&photo(160, 120), 80, SamplingFactor::F_2_1, None);
    // Every DHT segment is left out, as webcams do.
    let (mut bare, mut at) = (file[..2].to_vec(), 2);
    loop {
        let length = 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] == 0xda {
            break;
        }
        if file[at + 1] != 0xc4 {
            bare.extend_from_slice(&file[at..at + length]);
        }
        at += length;
    }
    bare.extend_from_slice(&file[at..]);
    let view = photo_view();
    assert_eq!(both(&file, &[photo_view()], &view).0, both(&bare, &[photo_view()], &view).0);
}

/// A photo as a frame of `format`, of the mean colour of each place.
fn raw(format: RawFormat) -> Raw {
    let layout = format.layout;
    let (width, height, stride) = (layout.width(), layout.height(), layout.stride() as usize);
    let image = photo(width, height);
    let (kr, kb) = if format.colour.bt709 { (0.2126, 0.0722) } else { (0.299, 0.114) };
    let (black, yr, cr) =
        if format.colour.full_range { (0.0, 1.0, 1.0) } else { (16.0, 219.0 / 255.0, 224.0 / 255.0) };
    let yuv = |x: u32, y: u32| {
        let [r, g, b] = image.get_pixel(x.min(width - 1), y.min(height - 1)).0.map(f64::from);
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        [luma, (b - luma) / (2.0 * (1.0 - kb)), (r - luma) / (2.0 * (1.0 - kr))]
    };
    let mut bytes = vec![0; layout.size()];
    let (lumas, colours) = bytes.split_at_mut(stride * height as usize);
    for (y, row) in (0..height).zip(lumas.chunks_exact_mut(stride)) {
        (0..width).zip(row).for_each(|(x, byte)| *byte = (yuv(x, y)[0] * yr + black).round() as u8);
    }
    let plane = colours.len() / 2;
    let stride = layout.colour_stride() as usize;
    for y in 0..height.div_ceil(2) {
        for x in 0..width.div_ceil(2) {
            let four = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| yuv(2 * x + i, 2 * y + j));
            for colour in [1, 2] {
                let mean = four.iter().map(|pixel| pixel[colour]).sum::<f64>() / 4.0;
                let at = match layout.sampling() {
                    Sampling::Nv12 => y as usize * stride + 2 * x as usize + colour - 1,
                    _ => (colour - 1) * plane + y as usize * stride + x as usize,
                };
                colours[at] = (mean * cr + 128.0).round() as u8;
            }
        }
    }
    Raw::new(format, bytes).expect("as many bytes as the format has")
}

#[test]
fn raw_frames_as_planes_are_the_image_to_about_a_level() {
    for format in
        ["i420:640x480", "nv12:640x480", "i420:641x479+704,full", "nv12:322x242,bt709", "i420:1920x1080"]
    {
        let frame = raw(format.parse().unwrap());
        let layout = frame.format().layout;
        let rgb = frame.to_rgb().unwrap();
        let image = image::RgbImage::from_raw(layout.width(), layout.height(), rgb).unwrap();
        for view in [photo_view(), frame_view()] {
            let (mut planes, mut pixels) = (Planes::default(), Vec::new());
            planes.set_raw(&frame, std::slice::from_ref(&view));
            Converter::default().fit(&planes, &view, &mut pixels);
            let (mean, largest) = distance(&pixels, &image::fit(&image, &view));
            println!("{format} {}: mean {mean:.3}, largest {largest}", view.name);
            assert!(mean < 2.0, "{format} {}: {mean} {largest}", view.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_size_and_input_agree_with_the_image(
        (width, height) in (9u32..300, 9u32..300),
        (wide, high) in (1usize..90, 1usize..90),
        longer in 0usize..40,
        stretch: bool,
        filter in prop::sample::select(vec![Filter::Bicubic, Filter::Bilinear, Filter::Box]),
        sampling in prop::sample::select(vec![SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2]),
        restart in prop::option::of(1u16..9),
    ) {
        let fit = if stretch { Fit::Stretch } else { Fit::Crop { short_side: wide.max(high) + longer } };
        let view = Geometry::new("any", (wide, high), fit, filter);
        let file = jpeg(&photo(width, height), 92, sampling, restart);
        let (found, wanted) = both(&file, std::slice::from_ref(&view), &view);
        // Small pictures of a detailed photo: colour at half resolution shows.
        prop_assert!(distance(&found, &wanted).0 < 8.0, "{:?}", distance(&found, &wanted));
    }
}
