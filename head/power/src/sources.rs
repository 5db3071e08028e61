//! The sensors, one file per kind.

pub(crate) mod battery;
pub(crate) mod gpu;
pub(crate) mod jetson;
pub(crate) mod pi;
pub(crate) mod rapl;
pub(crate) mod wired;
