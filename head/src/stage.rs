//! The work on a frame before it is sent: the head of the split, an image file, or the whole network.
#![expect(
    clippy::disallowed_methods,
    reason = "the gate's work is timed and the end of all work timestamped here"
)]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use narrows_codec::{GeometryId, LevelId, Mode};
use narrows_models::Bundle;
use narrows_policy::ExitCosts;
use narrows_wire::{Class, Payload};

use crate::{
    Error,
    config::{Config, GateSettings, Level, Path},
    error::{Chain, caught},
    frame::{
        Answer, Awaited, Captured, Decisions, EncodeStats, Encoded, Finished, Frame, FramePath, Load,
        Outcome, Timings,
    },
    net::Latent,
    picture::Picture,
    policy::{Confidence, Gate, Spending},
};

mod fits;
mod image;
mod local;
mod split;

pub(crate) use self::split::{LevelEncoder, TruncatablePacket};
use self::{fits::Fits, split::Packet};
pub use self::{
    image::ImageEncoder,
    local::{Local, LocalAnswer},
    split::{EncodedImage, Head},
};

const OPENED: &str = "plans choose only paths that the configuration has, and those are opened";

/// The stages that the plans of a run may choose, ready to run.
#[derive(Debug)]
pub(crate) struct Stages {
    /// The head, for the split and for the gate.
    head: Option<Box<Head>>,
    image: Option<ImageEncoder>,
    local: Option<Box<Local>>,
    gate: Option<FrameGate>,
    exit: Option<EarlyExit>,
    fits: Fits,
}

/// The gate, and the level and the geometry at which it compares features. A path that has a geometry of its own is compared at
/// that.
#[derive(Debug)]
struct FrameGate {
    gate: Arc<Mutex<Gate<Answer>>>,
    level: LevelId,
    geometry: GeometryId,
}

/// The local network, which runs before a frame is encoded, and from which confidence on its answer is used.
#[derive(Debug)]
struct EarlyExit {
    local: Box<Local>,
    threshold: f64,
    /// What it costs and saves, where it is tried only while that pays.
    costs: Option<(ExitCosts, Arc<Spending>)>,
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
    /// The answer of this device.
    Answer(Vec<Class>),
    /// The answer to an earlier frame.
    Kept(Arc<Answer>),
}

impl Stages {
    /// Opens what the path, the gate and the early exit of `config` need.
    ///
    /// # Errors
    /// As [`Head::open`] and [`Local::open`].
    pub(crate) fn open(
        bundle: &Bundle,
        config: &Config,
        spending: Option<&Arc<Spending>>,
    ) -> Result<Self, Error> {
        let fits = Fits::default();
        let mut stages = Stages { head: None, image: None, local: None, gate: None, exit: None, fits };
        if config.path == Path::Split || config.gate.is_some() {
            stages.head = Some(Box::new(Head::open(bundle.clone())?.coding(config.coding)));
        }
        match config.path {
            Path::Split => {}
            Path::Image => stages.image = Some(ImageEncoder::new(bundle)),
            Path::Local => stages.local = Some(Box::new(Local::open(bundle)?)),
        }
        if let Some(GateSettings { threshold, max_age }) = config.gate {
            // A bundle has at most 16 levels. One level for all frames, whatever they are sent at.
            let level = LevelId(bundle.default_level() as u8);
            let gate = Arc::new(Mutex::new(Gate::new(threshold, max_age)));
            stages.gate = Some(FrameGate { gate, level, geometry: config.geometry });
        }
        if let Some(threshold) = config.exit {
            let costs = spending.map(|spending| (ExitCosts::default(), Arc::clone(spending)));
            stages.exit = Some(EarlyExit { local: Box::new(Local::open(bundle)?), threshold, costs });
        }
        Ok(stages)
    }

    /// An encoder of the frames whose level is chosen when they are sent.
    pub(crate) fn level_encoder(&self) -> Option<LevelEncoder> {
        self.head.as_ref().map(|head| head.level_encoder())
    }

    /// The local network for another thread, where these stages have it.
    pub(crate) fn local(&self) -> Option<Local> {
        let exit = self.exit.as_ref().map(|exit| &exit.local);
        self.local.as_ref().or(exit).map(|local| local.share())
    }

    /// Compares the frame with the last answered one, tries the early exit, and runs the stage that its plan names, until one of
    /// these gives an answer or what is to be sent.
    pub(crate) fn process(&mut self, frame: Frame<Captured>) -> Staged {
        let (Captured { picture, decode }, mut frame) = frame.take();
        let product = caught("the stage failed", || self.run(&mut frame, &picture)).flatten();
        let now = Instant::now();
        let picture = frame.plan.keep_picture.then(|| picture.seen());
        let (product, timings) = match product {
            Ok((product, timings)) => (product, Timings { decode, ..timings }),
            Err(error) => {
                let outcome = Outcome::Failed(Chain(&error).to_string());
                return Staged::Finished(frame.finish(outcome, picture));
            }
        };
        let outcome = match product {
            Product::Load(load, coding) => {
                let packet_bytes = load.payload().map_or(0, Payload::size);
                let level = frame.plan.path.level();
                let stats = EncodeStats { packet_bytes, level, coding, timings, encoded_at: now };
                return Staged::Encoded(frame.with(Encoded { load, stats, picture }));
            }
            Product::Answer(classes) => Outcome::Local { classes, timings, answered_at: now, fallback: None },
            Product::Kept(answer) => Outcome::Kept { answer, timings, answered_at: now },
        };
        Staged::Finished(frame.finish(outcome, picture))
    }

    fn run(&mut self, frame: &mut Frame<()>, picture: &Picture) -> Result<(Product, Timings), Error> {
        let path = frame.plan.path;
        let mut spent = Timings::default();
        let mut seen = None;
        self.fits.begin();
        if let Some(FrameGate { gate, level, geometry }) = &self.gate {
            let head = self.head.as_mut().expect(OPENED);
            let geometry = match path {
                FramePath::Split { geometry, .. } | FramePath::Image { geometry, .. } => geometry,
                FramePath::Local => *geometry,
            };
            let (latent, timings) = latent_of(head, &mut self.fits, picture, geometry)?;
            let started = Instant::now();
            let compared = head.feature(&latent, *level)?;
            seen = Some(latent);
            let verdict = {
                let state = gate.lock().unwrap_or_else(PoisonError::into_inner);
                state.compare(frame.origin.source(), frame.captured_at, &compared)
            };
            spent = Timings { head: timings.head + started.elapsed(), ..timings };
            frame.decisions.gate = verdict.movement;
            if let Some(answer) = verdict.kept {
                return Ok((Product::Kept(answer), spent));
            }
            frame.awaited = Some(Awaited { gate: Arc::clone(gate), feature: compared });
        }
        if let Some(EarlyExit { local, threshold, costs }) = &mut self.exit
            && costs.as_mut().is_none_or(|costs| try_exit(costs, &mut frame.decisions))
        {
            let started = Instant::now();
            let input = self.fits.fit(picture, local.input())?;
            let resize = started.elapsed();
            let mut answer = local.answer_input(input)?;
            answer.timings.resize = resize;
            let exit = Confidence { confidence: answer.confidence(), threshold: *threshold };
            frame.decisions.exit = Some(exit);
            let stays = exit.figures().stays();
            if let Some((costs, spending)) = costs {
                costs.tried(spending.computing(answer.timings.sum()), stays);
            }
            if stays {
                return Ok((Product::Answer(answer.classes()), spent + answer.timings));
            }
            frame.decisions.unsure = Some(answer.classes());
            spent.exit = answer.timings.resize + answer.timings.head;
        }
        match path {
            FramePath::Split { geometry, level: Level::Fixed(level) } => {
                let head = self.head.as_mut().expect(OPENED);
                let (packet, mode, timings) = match (seen, &frame.awaited, &self.gate) {
                    // The gate has compared the symbols that are sent.
                    (Some(_), Some(awaited), Some(gate)) if gate.level == level => {
                        let Packet { bytes, mode, encode } =
                            head.encode(&awaited.feature, geometry, level)?;
                        (bytes, mode, Timings { encode, ..spent })
                    }
                    (Some(latent), ..) => {
                        let started = Instant::now();
                        let feature = head.feature(&latent, level)?;
                        spent.head += started.elapsed();
                        let Packet { bytes, mode, encode } = head.encode(&feature, geometry, level)?;
                        (bytes, mode, Timings { encode, ..spent })
                    }
                    (None, ..) => {
                        let started = Instant::now();
                        let input = self.fits.fit(picture, head.input(geometry)?)?;
                        let resize = started.elapsed();
                        let (_, Packet { bytes, mode, encode }, net) =
                            head.encode_input(input, geometry, level)?;
                        (bytes, mode, spent + Timings { resize, head: net, encode, ..Timings::default() })
                    }
                };
                Ok((Product::Load(Load::Payload(Payload::Packet(packet)), Some(mode)), timings))
            }
            FramePath::Split { geometry, level: Level::Auto } => {
                // The gate has run the head before the exit is tried, which saves nothing of it then.
                let (latent, timings, saved) = match seen {
                    Some(latent) => (latent, spent, Timings::default()),
                    None => {
                        let head = self.head.as_mut().expect(OPENED);
                        let (latent, timings) = latent_of(head, &mut self.fits, picture, geometry)?;
                        (latent, spent + timings, timings)
                    }
                };
                if let Some(EarlyExit { costs: Some((costs, spending)), .. }) = &mut self.exit {
                    let head = spending.computing(saved.sum());
                    costs.sent = spending.sending().map(|sending| head + sending);
                }
                Ok((Product::Load(Load::Latent(latent), None), timings))
            }
            FramePath::Image { geometry, encoding, framing } => {
                let encoder = self.image.as_mut().expect(OPENED);
                let (image, timings) = encoder.encode_picture(picture, geometry, encoding, framing)?;
                Ok((Product::Load(Load::Payload(Payload::Image(image)), None), spent + timings))
            }
            FramePath::Local => {
                let answer = self.local.as_mut().expect(OPENED).answer_to(picture)?;
                Ok((Product::Answer(answer.classes()), spent + answer.timings))
            }
        }
    }
}

/// Whether the early exit is tried on a frame, which is noted.
fn try_exit((costs, _): &mut (ExitCosts, Arc<Spending>), decisions: &mut Decisions) -> bool {
    let tried = costs.try_next();
    decisions.trial = Some((*costs, tried));
    if !tried {
        costs.skipped();
    }
    tried
}

/// What the head makes of a picture, up to where the level matters.
fn latent_of(
    head: &Head,
    fits: &mut Fits,
    picture: &Picture,
    geometry: GeometryId,
) -> Result<(Latent, Timings), Error> {
    let started = Instant::now();
    let input = fits.fit(picture, head.input(geometry)?)?;
    let fitted = Instant::now();
    let latent = head.latent(input, geometry)?;
    Ok((latent, Timings { resize: fitted - started, head: fitted.elapsed(), ..Timings::default() }))
}
