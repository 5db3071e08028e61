//! Decisions about frames and about the server, as pure state: observations and `now` in, values out.

mod exit;
mod gate;
mod levels;
mod pace;
mod plan;
mod silence;
mod spending;

pub(crate) use exit::Confidence;
pub(crate) use gate::{Gate, Movement};
pub(crate) use levels::Levels;
pub(crate) use pace::{Pace, jitter};
pub(crate) use plan::FixedPolicy;
pub(crate) use silence::{Liveness, Silence};
pub(crate) use spending::Spending;
