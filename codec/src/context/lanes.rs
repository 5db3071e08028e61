//! Chunks of symbols that are computed on at once, as arrays.

/// Symbols per chunk.
pub(crate) const WIDTH: usize = 16;

/// All bits set for `WIDTH` lanes, then none for as many.
static LANE_MASKS: [i16; 2 * WIDTH] = {
    let mut lanes = [0; 2 * WIDTH];
    let mut lane = 0;
    while lane < WIDTH {
        lanes[lane] = -1;
        lane += 1;
    }
    lanes
};

/// A mask with all bits set in the first `count` lanes.
#[inline(always)]
pub(crate) fn lane_mask(count: usize) -> &'static [i16; WIDTH] {
    chunk(&LANE_MASKS, WIDTH - count.min(WIDTH))
}

/// The first `count` lanes of `values`, with zeros in the others.
#[inline(always)]
pub(crate) fn keep_first(count: usize, values: [i16; WIDTH]) -> [i16; WIDTH] {
    let mask = lane_mask(count);
    std::array::from_fn(|lane| values[lane] & mask[lane])
}

/// The chunk that begins at index `at`. Indices are below 2^32, so that one comparison checks both bounds.
#[inline(always)]
pub(crate) fn chunk<T>(plane: &[T], at: usize) -> &[T; WIDTH] {
    let at = at as u32 as usize;
    plane[at..at + WIDTH].first_chunk().expect("planes have room for a chunk at their end")
}

/// As [`chunk`], for writing.
#[inline(always)]
pub(crate) fn chunk_mut<T>(plane: &mut [T], at: usize) -> &mut [T; WIDTH] {
    let at = at as u32 as usize;
    plane[at..at + WIDTH].first_chunk_mut().expect("planes have room for a chunk at their end")
}
