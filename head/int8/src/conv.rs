//! A layer ready to run: weights packed for one implementation, output rows computed one by one.

use crate::{
    ConvSpec, Error, Isa, Output, Requant, portable,
    rows::{Ring, Taps},
    spec::{ConvKind, Shape, length},
};

/// Memory that layers use while they run. It grows to what the largest layer needs and is then kept, so a
/// caller that reuses it allocates nothing. Its content means nothing between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    words: Vec<i16>,
    #[cfg(target_arch = "aarch64")]
    bytes: Vec<i8>,
    starts: Vec<usize>,
    acc: Vec<i32>,
}

/// A prepared layer.
#[derive(Debug, Clone)]
pub struct Conv {
    shape: Shape,
    isa: Isa,
    packed: Packed,
}

#[derive(Debug, Clone)]
enum Packed {
    Portable(portable::Weights),
    #[cfg(target_arch = "x86_64")]
    Avx2Dense(crate::avx2::Dense),
    #[cfg(target_arch = "x86_64")]
    Avx2Depthwise(crate::avx2::Depthwise),
    #[cfg(target_arch = "aarch64")]
    NeonDense(crate::neon::Dense),
    #[cfg(target_arch = "aarch64")]
    NeonDepthwise(crate::neon::Depthwise),
    #[cfg(target_arch = "aarch64")]
    DotDense(crate::dot::Dense),
}

impl Conv {
    /// Checks a layer and packs its weights for `isa`, which this processor must support.
    pub fn new(spec: &ConvSpec, isa: Isa) -> Result<Conv, Error> {
        let shape = spec.check()?;
        if !isa.is_supported() {
            return Err(Error::Isa(isa));
        }
        let packed = match (isa, spec.kind) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: AVX2 is supported, tested above.
            (Isa::Avx2, ConvKind::Dense) => Packed::Avx2Dense(unsafe { crate::avx2::Dense::new(spec) }),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, ConvKind::Depthwise) => {
                // SAFETY: AVX2 is supported, tested above.
                Packed::Avx2Depthwise(unsafe { crate::avx2::Depthwise::new(spec) })
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is supported, tested above.
            (Isa::Neon, ConvKind::Dense) => Packed::NeonDense(unsafe { crate::neon::Dense::new(spec) }),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON and its dot product are supported, tested above.
            (Isa::NeonDot, ConvKind::Dense) => Packed::DotDense(unsafe { crate::dot::Dense::new(spec) }),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon | Isa::NeonDot, ConvKind::Depthwise) => {
                // SAFETY: NEON is supported, tested above.
                Packed::NeonDepthwise(unsafe { crate::neon::Depthwise::new(spec) })
            }
            _ => Packed::Portable(portable::Weights::new(spec)),
        };
        Ok(Conv { shape, isa, packed })
    }

    /// The implementation it was packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        self.shape.inputs
    }

    /// Channels of the output.
    pub fn out_channels(&self) -> usize {
        self.shape.outputs
    }

    /// Height and width of the output for an input of `height` by `width`.
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize), Error> {
        self.shape.output(height, width)
    }

    /// Multiply-accumulates for an input of `height` by `width`, those that fall on padding included.
    pub fn macs(&self, height: usize, width: usize) -> Result<u64, Error> {
        let (height, width) = self.output_size(height, width)?;
        let inputs = if self.shape.kind == ConvKind::Dense { self.shape.inputs } else { 1 };
        let per_pixel = self.shape.outputs * inputs * self.shape.kernel[0] * self.shape.kernel[1];
        Ok((height * width * per_pixel) as u64)
    }

    /// Runs the layer on `input` (row, column, channel), giving activations or symbols in the same order.
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
        let (from, size) = self.shape.joined((height, width), size);
        let row = size.1 * self.shape.outputs;
        self.rows(input, from, size, scratch, |y, acc, lanes| {
            requant.rows(self.isa, acc, lanes, &mut output[y * row..][..row]);
        });
        Ok(())
    }

    /// Runs the layer on `input` and gives the accumulators, for a [`Requant`] to narrow.
    pub fn accumulate(
        &self,
        input: &[u8],
        height: usize,
        width: usize,
        output: &mut [i32],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let size = self.check(input, (height, width), output.len())?;
        let (from, size) = self.shape.joined((height, width), size);
        let outputs = self.shape.outputs;
        let row = size.1 * outputs;
        self.rows(input, from, size, scratch, |y, acc, lanes| {
            let pixels = output[y * row..][..row].chunks_exact_mut(outputs);
            pixels
                .zip(acc.chunks_exact(lanes))
                .for_each(|(pixel, acc)| pixel.copy_from_slice(&acc[..outputs]));
        });
        Ok(())
    }

    /// Tests the lengths and gives the output's height and width.
    fn check(&self, input: &[u8], size: (usize, usize), output: usize) -> Result<(usize, usize), Error> {
        let (height, width) = self.output_size(size.0, size.1)?;
        // Sides are at most 2^15 and channels 2^14.
        length("input", input.len(), size.0 * size.1 * self.shape.inputs)?;
        length("output", output, height * width * self.shape.outputs)?;
        Ok((height, width))
    }

    /// Computes the accumulators of every output row and hands them on with the number of lanes per pixel, of
    /// which the first `out_channels` count.
    fn rows(
        &self,
        input: &[u8],
        size: (usize, usize),
        output: (usize, usize),
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, &[i32], usize),
    ) {
        let shape = &self.shape;
        let job = Job { shape, input, size, output, starts: &mut scratch.starts, acc: &mut scratch.acc };
        match &self.packed {
            Packed::Portable(weights) => {
                job.acc.resize(output.1 * shape.outputs, 0);
                for y in 0..output.0 {
                    portable::row(shape, weights, input, size, y, job.acc);
                    each(y, job.acc, shape.outputs);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2Dense(layer) => job.rows(layer, &mut scratch.words, each),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2Depthwise(layer) => job.rows(layer, &mut scratch.words, each),
            #[cfg(target_arch = "aarch64")]
            Packed::NeonDense(layer) => job.rows(layer, &mut scratch.words, each),
            #[cfg(target_arch = "aarch64")]
            Packed::NeonDepthwise(layer) => job.rows(layer, &mut scratch.words, each),
            #[cfg(target_arch = "aarch64")]
            Packed::DotDense(layer) => job.rows(layer, &mut scratch.bytes, each),
        }
    }
}

/// A vector implementation of one layer.
pub(crate) trait Kernel {
    /// The input as it reads it.
    type Element: Copy;

    /// Converts one stored input.
    fn convert(value: u8) -> Self::Element;

    /// Kernel columns that are a start of their own.
    fn columns(&self) -> usize;

    /// Elements read from each start, at most [`SLACK`](crate::rows::SLACK) past the end of its row.
    fn run(&self) -> usize;

    /// Accumulators per pixel, at least the output channels.
    fn lanes(&self) -> usize;

    /// Fills `acc`, `taps.width` times `lanes` accumulators.
    fn row(&self, taps: &Taps<'_, Self::Element>, acc: &mut [i32]);
}

/// One call's input and sizes, and the memory it uses.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
struct Job<'a> {
    shape: &'a Shape,
    input: &'a [u8],
    size: (usize, usize),
    output: (usize, usize),
    starts: &'a mut Vec<usize>,
    acc: &'a mut Vec<i32>,
}

impl Job<'_> {
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    fn rows<K: Kernel>(
        self,
        layer: &K,
        buffer: &mut Vec<K::Element>,
        mut each: impl FnMut(usize, &[i32], usize),
    ) {
        let (height, width) = self.output;
        let lanes = layer.lanes();
        self.acc.resize(width * lanes, 0);
        let step = self.shape.stride[1] * self.shape.inputs;
        let mut ring = Ring::new(self.shape, self.input, self.size, K::convert, buffer);
        for y in 0..height {
            let elements = ring.advance(y, layer.columns(), self.starts);
            layer.row(&Taps::new(elements, self.starts, step, layer.run(), width), self.acc);
            each(y, self.acc, lanes);
        }
    }
}
