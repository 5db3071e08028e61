//! The one place that uses ONNX Runtime: find and load its library, open a network on a device, run it.
//!
//! ONNX Runtime is loaded at run time from the library of its official wheel, or any other build that is new
//! enough. A missing or wrong library is an error that names the path. Asking for CUDA never silently becomes CPU.
//!
//! ```no_run
//! use narrows_tail::net::{Device, Input, Runtime, Session};
//!
//! let runtime = Runtime::open(None)?;
//! let mut session = Session::open(&runtime, "tail-classify.onnx".as_ref(), Device::Cpu, 2)?;
//! let latent = ndarray::Array4::<f32>::zeros((1, 36, 28, 28));
//! let step = ndarray::Array1::<f32>::ones(1);
//! let inputs = [("latent", Input::F32(latent.view().into_dyn())), ("step", Input::F32(step.view().into_dyn()))];
//! let logits = session.run(&inputs, "logits")?;
//! # Ok::<(), narrows_tail::net::Error>(())
//! ```

mod error;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

pub use error::{Error, ErrorKind};
pub use narrows_wire::Provider;
use ndarray::{ArrayD, ArrayViewD};
use ort::{
    ep,
    session::{
        SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{DynValue, TensorRef},
};

/// The environment variable that names ONNX Runtime's library.
pub const LIBRARY_VARIABLE: &str = "NARROWS_ORT";

/// Where `make runtime` puts the library, from the project's folder.
const UNPACKED: &str = ".runtime/libonnxruntime.so";

/// ONNX Runtime, loaded. One per process; clones share it.
#[derive(Clone)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: PathBuf,
}

/// One network on one device. Runs take `&mut self`: one thread owns a session.
pub struct Session {
    session: ort::session::Session,
    model: PathBuf,
    provider: Provider,
    why: String,
}

/// Where a network is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA's first device if it works, else the CPU; [`Session::why`] tells.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device, or an error.
    Cuda(u32),
}

/// An input tensor in standard (row-major, contiguous) layout.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// f32 values, as the tails take.
    F32(ArrayViewD<'a, f32>),
    /// u8 pixels, as the unsplit networks take.
    U8(ArrayViewD<'a, u8>),
}

/// An output tensor, held in ONNX Runtime's memory.
pub struct Output(DynValue);

impl Runtime {
    /// Loads ONNX Runtime: from `library` if given, else from the file that [`LIBRARY_VARIABLE`] names, else from
    /// `.runtime/libonnxruntime.so` in the working folder or in a folder above it or above the executable.
    pub fn open(library: Option<&Path>) -> Result<Runtime, Error> {
        let library = match library.map(Path::to_owned).or_else(from_environment) {
            Some(library) => library,
            None => unpacked()?,
        };
        let unusable = |reason: String| Error::Library { library: library.clone(), reason };
        // An absolute path: the loader would look a relative one up beside the executable first.
        let file = library.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let environment = ort::init_from(&file)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("narrows")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Runtime { environment, library: file })
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The library's version, from its own words.
    pub fn version(&self) -> String {
        match ort::util::probe(&self.library) {
            Some(minor) => format!("1.{minor}"),
            None => "unknown".to_owned(),
        }
    }
}

impl Session {
    /// Opens an ONNX file on a device with `threads` threads for one run (used on the CPU only; 0 leaves the
    /// choice to ONNX Runtime).
    pub fn open(runtime: &Runtime, model: &Path, device: Device, threads: usize) -> Result<Session, Error> {
        let cuda = |index: u32| {
            let cuda = ep::CUDA::default()
                .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
                // Shapes vary with geometry and batch; an exhaustive search for each would stall the first frames.
                .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic);
            Session::with(runtime, model, cuda.build().error_on_failure(), threads)
        };
        let cpu = || {
            // The arena keeps the largest batch's memory for ever and buys no time (the default bundle's tails).
            let cpu = ep::CPU::default().with_arena_allocator(false).build();
            Session::with(runtime, model, cpu, threads)
                .map_err(|reason| Error::Model { model: model.to_owned(), reason })
        };
        let open = |session, provider, why: &str| {
            Ok(Session { session, model: model.to_owned(), provider, why: why.to_owned() })
        };
        match device {
            Device::Cpu => open(cpu()?, Provider::Cpu, "cpu was asked for"),
            Device::Cuda(index) => match cuda(index) {
                Ok(session) => open(session, Provider::Cuda, "cuda was asked for"),
                Err(reason) => {
                    // A broken model would be blamed on the device; the CPU tells them apart.
                    cpu()?;
                    Err(Error::Device { device, reason })
                }
            },
            Device::Auto => match cuda(0) {
                Ok(session) => open(session, Provider::Cuda, "cuda:0 works"),
                Err(reason) => open(cpu()?, Provider::Cpu, &format!("cuda:0 does not work: {reason}")),
            },
        }
    }

    fn with(
        runtime: &Runtime,
        model: &Path,
        provider: ep::ExecutionProviderDispatch,
        threads: usize,
    ) -> Result<ort::session::Session, String> {
        let text = |error: ort::Error<SessionBuilder>| error.to_string();
        let mut builder = ort::session::Session::builder(&runtime.environment)
            .map_err(|error| error.to_string())?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(text)?
            .with_intra_threads(threads)
            .map_err(text)?
            // A waiting thread that spins takes the processor from the next stage.
            .with_intra_op_spinning(false)
            .map_err(text)?
            .with_execution_providers([provider])
            .map_err(text)?;
        builder.commit_from_file(model).map_err(|error| error.to_string())
    }

    /// Where the network really runs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Why it runs there.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Checks that the network takes these inputs and gives this output, before the first run.
    pub fn expect(&self, inputs: &[&str], output: &str) -> Result<(), Error> {
        let found: Vec<&str> = self.session.inputs().iter().map(|input| input.name()).collect();
        let missing = |tensor: &str, kind: &str, found: &[&str]| Error::Tensor {
            model: self.model.clone(),
            tensor: tensor.to_owned(),
            reason: format!("the network's {kind} are {}", found.join(", ")),
        };
        if let Some(tensor) = inputs.iter().find(|name| !found.contains(name)) {
            return Err(missing(tensor, "inputs", &found));
        }
        if let Some(tensor) = found.iter().find(|name| !inputs.contains(name)) {
            return Err(missing(tensor, "inputs", &found));
        }
        let found: Vec<&str> = self.session.outputs().iter().map(|output| output.name()).collect();
        if found.contains(&output) { Ok(()) } else { Err(missing(output, "outputs", &found)) }
    }

    /// Runs the network and copies one f32 output.
    pub fn run(&mut self, inputs: &[(&str, Input<'_>)], output: &str) -> Result<ArrayD<f32>, Error> {
        Ok(self.run_to(inputs, output)?.view().to_owned())
    }

    /// Runs the network and hands one f32 output over without copying it.
    pub fn run_to(&mut self, inputs: &[(&str, Input<'_>)], output: &str) -> Result<Output, Error> {
        let failed = |error: ort::Error| Error::Run { model: self.model.clone(), reason: error.to_string() };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, input) in inputs {
            let value = match input {
                Input::F32(view) => TensorRef::from_array_view(view.view()).map_err(failed)?.into(),
                Input::U8(view) => TensorRef::from_array_view(view.view()).map_err(failed)?.into(),
            };
            values.push((name, value));
        }
        let mut outputs = self.session.run(values).map_err(failed)?;
        let tensor = |reason: &str| Error::Tensor {
            model: self.model.clone(),
            tensor: output.to_owned(),
            reason: reason.to_owned(),
        };
        let value = outputs.remove(output).ok_or_else(|| tensor("the network has no such output"))?;
        value.try_extract_array::<f32>().map_err(|_| tensor("the output is not an f32 tensor"))?;
        Ok(Output(value))
    }
}

impl Output {
    /// The values.
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        self.0.try_extract_array().expect("checked when the output was made")
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("library", &self.library).finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Output").field(&self.view().shape()).finish()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| format!("`{text}` is not auto, cpu, cuda or cuda:N")),
        }
    }
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The library of `make runtime`, looked for upwards from the working folder and from the executable, so that it
/// is found from within the project and from `target/release`.
fn unpacked() -> Result<PathBuf, Error> {
    let executable = std::env::current_exe().ok();
    let starts =
        [std::env::current_dir().ok(), executable.and_then(|file| file.parent().map(Path::to_owned))];
    let folders: Vec<PathBuf> = starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors().map(|folder| folder.join(UNPACKED)))
        .collect();
    match folders.iter().find(|file| file.exists()) {
        Some(file) => Ok(file.clone()),
        None => {
            let from = starts.iter().flatten().map(|start| start.join(UNPACKED).display().to_string());
            let places = from.collect::<Vec<_>>().join(" and ");
            Err(Error::Missing { places: format!("{places} (and the folders above)") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written_alike() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(text.parse::<Device>().unwrap_err().contains("auto, cpu, cuda"));
        }
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libonnxruntime.so");
        let error = Runtime::open(Some(&file)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Library);
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("make runtime"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libonnxruntime.so");
        std::fs::write(&file, "not a library").unwrap();
        let text = Runtime::open(Some(&file)).unwrap_err().to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("unusable"), "{text}");
    }
}
