//! The bundle that head and tail agreed on: opened once, checked completely, read-only.
//!
//! [`Bundle::open`] reads a folder laid out as `BUNDLE.md` says, compares the SHA-256 of every part with the
//! manifest and hands out plain descriptions ([`Geometry`], [`Level`], [`Task`], …). [`image`] makes an image file the
//! network's input, on the device as on the server. Nothing here runs a network or knows ONNX or the entropy coder:
//! the parts are bytes.
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
pub mod image;
mod labels;
mod manifest;
mod spec;

pub use bundle::{Bundle, Parts};
pub use digest::Digest;
pub use error::{Error, ErrorKind};
pub use labels::Label;
pub use manifest::{FORMAT, Manifest};
pub use spec::{
    Filter, Fit, Geometry, HeadSpec, Level, LocalSpec, LocalVector, Reference, Task, TaskKind, Vector,
    VectorOutput,
};
