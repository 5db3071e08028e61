//! The self-test of a network before it serves: a split network must compute the output of a test vector of its bundle, an
//! unsplit network an output of the right shape.
#![expect(clippy::disallowed_methods, reason = "a self-test reports its time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::{Feature, decode};
use narrows_models::{Bundle, Task, TaskKind, Vector};
use ndarray::{ArrayD, ArrayViewD, IxDyn, Slice};

use super::{
    bundle::OpenedBundle,
    error::{Error, chain},
    input::{Latent, ModelInput, QuantizedLatent, RgbImage},
    ort::{self, Output, Session},
};

/// The result of a network's self-test.
pub(super) struct Report {
    /// The vector's name, or `none` and the input that was used where the bundle has no vector.
    pub(super) vector: String,
    /// The time of a run.
    pub(super) took: Duration,
    /// The largest difference from the vector's output.
    pub(super) difference: f32,
}

/// Runs the split network of the task of this index on a test vector, and compares the outputs (models/BUNDLE.md
/// section 8). Where the bundle has no vector for the task, it runs on zeros and only the output's shape is checked.
///
/// # Errors
/// [`Error::Vector`] if the outputs differ, [`Error::Ort`] if the network does not fit the manifest or does not run.
pub(super) fn run_split(opened: &OpenedBundle, index: usize, session: &mut Session) -> Result<Report, Error> {
    let task = &opened.bundle.tasks()[index];
    session.check_tensors(&[&task.latent, &task.step], &task.output)?;
    let tested = opened.bundle.vectors().iter().find_map(|vector| {
        vector.outputs.iter().find(|output| output.task == index).map(|output| (vector, output))
    });
    let latent = match tested {
        Some((vector, _)) => QuantizedLatent {
            latent: Latent::Symbols(Arc::new(symbols(opened, vector)?)),
            step: opened.bundle.levels()[vector.level].step,
        },
        None => QuantizedLatent::blank(opened, task.geometry),
    };
    let (output, took) = timed(task, session, &latent)?;
    let geometry = tested.map_or(task.geometry, |(vector, _)| vector.geometry);
    check_shape(&opened.bundle, task, (&task.tail, geometry), output.view().shape())?;
    let Some((vector, expected)) = tested else {
        return Ok(Report { vector: "none: zeros".to_owned(), took, difference: 0.0 });
    };
    let wrong = |reason: String| Error::Vector {
        folder: opened.bundle.dir().to_owned(),
        vector: vector.name.clone(),
        reason,
    };
    let bytes = read(&opened.bundle, &expected.file)?;
    let found = sampled(output.view(), task.kind, expected.stride);
    let difference =
        compare(&found, &bytes).map_err(|reason| wrong(format!("task {}: {reason}", task.name)))?;
    Ok(Report { vector: vector.name.clone(), took, difference })
}

/// Runs the unsplit network of the task of this index, which has one, on a grey image, and checks the output's shape.
///
/// # Errors
/// [`Error::Ort`] if the network does not fit the manifest or does not run.
pub(super) fn run_unsplit(
    opened: &OpenedBundle,
    index: usize,
    session: &mut Session,
) -> Result<Report, Error> {
    let task = &opened.bundle.tasks()[index];
    let reference = task.reference.as_ref().expect("the caller found an unsplit network");
    session.check_tensors(&[&reference.input], &reference.output)?;
    let grey = RgbImage::blank(opened, task.geometry);
    let (output, took) = timed(task, session, &grey)?;
    check_shape(&opened.bundle, task, (&reference.file, task.geometry), output.view().shape())?;
    Ok(Report { vector: "none: grey".to_owned(), took, difference: 0.0 })
}

/// Runs a network twice and returns the second output and its time, since the first run allocates memory.
fn timed<I: ModelInput>(task: &Task, session: &mut Session, item: &I) -> Result<(Output, Duration), Error> {
    I::run(task, session, &[item])?;
    let began = Instant::now();
    let output = I::run(task, session, &[item])?;
    Ok((output, began.elapsed()))
}

/// The symbols of a vector. The vector's packet must decode to them.
fn symbols(opened: &OpenedBundle, vector: &Vector) -> Result<Feature, Error> {
    let wrong = |reason: String| Error::Vector {
        folder: opened.bundle.dir().to_owned(),
        vector: vector.name.clone(),
        reason,
    };
    let packet = read(&opened.bundle, &vector.packet)?;
    let packet = decode(&opened.tables, &opened.shapes, &packet).map_err(|error| wrong(chain(&error)))?;
    let symbols = read(&opened.bundle, &vector.symbols)?;
    let same = packet.feature.symbols().iter().eq(symbols
        .iter()
        .map(|&byte| i16::from(byte as i8))
        .collect::<Vec<_>>()
        .iter());
    let header = (packet.geometry.index(), packet.level.index());
    if header != (vector.geometry, vector.level) {
        return Err(wrong("the packet is of another geometry or level".into()));
    }
    if same { Ok(packet.feature) } else { Err(wrong("the packet decodes to other symbols".into())) }
}

fn check_shape(
    bundle: &Bundle,
    task: &Task,
    (part, geometry): (&str, usize),
    found: &[usize],
) -> Result<(), Error> {
    let geometry = &bundle.geometries()[geometry];
    let classes = task.labels.len();
    let expected = match task.kind {
        TaskKind::Classify => vec![1, classes],
        TaskKind::Segment => vec![1, classes, geometry.height, geometry.width],
    };
    if found == expected {
        return Ok(());
    }
    Err(Error::Ort(ort::Error::Tensor {
        model: bundle.path(part),
        tensor: task.output.clone(),
        reason: format!("its shape is {found:?}, the manifest says {expected:?}"),
    }))
}

/// The values of an output that a vector stores: all of them, or for kind `segment` those of every `stride`th pixel from
/// `stride / 2` on, in both directions.
fn sampled(output: ArrayViewD<'_, f32>, kind: TaskKind, stride: usize) -> ArrayD<f32> {
    let mut view = output;
    if kind == TaskKind::Segment && stride > 1 {
        for axis in [2, 3] {
            let every = Slice::new((stride / 2) as isize, None, stride as isize);
            view.slice_axis_inplace(ndarray::Axis(axis), every);
        }
    }
    ArrayD::from_shape_vec(IxDyn(view.shape()), view.iter().copied().collect())
        .expect("as many values as the view")
}

/// The largest difference between the values found and those expected, which are little-endian f32.
///
/// # Errors
/// A description of the first value whose difference is over 1e-2 + 1e-2 · |value|, or of different sizes.
fn compare(found: &ArrayD<f32>, expected: &[u8]) -> Result<f32, String> {
    let expected: Vec<f32> = expected
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if expected.len() != found.len() {
        return Err(format!("{} values, expected {}", found.len(), expected.len()));
    }
    let mut largest = 0f32;
    for (index, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        let difference = (found - expected).abs();
        if difference.is_nan() || difference > 1e-2 + 1e-2 * expected.abs() {
            return Err(format!("value {index} is {found}, expected {expected}"));
        }
        largest = largest.max(difference);
    }
    Ok(largest)
}

fn read(bundle: &Bundle, part: &str) -> Result<Vec<u8>, Error> {
    bundle.read(part).map_err(|source| Error::Bundle { folder: bundle.dir().to_owned(), source })
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;

    #[test]
    fn a_segment_vector_holds_every_nth_pixel_from_the_middle() {
        let output = Array::from_shape_fn((1, 1, 8, 8), |(_, _, y, x)| (10 * y + x) as f32).into_dyn();
        let found = sampled(output.view(), TaskKind::Segment, 4);
        assert_eq!(found.into_raw_vec_and_offset().0, [22.0, 26.0, 62.0, 66.0]);
    }

    #[test]
    fn the_tolerance_is_that_of_the_bundle_document() {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let found = Array::from_vec(vec![1.0f32, 100.0]).into_dyn();
        assert!(compare(&found, &bytes(&[1.019, 101.0])).unwrap() < 1.01);
        assert!(compare(&found, &bytes(&[1.03, 100.0])).unwrap_err().contains("value 0"));
        assert!(compare(&found, &bytes(&[f32::NAN, 100.0])).is_err());
        assert!(compare(&found, &bytes(&[1.0])).unwrap_err().contains("expected 1"));
    }
}
