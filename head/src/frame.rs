//! A frame on its way through a run.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use image::RgbImage;
use narrows_codec::Mode;
use narrows_wire::{Class, Payload, Refusal, Reply};
use tokio::sync::OwnedSemaphorePermit;

use crate::pipeline::Timings;

/// A frame that has been taken from the source.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Its number within the run.
    pub(crate) number: u64,
    /// Where it came from.
    pub(crate) file: PathBuf,
    /// When its budget began to run.
    pub(crate) started: Instant,
    /// When its payload was ready.
    pub(crate) ready: Instant,
    /// When its answer is due.
    pub(crate) deadline: Instant,
    /// What each stage before that cost.
    pub(crate) timings: Timings,
    /// What is sent.
    pub(crate) payload: Payload,
    /// How a packet is coded.
    pub(crate) coding: Option<Mode>,
    /// The upright picture, kept if something will be drawn on it.
    pub(crate) photo: Option<RgbImage>,
    /// Its place among the frames in flight, given back when the frame has been reported.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// A frame and how it ended.
#[derive(Debug)]
pub(crate) struct FinishedFrame {
    pub(crate) frame: Frame,
    pub(crate) outcome: Outcome,
}

/// How a frame ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The server answered, in these many bytes.
    Answered { reply: Reply, sent: usize, received: usize, at: Instant },
    /// The server said no.
    Refused { refusal: Refusal, sent: usize, received: usize, at: Instant },
    /// This device answered; `instead` says why no server did where one was asked.
    Local { classes: Vec<Class>, timings: Timings, at: Instant, instead: Option<String> },
    /// No answer, and why.
    Failed(String),
}

impl Frame {
    /// All the time that the frame was given.
    pub(crate) fn budget(&self) -> Duration {
        self.deadline - self.started
    }
}
