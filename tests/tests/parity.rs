//! The test vectors of the shipped bundle: integers and packets agree bit for bit, outputs within a tolerance.

use anyhow::{Context, Result, ensure};
use narrows_codec::{Choice, Feature, GeometryId, LevelId, Mode, Shape, Tables, decode, encode};
use narrows_head::net::{LocalNet, Net};
use narrows_models::{Bundle, Parts, TaskKind, Vector};
use narrows_tail::engine::{Device, Input, Runtime, Session};
use narrows_tests::{bundle, runtime};
use ndarray::{Array1, Array4, Axis, Slice};

/// BUNDLE.md, section 8: outputs agree within `TOLERANCE + TOLERANCE * |value|`.
const TOLERANCE: f32 = 1e-2;

fn open() -> Result<Bundle> {
    let bundle = Bundle::open(bundle(), Parts::All)?;
    ensure!(!bundle.vectors().is_empty(), "the bundle has no vectors");
    Ok(bundle)
}

fn shapes(bundle: &Bundle) -> Result<Vec<Shape>> {
    let shape = |geometry: &narrows_models::Geometry| {
        let (height, width) = geometry.latent(bundle.head().stride);
        Ok(Shape::new(bundle.head().channels, height, width)?)
    };
    bundle.geometries().iter().map(shape).collect()
}

/// The symbols that the exporter's integer reference computed from a vector's image.
fn expected(bundle: &Bundle, vector: &Vector) -> Result<Feature> {
    let symbols = bundle.read(&vector.symbols)?.into_iter().map(|byte| i16::from(byte as i8)).collect();
    Ok(Feature::new(shapes(bundle)?[vector.geometry], symbols)?)
}

#[test]
fn the_head_gives_the_exporters_integers_on_every_kernel() -> Result<()> {
    let bundle = open()?;
    let kernels: Vec<_> = narrows_int8::Isa::ALL.into_iter().filter(|isa| isa.is_supported()).collect();
    assert!(!kernels.is_empty());
    for isa in kernels {
        let net = Net::with_isa(&bundle, isa)?;
        for vector in bundle.vectors() {
            let pixels = image::load_from_memory(&bundle.read(&vector.image)?)?.into_rgb8().into_raw();
            let (geometry, level) =
                (GeometryId(u8::try_from(vector.geometry)?), LevelId(u8::try_from(vector.level)?));
            let feature = net.run(geometry, level, &pixels)?;
            assert_eq!(feature, expected(&bundle, vector)?, "{} on {isa:?}", vector.name);
        }
    }
    Ok(())
}

#[test]
fn the_local_network_gives_the_exporters_scores_on_every_kernel() -> Result<()> {
    let bundle = open()?;
    let local = bundle.local().context("the shipped bundle has a local network")?;
    ensure!(!local.vectors.is_empty(), "the local network has no vectors");
    for isa in narrows_int8::Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let net = LocalNet::with_isa(&bundle, local, isa)?;
        assert_eq!(net.macs(), local.macs);
        for vector in &local.vectors {
            let pixels = image::load_from_memory(&bundle.read(&vector.image)?)?.into_rgb8().into_raw();
            let found: Vec<u8> = net.run(&pixels)?.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            assert!(found == bundle.read(&vector.logits)?, "{} on {isa:?}", vector.name);
        }
    }
    Ok(())
}

#[test]
fn vectors_cover_every_geometry_level_and_task() -> Result<()> {
    let bundle = open()?;
    let covers = |covered: &dyn Fn(&Vector) -> bool| bundle.vectors().iter().any(covered);
    for (index, geometry) in bundle.geometries().iter().enumerate() {
        assert!(covers(&|vector| vector.geometry == index), "no vector of geometry {}", geometry.name);
    }
    for level in 0..bundle.levels().len() {
        assert!(covers(&|vector| vector.level == level), "no vector of level {level}");
    }
    for (index, task) in bundle.tasks().iter().enumerate() {
        assert!(
            covers(&|vector| vector.outputs.iter().any(|output| output.task == index)),
            "none of {}",
            task.name
        );
    }
    Ok(())
}

#[test]
fn packets_equal_the_golden_bytes_and_decode_to_the_symbols() -> Result<()> {
    let bundle = open()?;
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let shapes = shapes(&bundle)?;
    for vector in bundle.vectors() {
        let (feature, golden) = (expected(&bundle, vector)?, bundle.read(&vector.packet)?);
        let mut packet = Vec::new();
        let (geometry, level) =
            (GeometryId(u8::try_from(vector.geometry)?), LevelId(u8::try_from(vector.level)?));
        encode(&tables, geometry, level, Choice::Only(Mode::Static), &feature, &mut packet)?;
        assert!(packet == golden, "{}: the packet differs from the golden bytes", vector.name);
        let decoded = decode(&tables, &shapes, &golden)?;
        assert_eq!((decoded.geometry, decoded.level), (geometry, level), "{}", vector.name);
        assert_eq!(decoded.feature, feature, "{}", vector.name);
    }
    Ok(())
}

#[test]
fn tails_agree_with_pytorch_within_the_tolerance() -> Result<()> {
    let bundle = open()?;
    let runtime = Runtime::open(Some(&runtime()))?;
    for (index, task) in bundle.tasks().iter().enumerate() {
        let mut session = Session::open(&runtime, &bundle.path(&task.tail), Device::Cpu, 2)?;
        for vector in bundle.vectors() {
            let Some(output) = vector.outputs.iter().find(|output| output.task == index) else { continue };
            let feature = expected(&bundle, vector)?;
            let (shape, step) = (feature.shape(), bundle.levels()[vector.level].step);
            let latent = feature.symbols().iter().map(|&symbol| f32::from(symbol) * step).collect();
            let latent =
                Array4::from_shape_vec((1, shape.channels(), shape.height(), shape.width()), latent)?;
            let step = Array1::from_elem(1, step);
            let inputs = [
                (task.latent.as_str(), Input::F32(latent.view().into_dyn())),
                (task.step.as_str(), Input::F32(step.view().into_dyn())),
            ];
            let mut found = session.run(&inputs, &task.output)?;
            if task.kind == TaskKind::Segment {
                for axis in [2, 3] {
                    let stride = output.stride as isize;
                    let slice = Slice::new(stride / 2, None, stride);
                    found = found.slice_axis(Axis(axis), slice).to_owned();
                }
            }
            let wanted = bundle.read(&output.file)?;
            let (wanted, rest) = wanted.as_chunks::<4>();
            ensure!(rest.is_empty() && wanted.len() == found.len(), "{} has another size", output.file);
            for (place, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                let wanted = f32::from_le_bytes(*wanted);
                let off = (found - wanted).abs();
                assert!(
                    off <= TOLERANCE + TOLERANCE * wanted.abs(),
                    "{} at {place}: {found}, {wanted}",
                    output.file
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_head_is_as_small_as_the_manifest_says() -> Result<()> {
    let bundle = open()?;
    let macs = Net::open(&bundle)?.macs(GeometryId(0)).context("geometry 0")?;
    assert_eq!(macs, bundle.head().macs);
    assert!(macs <= 30_000_000, "{macs} multiply-accumulates");
    Ok(())
}
