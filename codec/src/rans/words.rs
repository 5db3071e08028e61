//! Blocks of values and the buffers of their words.
//!
//! Encoder and decoder work through blocks of a fixed number of values. A block writes or reads at most one word per
//! value, so positions in its words can be masked instead of checked, and reading a word needs no branch: which values
//! need one is as unpredictable as the values.

/// The number of values in a block of the decoder: a power of two, and a multiple of every number of lanes.
pub(crate) const DECODE_BLOCK: usize = 1024;

/// The number of values in a block of the encoder: a power of two, and a multiple of every number of lanes.
pub(crate) const ENCODE_BLOCK: usize = 256;

/// The words that a block of the encoder writes, with room for a whole vector at any of them.
pub(crate) type BlockWords = [u8; 2 * ENCODE_BLOCK + 16];

/// The words that a block of the decoder may read, with as many more as a vector reads beyond them.
pub(crate) type LookaheadWords = [[u8; 2]; DECODE_BLOCK + 8];

/// The words from index `words_read` on, of which a block may read some. `words` ends with as many zeros.
#[inline(always)]
pub(crate) fn lookahead(words: &[[u8; 2]], words_read: usize) -> &LookaheadWords {
    // Where fewer are left, every word of the packet has been read.
    words.get(words_read..).and_then(|words| words.first_chunk()).unwrap_or(&[[0; 2]; DECODE_BLOCK + 8])
}
