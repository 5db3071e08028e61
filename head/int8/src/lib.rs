//! Exact int8 arithmetic for the networks that run on the device: convolution, requantisation and the sum of two
//! tensors.
//!
//! Exact means that every processor computes the same integers. Activations are u8 in row, column, channel order (an s8
//! value is stored as the u8 that is 128 above it), weights are i8 with zero point 0, accumulators are i32. A layer is
//!
//! ```text
//! acc = bias + sum (x - x_zero) * w                              i32, exact
//! y   = clamp(round_half_even(f32(acc) * mult) + y_zero)         one f32 rounding of acc, one product
//! ```
//!
//! which is section 4 of `models/BUNDLE.md`. An [`Add`] sums two tensors (section 9). There are kernels for every
//! processor, for AVX2, AVX-VNNI and AVX-512 with VNNI, for NEON and for NEON with its dot product; [`Isa`] names them and
//! [`Isa::detect`] picks the fastest. The portable kernels are written straight from the formula, and the others are tested against them bit for
//! bit.
//!
//! ```
//! use narrows_int8::{Conv, ConvKind, ConvSpec, Isa, Pads, Requant, Scratch};
//!
//! // One row of three pixels, one input channel, two output channels, a kernel of 1 by 2.
//! let spec = ConvSpec {
//!     kind: ConvKind::Dense,
//!     in_channels: 1,
//!     out_channels: 2,
//!     kernel: [1, 2],
//!     stride: [1, 1],
//!     pads: Pads { right: 1, ..Pads::default() },
//!     input_zero: 10,
//!     weights: vec![1, 2, 0, -1],
//!     bias: vec![0, 100],
//! };
//! let conv = Conv::new(&spec, Isa::detect())?;
//! let requant = Requant::<u8>::new(&[1.0, 0.5], 0)?;
//! let (mut output, mut scratch) = ([0; 6], Scratch::default());
//! conv.run(&[11, 12, 13], 1, 3, &requant, &mut output, &mut scratch)?;
//! assert_eq!(output, [5, 49, 8, 48, 3, 50]);
//! # Ok::<(), narrows_int8::Error>(())
//! ```
//!
//! A layer is split over three kinds of files: [`Conv`], [`Requant`] and [`Add`] check what comes in and choose an
//! implementation; `dense.rs`, `rows.rs` and `pack.rs` hold what the implementations share; `kernels/` holds the
//! instructions, one file per family of processors.

mod add;
mod conv;
mod error;
mod isa;
mod kernels;
mod narrow;
mod requant;
mod spec;
mod sum;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod dense;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod kernel;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod pack;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rows;

pub use add::Add;
pub use conv::{Conv, Scratch};
pub use error::Error;
pub use isa::{Isa, UnknownIsa, features};
pub use narrow::Output;
pub use requant::Requant;
pub use spec::{ConvKind, ConvSpec, Pads};
pub use sum::Term;
