//! The bundle that head and tail share, and the preparation of its input images.
//!
//! A bundle is one folder with the quantised head, the probability tables of the entropy coder, one tail per task, labels
//! and test vectors, laid out as `BUNDLE.md` says. [`Bundle::open`] compares the SHA-256 of every part with the manifest
//! and returns plain descriptions ([`Geometry`], [`Level`], [`Task`] and others). [`image`] decodes an image file and
//! brings it to the input size of a network, with the same result on device and server. Nothing here runs a network or
//! knows the entropy coder: parts are bytes, and of ONNX only the places of a network's weights are known.
//!
//! ```no_run
//! use narrows_models::{Bundle, Parts, image};
//!
//! let bundle = Bundle::open("models/bundles/lite2", Parts::Head)?;
//! println!("{} {}: {} levels", bundle.name(), bundle.digest().short(), bundle.levels().len());
//!
//! let photo = image::decode(&std::fs::read("photo.jpg")?)?;
//! let pixels = image::fit(&photo, &bundle.geometries()[0]);
//! assert_eq!(pixels.len(), bundle.geometries()[0].input_len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bundle;
mod digest;
mod error;
pub mod image;
mod labels;
mod manifest;
mod onnx;
pub mod signature;
mod spec;

pub use bundle::{Bundle, Parts};
pub use digest::Digest;
pub use error::{Error, ErrorKind};
pub use labels::Label;
pub use manifest::{FORMAT, Manifest, OLDEST_FORMAT};
pub use spec::{
    ExitPoint, ExitSpec, Filter, Fit, Geometry, HeadSpec, Level, LevelValues, LocalSpec, LocalVector,
    Reference, Task, TaskKind, Vector, VectorOutput,
};
