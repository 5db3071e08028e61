//! ONNX Runtime: its shared library is found and loaded, and networks are opened on a device and run.
//!
//! This module is the only one that uses the crate `ort`. ONNX Runtime is loaded at run time from the library of its
//! official wheel, or from any other build that is new enough. A missing or unusable library is an error that names the
//! file. A request for CUDA never falls back to the CPU silently.
//!
//! ```no_run
//! use narrows_tail::engine::{Device, Input, OrtError, Runtime, Session};
//!
//! let runtime = Runtime::open(None)?;
//! let mut session = Session::open(&runtime, "tail-classify.onnx".as_ref(), Device::Cpu, 2)?;
//! let latent = ndarray::Array4::<f32>::zeros((1, 36, 28, 28));
//! let step = ndarray::Array1::<f32>::ones(1);
//! let inputs = [("latent", Input::F32(latent.view().into_dyn())), ("step", Input::F32(step.view().into_dyn()))];
//! let logits = session.run(&inputs, "logits")?;
//! # Ok::<(), OrtError>(())
//! ```

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
