//! What the unsplit network answers to the same pixels, beside the answer of the split one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufReader,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_models::{
    Bundle, TaskKind,
    image::{decode, fit},
};
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::ArrayView4;
use serde::Serialize;

use crate::answer::Answer;

/// Quality of the JPEG whose size stands beside the packet's.
const QUALITY: u8 = 75;

/// Threads of one run: enough to be quick, and they leave a small machine its other cores.
const THREADS: usize = 2;

/// How an answer compares with the unsplit network's.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Comparison {
    /// Of a classified photo.
    Classify {
        label: String,
        probability: f32,
        same_top1: bool,
        /// Size of the network's input as a JPEG of quality 75.
        jpeg75_bytes: usize,
    },
    /// Of a segmented photo.
    Segment {
        /// Share of pixels with the same class, 0 to 1.
        same_pixels: f64,
        /// Size of the network's input as a JPEG of quality 75.
        jpeg75_bytes: usize,
    },
}

/// The unsplit networks of a bundle, each opened when it is first needed.
pub(crate) struct Unsplit {
    runtime: Runtime,
    sessions: BTreeMap<usize, Session>,
}

impl Unsplit {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Unsplit { runtime, sessions: BTreeMap::new() }
    }

    /// Compares an answer to task number `task`; none where there is nothing to compare.
    pub(crate) fn compare(
        &mut self,
        bundle: &Bundle,
        task: usize,
        answer: &Answer,
    ) -> Result<Option<Comparison>> {
        let (spec, true) = (&bundle.tasks()[task], answer.is_answered()) else { return Ok(None) };
        let Some(reference) = &spec.reference else { return Ok(None) };
        let geometry = bundle.geometries().iter().find(|geometry| geometry.name == answer.geometry);
        let geometry = geometry.context("the head named a geometry that the bundle does not have")?;
        let file = fs::read(&answer.file).with_context(|| answer.file.display().to_string())?;
        let pixels = fit(&decode(&file)?, geometry);
        let session = match self.sessions.entry(task) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(Session::from_bytes(
                &self.runtime,
                &bundle.path(&reference.file),
                &bundle.read(&reference.file)?,
                Device::Cpu,
                THREADS,
            )?),
        };
        let input = ArrayView4::from_shape((1, geometry.height, geometry.width, 3), &pixels)?;
        let logits = session.run(&[(&reference.input, Input::U8(input.into_dyn()))], &reference.output)?;
        let logits = logits.into_raw_vec_and_offset().0;
        let jpeg75_bytes = jpeg(&pixels, geometry.width, geometry.height)?;
        Ok(match spec.kind {
            TaskKind::Classify => {
                let best = argmax(logits.iter().copied());
                let found = answer.classify.as_ref().and_then(|classes| classes.first());
                Some(Comparison::Classify {
                    label: spec.labels[best].name.clone(),
                    probability: 1.0 / logits.iter().map(|logit| (logit - logits[best]).exp()).sum::<f32>(),
                    same_top1: found.is_some_and(|class| usize::from(class.index) == best),
                    jpeg75_bytes,
                })
            }
            TaskKind::Segment => {
                let Some(mask) = answer.segment.as_ref().and_then(|mask| mask.mask.as_deref()) else {
                    return Ok(None);
                };
                let mask = indices(mask)?;
                let area = logits.len() / spec.labels.len();
                ensure!(mask.len() == area, "the mask has {} pixels, the network answers {area}", mask.len());
                let class = |pixel: usize| argmax(logits.iter().skip(pixel).step_by(area).copied());
                let same =
                    mask.iter().enumerate().filter(|(pixel, found)| class(*pixel) == usize::from(**found));
                Some(Comparison::Segment { same_pixels: same.count() as f64 / area as f64, jpeg75_bytes })
            }
        })
    }
}

/// The index of the largest value, the first of equal ones.
fn argmax(values: impl Iterator<Item = f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// The palette indices of a PNG, one byte a pixel.
fn indices(path: &Path) -> Result<Vec<u8>> {
    let named = || path.display().to_string();
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).with_context(named)?))
        .read_info()
        .with_context(named)?;
    let mut pixels = vec![0; reader.output_buffer_size().with_context(named)?];
    let frame = reader.next_frame(&mut pixels).with_context(named)?;
    ensure!(
        frame.bit_depth == png::BitDepth::Eight,
        "{}: {:?} bits a pixel",
        path.display(),
        frame.bit_depth
    );
    pixels.truncate(frame.buffer_size());
    Ok(pixels)
}

/// The size of `pixels`, u8 RGB row by row, as a JPEG with halved colour planes.
fn jpeg(pixels: &[u8], width: usize, height: usize) -> Result<usize> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(pixels, u16::try_from(width)?, u16::try_from(height)?, ColorType::Rgb)?;
    Ok(file.len())
}
