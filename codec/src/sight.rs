//! What follows from what is already known around symbols: their means and tables (FORMAT.md, section 5.3).

use crate::{
    context::{ACTIVITY_MAX, Context, FAR, NEAR, OWN_MAX, Rules, Spans},
    model::Shared,
    rans::Reader,
};

/// Symbols that are worked on at once.
pub(crate) const WIDTH: usize = 16;

/// What is known of the symbols of a chunk without the run before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Each hand has an order of its own for these.
    pub(crate) means: [i32; WIDTH],
    pub(crate) activities: [i32; WIDTH],
    /// The symbols above.
    pub(crate) above: [i16; WIDTH],
    /// Zero where the other own neighbours in earlier runs equal those.
    pub(crate) differ: [i16; WIDTH],
}

/// How symbols are worked on: the portable way, or with the instructions of a processor.
pub(crate) trait Hand: Copy {
    /// What is known of the symbols from a place on, as an index of all planes and one of its own.
    fn sums(self, sight: &Sight<'_>, symbols: (&[i16], usize), magnitudes: (&[i16], usize)) -> Sums;

    /// The means, in quarter symbols, given the symbols of the run before, to the left and to the right.
    fn means(self, sight: &Sight<'_>, sums: &Sums, near: &[[i16; WIDTH]; 2]) -> [i32; WIDTH];

    /// The tables of the first `count` symbols, given their means and the magnitudes of the run before; that of no value
    /// for the others.
    fn tables(
        self,
        sight: &Sight<'_>,
        of: (&Sums, &[i32; WIDTH]),
        near: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH];

    /// What the next run, in the other phase, has to the left and to the right, with zeros outside.
    fn beside(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2];

    /// Decodes the first `count` values, which have these tables. Returns whether there are escapes. Both go on to the end
    /// of a chunk.
    fn decode<const N: usize>(
        self,
        reader: &mut Reader<'_, N>,
        shared: &Shared,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool;

    /// The values to code for symbols with these means.
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The symbols that these values with these means stand for.
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The magnitudes of symbols with these means, in a channel with these `cap` and `coarse`.
    fn magnitudes(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH], limits: (u8, u8)) -> [i16; WIDTH];

    /// The entries of values in these tables, and whether one is an escape.
    fn entries(self, spans: &Spans, tables: &[u8; WIDTH], values: &[i16; WIDTH]) -> ([u16; WIDTH], bool);
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
    /// How far the own neighbours in earlier runs are from the symbol, the one above first.
    pub(crate) level: [isize; 3],
    pub(crate) far: &'a [i16],
    pub(crate) wide: &'a [i16],
    /// The weights of far and wide.
    pub(crate) weights: [i16; 2],
    /// The weights of the run before, in means and activities.
    pub(crate) mean_near: [i16; 2],
    pub(crate) activity_near: [i16; 2],
    /// Where the sums begin.
    pub(crate) mean_bias: i32,
    pub(crate) activity_bias: i32,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(
        (context, rules, phase): (&'a Context, Rules<'_>, usize),
        (mean_pairs, activity_pairs, own): (&'a [Pair], &'a [Pair], [isize; OWN_MAX]),
        (far, wide): (&'a [i16], &'a [i16]),
    ) -> Self {
        let (mean, activity, biases) = (&rules.means[phase], &rules.activities[phase], rules.biases[phase]);
        Self {
            context,
            mean_pairs,
            activity_pairs,
            level: FAR[phase].map(|at| own[at]),
            far,
            wide,
            weights: [activity.far, activity.wide],
            mean_near: NEAR[phase].map(|at| mean.own[at]),
            activity_near: NEAR[phase].map(|at| activity.own[at]),
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
    fn sums(
        self,
        sight: &Sight<'_>,
        (symbols, from): (&[i16], usize),
        (magnitudes, at): (&[i16], usize),
    ) -> Sums {
        let mut means = [sight.mean_bias; WIDTH];
        add_pairs(&mut means, symbols, from, sight.mean_pairs);
        let mut activities = [sight.activity_bias; WIDTH];
        let [far, wide] = sight.weights;
        add(&mut activities, chunk(sight.far, at), far);
        add(&mut activities, chunk(sight.wide, at), wide);
        add_pairs(&mut activities, magnitudes, at, sight.activity_pairs);
        let [above, others @ ..] = sight.level.map(|offset| chunk(symbols, from.wrapping_add_signed(offset)));
        let differ = |lane: usize| others.iter().fold(0, |all, other| all | (other[lane] ^ above[lane]));
        Sums { means, activities, above: *above, differ: std::array::from_fn(differ) }
    }

    #[inline(always)]
    fn means(self, sight: &Sight<'_>, sums: &Sums, near: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        let Sums { mut means, above, differ, .. } = *sums;
        near.iter().zip(sight.mean_near).for_each(|(near, weight)| add(&mut means, near, weight));
        std::array::from_fn(|lane| {
            let [left, right] = near.map(|near| near[lane] ^ above[lane]);
            if left | right | differ[lane] == 0 { 4 * i32::from(above[lane]) } else { means[lane] >> 8 }
        })
    }

    #[inline(always)]
    fn tables(
        self,
        sight: &Sight<'_>,
        (sums, means): (&Sums, &[i32; WIDTH]),
        near: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        let mut sums = sums.activities;
        near.iter().zip(sight.activity_near).for_each(|(near, weight)| add(&mut sums, near, weight));
        std::array::from_fn(|lane| {
            let level = (sums[lane] >> sight.context.shift).clamp(0, ACTIVITY_MAX as i32) as usize;
            let table = sight.context.shapes[level] | (means[lane] & 3) as u8;
            if lane < count { table } else { sight.context.nothing }
        })
    }

    #[inline(always)]
    fn beside(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        let mut moved = [0; WIDTH];
        if phase == 0 {
            moved[..WIDTH - 1].copy_from_slice(&own[1..]);
            [*own, moved]
        } else {
            moved[1..].copy_from_slice(&own[..WIDTH - 1]);
            [moved, *own]
        }
    }

    #[inline(always)]
    fn decode<const N: usize>(
        self,
        reader: &mut Reader<'_, N>,
        shared: &Shared,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool {
        reader.mixed(shared, tables, &mut values[..count])
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
    fn entries(self, spans: &Spans, tables: &[u8; WIDTH], values: &[i16; WIDTH]) -> ([u16; WIDTH], bool) {
        let mut escaped = false;
        let entries = std::array::from_fn(|lane| {
            let span = spans[usize::from(tables[lane])];
            escaped |= span.offset(values[lane]) == span.escape;
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
pub(crate) fn chunk<T>(plane: &[T], place: usize) -> &[T; WIDTH] {
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
            add(sums, chunk(plane, at.wrapping_add_signed(*offset)), *weight);
        }
    }
}

/// Adds `weight` times the values, to each sum its own.
#[inline(always)]
fn add(sums: &mut [i32; WIDTH], values: &[i16; WIDTH], weight: i16) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += i32::from(*value) * i32::from(weight);
    }
}
