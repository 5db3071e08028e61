//! `narrows-bench frame`: what a camera's frame of 640×480 costs stage by stage, from its bytes to the packet, by way of an image
//! and by way of planes; and how far the two ways agree.
//!
//! Times are of one thread, interleaved in one run. Instructions are counted by Valgrind, which runs the program with the
//! instruction sets that it knows: AVX2, and no VNNI.
#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

mod agreement;

use std::{
    hint::black_box,
    path::PathBuf,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use image::imageops;
use narrows_codec::{Choice, Encoder, GeometryId, LevelId, Tables};
use narrows_eval::pipeline::encode_jpeg;
use narrows_head::net::Net;
use narrows_models::{
    Bundle, Geometry, Parts,
    image::{Fitter, RgbImage, decode},
};
use narrows_pixels::{Converter, JpegDecoder, Planes};
use narrows_video::Raw;
use serde::Serialize;

use crate::{
    instructions::{self, Stage},
    interleaved::{Interleaved, Row, median},
    json, machine,
};

const PHOTO: &[u8] = include_bytes!("../photos/road/street.jpg");
/// Size of the frame, and quality of its JPEG.
const SIZE: (u32, u32) = (640, 480);
const QUALITY: u8 = 85;
/// How a head codes unless it is told otherwise: the smallest of the modes that suit a device.
const CODING: Choice = Choice::Within(9);
/// How long the sustained rate is measured.
const LASTING: Duration = Duration::from_secs(3);

const JPEG_IMAGE: &str = "JPEG to an image, resized";
const JPEG_PLANES: &str = "JPEG to planes";
const RAW_IMAGE: &str = "I420 to an image, resized";
const RAW_PLANES: &str = "I420 to planes";
const INPUT: &str = "planes to the input";
const NETWORK: &str = "head, int8";
const CODER: &str = "coder";

/// Which bundle to measure, and how thoroughly.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench frame --bundle models/bundles/lite2 --instructions --json frame.json"
)]
pub struct Frame {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Rounds, in each of which every stage runs; five more come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Count instructions as well (needs valgrind)
    #[arg(long)]
    pub instructions: bool,
    /// Tar of photos on which the two ways are compared by the answers of the local network; may be given again
    #[arg(long, value_name = "TAR")]
    pub photos: Vec<PathBuf>,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Run every stage so often between marks, and nothing else
    #[arg(long, hide = true)]
    pub marked: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    features: Vec<&'static str>,
    jpeg_bytes: usize,
    rows: Vec<Row>,
    /// Instructions of each stage, in the order of `rows`.
    instructions: Option<Vec<u64>>,
    frames: Vec<Way>,
    /// Frames a second by way of an image on one thread, and by way of planes on two.
    sustained: [f64; 2],
    agreement: Option<agreement::Agreement>,
}

/// A frame from its bytes to the packet.
#[derive(Debug, Serialize)]
struct Way {
    frame: &'static str,
    image_ms: f64,
    planes_ms: f64,
    image_instructions: Option<u64>,
    planes_instructions: Option<u64>,
}

/// What the stages work on.
struct Material {
    geometry: GeometryId,
    level: LevelId,
    view: Geometry,
    jpeg: Vec<u8>,
    raw: Raw,
    net: Net,
    tables: Tables,
}

impl Material {
    fn open(bundle: &Bundle) -> Result<Self> {
        let photo = image::load_from_memory(PHOTO).context("the built-in photo")?.into_rgb8();
        let photo = imageops::resize(&photo, SIZE.0, SIZE.1, imageops::FilterType::CatmullRom);
        let jpeg = encode_jpeg(&photo, SIZE.0 as usize, SIZE.1 as usize, QUALITY)?;
        let format = format!("i420:{}x{}", SIZE.0, SIZE.1).parse()?;
        let raw = Raw::new(format, i420(&photo)).context("a frame of another size")?;
        let task = bundle.tasks().first().context("the bundle has no task")?;
        Ok(Material {
            geometry: GeometryId(u8::try_from(task.geometry)?),
            level: LevelId(u8::try_from(bundle.default_level())?),
            view: bundle.geometries()[task.geometry].clone(),
            jpeg,
            raw,
            net: Net::open(bundle)?,
            tables: Tables::parse(&bundle.read(bundle.tables())?)?,
        })
    }

    /// Every stage with what it needs; the first run of each makes what the next one reads.
    fn stages(&self) -> Result<Vec<(&'static str, Stage<'_>)>> {
        let view = std::slice::from_ref(&self.view);
        let (mut planes, mut input) = (Planes::default(), Vec::new());
        JpegDecoder::default().decode(&self.jpeg, view, &mut planes)?;
        Converter::default().fit(&planes, &self.view, &mut input);
        let feature = self.net.run(self.geometry, self.level, &input)?;
        let (mut fitter, mut pixels) = (Fitter::default(), Vec::new());
        let jpeg_image = move || {
            fitter.fit(&decode(&self.jpeg)?, &self.view, &mut pixels);
            Ok(())
        };
        let (mut decoder, mut of_jpeg) = (JpegDecoder::default(), Planes::default());
        let jpeg_planes = move || Ok(decoder.decode(&self.jpeg, view, &mut of_jpeg)?);
        let (mut fitter, mut pixels) = (Fitter::default(), Vec::new());
        let raw_image = move || {
            let image = RgbImage::from_raw(SIZE.0, SIZE.1, self.raw.to_rgb()?);
            fitter.fit(&image.context("three bytes a pixel")?, &self.view, &mut pixels);
            Ok(())
        };
        let mut of_raw = Planes::default();
        let raw_planes = move || {
            of_raw.set_raw(&self.raw, view);
            Ok(())
        };
        let (mut converter, mut pixels) = (Converter::default(), Vec::new());
        let to_input = move || {
            converter.fit(&planes, &self.view, &mut pixels);
            Ok(())
        };
        let network = move || {
            black_box(self.net.run(self.geometry, self.level, &input)?);
            Ok(())
        };
        let (mut encoder, mut packet) = (Encoder::new(), Vec::new());
        let coder = move || {
            packet.clear();
            encoder.encode(&self.tables, self.geometry, self.level, CODING, &feature, &mut packet)?;
            Ok(())
        };
        Ok(vec![
            (JPEG_IMAGE, Box::new(jpeg_image) as Stage<'_>),
            (JPEG_PLANES, Box::new(jpeg_planes)),
            (RAW_IMAGE, Box::new(raw_image)),
            (RAW_PLANES, Box::new(raw_planes)),
            (INPUT, Box::new(to_input)),
            (NETWORK, Box::new(network)),
            (CODER, Box::new(coder)),
        ])
    }

    /// Network and coder on an input.
    fn finish(&self, encoder: &mut Encoder, input: &[u8], packet: &mut Vec<u8>) -> Result<()> {
        let feature = self.net.run(self.geometry, self.level, input)?;
        packet.clear();
        encoder.encode(&self.tables, self.geometry, self.level, CODING, &feature, packet)?;
        Ok(())
    }

    /// Frames a second by way of an image, with all of the work on one thread.
    fn one_thread(&self) -> Result<f64> {
        let (mut fitter, mut input) = (Fitter::default(), Vec::new());
        let (mut encoder, mut packet) = (Encoder::new(), Vec::new());
        let (begin, mut frames) = (Instant::now(), 0u32);
        while begin.elapsed() < LASTING {
            fitter.fit(&decode(&self.jpeg)?, &self.view, &mut input);
            self.finish(&mut encoder, &input, &mut packet)?;
            frames += 1;
        }
        Ok(f64::from(frames) / begin.elapsed().as_secs_f64())
    }

    /// Frames a second by way of planes, decoded on one thread while the other works on the frame before.
    fn two_threads(&self) -> Result<f64> {
        let view = std::slice::from_ref(&self.view);
        // One decoded frame waits; its planes come back to be used again.
        let (decoded_in, decoded) = sync_channel::<Planes>(1);
        let (used_in, used) = sync_channel::<Planes>(3);
        for _ in 0..3 {
            used_in.send(Planes::default())?;
        }
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut decoder = JpegDecoder::default();
                for mut planes in used {
                    if decoder.decode(&self.jpeg, view, &mut planes).is_err()
                        || decoded_in.send(planes).is_err()
                    {
                        return;
                    }
                }
            });
            let (mut converter, mut input) = (Converter::default(), Vec::new());
            let (mut encoder, mut packet) = (Encoder::new(), Vec::new());
            let (begin, mut frames) = (Instant::now(), 0u32);
            while begin.elapsed() < LASTING {
                let planes = decoded.recv()?;
                converter.fit(&planes, &self.view, &mut input);
                used_in.send(planes)?;
                self.finish(&mut encoder, &input, &mut packet)?;
                frames += 1;
            }
            let rate = f64::from(frames) / begin.elapsed().as_secs_f64();
            // The other thread ends when nobody takes its frames and none comes back.
            drop((decoded, used_in));
            Ok(rate)
        })
    }
}

impl Frame {
    /// Measures every stage, prints the table and writes the report.
    ///
    /// # Errors
    /// When the bundle cannot be used, instructions cannot be counted, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        let bundle = Bundle::open(&self.bundle, Parts::Head)?;
        let material = Material::open(&bundle)?;
        let mut stages = material.stages()?;
        if let Some(times) = self.marked {
            let stages = stages.iter_mut().map(|(name, stage)| (*name, &mut **stage as _));
            return instructions::run_marked(stages, times);
        }
        let names: Vec<&str> = stages.iter().map(|(name, _)| *name).collect();
        let mut comparison = Interleaved::default();
        stages.into_iter().for_each(|(name, stage)| comparison.add(name, stage));
        let rows = comparison.run(self.rounds as usize)?;
        let instructions = self.instructions.then(|| instructions::count(&self.bundle, names.len()));
        let instructions = instructions.transpose()?;
        let agreement = (!self.photos.is_empty()).then(|| agreement::measure(&bundle, &self.photos));
        let count = |stages: &[&str]| {
            let all = instructions.as_ref()?.iter().zip(&names);
            Some(all.filter(|(_, name)| stages.contains(name)).map(|(count, _)| count).sum())
        };
        let time = |stages: &[&str]| {
            stages.iter().map(|name| median(&rows, name)).sum::<Result<f64>>().map(|seconds| seconds * 1e3)
        };
        let way = |frame, image: &str, planes: &str| {
            let (image, planes) = ([image, NETWORK, CODER], [planes, INPUT, NETWORK, CODER]);
            anyhow::Ok(Way {
                frame,
                image_ms: time(&image)?,
                planes_ms: time(&planes)?,
                image_instructions: count(&image),
                planes_instructions: count(&planes),
            })
        };
        let frames = vec![way("JPEG", JPEG_IMAGE, JPEG_PLANES)?, way("I420", RAW_IMAGE, RAW_PLANES)?];
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: bundle.digest().to_string(),
            processor: machine::processor(),
            features: narrows_int8::features(),
            jpeg_bytes: material.jpeg.len(),
            instructions,
            frames,
            sustained: [material.one_thread()?, material.two_threads()?],
            agreement: agreement.transpose()?,
            rows,
        };
        report.print(self.rounds);
        json::write(self.json.as_deref(), &report)
    }
}

impl Report {
    fn print(&self, rounds: u32) {
        println!("{}, one thread, {rounds} rounds; bundle {}", self.processor, self.bundle);
        println!("features {}", self.features.join(" "));
        println!("a frame of {}×{}: a JPEG of {} bytes, or I420\n", SIZE.0, SIZE.1, self.jpeg_bytes);
        println!("{:44}   median      p95      min", "ms");
        self.rows.iter().for_each(|row| row.print(1e3));
        if let Some(instructions) = &self.instructions {
            println!("\n{:44}   on AVX2", "million instructions");
            for (row, &count) in self.rows.iter().zip(instructions) {
                println!("  {:42} {:8.2}", row.name, count as f64 / 1e6);
            }
        }
        println!("\n{:44}   by image  by planes    ratio", "from its bytes to the packet");
        let line = |name: &str, [image, planes]: [f64; 2]| {
            println!("  {name:42} {image:10.3} {planes:10.3} {:8.3}", planes / image);
        };
        for way in &self.frames {
            line(&format!("{}, ms", way.frame), [way.image_ms, way.planes_ms]);
            if let Some((image, planes)) = way.image_instructions.zip(way.planes_instructions) {
                let counts = [image, planes].map(|count| count as f64 / 1e6);
                line(&format!("{}, million instructions", way.frame), counts);
            }
        }
        println!("\n{:44}   one thread, by image   two, by planes    ratio", "frames a second");
        let [one, two] = self.sustained;
        println!("  {:42} {one:22.1} {two:16.1} {:8.2}", "JPEG, for three seconds", two / one);
        if let Some(agreement) = &self.agreement {
            agreement.print();
        }
    }
}

/// A photo as I420 in the limited range of BT.601.
fn i420(photo: &RgbImage) -> Vec<u8> {
    let (width, height) = photo.dimensions();
    let yuv = |x: u32, y: u32| {
        let [r, g, b] = photo.get_pixel(x, y).0.map(f64::from);
        let luma = 0.299 * r + 0.587 * g + 0.114 * b;
        [luma, (b - luma) / 1.772, (r - luma) / 1.402]
    };
    let positions = |step: usize| {
        (0..height).step_by(step).flat_map(move |y| (0..width).step_by(step).map(move |x| (x, y)))
    };
    let mut bytes: Vec<u8> = positions(1).map(|(x, y)| (16.5 + yuv(x, y)[0] * 219.0 / 255.0) as u8).collect();
    for colour in [1, 2] {
        bytes.extend(positions(2).map(|(x, y)| {
            let four = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| yuv(x + i, y + j)[colour]);
            (128.5 + four.iter().sum::<f64>() / 4.0 * 224.0 / 255.0) as u8
        }));
    }
    bytes
}
