//! The int8 head compared with the same network in f32, with whole networks and with JPEG encoders.

use std::{hint::black_box, path::Path};

use anyhow::{Context, Result, ensure};
use image::{RgbImage, imageops};
use narrows_codec::{GeometryId, LevelId};
use narrows_eval::{
    lite0,
    onnx::{INPUT, OUTPUT},
    pipeline::encode_jpeg,
};
use narrows_head::net::{HeadGraph, LocalNet, Net};
use narrows_int8::Isa;
use narrows_models::Bundle;
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::{Array4, ArrayView4};
use serde::Serialize;
use tract_onnx::prelude::*;

use super::twin;
use crate::interleaved::{Interleaved, Row, median};

/// The photo that all candidates read.
const PHOTO: &[u8] = include_bytes!("../../photos/road/street.jpg");
/// Quality of the JPEG encoders.
const QUALITY: u8 = 75;

#[derive(Debug, Serialize)]
pub(super) struct Head {
    geometry: String,
    pub(super) rows: Vec<Row>,
    /// Mean distance between the f32 network's latent and the int8 head's symbols, in symbols.
    pub(super) twin_difference: f64,
    pub(super) to_tract_f32: f64,
    pub(super) to_ort_f32: f64,
    pub(super) to_lite0_ort_f32: f64,
    /// The bundle's local network in int8 over EfficientNet-Lite0 in f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) local_to_lite0_ort_f32: Option<f64>,
    pub(super) to_jpeg_224: f64,
    pub(super) to_jpeg_640x480: f64,
}

const OURS: &str = "head, int8";
const TRACT: &str = "head, tract f32";
const ORT: &str = "head, ONNX Runtime f32";
const LITE0: &str = "EfficientNet-Lite0 whole, ONNX Runtime f32";
const LOCAL: &str = "whole Lite0 int8 local";
const JPEG_SMALL: &str = "JPEG of 224x224, quality 75";
const JPEG_LARGE: &str = "JPEG of 640x480, quality 75";

pub(super) fn measure(bundle: &Bundle, runtime: &Runtime, rounds: usize) -> Result<Head> {
    let photo = image::load_from_memory(PHOTO).context("the built-in photo")?.into_rgb8();
    let classify = bundle.tasks().first().context("the bundle has no task")?;
    let geometry = GeometryId(u8::try_from(classify.geometry)?);
    let spec = &bundle.geometries()[geometry.index()];
    let (height, width) = (spec.height, spec.width);
    let pixels = narrows_head::image::fit(&photo, spec);
    let view = ArrayView4::from_shape((1, height, width, 3), &pixels)?;

    let net = Net::open(bundle)?;
    let plain = Net::with_isa(bundle, Isa::Portable)?;
    let chain = HeadGraph::parse(&bundle.read(&bundle.head().file)?)?;
    let float = twin::onnx(&chain, height, width)?;
    let folder = tempfile::tempdir()?;
    let session = |name: &str, bytes: &[u8]| -> Result<Session> {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(Session::open(runtime, &path, Device::Cpu, 1)?)
    };
    let mut ort = session("head-f32.onnx", &float)?;
    let twin_difference = difference(&net, &chain, &mut ort, geometry, &pixels, view)?;
    ensure!(
        twin_difference < 1.5,
        "the f32 network is {twin_difference:.2} symbols off: it is not the same network"
    );

    let tract = tract_onnx::onnx()
        .model_for_read(&mut &*float)
        .and_then(|model| model.with_input_fact(0, u8::fact([1, height, width, 3]).into()))
        .and_then(|model| model.into_optimized()?.into_runnable());
    let tract = tract.map_err(|error| anyhow::anyhow!("{error:#}")).context(TRACT)?;
    let (bytes, lite0_macs) = lite0::onnx();
    let mut whole = session("lite0.onnx", &bytes)?;
    let side = lite0::SIDE;
    let crop = imageops::resize(&photo, side as u32, side as u32, imageops::FilterType::CatmullRom);
    let small = Array4::from_shape_vec((1, side, side, 3), crop.as_raw().clone())?;
    let large = imageops::resize(&photo, 640, 480, imageops::FilterType::CatmullRom);

    let local = bundle.local().map(|spec| {
        let pixels = narrows_head::image::fit(&photo, &spec.geometry);
        anyhow::Ok((LocalNet::open(bundle, spec)?, pixels))
    });
    let local = local.transpose()?;
    let macs = net.macs(geometry)?;
    let level = LevelId(u8::try_from(bundle.default_level())?);
    let mut comparison = Interleaved::default();
    comparison.add_network(OURS, macs, || {
        black_box(net.run(geometry, level, &pixels)?);
        Ok(())
    });
    comparison.add_network(TRACT, macs, || {
        let input = Tensor::from_shape(&[1, height, width, 3], &pixels);
        let output = input.and_then(|input| tract.run(tvec!(input.into_tvalue())));
        black_box(output.map_err(|error| anyhow::anyhow!("{error:#}"))?);
        Ok(())
    });
    comparison.add_network(ORT, macs, || run(&mut ort, INPUT, OUTPUT, view));
    comparison.add(JPEG_SMALL, || jpeg(&crop));
    comparison.add(JPEG_LARGE, || jpeg(&large));
    comparison.add_network("head, int8, portable kernels", macs, || {
        black_box(plain.run(geometry, level, &pixels)?);
        Ok(())
    });
    comparison.add_network(LITE0, lite0_macs, || run(&mut whole, INPUT, OUTPUT, small.view()));
    if let Some((net, pixels)) = &local {
        comparison.add_network(LOCAL, net.macs(), move || {
            black_box(net.run(pixels)?);
            Ok(())
        });
    }
    if let Some(reference) = &classify.reference {
        let path = bundle.path(&reference.file);
        let mut session = Session::open(runtime, Path::new(&path), Device::Cpu, 1)?;
        let name = format!("{} whole, ONNX Runtime f32", bundle.manifest().backbone());
        comparison.add(name, move || run(&mut session, &reference.input, &reference.output, view));
    }
    let rows = comparison.run(rounds)?;
    let ours = median(&rows, OURS)?;
    let ratio = |name| median(&rows, name).map(|other| ours / other);
    Ok(Head {
        geometry: spec.name.clone(),
        twin_difference,
        to_tract_f32: ratio(TRACT)?,
        to_ort_f32: ratio(ORT)?,
        to_lite0_ort_f32: ratio(LITE0)?,
        local_to_lite0_ort_f32: match local {
            Some(_) => Some(median(&rows, LOCAL)? / median(&rows, LITE0)?),
            None => None,
        },
        to_jpeg_224: ratio(JPEG_SMALL)?,
        to_jpeg_640x480: ratio(JPEG_LARGE)?,
        rows,
    })
}

fn run(session: &mut Session, input: &str, output: &str, pixels: ArrayView4<'_, u8>) -> Result<()> {
    let output = session.run_to(&[(input, Input::U8(pixels.into_dyn()))], output)?;
    black_box(output);
    Ok(())
}

fn jpeg(image: &RgbImage) -> Result<()> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    black_box(encode_jpeg(image, width, height, QUALITY)?);
    Ok(())
}

/// Mean distance between the latent of the f32 network and the head's symbols at the finest level, in symbols.
fn difference(
    net: &Net,
    chain: &HeadGraph,
    twin: &mut Session,
    geometry: GeometryId,
    pixels: &[u8],
    view: ArrayView4<'_, u8>,
) -> Result<f64> {
    let feature = net.run(geometry, LevelId(0), pixels)?;
    let latent = twin.run(&[(INPUT, Input::U8(view.into_dyn()))], OUTPUT)?;
    let scale = chain.layers.last().context("a head without layers")?.y_scale;
    ensure!(latent.len() == feature.symbols().len(), "the f32 network has another shape");
    let off = |(&symbol, &value): (&i16, &f32)| {
        f64::from((f32::from(symbol) - (value / scale).clamp(-128.0, 127.0)).abs())
    };
    Ok(feature.symbols().iter().zip(latent.iter()).map(off).sum::<f64>() / latent.len() as f64)
}
