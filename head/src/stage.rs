//! The work on a frame before it is sent: the head of the split, an image file, or the whole network.
#![expect(clippy::disallowed_methods, reason = "the end of the work is timestamped here")]

use std::time::Instant;

use ::image::RgbImage;
use narrows_codec::Mode;
use narrows_models::Bundle;
use narrows_wire::{Class, Payload};

use crate::{
    Error,
    config::{Config, Level, Path},
    error::{Chain, caught},
    frame::{Captured, EncodeStats, Encoded, Finished, Frame, FramePath, Load, Outcome, Timings},
};

mod image;
mod local;
mod split;

pub(crate) use self::split::{LevelEncoder, TruncatablePacket};
pub use self::{
    image::ImageEncoder,
    local::{Local, LocalAnswer},
    split::{EncodedImage, Head},
};

const OPENED: &str = "plans choose only paths that the configuration has, and those are opened";

/// The stages that the plans of a run may choose, ready to run.
#[derive(Debug)]
pub(crate) struct Stages {
    split: Option<Box<Head>>,
    image: Option<ImageEncoder>,
    local: Option<Box<Local>>,
}

/// A frame after its stage.
#[derive(Debug)]
pub(crate) enum Staged {
    /// It is ready to be sent.
    Encoded(Frame<Encoded>),
    /// It is answered, or it failed.
    Finished(Frame<Finished>),
}

/// What a stage makes of pixels.
enum Product {
    /// What is sent, and how a packet is coded.
    Load(Load, Option<Mode>),
    Answer(Vec<Class>),
}

impl Stages {
    /// Opens what the path of `config` needs.
    ///
    /// # Errors
    /// As [`Head::open`] and [`Local::open`].
    pub(crate) fn open(bundle: &Bundle, config: &Config) -> Result<Self, Error> {
        let mut stages = Stages { split: None, image: None, local: None };
        match config.path {
            Path::Split => {
                stages.split = Some(Box::new(Head::open(bundle.clone())?.coding(config.coding)));
            }
            Path::Image => stages.image = Some(ImageEncoder::new(bundle)),
            Path::Local => stages.local = Some(Box::new(Local::open(bundle)?)),
        }
        Ok(stages)
    }

    /// An encoder of the frames whose level is chosen when they are sent.
    pub(crate) fn level_encoder(&self) -> Option<LevelEncoder> {
        self.split.as_ref().map(|head| head.level_encoder())
    }

    /// Runs the stage that the frame's plan names.
    pub(crate) fn process(&mut self, frame: Frame<Captured>) -> Staged {
        let (Captured { pixels, decode }, frame) = frame.take();
        let product = caught("the stage failed", || self.run(frame.plan.path, &pixels)).flatten();
        let now = Instant::now();
        let pixels = frame.plan.keep_pixels.then_some(pixels);
        match product {
            Ok((Product::Load(load, coding), timings)) => {
                let timings = Timings { decode, ..timings };
                let packet_bytes = load.payload().map_or(0, Payload::size);
                let level = frame.plan.path.level();
                let stats = EncodeStats { packet_bytes, level, coding, timings, encoded_at: now };
                Staged::Encoded(frame.with(Encoded { load, stats, pixels }))
            }
            Ok((Product::Answer(classes), timings)) => {
                let timings = Timings { decode, ..timings };
                let outcome = Outcome::Local { classes, timings, answered_at: now, fallback: None };
                Staged::Finished(frame.finish(outcome, pixels))
            }
            Err(error) => {
                let outcome = Outcome::Failed(Chain(&error).to_string());
                Staged::Finished(frame.finish(outcome, pixels))
            }
        }
    }

    fn run(&mut self, path: FramePath, pixels: &RgbImage) -> Result<(Product, Timings), Error> {
        match path {
            FramePath::Split { geometry, level: Level::Fixed(level) } => {
                let head = self.split.as_mut().expect(OPENED);
                let encoded = head.encode_image(pixels, geometry, level)?;
                let payload = Payload::Packet(encoded.packet);
                Ok((Product::Load(Load::Payload(payload), Some(encoded.mode)), encoded.timings))
            }
            FramePath::Split { geometry, level: Level::Auto } => {
                let (latent, timings) = self.split.as_mut().expect(OPENED).latent(pixels, geometry)?;
                Ok((Product::Load(Load::Latent(latent), None), timings))
            }
            FramePath::Image { geometry, encoding, framing } => {
                let encoder = self.image.as_mut().expect(OPENED);
                let (image, timings) = encoder.encode_image(pixels, geometry, encoding, framing)?;
                Ok((Product::Load(Load::Payload(Payload::Image(image)), None), timings))
            }
            FramePath::Local => {
                let answer = self.local.as_mut().expect(OPENED).answer(pixels)?;
                Ok((Product::Answer(answer.classes()), answer.timings))
            }
        }
    }
}
