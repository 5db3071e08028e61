//! The bundle that head and tail agreed on: opened once, checked completely, read-only.
//!
//! [`Bundle::open`] reads a folder laid out as `BUNDLE.md` says, compares the SHA-256 of every part with the
//! manifest and hands out plain descriptions ([`Geometry`], [`Level`], [`Task`], …). It runs no network and
//! knows neither ONNX nor the entropy coder: the parts are bytes here.
//!
//! ```no_run
//! use narrows_models::{Bundle, Parts};
//!
//! let bundle = Bundle::open("models/bundles/lite2", Parts::All)?;
//! println!("{} {}: {} levels", bundle.name(), bundle.digest(), bundle.levels().len());
//! # Ok::<(), narrows_models::Error>(())
//! ```

mod bundle;
mod digest;
mod error;
mod labels;
mod manifest;
mod spec;

pub use bundle::{Bundle, Parts};
pub use digest::Digest;
pub use error::{Error, Kind};
pub use labels::Label;
pub use manifest::{FORMAT, Manifest};
pub use spec::{
    Filter, Fit, Geometry, HeadSpec, Level, LocalSpec, LocalVector, Reference, Task, TaskKind, Vector,
    VectorOutput,
};
