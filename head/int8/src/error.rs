//! What can be wrong with a layer or with the buffers it is given.

use crate::Isa;

/// Why a layer could not be built or run. Nothing has been written to the output when a call returns one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processor lacks the instructions that were asked for.
    #[error("this processor cannot run the {0} kernels")]
    Isa(Isa),
    /// A dimension is outside what the kernels are written for.
    #[error("{what} is {value}, it must be {low} to {high}")]
    Dimension {
        /// Which dimension.
        what: &'static str,
        /// Its value.
        value: usize,
        /// Smallest value allowed.
        low: usize,
        /// Largest value allowed.
        high: usize,
    },
    /// A buffer does not have the length that the shapes ask for.
    #[error("{what} holds {found} values, the shapes ask for {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A depthwise layer has as many output channels as input channels.
    #[error("a depthwise layer of {inputs} input channels cannot have {outputs} output channels")]
    Depthwise {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
    /// The padded input is smaller than the kernel.
    #[error("a padded input of {height}x{width} is smaller than the kernel")]
    Small {
        /// Height with padding.
        height: usize,
        /// Width with padding.
        width: usize,
    },
    /// Some input could overflow the 32-bit accumulator of a channel.
    #[error("output channel {channel}: |bias| + 255 * sum |w| is {bound}, more than 32 bits hold")]
    Overflow {
        /// The output channel.
        channel: usize,
        /// Largest magnitude the accumulator could reach.
        bound: u64,
    },
    /// A multiplier is not a positive normal number.
    #[error("output channel {channel}: multiplier {value} is not a positive normal number")]
    Multiplier {
        /// The output channel.
        channel: usize,
        /// The multiplier.
        value: f32,
    },
    /// The multiplier of one side of a sum is not a normal number above 0, or so large that products could overflow.
    #[error("term {term}: multiplier {value} is not a normal number above 0 and at most 65536")]
    Term {
        /// The side, `a` or `b`.
        term: &'static str,
        /// The multiplier.
        value: f32,
    },
    /// The lower end of a clamp is above its upper end.
    #[error("a clamp from {low} to {high} is empty")]
    Clamp {
        /// Lower end.
        low: i32,
        /// Upper end.
        high: i32,
    },
}
