//! The inputs of networks, and the inference run over a batch of them.

use std::sync::Arc;

use narrows_codec::{Feature, Shape};
use narrows_models::{Geometry, Task};
use ndarray::{Array1, Array4};

use super::{
    bundle::OpenedBundle,
    ort::{Error, Input, Output, Session},
};

/// One frame's input of one kind of network. Frames that share a run have inputs of one shape. Clones are cheap: they
/// share the data.
pub(super) trait ModelInput: Clone + Send + Sync + 'static {
    /// The network's name in thread names and in the log.
    const NETWORK: &'static str;

    /// Whether the network is the unsplit one.
    const UNSPLIT: bool;

    /// The input of a geometry that no device sends: zeros at the default level, or grey.
    fn blank(opened: &OpenedBundle, geometry: usize) -> Self;

    /// Runs the network of `task` on a batch.
    ///
    /// # Errors
    /// Those of [`Session::run_to`].
    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error>;
}

/// The input of a split network: a latent, and the quantization step of its rate level.
#[derive(Clone)]
pub(super) struct QuantizedLatent {
    pub(super) latent: Latent,
    pub(super) step: f32,
}

/// A latent, \[channels, height, width\].
#[derive(Clone)]
pub(super) enum Latent {
    /// Integers, which are multiplied by the step.
    Symbols(Arc<Feature>),
    /// The values themselves.
    Values(Arc<Vec<f32>>, Shape),
}

impl Latent {
    fn shape(&self) -> Shape {
        match self {
            Latent::Symbols(feature) => feature.shape(),
            Latent::Values(_, shape) => *shape,
        }
    }
}

/// The input of an unsplit network: u8 RGB pixels, row by row, in the size of a geometry.
#[derive(Clone)]
pub(super) struct RgbImage {
    pub(super) pixels: Arc<Vec<u8>>,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl ModelInput for QuantizedLatent {
    const NETWORK: &'static str = "tail";
    const UNSPLIT: bool = false;

    fn blank(opened: &OpenedBundle, geometry: usize) -> Self {
        let shape = opened.shapes[geometry];
        let zeros = Feature::new(shape, vec![0; shape.symbols()]).expect("as many symbols as the shape has");
        let step = opened.bundle.levels()[opened.bundle.default_level()].step;
        QuantizedLatent { latent: Latent::Symbols(Arc::new(zeros)), step }
    }

    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error> {
        let items: Vec<(&Latent, f32)> = batch.iter().map(|item| (&item.latent, item.step)).collect();
        let latent = latent(&items);
        let steps: Array1<f32> = batch.iter().map(|item| item.step).collect();
        let inputs = [
            (task.latent.as_str(), Input::F32(latent.view().into_dyn())),
            (task.step.as_str(), Input::F32(steps.view().into_dyn())),
        ];
        session.run_to(&inputs, &task.output)
    }
}

impl ModelInput for RgbImage {
    const NETWORK: &'static str = "unsplit network";
    const UNSPLIT: bool = true;

    fn blank(opened: &OpenedBundle, geometry: usize) -> Self {
        let Geometry { width, height, .. } = opened.bundle.geometries()[geometry];
        RgbImage { pixels: Arc::new(vec![128; 3 * width * height]), height, width }
    }

    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error> {
        let reference = task.reference.as_ref().expect("only tasks with a reference have an unsplit network");
        let size = (batch.len(), batch[0].height, batch[0].width, 3);
        let mut pixels = Vec::with_capacity(batch.iter().map(|item| item.pixels.len()).sum());
        batch.iter().for_each(|item| pixels.extend_from_slice(&item.pixels));
        let pixels = Array4::from_shape_vec(size, pixels).expect("the items of a batch have one size");
        session.run_to(&[(&reference.input, Input::U8(pixels.view().into_dyn()))], &reference.output)
    }
}

/// The dequantized latents of a batch: \[N, channels, height, width\], each item's values, or its symbols times its step.
fn latent(items: &[(&Latent, f32)]) -> Array4<f32> {
    let shape = items[0].0.shape();
    let size = (items.len(), shape.channels(), shape.height(), shape.width());
    let mut latent = Vec::with_capacity(items.len() * shape.symbols());
    for (item, step) in items {
        match item {
            Latent::Symbols(feature) => {
                latent.extend(feature.symbols().iter().map(|&symbol| f32::from(symbol) * *step));
            }
            Latent::Values(values, _) => latent.extend_from_slice(values),
        }
    }
    Array4::from_shape_vec(size, latent).expect("the items of a batch have one shape")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_may_mix_rate_levels() {
        let shape = Shape::new(1, 1, 2).unwrap();
        let symbols = |symbols| Latent::Symbols(Arc::new(Feature::new(shape, symbols).unwrap()));
        let (fine, coarse) = (symbols(vec![1, -2]), symbols(vec![3, 0]));
        let values = Latent::Values(Arc::new(vec![0.25, 7.0]), shape);
        let latent = latent(&[(&fine, 0.5), (&coarse, 2.0), (&values, 3.0)]);
        assert_eq!(latent.shape(), [3, 1, 1, 2]);
        assert_eq!(latent.into_raw_vec_and_offset().0, [0.5, -1.0, 6.0, 0.0, 0.25, 7.0]);
    }
}
