//! Exact int8 convolutions and sums for the networks of the device.
//!
//! Activations are u8 in row, column, channel order (an s8 value is stored as the u8 that is 128 above it),
//! weights are i8 with zero point 0, accumulators are i32. A layer is
//!
//! ```text
//! acc = bias + sum (x - x_zero) * w                              i32, exact
//! y   = clamp(round_half_even(f32(acc) * mult) + y_zero)         one f32 rounding of acc, one product
//! ```
//!
//! which is section 4 of `models/BUNDLE.md`; an [`Add`] joins two tensors (section 9). Every implementation ([`Isa`]) gives the same integers; the portable
//! one is written straight from the formula and the others are tested against it bit for bit.
//!
//! ```
//! use narrows_int8::{Conv, ConvSpec, Isa, ConvKind, Pads, Requant, Scratch};
//!
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

mod add;
mod conv;
mod error;
mod isa;
mod pack;
mod portable;
mod requant;
mod rows;
mod spec;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use add::{Add, Term};
pub use conv::{Conv, Scratch};
pub use error::Error;
pub use isa::Isa;
pub use requant::{Output, Requant};
pub use spec::{ConvKind, ConvSpec, Pads};
