//! What follows from what is already known around symbols: their means and tables (FORMAT.md, section 5.3).

use crate::context::{ACTIVITY_MAX, Context, Rules, Spans};

/// Symbols that are worked on at once.
pub(crate) const WIDTH: usize = 16;

/// How symbols are worked on: the portable way, or with the instructions of a processor.
pub(crate) trait Hand: Copy {
    /// The means, in quarter symbols, of the symbols from `at` on. Each hand has an order of its own for them.
    fn means(self, sight: &Sight<'_>, symbols: &[i16], at: usize) -> [i32; WIDTH];

    /// The tables of the symbols from `at` on in their plane, which have these means.
    fn tables(self, sight: &Sight<'_>, magnitudes: &[i16], at: usize, means: &[i32; WIDTH]) -> [u8; WIDTH];

    /// The values to code for symbols with these means.
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The symbols that these values with these means stand for.
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The magnitudes of symbols with these means, in a channel with these `cap` and `coarse`.
    fn magnitudes(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH], limits: (u8, u8)) -> [i16; WIDTH];

    /// The entries of values in these tables, and whether one of the first `count` is an escape.
    fn entries(
        self,
        spans: &Spans,
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
        count: usize,
    ) -> ([u16; WIDTH], bool);
}

/// Two terms of a sum: how far each is from the symbol, and the weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) offsets: [isize; 2],
    pub(crate) weights: [i16; 2],
}

/// Pairs of the terms; the last one may have a partner without weight.
pub(crate) fn pair(terms: impl Iterator<Item = (isize, i16)>, pairs: &mut Vec<Pair>) {
    pairs.clear();
    let mut first = None;
    for (offset, weight) in terms {
        match first.take() {
            Some((other, held)) => pairs.push(Pair { offsets: [other, offset], weights: [held, weight] }),
            None => first = Some((offset, weight)),
        }
    }
    if let Some((offset, weight)) = first {
        pairs.push(Pair { offsets: [offset; 2], weights: [weight, 0] });
    }
}

/// What the means and tables of one phase of a channel follow from.
pub(crate) struct Sight<'a> {
    pub(crate) context: &'a Context,
    pub(crate) mean_pairs: &'a [Pair],
    pub(crate) activity_pairs: &'a [Pair],
    pub(crate) far: &'a [i16],
    pub(crate) wide: &'a [i16],
    /// The weights of far and wide.
    pub(crate) weights: [i16; 2],
    /// Where the sums begin.
    pub(crate) mean_bias: i32,
    pub(crate) activity_bias: i32,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(
        (context, rules, phase): (&'a Context, Rules<'_>, usize),
        (mean_pairs, activity_pairs): (&'a [Pair], &'a [Pair]),
        (far, wide): (&'a [i16], &'a [i16]),
    ) -> Self {
        let (activity, biases) = (&rules.activities[phase], &rules.biases[phase]);
        Self {
            context,
            mean_pairs,
            activity_pairs,
            far,
            wide,
            weights: [activity.far, activity.wide],
            mean_bias: 16 * i32::from(biases.mean),
            activity_bias: i32::from(biases.activity) << (context.shift - 4),
        }
    }
}

/// The portable way.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Hand for Portable {
    #[inline(always)]
    fn means(self, sight: &Sight<'_>, symbols: &[i16], at: usize) -> [i32; WIDTH] {
        let mut sums = [sight.mean_bias; WIDTH];
        add_pairs(&mut sums, symbols, at, sight.mean_pairs);
        sums.map(|sum| sum >> 8)
    }

    #[inline(always)]
    fn tables(self, sight: &Sight<'_>, magnitudes: &[i16], at: usize, means: &[i32; WIDTH]) -> [u8; WIDTH] {
        let mut sums = [sight.activity_bias; WIDTH];
        let [far, wide] = sight.weights;
        add(&mut sums, sight.far, at, far);
        add(&mut sums, sight.wide, at, wide);
        add_pairs(&mut sums, magnitudes, at, sight.activity_pairs);
        std::array::from_fn(|lane| {
            let level = (sums[lane] >> sight.context.shift).clamp(0, ACTIVITY_MAX as i32) as usize;
            sight.context.shapes[level] | (means[lane] & 3) as u8
        })
    }

    #[inline(always)]
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        std::array::from_fn(|lane| symbols[lane].wrapping_sub((means[lane] >> 2) as i16))
    }

    #[inline(always)]
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        std::array::from_fn(|lane| values[lane].wrapping_add((means[lane] >> 2) as i16))
    }

    #[inline(always)]
    fn magnitudes(
        self,
        symbols: &[i16; WIDTH],
        means: &[i32; WIDTH],
        (cap, coarse): (u8, u8),
    ) -> [i16; WIDTH] {
        std::array::from_fn(|lane| {
            ((4 * i32::from(symbols[lane]) - means[lane]).abs() >> coarse).min(cap.into()) as i16
        })
    }

    #[inline(always)]
    fn entries(
        self,
        spans: &Spans,
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
        count: usize,
    ) -> ([u16; WIDTH], bool) {
        let mut escaped = false;
        let entries = std::array::from_fn(|lane| {
            let span = spans[usize::from(tables[lane])];
            escaped |= (span.offset(values[lane]) == span.escape) & (lane < count);
            span.entry(values[lane])
        });
        (entries, escaped)
    }
}

/// Ones for as many lanes as are in use, then zeros.
static USED: [i16; 2 * WIDTH] = {
    let mut lanes = [0; 2 * WIDTH];
    let mut lane = 0;
    while lane < WIDTH {
        lanes[lane] = -1;
        lane += 1;
    }
    lanes
};

/// All bits of the first `count` lanes.
#[inline(always)]
pub(crate) fn used(count: usize) -> &'static [i16; WIDTH] {
    chunk(&USED, WIDTH - count.min(WIDTH))
}

/// The first `count` as they are, zeros after them.
#[inline(always)]
pub(crate) fn first(count: usize, of: [i16; WIDTH]) -> [i16; WIDTH] {
    let used = used(count);
    std::array::from_fn(|lane| of[lane] & used[lane])
}

/// What is at a place and after it. Places are below 2^32, so that one comparison is enough.
#[inline(always)]
pub(crate) fn chunk(plane: &[i16], place: usize) -> &[i16; WIDTH] {
    let place = place as u32 as usize;
    plane[place..place + WIDTH].first_chunk().expect("planes have room for a chunk at their end")
}

/// As [`chunk`], to be written.
#[inline(always)]
pub(crate) fn chunk_mut<T>(plane: &mut [T], place: usize) -> &mut [T; WIDTH] {
    let place = place as u32 as usize;
    plane[place..place + WIDTH].first_chunk_mut().expect("planes have room for a chunk at their end")
}

#[inline(always)]
fn add_pairs(sums: &mut [i32; WIDTH], plane: &[i16], at: usize, pairs: &[Pair]) {
    for Pair { offsets, weights } in pairs {
        for (offset, weight) in offsets.iter().zip(weights) {
            add(sums, plane, at.wrapping_add_signed(*offset), *weight);
        }
    }
}

/// Adds `weight` times what is at a place, to each sum that of its own place.
#[inline(always)]
fn add(sums: &mut [i32; WIDTH], plane: &[i16], place: usize, weight: i16) {
    for (sum, value) in sums.iter_mut().zip(chunk(plane, place)) {
        *sum += i32::from(*value) * i32::from(weight);
    }
}
