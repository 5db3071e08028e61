//! One file per kind of sensor.

pub(crate) mod battery;
pub(crate) mod gpu;
pub(crate) mod jetson;
pub(crate) mod pi;
pub(crate) mod rapl;
pub(crate) mod wired;
