//! Networks opened on a device, and their inference runs.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ndarray::{ArrayD, ArrayViewD};
use ort::{
    ep,
    session::{SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, TensorRef},
};

use super::{
    device::{Device, Provider},
    error::Error,
    runtime::Runtime,
};

/// A network opened on a device. Runs take `&mut self`, so one thread owns a session.
///
/// ```no_run
/// use narrows_tail::engine::{Device, Input, OrtError, Runtime, Session};
///
/// let runtime = Runtime::open(None)?;
/// let mut session = Session::open(&runtime, "tail-classify.onnx".as_ref(), Device::Cpu, 2)?;
/// let latent = ndarray::Array4::<f32>::zeros((1, 36, 28, 28));
/// let step = ndarray::Array1::<f32>::ones(1);
/// let inputs = [("latent", Input::F32(latent.view().into_dyn())), ("step", Input::F32(step.view().into_dyn()))];
/// let logits = session.run(&inputs, "logits")?;
/// # Ok::<(), OrtError>(())
/// ```
pub struct Session {
    session: ort::session::Session,
    model: PathBuf,
    provider: Provider,
    provider_reason: String,
}

/// An input tensor in standard (row-major, contiguous) layout.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// f32 values, the inputs of a split network.
    F32(ArrayViewD<'a, f32>),
    /// u8 pixels, the input of an unsplit network.
    U8(ArrayViewD<'a, u8>),
}

/// An f32 output tensor in ONNX Runtime's memory.
pub struct Output(DynValue);

impl Session {
    /// Opens an ONNX file on a device, as [`Session::from_bytes`] does with its bytes.
    ///
    /// # Errors
    /// [`Error::Read`] for a file that cannot be read, otherwise those of [`Session::from_bytes`].
    pub fn open(runtime: &Runtime, model: &Path, device: Device, threads: usize) -> Result<Session, Error> {
        let onnx = std::fs::read(model).map_err(|source| Error::Read { model: model.to_owned(), source })?;
        Session::from_bytes(runtime, model, &onnx, device, threads)
    }

    /// Opens a network from the bytes of its ONNX file on a device; errors call it `model`. The bytes are read once and
    /// not kept. Weights must be in them: a file that they name elsewhere would be one that no digest covers. `threads` is the number of threads of one run on the CPU; 0 leaves the choice to
    /// ONNX Runtime. On a GPU it has no effect.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that is not a network, and [`Error::Device`] when [`Device::Cuda`] was requested and
    /// does not work.
    pub fn from_bytes(
        runtime: &Runtime,
        model: &Path,
        onnx: &[u8],
        device: Device,
        threads: usize,
    ) -> Result<Session, Error> {
        let cuda = |index: u32| {
            let cuda = ep::CUDA::default()
                .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
                // Shapes vary with geometry and batch; an exhaustive search for each would stall the first frames.
                .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic);
            open_on(runtime, onnx, cuda.build().error_on_failure(), threads)
        };
        let cpu = || {
            // The arena would keep the memory of the largest batch for ever, and the runs of the default bundle are no
            // faster with it.
            let cpu = ep::CPU::default().with_arena_allocator(false).build();
            open_on(runtime, onnx, cpu, threads)
                .map_err(|error| Error::Model { model: model.to_owned(), source: error.into() })
        };
        let opened = |session, provider, reason: &str| {
            Ok(Session { session, model: model.to_owned(), provider, provider_reason: reason.to_owned() })
        };
        match device {
            Device::Cpu => opened(cpu()?, Provider::Cpu, "cpu was requested"),
            Device::Cuda(index) => match cuda(index) {
                Ok(session) => opened(session, Provider::Cuda, "cuda was requested"),
                Err(error) => {
                    // If the file is not a network, opening it on the CPU fails too, and the file is blamed.
                    cpu()?;
                    Err(Error::Device { device, source: error.into() })
                }
            },
            Device::Auto => match cuda(0) {
                Ok(session) => opened(session, Provider::Cuda, "cuda:0 works"),
                Err(error) => opened(cpu()?, Provider::Cpu, &format!("cuda:0 does not work: {error}")),
            },
        }
    }

    /// The execution provider that the network runs on.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The reason for [`Session::provider`], for the log.
    #[must_use]
    pub fn provider_reason(&self) -> &str {
        &self.provider_reason
    }

    /// Checks that the network has exactly these inputs and has this output.
    ///
    /// # Errors
    /// [`Error::Tensor`] for the first input that is missing or superfluous, or for the missing output.
    pub fn check_tensors(&self, inputs: &[&str], output: &str) -> Result<(), Error> {
        let found: Vec<&str> = self.session.inputs().iter().map(|input| input.name()).collect();
        let unfit = |tensor: &str, kind: &str, found: &[&str]| Error::Tensor {
            model: self.model.clone(),
            tensor: tensor.to_owned(),
            reason: format!("the network's {kind} are {}", found.join(", ")),
        };
        if let Some(missing) = inputs.iter().find(|name| !found.contains(name)) {
            return Err(unfit(missing, "inputs", &found));
        }
        if let Some(superfluous) = found.iter().find(|name| !inputs.contains(name)) {
            return Err(unfit(superfluous, "inputs", &found));
        }
        let found: Vec<&str> = self.session.outputs().iter().map(|output| output.name()).collect();
        if found.contains(&output) { Ok(()) } else { Err(unfit(output, "outputs", &found)) }
    }

    /// Runs the network and returns a copy of one f32 output.
    ///
    /// # Errors
    /// Those of [`Session::run_to`].
    pub fn run(&mut self, inputs: &[(&str, Input<'_>)], output: &str) -> Result<ArrayD<f32>, Error> {
        Ok(self.run_to(inputs, output)?.view().to_owned())
    }

    /// Runs the network and returns one f32 output without copying it.
    ///
    /// # Errors
    /// [`Error::Run`] when the run fails, for example for inputs of the wrong shape; [`Error::Tensor`] when there is no
    /// f32 output of that name.
    pub fn run_to(&mut self, inputs: &[(&str, Input<'_>)], output: &str) -> Result<Output, Error> {
        let failed = |error: ort::Error| Error::Run { model: self.model.clone(), source: error.into() };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, input) in inputs {
            let value = match input {
                Input::F32(view) => TensorRef::from_array_view(view.view()).map_err(failed)?.into(),
                Input::U8(view) => TensorRef::from_array_view(view.view()).map_err(failed)?.into(),
            };
            values.push((name, value));
        }
        let mut outputs = self.session.run(values).map_err(failed)?;
        let unfit = |reason: &str| Error::Tensor {
            model: self.model.clone(),
            tensor: output.to_owned(),
            reason: reason.to_owned(),
        };
        let value = outputs.remove(output).ok_or_else(|| unfit("the network has no such output"))?;
        value.try_extract_array::<f32>().map_err(|_| unfit("the output is not an f32 tensor"))?;
        Ok(Output(value))
    }
}

/// Opens a network with one execution provider.
fn open_on(
    runtime: &Runtime,
    onnx: &[u8],
    provider: ep::ExecutionProviderDispatch,
    threads: usize,
) -> Result<ort::session::Session, ort::Error> {
    let mut builder = ort::session::Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // A thread that spins while it waits takes the processor from the next stage.
        .with_intra_op_spinning(false)?
        .with_execution_providers([provider])?;
    builder.commit_from_memory(onnx)
}

impl Output {
    /// The values, shape included.
    #[must_use]
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        self.0.try_extract_array().expect("checked when the output was made")
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
