//! ONNX Runtime: its shared library is found and loaded, and networks are opened on a device and run.
//!
//! This module is the only one that uses the crate `ort`. ONNX Runtime is loaded at run time from the library of its
//! official wheel, or from any other build that is new enough. A missing or unusable library is an error that names the
//! file. A request for CUDA never falls back to the CPU silently.

mod device;
mod error;
mod library;
mod runtime;
mod session;

pub use device::{Device, Provider};
pub use error::{Error, ErrorKind};
pub use library::LIBRARY_VARIABLE;
pub use runtime::Runtime;
pub use session::{Input, Output, Session};
