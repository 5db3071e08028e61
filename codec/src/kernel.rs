//! What follows from what is already known around symbols: their means and tables (FORMAT.md, section 5.3).

use crate::{
    context::{ACTIVITY_MAX, ChannelModel, ContextModel, EARLIER_RUNS, NEIGHBORS_MAX, PREVIOUS_RUN, Spans},
    model::MixedTables,
    rans::RansDecoder,
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
    pub(crate) differences: [i16; WIDTH],
}

/// How symbols are worked on: the portable way, or with the instructions of a processor.
pub(crate) trait ContextKernel: Copy {
    /// What is known of the symbols from a place on, as an index of all planes and one of its own.
    fn sums(
        self,
        phase_model: &PhaseModel<'_>,
        symbols: (&[i16], usize),
        magnitudes: (&[i16], usize),
    ) -> Sums;

    /// The means, in quarter symbols, given the symbols of the run before, to the left and to the right.
    fn means(self, phase_model: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH];

    /// The tables of the first `count` symbols, given their means and the magnitudes of the run before; that of no value
    /// for the others.
    fn tables(
        self,
        phase_model: &PhaseModel<'_>,
        of: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH];

    /// What the next run, in the other phase, has to the left and to the right, with zeros outside.
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2];

    /// Decodes the first `count` values, which have these tables. Returns whether there are escapes. Both go on to the end
    /// of a chunk.
    fn decode<const N: usize>(
        self,
        reader: &mut RansDecoder<'_, N>,
        shared: &MixedTables,
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
pub(crate) struct TermPair {
    pub(crate) offsets: [isize; 2],
    pub(crate) weights: [i16; 2],
}

/// Pairs of the terms; the last one may have a partner without weight.
pub(crate) fn pair_terms(terms: impl Iterator<Item = (isize, i16)>, pairs: &mut Vec<TermPair>) {
    pairs.clear();
    let mut first = None;
    for (offset, weight) in terms {
        match first.take() {
            Some((other, held)) => pairs.push(TermPair { offsets: [other, offset], weights: [held, weight] }),
            None => first = Some((offset, weight)),
        }
    }
    if let Some((offset, weight)) = first {
        pairs.push(TermPair { offsets: [offset; 2], weights: [weight, 0] });
    }
}

/// What the means and tables of one phase of a channel follow from.
pub(crate) struct PhaseModel<'a> {
    pub(crate) context: &'a ContextModel,
    pub(crate) mean_pairs: &'a [TermPair],
    pub(crate) activity_pairs: &'a [TermPair],
    /// How far the own neighbours in earlier runs are from the symbol, the one above first.
    pub(crate) level: [isize; 3],
    pub(crate) far: &'a [i16],
    pub(crate) wide: &'a [i16],
    /// The weights of far and wide.
    pub(crate) weights: [i16; 2],
    /// The weights of the run before, in means and activities.
    pub(crate) mean_neighbors: [i16; 2],
    pub(crate) activity_neighbors: [i16; 2],
    /// Where the sums begin.
    pub(crate) mean_bias: i32,
    pub(crate) activity_bias: i32,
}

impl<'a> PhaseModel<'a> {
    pub(crate) fn new(
        (context, rules, phase): (&'a ContextModel, ChannelModel<'_>, usize),
        (mean_pairs, activity_pairs, own): (&'a [TermPair], &'a [TermPair], [isize; NEIGHBORS_MAX]),
        (far, wide): (&'a [i16], &'a [i16]),
    ) -> Self {
        let (mean, activity, biases) = (&rules.means[phase], &rules.activities[phase], rules.biases[phase]);
        Self {
            context,
            mean_pairs,
            activity_pairs,
            level: EARLIER_RUNS[phase].map(|at| own[at]),
            far,
            wide,
            weights: [activity.far, activity.wide],
            mean_neighbors: PREVIOUS_RUN[phase].map(|at| mean.own[at]),
            activity_neighbors: PREVIOUS_RUN[phase].map(|at| activity.own[at]),
            mean_bias: 16 * i32::from(biases.mean),
            activity_bias: i32::from(biases.activity) << (context.shift - 4),
        }
    }
}

/// The portable way.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl ContextKernel for Portable {
    #[inline(always)]
    fn sums(
        self,
        phase_model: &PhaseModel<'_>,
        (symbols, from): (&[i16], usize),
        (magnitudes, at): (&[i16], usize),
    ) -> Sums {
        let mut means = [phase_model.mean_bias; WIDTH];
        add_pairs(&mut means, symbols, from, phase_model.mean_pairs);
        let mut activities = [phase_model.activity_bias; WIDTH];
        let [far, wide] = phase_model.weights;
        add(&mut activities, chunk(phase_model.far, at), far);
        add(&mut activities, chunk(phase_model.wide, at), wide);
        add_pairs(&mut activities, magnitudes, at, phase_model.activity_pairs);
        let [above, others @ ..] =
            phase_model.level.map(|offset| chunk(symbols, from.wrapping_add_signed(offset)));
        let differences = |lane: usize| others.iter().fold(0, |all, other| all | (other[lane] ^ above[lane]));
        Sums { means, activities, above: *above, differences: std::array::from_fn(differences) }
    }

    #[inline(always)]
    fn means(self, phase_model: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        let Sums { mut means, above, differences, .. } = *sums;
        neighbors
            .iter()
            .zip(phase_model.mean_neighbors)
            .for_each(|(neighbors, weight)| add(&mut means, neighbors, weight));
        std::array::from_fn(|lane| {
            let [left, right] = neighbors.map(|neighbors| neighbors[lane] ^ above[lane]);
            if left | right | differences[lane] == 0 { 4 * i32::from(above[lane]) } else { means[lane] >> 8 }
        })
    }

    #[inline(always)]
    fn tables(
        self,
        phase_model: &PhaseModel<'_>,
        (sums, means): (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        let mut sums = sums.activities;
        neighbors
            .iter()
            .zip(phase_model.activity_neighbors)
            .for_each(|(neighbors, weight)| add(&mut sums, neighbors, weight));
        std::array::from_fn(|lane| {
            let level = (sums[lane] >> phase_model.context.shift).clamp(0, ACTIVITY_MAX as i32) as usize;
            let table = phase_model.context.shapes[level] | (means[lane] & 3) as u8;
            if lane < count { table } else { phase_model.context.nothing }
        })
    }

    #[inline(always)]
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
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
        reader: &mut RansDecoder<'_, N>,
        shared: &MixedTables,
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
static LANE_MASKS: [i16; 2 * WIDTH] = {
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
pub(crate) fn lane_mask(count: usize) -> &'static [i16; WIDTH] {
    chunk(&LANE_MASKS, WIDTH - count.min(WIDTH))
}

/// The first `count` as they are, zeros after them.
#[inline(always)]
pub(crate) fn keep_first(count: usize, of: [i16; WIDTH]) -> [i16; WIDTH] {
    let mask = lane_mask(count);
    std::array::from_fn(|lane| of[lane] & mask[lane])
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
fn add_pairs(sums: &mut [i32; WIDTH], plane: &[i16], at: usize, pairs: &[TermPair]) {
    for TermPair { offsets, weights } in pairs {
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
