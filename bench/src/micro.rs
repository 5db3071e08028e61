//! `narrows-bench micro`: speed of the int8 networks and of other implementations on one thread, interleaved in one run.

mod lite0;
mod onnx;
mod twin;

use std::{
    hint::black_box,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use image::{RgbImage, imageops};
use narrows_codec::{GeometryId, LevelId};
use narrows_eval::pipeline::encode_jpeg;
use narrows_head::{
    image::fit,
    net::{HeadGraph, LocalNet, Net},
};
use narrows_int8::Isa;
use narrows_models::{Bundle, Parts};
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::{Array4, ArrayView4};
use serde::Serialize;

use self::onnx::{INPUT, OUTPUT};
use crate::{
    interleaved::{Interleaved, Row, median},
    json, machine,
};

/// The photo that all candidates read.
const PHOTO: &[u8] = include_bytes!("../photos/road/street.jpg");
/// Quality of the JPEG encoder.
const QUALITY: u8 = 75;

pub(crate) const HEAD: &str = "head, int8";
const PORTABLE: &str = "head, int8, portable kernels";
pub(crate) const HEAD_ORT: &str = "head, ONNX Runtime f32";
const UNSPLIT: &str = "unsplit network, ONNX Runtime f32";
pub(crate) const LOCAL: &str = "local network, int8";
pub(crate) const LOCAL_ORT: &str = "local network, ONNX Runtime int8";
pub(crate) const LITE0_ORT: &str = "EfficientNet-Lite0, ONNX Runtime f32";
const JPEG_SMALL: &str = "JPEG of 224x224, quality 75";
const JPEG_LARGE: &str = "JPEG of 640x480, quality 75";

/// Candidates whose medians are stated as a ratio.
pub(crate) const RATIOS: [[&str; 2]; 7] = [
    [HEAD, HEAD_ORT],
    [HEAD, PORTABLE],
    [HEAD, UNSPLIT],
    [HEAD, JPEG_SMALL],
    [HEAD, JPEG_LARGE],
    [LOCAL, LITE0_ORT],
    [LOCAL, LOCAL_ORT],
];

/// Which bundle to measure, and how thoroughly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  narrows-bench micro --bundle models/bundles/lite2 --json micro.json")]
pub struct Micro {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Rounds, in each of which every candidate runs; five more come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Kernels of the int8 networks: portable, avx2, avx-vnni, avx512-vnni, neon or neon-dot [default: the fastest here]
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<Isa>,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Run every candidate so often between marks, and nothing else
    #[arg(long, hide = true)]
    pub marked: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    /// Instruction sets of the processor that matter here.
    features: Vec<&'static str>,
    /// Kernels of the int8 networks.
    kernel: &'static str,
    onnx_runtime: String,
    rows: Vec<Row>,
    /// Mean distance between the latent of the f32 head and the symbols of the int8 one, in symbols.
    f32_difference: f64,
    /// Two candidates, and the first one's median over the other's.
    ratios: Vec<(&'static str, &'static str, f64)>,
}

/// The f32 networks as ONNX files: that of the head, and where the bundle has one that of the local network.
pub(crate) fn f32_files(bundle: &Bundle) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let task = bundle.tasks().first().context("the bundle has no task")?;
    let spec = &bundle.geometries()[task.geometry];
    let graph = HeadGraph::parse(&bundle.read(&bundle.head().file)?)?;
    let mut files = vec![("head", twin::onnx(&graph, spec.height, spec.width)?)];
    let is_lite0 = bundle.local().is_some_and(|spec| spec.backbone == lite0::NAME);
    files.extend(is_lite0.then(|| (lite0::NAME, lite0::onnx().0)));
    Ok(files)
}

impl Micro {
    /// Runs every candidate, prints the table and writes the report.
    ///
    /// # Errors
    /// When the bundle or the runtime cannot be used, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        let isa = self.kernel.unwrap_or_else(Isa::detect);
        ensure!(
            isa.is_supported(),
            "--kernel {isa}: this processor does not run it; it has {}",
            narrows_int8::features().join(" ")
        );
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let runtime = Runtime::open(self.runtime.as_deref())?;
        let Some((rows, f32_difference)) = self.measure(&bundle, &runtime, isa)? else { return Ok(()) };
        let ratio = |[ours, other]: [&'static str; 2]| {
            Some((ours, other, median(&rows, ours).ok()? / median(&rows, other).ok()?))
        };
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: bundle.digest().to_string(),
            processor: machine::processor(),
            features: narrows_int8::features(),
            kernel: isa.name(),
            onnx_runtime: runtime.version(),
            f32_difference,
            ratios: RATIOS.into_iter().filter_map(ratio).collect(),
            rows,
        };
        println!("{}, one thread, {} rounds; bundle {}", report.processor, self.rounds, report.bundle);
        println!("features {}; kernels {}", report.features.join(" "), report.kernel);
        println!("\n{:44}   median      p95      min        GMAC/s", "ms");
        report.rows.iter().for_each(|row| row.print(1e3));
        println!(
            "  the latent of the f32 head is {f32_difference:.2} symbols from that of the int8 one, in the mean"
        );
        for (ours, other, ratio) in &report.ratios {
            println!("  {:60} {ratio:7.3}", format!("{ours} / {other}"));
        }
        json::write(self.json.as_deref(), &report)
    }

    /// Times the networks that the bundle has, and the encoder; the second value is [`Report::f32_difference`]. `None` where they
    /// are run between marks alone.
    fn measure(&self, bundle: &Bundle, runtime: &Runtime, isa: Isa) -> Result<Option<(Vec<Row>, f64)>> {
        let photo = image::load_from_memory(PHOTO).context("the built-in photo")?.into_rgb8();
        let task = bundle.tasks().first().context("the bundle has no task")?;
        let geometry = GeometryId(u8::try_from(task.geometry)?);
        let level = LevelId(u8::try_from(bundle.default_level())?);
        let spec = &bundle.geometries()[geometry.index()];
        let pixels = fit(&photo, spec);
        let (net, portable) = (Net::with_isa(bundle, isa)?, Net::with_isa(bundle, Isa::Portable)?);
        let macs = net.macs(geometry)?;
        let view = ArrayView4::from_shape((1, spec.height, spec.width, 3), &pixels)?;
        let graph = HeadGraph::parse(&bundle.read(&bundle.head().file)?)?;
        let f32_file = twin::onnx(&graph, spec.height, spec.width)?;
        let written =
            |name: &str, onnx: &[u8]| Session::from_bytes(runtime, Path::new(name), onnx, Device::Cpu, 1);
        let mut f32_head = written(HEAD_ORT, &f32_file)?;
        let f32_difference = difference(&net, &graph, &mut f32_head, geometry, &pixels, view)?;
        ensure!(
            f32_difference < 1.5,
            "the f32 head is {f32_difference:.2} symbols off: it is not the same network"
        );
        let open = |part: &str| Session::open(runtime, &bundle.path(part), Device::Cpu, 1);

        // The file of the local network holds standard operators, which both implementations run as they are.
        let local = bundle.local().map(|spec| (spec, fit(&photo, &spec.geometry)));

        let mut comparison = Interleaved::default();
        for (name, net) in [(HEAD, &net), (PORTABLE, &portable)] {
            comparison.add_network(name, macs, || {
                black_box(net.run(geometry, level, &pixels)?);
                Ok(())
            });
        }
        comparison.add_network(HEAD_ORT, macs, || run(&mut f32_head, INPUT, OUTPUT, view));
        if let Some(reference) = &task.reference {
            let mut session = open(&reference.file)?;
            comparison.add(UNSPLIT, move || run(&mut session, &reference.input, &reference.output, view));
        }
        if let Some((spec, pixels)) = &local {
            let (net, mut session) = (LocalNet::with_isa(bundle, spec, isa)?, open(&spec.file)?);
            let size = (1, spec.geometry.height, spec.geometry.width, 3);
            let view = ArrayView4::from_shape(size, pixels)?;
            comparison.add_network(LOCAL, net.macs(), move || {
                black_box(net.run(pixels)?);
                Ok(())
            });
            let name = LOCAL_ORT;
            comparison
                .add_network(name, spec.macs, move || run(&mut session, &spec.input, &spec.output, view));
            if spec.backbone == lite0::NAME {
                let (onnx, macs) = lite0::onnx();
                let mut session = written(lite0::NAME, &onnx)?;
                let photo =
                    imageops::resize(&photo, lite0::SIDE, lite0::SIDE, imageops::FilterType::CatmullRom);
                let side = lite0::SIDE as usize;
                let photo = Array4::from_shape_vec((1, side, side, 3), photo.into_raw())?;
                comparison
                    .add_network(LITE0_ORT, macs, move || run(&mut session, INPUT, OUTPUT, photo.view()));
            }
        }
        for (name, width, height) in [(JPEG_SMALL, 224, 224), (JPEG_LARGE, 640, 480)] {
            let image = imageops::resize(&photo, width, height, imageops::FilterType::CatmullRom);
            comparison.add(name, move || jpeg(&image));
        }
        if let Some(times) = self.marked {
            comparison.run_marked(times)?;
            return Ok(None);
        }
        Ok(Some((comparison.run(self.rounds as usize)?, f32_difference)))
    }
}

fn run(session: &mut Session, input: &str, output: &str, pixels: ArrayView4<'_, u8>) -> Result<()> {
    black_box(session.run_to(&[(input, Input::U8(pixels.into_dyn()))], output)?);
    Ok(())
}

fn jpeg(image: &RgbImage) -> Result<()> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    black_box(encode_jpeg(image, width, height, QUALITY)?);
    Ok(())
}

/// The mean distance between the latent of the f32 head and the symbols of the int8 head at the finest level, in symbols.
fn difference(
    net: &Net,
    graph: &HeadGraph,
    f32_head: &mut Session,
    geometry: GeometryId,
    pixels: &[u8],
    view: ArrayView4<'_, u8>,
) -> Result<f64> {
    let feature = net.run(geometry, LevelId(0), pixels)?;
    let latent = f32_head.run(&[(INPUT, Input::U8(view.into_dyn()))], OUTPUT)?;
    let scale = graph.layers.last().context("a head without layers")?.y_scale;
    ensure!(latent.len() == feature.symbols().len(), "the f32 head has another shape");
    let distances =
        feature.symbols().iter().zip(latent.iter()).map(|(&symbol, &value)| {
            f64::from((f32::from(symbol) - (value / scale).clamp(-128.0, 127.0)).abs())
        });
    Ok(distances.sum::<f64>() / latent.len() as f64)
}
