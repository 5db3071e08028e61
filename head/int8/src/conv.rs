//! A convolution layer, ready to run: its weights packed for one implementation.

use crate::{
    ConvKind, ConvSpec, Error, Isa, Output, Requant,
    isa::Cpu,
    kernels::portable,
    spec::{Shape, Size, length},
};
#[cfg(target_arch = "x86_64")]
use crate::{
    dense::Dense,
    isa::{Avx2, Avx512, AvxVnni},
    kernel::Pass,
    kernels::{avx2, avx512},
};
#[cfg(target_arch = "aarch64")]
use crate::{
    dense::Dense,
    isa::{Neon, NeonDot},
    kernel::Pass,
    kernels::neon,
};

/// Memory that layers use while they run. It grows to what the largest layer needs and is then kept, so a caller that
/// keeps it allocates nothing per run. No layer relies on what it holds between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    words: Vec<i16>,
    #[cfg(target_arch = "x86_64")]
    bytes: Vec<u8>,
    #[cfg(target_arch = "aarch64")]
    bytes: Vec<i8>,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    starts: Vec<usize>,
    acc: Vec<i32>,
}

/// A convolution layer, ready to run.
#[derive(Debug, Clone)]
pub struct Conv {
    shape: Shape,
    cpu: Cpu,
    packed: Packed,
}

/// The weights in the order of the kernel that reads them.
#[derive(Debug, Clone)]
enum Packed {
    Portable(portable::Weights),
    #[cfg(target_arch = "x86_64")]
    Avx2Dense(Dense<Avx2>),
    #[cfg(target_arch = "x86_64")]
    Avx2Depthwise(avx2::Depthwise),
    #[cfg(target_arch = "x86_64")]
    AvxVnniDense(Dense<AvxVnni>),
    #[cfg(target_arch = "x86_64")]
    Avx512Dense(Dense<Avx512>),
    #[cfg(target_arch = "x86_64")]
    Avx512Depthwise(avx512::Depthwise),
    #[cfg(target_arch = "aarch64")]
    NeonDense(Dense<Neon>),
    #[cfg(target_arch = "aarch64")]
    NeonDepthwise(neon::Depthwise),
    #[cfg(target_arch = "aarch64")]
    NeonDotDense(Dense<NeonDot>),
}

impl Conv {
    /// Checks a layer and packs its weights for the kernels of `isa`.
    ///
    /// # Errors
    /// [`Error::Isa`] if this processor does not run `isa`; another error for a dimension, a length or an accumulator
    /// out of bounds.
    pub fn new(spec: &ConvSpec, isa: Isa) -> Result<Conv, Error> {
        let shape = spec.check()?;
        let cpu = Cpu::detect(isa).ok_or(Error::Isa(isa))?;
        let packed = match (cpu, spec.kind) {
            (Cpu::Portable, _) => Packed::Portable(portable::Weights::new(spec)),
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx2(cpu), ConvKind::Dense) => Packed::Avx2Dense(Dense::new(cpu, spec)),
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx2(cpu), ConvKind::Depthwise) => Packed::Avx2Depthwise(avx2::Depthwise::new(cpu, spec)),
            #[cfg(target_arch = "x86_64")]
            (Cpu::AvxVnni(cpu), ConvKind::Dense) => Packed::AvxVnniDense(Dense::new(cpu, spec)),
            #[cfg(target_arch = "x86_64")]
            (Cpu::AvxVnni(cpu), ConvKind::Depthwise) => {
                Packed::Avx2Depthwise(avx2::Depthwise::new(cpu.avx2(), spec))
            }
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx512(cpu), ConvKind::Dense) => Packed::Avx512Dense(Dense::new(cpu, spec)),
            #[cfg(target_arch = "x86_64")]
            (Cpu::Avx512(cpu), ConvKind::Depthwise) => match avx512::Depthwise::new(cpu, spec) {
                Some(layer) => Packed::Avx512Depthwise(layer),
                None => Packed::Avx2Depthwise(avx2::Depthwise::new(cpu.avx2(), spec)),
            },
            #[cfg(target_arch = "aarch64")]
            (Cpu::Neon(cpu), ConvKind::Dense) => Packed::NeonDense(Dense::new(cpu, spec)),
            #[cfg(target_arch = "aarch64")]
            (Cpu::Neon(cpu), ConvKind::Depthwise) => Packed::NeonDepthwise(neon::Depthwise::new(cpu, spec)),
            #[cfg(target_arch = "aarch64")]
            (Cpu::NeonDot(cpu), ConvKind::Dense) => Packed::NeonDotDense(Dense::new(cpu, spec)),
            #[cfg(target_arch = "aarch64")]
            (Cpu::NeonDot(cpu), ConvKind::Depthwise) => {
                Packed::NeonDepthwise(neon::Depthwise::new(cpu.neon(), spec))
            }
        };
        Ok(Conv { shape, cpu, packed })
    }

    /// The implementation that the weights are packed for.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    /// Channels of the input.
    #[must_use]
    pub fn in_channels(&self) -> usize {
        self.shape.inputs
    }

    /// Channels of the output.
    #[must_use]
    pub fn out_channels(&self) -> usize {
        self.shape.outputs
    }

    /// Height and width of the output for an input of `height` by `width`.
    ///
    /// # Errors
    /// [`Error::Dimension`] for a side out of bounds, [`Error::Small`] if the padded input is smaller than the kernel.
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize), Error> {
        self.shape.output(height, width)
    }

    /// Number of multiply-accumulates for an input of `height` by `width`, those that fall on padding included.
    ///
    /// # Errors
    /// As [`Conv::output_size`].
    pub fn macs(&self, height: usize, width: usize) -> Result<u64, Error> {
        let (height, width) = self.output_size(height, width)?;
        let inputs = if self.shape.kind == ConvKind::Dense { self.shape.inputs } else { 1 };
        let per_pixel = self.shape.outputs * inputs * self.shape.kernel[0] * self.shape.kernel[1];
        Ok((height * width * per_pixel) as u64)
    }

    /// Runs the layer on `input` (row, column, channel) and writes activations or symbols in the same order.
    ///
    /// # Errors
    /// [`Error::Length`] if `input`, `output` or `requant` does not fit the layer and the size; otherwise as
    /// [`Conv::output_size`].
    pub fn run<T: Output>(
        &self,
        input: &[u8],
        height: usize,
        width: usize,
        requant: &Requant<T>,
        output: &mut [T],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        length("multipliers", requant.channels(), self.shape.outputs)?;
        let size = self.check(input, (height, width), output.len())?;
        let (input_size, size) = self.shape.joined((height, width), size);
        let row = size.1 * self.shape.outputs;
        self.rows(input, input_size, size, scratch, |y, acc, lanes| {
            requant.pixels(self.cpu, acc, lanes, &mut output[y * row..][..row]);
        });
        Ok(())
    }

    /// Runs the layer on `input` (row, column, channel) and writes its accumulators in the same order, for a
    /// [`Requant`] to narrow.
    ///
    /// # Errors
    /// As [`Conv::run`].
    pub fn accumulate(
        &self,
        input: &[u8],
        height: usize,
        width: usize,
        output: &mut [i32],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let size = self.check(input, (height, width), output.len())?;
        let (input_size, size) = self.shape.joined((height, width), size);
        let outputs = self.shape.outputs;
        let row = size.1 * outputs;
        self.rows(input, input_size, size, scratch, |y, acc, lanes| {
            let pixels = output[y * row..][..row].chunks_exact_mut(outputs);
            pixels
                .zip(acc.chunks_exact(lanes))
                .for_each(|(pixel, acc)| pixel.copy_from_slice(&acc[..outputs]));
        });
        Ok(())
    }

    /// Checks the lengths and returns the height and width of the output.
    fn check(&self, input: &[u8], size: Size, output: usize) -> Result<Size, Error> {
        let (height, width) = self.output_size(size.0, size.1)?;
        // Sides are at most 2^15 and channels 2^14, so the products fit 64 bits.
        length("input", input.len(), size.0 * size.1 * self.shape.inputs)?;
        length("output", output, height * width * self.shape.outputs)?;
        Ok((height, width))
    }

    /// Computes the output rows from the first to the last. Calls `each` with the row, its accumulators and the number
    /// of accumulators per pixel, of which the first `out_channels` count.
    fn rows(
        &self,
        input: &[u8],
        input_size: Size,
        output_size: Size,
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, &[i32], usize),
    ) {
        let shape = &self.shape;
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        let Scratch { words, bytes, starts, acc } = scratch;
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let Scratch { acc } = scratch;
        if let Packed::Portable(weights) = &self.packed {
            acc.resize(output_size.1 * shape.outputs, 0);
            for y in 0..output_size.0 {
                portable::row(shape, weights, input, input_size, y, acc);
                each(y, acc, shape.outputs);
            }
            return;
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        let pass = Pass { shape, input, input_size, output_size, starts, acc };
        match &self.packed {
            Packed::Portable(_) => {}
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2Dense(layer) => pass.run(layer, words, each),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2Depthwise(layer) => pass.run(layer, words, each),
            #[cfg(target_arch = "x86_64")]
            Packed::AvxVnniDense(layer) => pass.run(layer, bytes, each),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx512Dense(layer) => pass.run(layer, bytes, each),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx512Depthwise(layer) => pass.run(layer, bytes, each),
            #[cfg(target_arch = "aarch64")]
            Packed::NeonDense(layer) => pass.run(layer, words, each),
            #[cfg(target_arch = "aarch64")]
            Packed::NeonDepthwise(layer) => pass.run(layer, words, each),
            #[cfg(target_arch = "aarch64")]
            Packed::NeonDotDense(layer) => pass.run(layer, bytes, each),
        }
    }
}
