//! What a queue's frames give its network, and how a batch of them is run.

use std::sync::Arc;

use narrows_codec::Feature;
use narrows_models::Task;
use ndarray::{Array1, Array4};

use crate::net::{Error, Input, Output, Session};

/// One frame's input of one sort of network. Frames that share a run have one shape.
pub(crate) trait ModelInput: Send + 'static {
    /// The word for threads and the log.
    const NAME: &'static str;

    /// Runs the network of `task` on a batch.
    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error>;
}

/// A tail's input: the integers of a packet and the step of its level.
pub(crate) struct QuantizedLatent {
    pub(crate) feature: Arc<Feature>,
    pub(crate) step: f32,
}

/// A whole network's input: u8 RGB, rows of a geometry's size.
pub(crate) struct RgbImage {
    pub(crate) rows: Arc<Vec<u8>>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl ModelInput for QuantizedLatent {
    const NAME: &'static str = "tail";

    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error> {
        let items: Vec<(&Feature, f32)> = batch.iter().map(|item| (&*item.feature, item.step)).collect();
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
    const NAME: &'static str = "whole network";

    fn run(task: &Task, session: &mut Session, batch: &[&Self]) -> Result<Output, Error> {
        let reference = task.reference.as_ref().expect("only tasks with a reference are served whole");
        let size = (batch.len(), batch[0].height, batch[0].width, 3);
        let mut rows = Vec::with_capacity(batch.iter().map(|item| item.rows.len()).sum());
        batch.iter().for_each(|item| rows.extend_from_slice(&item.rows));
        let pixels = Array4::from_shape_vec(size, rows).expect("the items of a batch have one size");
        session.run_to(&[(&reference.input, Input::U8(pixels.view().into_dyn()))], &reference.output)
    }
}

/// A batch's latent tensor: [N, channels, height, width], `symbol * step` of each item.
pub(crate) fn latent(items: &[(&Feature, f32)]) -> Array4<f32> {
    let shape = items[0].0.shape();
    let values = items
        .iter()
        .flat_map(|(feature, step)| feature.symbols().iter().map(move |&symbol| f32::from(symbol) * *step));
    let size = (items.len(), shape.channels(), shape.height(), shape.width());
    let mut latent = Vec::with_capacity(items.len() * shape.symbols());
    latent.extend(values);
    Array4::from_shape_vec(size, latent).expect("the items of a batch have one shape")
}

#[cfg(test)]
mod tests {
    use narrows_codec::Shape;

    use super::*;

    #[test]
    fn a_batch_mixes_levels() {
        let shape = Shape::new(1, 1, 2).unwrap();
        let (fine, coarse) =
            (Feature::new(shape, vec![1, -2]).unwrap(), Feature::new(shape, vec![3, 0]).unwrap());
        let latent = latent(&[(&fine, 0.5), (&coarse, 2.0)]);
        assert_eq!(latent.shape(), [2, 1, 1, 2]);
        assert_eq!(latent.into_raw_vec_and_offset().0, [0.5, -1.0, 6.0, 0.0]);
    }
}
