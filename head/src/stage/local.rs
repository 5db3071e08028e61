//! The whole network on the device: an image to the most probable classes, without a server.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{sync::Arc, time::Instant};

use image::RgbImage;
use narrows_models::{Bundle, Geometry};
use narrows_wire::Class;

use crate::{
    Error,
    config::TOP_K,
    frame::Timings,
    net::LocalNet,
    picture::{Inputs, Picture},
};

/// The bundle's local network, ready to run (BUNDLE.md, section 9).
///
/// ```no_run
/// use narrows_head::{Local, load};
/// use narrows_models::{Bundle, Parts};
///
/// let bundle = Bundle::open("models/bundles/lite2", Parts::Head)?;
/// let mut local = Local::open(&bundle)?;
/// let answer = local.answer(&load("cat.jpg".as_ref())?)?;
/// println!("{} scores in {:?}", answer.logits.len(), answer.timings.head);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Local {
    task: usize,
    geometry: Geometry,
    net: Arc<LocalNet>,
    inputs: Inputs,
    /// The network's input, which is used again for every picture.
    pixels: Vec<u8>,
}

/// The local network's answer to one image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalAnswer {
    /// One score per class, before the softmax.
    pub logits: Vec<f32>,
    /// Duration of the stages `resize` and `head`, which is the network; the others are zero.
    pub timings: Timings,
}

impl Local {
    /// Plans the bundle's local network.
    ///
    /// # Errors
    /// [`Error::Usage`] if the bundle has none, an error of [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) if it cannot
    /// be run exactly.
    pub fn open(bundle: &Bundle) -> Result<Self, Error> {
        let Some(spec) = bundle.local() else {
            return Err(Error::usage("--path", "the bundle brings no local network"));
        };
        let part = spec.file.clone();
        let net = LocalNet::open(bundle, spec).map_err(|source| Error::Head { part, source })?;
        let (net, inputs, pixels) = (Arc::new(net), Inputs::default(), Vec::new());
        Ok(Local { task: spec.task, geometry: spec.geometry.clone(), net, inputs, pixels })
    }

    /// The same network for another thread, in the same memory.
    pub(crate) fn share(&self) -> Self {
        let (net, inputs, pixels) = (Arc::clone(&self.net), Inputs::default(), Vec::new());
        Local { task: self.task, geometry: self.geometry.clone(), net, inputs, pixels }
    }

    /// Index in the bundle of the task that it answers.
    #[must_use]
    pub fn task(&self) -> usize {
        self.task
    }

    /// Multiply-accumulate operations for one image.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.net.macs()
    }

    /// Runs the network on an image of any size.
    ///
    /// # Errors
    /// [`Error::Net`] if the network fails.
    pub fn answer(&mut self, image: &RgbImage) -> Result<LocalAnswer, Error> {
        let started = Instant::now();
        self.inputs.fit_image(image, &self.geometry, &mut self.pixels);
        self.answer_fitted(started)
    }

    /// As [`Local::answer`], to a picture.
    ///
    /// # Errors
    /// [`Error::Net`] if the network fails, and those of a picture that cannot be decoded.
    pub(crate) fn answer_to(&mut self, picture: &Picture) -> Result<LocalAnswer, Error> {
        let started = Instant::now();
        self.inputs.fit(picture, &self.geometry, &mut self.pixels)?;
        self.answer_fitted(started)
    }

    /// Runs the network on the input that was made since `started`.
    fn answer_fitted(&self, started: Instant) -> Result<LocalAnswer, Error> {
        let resize = started.elapsed();
        let mut answer = self.answer_input(&self.pixels)?;
        answer.timings.resize = resize;
        Ok(answer)
    }

    /// The geometry of the network's input.
    pub(crate) fn input(&self) -> &Geometry {
        &self.geometry
    }

    /// Runs the network on an input.
    ///
    /// # Errors
    /// [`Error::Net`] if the network fails.
    pub(crate) fn answer_input(&self, input: &[u8]) -> Result<LocalAnswer, Error> {
        let started = Instant::now();
        let logits = self.net.run(input)?;
        let timings = Timings { head: started.elapsed(), ..Timings::default() };
        Ok(LocalAnswer { logits, timings })
    }
}

impl LocalAnswer {
    /// How sure the network is: the probability of the most probable class, from 0 to 1 (BUNDLE.md, section 10).
    #[must_use]
    pub fn confidence(&self) -> f64 {
        self.softmax().1.recip()
    }

    /// The largest of the scores, and the sum of the exponentials of all scores less that one.
    fn softmax(&self) -> (f32, f64) {
        let best = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (best, self.logits.iter().map(|logit| f64::from(logit - best).exp()).sum())
    }

    /// The [`TOP_K`] most probable classes, best first, and of equally probable ones the lower index first.
    /// Probabilities are the softmax over all classes.
    pub(crate) fn classes(&self) -> Vec<Class> {
        let logits = &self.logits;
        let (best, sum) = self.softmax();
        let weight = |index: usize| f64::from(logits[index] - best).exp();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        // A bundle has at most 65536 labels, so the indices fit.
        let class = |index| Class { index: index as u16, probability: (weight(index) / sum) as f32 };
        order.into_iter().take(TOP_K.into()).map(class).collect()
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("task", &self.task).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_classes_come_first_with_their_softmax() {
        let answer = LocalAnswer { logits: vec![1.0, 3.0, 2.0, 3.0, -5.0, 0.0], timings: Timings::default() };
        let classes = answer.classes();
        assert_eq!(classes.iter().map(|class| class.index).collect::<Vec<_>>(), [1, 3, 2, 0, 5]);
        let sum: f64 = answer.logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        assert!((f64::from(classes[0].probability) - 3f64.exp() / sum).abs() < 1e-6);
        assert!((answer.confidence() - 3f64.exp() / sum).abs() < 1e-12);
    }
}
