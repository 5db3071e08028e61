//! The time of each stage of a frame: networks and coder, and what comes before them at the sizes of cameras.
#![expect(clippy::disallowed_methods, reason = "stages are timed here")]

use std::{
    io,
    ops::RangeInclusive,
    path::Path,
    time::{Duration, Instant},
};

use image::{RgbImage, imageops};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_codec::{GeometryId, LevelId};
use narrows_models::{Bundle, Geometry};
use narrows_pixels::{Converter, JpegDecoder, Planes};
use narrows_video::{Raw, RawFormat};
use serde::Serialize;

use super::progress::progress;
use crate::{Error, Head, Local, image::decode, load};

/// A road with cars.
const PHOTO: &[u8] = include_bytes!("../../../bench/photos/road/traffic.jpg");
/// Sizes at which cameras deliver, and that of the sustained part.
const SIZES: [(u32, u32); 3] = [(640, 480), (1280, 720), (1920, 1080)];
/// Quality and sampling of their JPEG files are those of webcams.
const QUALITY: u8 = 85;
/// Time for which each stage is repeated, and the fewest and most rounds.
const TRIAL: Duration = Duration::from_millis(1500);
const ROUNDS: RangeInclusive<usize> = 5..=400;
/// Rounds before those that count.
const WARM_UP: usize = 2;

/// The times of a repeated stage in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Times {
    pub(super) median_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) rounds: usize,
}

/// A network on this device.
#[derive(Debug, Serialize)]
pub(super) struct Network {
    /// `head` and the names of its tasks, `coder`, or `local network`.
    pub(super) name: String,
    /// Width and height of its input.
    pub(super) input: (usize, usize),
    #[serde(flatten)]
    pub(super) times: Times,
    /// Multiply-accumulate operations, of a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) macs: Option<u64>,
    /// Bytes of the packet, of a coder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<usize>,
}

/// What comes before the networks, for frames of one size.
#[derive(Debug, Serialize)]
pub(super) struct Camera {
    /// Width and height of its frames.
    pub(super) size: (u32, u32),
    /// Bytes of the frame as JPEG.
    pub(super) jpeg_bytes: usize,
    /// From the JPEG file to the input of the first task's head.
    pub(super) jpeg: Times,
    /// The same from I420 planes.
    pub(super) i420: Times,
}

/// The photo that frames show.
///
/// # Errors
/// Those of [`load`].
pub(super) fn photo(file: Option<&Path>) -> Result<RgbImage, Error> {
    let Some(file) = file else {
        return decode(PHOTO).map_err(|source| Error::Image { file: "the built-in photo".into(), source });
    };
    load(file)
}

/// A frame of the smallest size as JPEG.
///
/// # Errors
/// [`Error::Device`] if it cannot be encoded.
pub(super) fn frame(photo: &RgbImage) -> Result<Vec<u8>, Error> {
    jpeg(&scaled(photo, SIZES[0]))
}

/// Times heads, coders and the local network of a bundle. Ends early where `stopped`.
///
/// # Errors
/// Those of the networks.
pub(super) fn networks(
    bundle: &Bundle,
    head: &mut Head,
    photo: &RgbImage,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<Network>, Error> {
    let mut networks = Vec::new();
    // A bundle has at most 16 geometries and 16 levels.
    let level = LevelId(bundle.default_level() as u8);
    for (index, geometry) in bundle.geometries().iter().enumerate() {
        let tasks = bundle.tasks().iter().filter(|task| task.geometry == index);
        let tasks: Vec<&str> = tasks.map(|task| task.name.as_str()).collect();
        if tasks.is_empty() || stopped() {
            continue;
        }
        progress(&format!("timing the head of {}", tasks.join(" and ")));
        let id = GeometryId(index as u8);
        let encoded = head.encode_image(photo, id, level)?;
        let input = (geometry.width, geometry.height);
        let times = repeat(stopped, || {
            head.latent(&encoded.pixels, id).and_then(|latent| head.feature(&latent, level)).map(drop)
        })?;
        let name = format!("head of {}", tasks.join(", "));
        networks.push(Network { name, input, times, macs: Some(head.macs(id)), bytes: None });
        let times = repeat(stopped, || head.encode(&encoded.feature, id, level).map(drop))?;
        let name = format!("coder of {}, level {}", tasks.join(", "), level.index());
        networks.push(Network { name, input, times, macs: None, bytes: Some(encoded.packet.len()) });
    }
    if bundle.local().is_some() && !stopped() {
        progress("timing the local network");
        let mut local = Local::open(bundle)?;
        let input = (local.input().width, local.input().height);
        let mut times = Vec::new();
        repeat(stopped, || {
            times.push(local.answer(photo)?.timings.head);
            Ok(())
        })?;
        let (times, macs) = (Times::of(times.split_off(WARM_UP)), Some(local.macs()));
        networks.push(Network { name: "local network".to_owned(), input, times, macs, bytes: None });
    }
    Ok(networks)
}

/// Times what comes before the head of the first task. Ends early where `stopped`.
///
/// # Errors
/// [`Error::Device`] if a frame cannot be made.
pub(super) fn cameras(
    bundle: &Bundle,
    photo: &RgbImage,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<Camera>, Error> {
    let Some(geometry) = bundle.tasks().first().map(|task| &bundle.geometries()[task.geometry]) else {
        return Ok(Vec::new());
    };
    let mut cameras = Vec::new();
    for size in SIZES {
        if stopped() {
            break;
        }
        progress(&format!("timing frames of {}×{}", size.0, size.1));
        let image = scaled(photo, size);
        let file = jpeg(&image)?;
        let raw = i420(&image)?;
        let mut inputs = Inputs::default();
        let jpeg = repeat(stopped, || inputs.of_jpeg(&file, geometry).map(drop))?;
        let i420 = repeat(stopped, || {
            inputs.of_raw(&raw, geometry);
            Ok(())
        })?;
        cameras.push(Camera { size, jpeg_bytes: file.len(), jpeg, i420 });
    }
    Ok(cameras)
}

/// Makes inputs of frames as live sources do, without an image in between.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    decoder: JpegDecoder,
    planes: Planes,
    converter: Converter,
    pixels: Vec<u8>,
}

impl Inputs {
    /// The input of a network, of a JPEG file.
    ///
    /// # Errors
    /// [`Error::Device`] for a file that is not decoded this way; those that are made here are.
    pub(super) fn of_jpeg(&mut self, file: &[u8], geometry: &Geometry) -> Result<&[u8], Error> {
        self.decoder
            .decode(file, std::slice::from_ref(geometry), &mut self.planes)
            .map_err(|error| device("the frame cannot be decoded", error))?;
        self.converter.fit(&self.planes, geometry, &mut self.pixels);
        Ok(&self.pixels)
    }

    fn of_raw(&mut self, raw: &Raw, geometry: &Geometry) {
        self.planes.set_raw(raw, std::slice::from_ref(geometry));
        self.converter.fit(&self.planes, geometry, &mut self.pixels);
    }
}

/// Repeats a stage and takes its times, at least [`WARM_UP`] times and once more.
///
/// # Errors
/// That of the stage.
fn repeat(stopped: &dyn Fn() -> bool, mut stage: impl FnMut() -> Result<(), Error>) -> Result<Times, Error> {
    for _ in 0..WARM_UP {
        stage()?;
    }
    let (begin, mut times) = (Instant::now(), Vec::new());
    loop {
        let started = Instant::now();
        stage()?;
        times.push(started.elapsed());
        let is_enough = times.len() >= *ROUNDS.start() && begin.elapsed() >= TRIAL;
        if is_enough || times.len() >= *ROUNDS.end() || stopped() {
            return Ok(Times::of(times));
        }
    }
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len().saturating_sub(1) as f64 * share) as usize;
            times.get(place).map_or(0.0, |time| (time.as_secs_f64() * 1e6).round() / 1e3)
        };
        Times { median_ms: at(0.5), p95_ms: at(0.95), rounds: times.len() }
    }
}

fn scaled(photo: &RgbImage, size: (u32, u32)) -> RgbImage {
    imageops::resize(photo, size.0, size.1, imageops::FilterType::CatmullRom)
}

fn jpeg(image: &RgbImage) -> Result<Vec<u8>, Error> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_1);
    // The sizes above fit.
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder
        .encode(image.as_raw(), width, height, ColorType::Rgb)
        .map_err(|error| device("a frame cannot be made", error))?;
    Ok(file)
}

/// The image as planes of BT.601, as cameras deliver them.
fn i420(image: &RgbImage) -> Result<Raw, Error> {
    let (width, height) = image.dimensions();
    let luma = |[r, g, b]: [f32; 3]| 16.0 + 0.257 * r + 0.504 * g + 0.098 * b;
    let blue = |[r, g, b]: [f32; 3]| 128.0 - 0.148 * r - 0.291 * g + 0.439 * b;
    let red = |[r, g, b]: [f32; 3]| 128.0 + 0.439 * r - 0.368 * g - 0.071 * b;
    let at = |x: u32, y: u32| image.get_pixel(x, y).0.map(f32::from);
    let plane = |step: u32, of: &dyn Fn([f32; 3]) -> f32| -> Vec<u8> {
        let rows = (0..height).step_by(step as usize);
        rows.flat_map(|y| (0..width).step_by(step as usize).map(move |x| of(at(x, y)) as u8)).collect()
    };
    let bytes = [plane(1, &luma), plane(2, &blue), plane(2, &red)].concat();
    let format = format!("i420:{width}x{height}").parse::<RawFormat>();
    let format = format.map_err(|error| device("a frame cannot be made", error))?;
    Raw::new(format, bytes).ok_or_else(|| device("a frame cannot be made", "it has another size"))
}

fn device(problem: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Device { problem, source: io::Error::other(error) }
}
