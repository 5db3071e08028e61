//! Interleaved range ANS: 32-bit states, 16-bit words, 12-bit frequencies (FORMAT.md, section 4).
//!
//! The states live in [2^15, 2^31). Both directions work through blocks of a fixed size, so that positions in the
//! block's words can be masked instead of checked and refills need no branch.

/// The sum of a table's frequencies.
pub(crate) const SCALE: usize = 1 << 12;

/// The smallest state, where every lane of an encoder begins and every lane of a decoder ends.
pub(crate) const LOWEST: u32 = 1 << 15;

/// One more than the largest state.
pub(crate) const STATE_END: u32 = 1 << 31;

/// Symbols of one block: a multiple of every lane count, and a power of two.
const BLOCK: usize = 256;

/// Everything that coding one symbol needs, without a division.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// 2^44 / frequency, rounded up.
    reciprocal: u64,
    /// The smallest state that gives off a word first: frequency · 2^19.
    limit: u32,
    start: u16,
    /// 4096 − frequency.
    gap: u16,
}

impl Step {
    /// The steps of a table with these frequencies, which sum to 4096.
    pub(crate) fn all(frequencies: &[u16]) -> Box<[Self]> {
        let mut start = 0;
        let step = |&frequency: &u16| {
            let own = start;
            start += frequency;
            Self {
                reciprocal: (1_u64 << 44).div_ceil(frequency.into()),
                limit: u32::from(frequency) << 19,
                start: own,
                gap: SCALE as u16 - frequency,
            }
        };
        frequencies.iter().map(step).collect()
    }

    /// The state after this symbol, for a state below `limit`.
    ///
    /// `quotient` is exactly `state / frequency`: the reciprocal is too large by less than `frequency / 2^44` of
    /// itself, which moves the product by less than `state · 2^12 / 2^44 < frequency · 2^-13`, that is less than
    /// `1 / frequency` for frequencies up to 2^6 · √2 …
    #[inline(always)]
    fn advance(&self, state: u32) -> u32 {
        let quotient = (u64::from(state) * self.reciprocal >> 44) as u32;
        state + quotient * u32::from(self.gap) + u32::from(self.start)
    }
}

/// The words of a payload in the making: written from the end of the buffer to its front.
pub(crate) struct Words<'a> {
    buffer: &'a mut [u8],
}

impl<'a> Words<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer }
    }

    /// Bytes of the buffer that are still free.
    pub(crate) fn free(&self) -> usize {
        self.buffer.len()
    }

    fn prepend(&mut self, words: &[u16]) {
        let buffer = std::mem::take(&mut self.buffer);
        let (free, taken) = buffer.split_at_mut(buffer.len() - 2 * words.len());
        for (to, word) in taken.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        self.buffer = free;
    }
}

/// Codes one channel from its last symbol to its first. The buffer of `words` has two bytes left per symbol.
pub(crate) fn encode<const N: usize>(
    states: &mut [u32; N],
    words: &mut Words<'_>,
    steps: &[Step],
    low: i16,
    symbols: &[i16],
) {
    let (groups, rest) = symbols.as_chunks::<N>();
    let mut out = [0; BLOCK];
    let mut at = BLOCK;
    for lane in (0..rest.len()).rev() {
        put(&mut states[lane], step(steps, low, rest[lane]), &mut out, &mut at);
    }
    words.prepend(&out[at..]);
    let mut local = *states;
    for block in groups.rchunks(BLOCK / N) {
        let mut at = BLOCK;
        for group in block.iter().rev() {
            for lane in (0..N).rev() {
                put(&mut local[lane], step(steps, low, group[lane]), &mut out, &mut at);
            }
        }
        words.prepend(&out[at..]);
    }
    *states = local;
}

#[inline(always)]
fn step(steps: &[Step], low: i16, symbol: i16) -> &Step {
    let offset = usize::from(symbol.wrapping_sub(low).cast_unsigned());
    &steps[offset.min(steps.len() - 1)]
}

#[inline(always)]
fn put(state: &mut u32, step: &Step, out: &mut [u16; BLOCK], at: &mut usize) {
    let full = *state >= step.limit;
    out[at.wrapping_sub(1) % BLOCK] = *state as u16;
    *at -= usize::from(full);
    let ready = if full { *state >> 16 } else { *state };
    *state = step.advance(ready);
}

/// From a slot to the entry it belongs to, and from the entry to its frequency and start.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    /// At most 256 entries.
    Narrow { slots: Box<[u8; SCALE]>, spans: Box<[Span; 256]> },
    /// More.
    Wide { slots: Box<[u16; SCALE]>, spans: Box<[Span; SCALE]> },
}

/// Where an entry lies among the slots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    frequency: u16,
    start: u16,
}

impl Lookup {
    /// The lookup of a table with these frequencies, which sum to 4096.
    pub(crate) fn new(frequencies: &[u16]) -> Self {
        if frequencies.len() <= 256 {
            let (slots, spans) = spread(frequencies);
            Self::Narrow { slots: Box::new(slots.map(|entry| entry as u8)), spans: Box::new(spans) }
        } else {
            let (slots, spans) = spread(frequencies);
            Self::Wide { slots: Box::new(slots), spans: Box::new(spans) }
        }
    }
}

fn spread<const S: usize>(frequencies: &[u16]) -> ([u16; SCALE], [Span; S]) {
    let mut slots = [0; SCALE];
    let mut spans = [Span::default(); S];
    let mut start = 0;
    for (entry, (&frequency, span)) in frequencies.iter().zip(&mut spans).enumerate() {
        slots[usize::from(start)..][..usize::from(frequency)].fill(entry as u16);
        *span = Span { frequency, start };
        start += frequency;
    }
    (slots, spans)
}

/// The words of a payload, taken from the front. Words that are not there read as 0 and are counted as missing.
pub(crate) struct Source<'a> {
    words: &'a [[u8; 2]],
    missing: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn new(words: &'a [[u8; 2]]) -> Self {
        Self { words, missing: false }
    }

    /// The words that were not taken, unless some were taken that were not there.
    pub(crate) fn rest(&self) -> Option<&'a [[u8; 2]]> {
        (!self.missing).then_some(self.words)
    }

    /// Runs `read` over the next block of words and takes as many as it says.
    #[inline(always)]
    fn block(&mut self, read: impl FnOnce(&[[u8; 2]; BLOCK]) -> usize) {
        let taken = match self.words.first_chunk() {
            Some(block) => read(block),
            None => {
                let mut padded = [[0; 2]; BLOCK];
                padded[..self.words.len()].copy_from_slice(self.words);
                read(&padded)
            }
        };
        match self.words.get(taken..) {
            Some(rest) => self.words = rest,
            None => (self.words, self.missing) = (&[], true),
        }
    }
}

/// Decodes one channel. An escape comes out as `low` plus its entry.
pub(crate) fn decode<const N: usize>(
    states: &mut [u32; N],
    source: &mut Source<'_>,
    lookup: &Lookup,
    low: i16,
    symbols: &mut [i16],
) {
    match lookup {
        Lookup::Narrow { slots, spans } => {
            let find = |slot: usize| {
                let entry = slots[slot];
                (u16::from(entry), spans[usize::from(entry)])
            };
            decode_with(states, source, find, low, symbols);
        }
        Lookup::Wide { slots, spans } => {
            let find = |slot: usize| {
                let entry = slots[slot];
                (entry, spans[usize::from(entry) % SCALE])
            };
            decode_with(states, source, find, low, symbols);
        }
    }
}

#[inline(always)]
fn decode_with<const N: usize>(
    states: &mut [u32; N],
    source: &mut Source<'_>,
    find: impl Fn(usize) -> (u16, Span),
    low: i16,
    symbols: &mut [i16],
) {
    let take = |state: &mut u32, words: &[[u8; 2]; BLOCK], at: &mut usize| {
        let slot = *state as usize % SCALE;
        let (entry, span) = find(slot);
        let next = u32::from(span.frequency) * (*state >> 12) + slot as u32 - u32::from(span.start);
        let word = u32::from(u16::from_le_bytes(words[*at % BLOCK]));
        let low_state = next < LOWEST;
        *state = if low_state { next << 16 | word } else { next };
        *at += usize::from(low_state);
        low.wrapping_add_unsigned(entry)
    };
    let (groups, rest) = symbols.as_chunks_mut::<N>();
    let mut local = *states;
    for block in groups.chunks_mut(BLOCK / N) {
        source.block(|words| {
            let mut at = 0;
            for group in block {
                for lane in 0..N {
                    group[lane] = take(&mut local[lane], words, &mut at);
                }
            }
            at
        });
    }
    source.block(|words| {
        let mut at = 0;
        for (lane, symbol) in rest.iter_mut().enumerate() {
            *symbol = take(&mut local[lane], words, &mut at);
        }
        at
    });
    *states = local;
}
