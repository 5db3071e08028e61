//! The whole network on the device: a photo to the most probable classes, without a server.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    sync::mpsc::{Receiver, Sender},
    time::{Duration, Instant},
};

use image::RgbImage;
use narrows_models::{Bundle, Geometry};
use narrows_wire::Class;

use crate::{
    Error,
    frame::{FinishedFrame, Frame, Outcome},
    image::Fitter,
    load,
    net::LocalNet,
    pipeline::Timings,
};

/// Classes in an answer.
const TOP_K: usize = 5;

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
    net: LocalNet,
    fitter: Fitter,
}

/// What the local network says to a photo.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalAnswer {
    /// One score per class.
    pub logits: Vec<f32>,
    /// What each stage cost: `resize` and `head`, the network.
    pub timings: Timings,
}

impl Local {
    /// Plans the bundle's local network.
    ///
    /// # Errors
    /// [`Error::Usage`] where the bundle has none; otherwise of [`ErrorKind::Bundle`](crate::ErrorKind::Bundle).
    pub fn open(bundle: &Bundle) -> Result<Self, Error> {
        let Some(spec) = bundle.local() else {
            return Err(Error::usage("--path", "the bundle brings no local network"));
        };
        let part = spec.file.clone();
        let net = LocalNet::open(bundle, spec).map_err(|source| Error::Head { part, source })?;
        Ok(Local { task: spec.task, geometry: spec.geometry.clone(), net, fitter: Fitter::default() })
    }

    /// Index of the task that it answers.
    pub fn task(&self) -> usize {
        self.task
    }

    /// Multiply-accumulates for one image.
    pub fn macs(&self) -> u64 {
        self.net.macs()
    }

    /// Runs the network on an image.
    ///
    /// # Errors
    /// [`Error::Net`] when the network fails.
    pub fn answer(&mut self, image: &RgbImage) -> Result<LocalAnswer, Error> {
        let started = Instant::now();
        let mut pixels = Vec::new();
        self.fitter.fit(image, &self.geometry, &mut pixels);
        let fitted = Instant::now();
        let logits = self.net.run(&pixels)?;
        let timings = Timings { resize: fitted - started, head: fitted.elapsed(), ..Timings::default() };
        Ok(LocalAnswer { logits, timings })
    }
}

impl LocalAnswer {
    /// The most probable classes, best first, of equal ones the lower first; probabilities are the softmax over all.
    pub(crate) fn classes(&self) -> Vec<Class> {
        let logits = &self.logits;
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |index: usize| f64::from(logits[index] - best).exp();
        let sum: f64 = (0..logits.len()).map(weight).sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        // A bundle has at most 65536 labels, so the indices fit.
        let class = |index| Class { index: index as u16, probability: (weight(index) / sum) as f32 };
        order.into_iter().take(TOP_K).map(class).collect()
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("task", &self.task).finish_non_exhaustive()
    }
}

/// Stands in for a server that is away: a thread of its own, so that the link goes on looking.
pub(crate) struct Fallback {
    pub(crate) local: Local,
    /// Frames that no server answers, and why.
    pub(crate) frames: Receiver<(Frame, String)>,
    pub(crate) outcomes: Sender<FinishedFrame>,
}

impl Fallback {
    /// Answers until no frame can come any more.
    pub(crate) fn run(mut self) {
        for (frame, why) in self.frames {
            // The photo is read again: keeping every one until its answer comes would be memory for nothing.
            let begun = Instant::now();
            let answered = load(&frame.file).and_then(|photo| {
                let decode: Duration = begun.elapsed();
                self.local
                    .answer(&photo)
                    .map(|answer| (answer.classes(), Timings { decode, ..answer.timings }))
            });
            let outcome = match answered {
                Ok((classes, timings)) => {
                    Outcome::Local { classes, timings, at: Instant::now(), instead: Some(why) }
                }
                Err(error) => Outcome::Failed(format!("{why}; on this device: {error}")),
            };
            // The reporter outlives every sender unless it has failed, and then says so itself.
            if self.outcomes.send(FinishedFrame { frame, outcome }).is_err() {
                return;
            }
        }
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
    }
}
