//! Why a layer cannot be built or run.

use crate::Isa;

/// Why a layer cannot be built or run. A call that returns one has written nothing to its output.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processor lacks the instructions of the kernels.
    #[error("this processor cannot run the {0} kernels")]
    Isa(Isa),
    /// A dimension is out of the bounds that the kernels are written for.
    #[error("{what} is {value}, it must be {low} to {high}")]
    Dimension {
        /// Name of the dimension.
        what: &'static str,
        /// Its value.
        value: usize,
        /// Smallest value allowed.
        low: usize,
        /// Largest value allowed.
        high: usize,
    },
    /// A buffer does not have the length that follows from the shapes.
    #[error("{what} holds {found} values, the shapes ask for {expected}")]
    Length {
        /// Name of the buffer.
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
        /// Largest magnitude that the accumulator could reach.
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
    /// The multiplier of an operand of a sum is not a normal number above 0, or so large that products could overflow.
    #[error("term {term}: multiplier {value} is not a normal number above 0 and at most 65536")]
    Term {
        /// The operand, `a` or `b`.
        term: &'static str,
        /// The multiplier.
        value: f32,
    },
    /// The lower bound of a clamp is above its upper bound.
    #[error("a clamp from {low} to {high} is empty")]
    Clamp {
        /// Lower bound.
        low: i32,
        /// Upper bound.
        high: i32,
    },
}
