//! What is already known around a symbol, and which table follows from it (FORMAT.md, section 5.3).
//!
//! A plane is kept with its even and its odd columns apart, so that what a run of symbols needs lies side by side and a
//! processor works on many of them at once. Around it are zeros.

use crate::Shape;
use crate::context::{ACTIVITY_MAX, Context, OWN, OWN_MAX, Rules};
use crate::simd::Simd;

/// Symbols that are worked on at once.
pub(crate) const WIDTH: usize = 16;

/// Rows of zeros above and below a plane.
const ABOVE: usize = 2;
const BELOW: usize = 1;

/// The planes of one feature, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Window {
    shape: Option<Shape>,
    grid: Grid,
    simd: Simd,
    symbols: Vec<i16>,
    magnitudes: Vec<i16>,
    /// The decayed sum of the magnitudes of earlier channels, blurred along rows, and blurred.
    far: Vec<i16>,
    smooth: Vec<i16>,
    wide: Vec<i16>,
    /// What the means and the activities of the current channel are summed from, phase by phase.
    mean_pairs: [Vec<Pair>; 2],
    activity_pairs: [Vec<Pair>; 2],
    /// Of each run of the current channel, the means in quarter symbols.
    means: Vec<[i32; WIDTH]>,
    /// The chunks of a run.
    chunks: usize,
    /// Of the current run.
    tables: Vec<[u8; WIDTH]>,
}

/// Two terms of a sum: how far each is from the symbol, and the weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) offsets: [isize; 2],
    pub(crate) weights: [i16; 2],
}

/// Pairs of the terms; the last one may have a partner without weight.
fn pair(terms: impl Iterator<Item = (isize, i16)>, pairs: &mut Vec<Pair>) {
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

/// Where things are in a plane that is kept in two halves.
#[derive(Clone, Copy, Debug, Default)]
struct Grid {
    /// From a row of the even columns to that of the odd ones; a row is two of these.
    half: usize,
    plane: usize,
    own: [[isize; OWN_MAX]; 2],
    around: [[isize; 9]; 2],
}

impl Grid {
    fn new(shape: Shape) -> Self {
        let half = shape.width().div_ceil(2) + 2;
        let step = half.cast_signed();
        let offset = |phase: usize, (dy, dx): (isize, isize)| {
            let aside = match (phase, dx) {
                (_, 0) => 0,
                (0, -1) => step - 1,
                (0, _) => step,
                (_, -1) => -step,
                (_, _) => 1 - step,
            };
            2 * step * dy + aside
        };
        let mut own = [[0; OWN_MAX]; 2];
        let mut around = [[0; 9]; 2];
        for phase in 0..2 {
            own[phase].iter_mut().zip(OWN[phase]).for_each(|(to, &place)| *to = offset(phase, place));
            let places = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
            around[phase].iter_mut().zip(places).for_each(|(to, place)| *to = offset(phase, place));
        }
        Self { half, plane: (shape.height() + ABOVE + BELOW) * 2 * half, own, around }
    }

    /// Where the run of a row and phase begins.
    fn at(&self, row: usize, phase: usize) -> usize {
        (row + ABOVE) * 2 * self.half + phase * self.half + 1
    }
}

/// The channel, row and phase of a run.
pub(crate) type Run = (usize, usize, usize);

/// What the means and tables of a run follow from.
pub(crate) struct Sight<'a> {
    pub(crate) symbols: &'a [i16],
    pub(crate) magnitudes: &'a [i16],
    pub(crate) far: &'a [i16],
    pub(crate) wide: &'a [i16],
    pub(crate) mean_pairs: &'a [Pair],
    pub(crate) activity_pairs: &'a [Pair],
    pub(crate) rules: Rules<'a>,
    pub(crate) context: &'a Context,
    pub(crate) phase: usize,
    /// Where the run begins in a plane, and among the symbols.
    pub(crate) at: usize,
    pub(crate) first: usize,
}

impl Window {
    /// Forgets what was known and makes room for a feature of `shape`.
    pub(crate) fn begin(&mut self, shape: Shape, simd: Simd) {
        self.shape = Some(shape);
        self.simd = simd;
        self.grid = Grid::new(shape);
        let plane = self.grid.plane + WIDTH;
        for (buffer, len) in [
            (&mut self.symbols, shape.channels() * self.grid.plane + WIDTH),
            (&mut self.magnitudes, plane),
            (&mut self.far, plane),
            (&mut self.smooth, plane),
            (&mut self.wide, plane),
        ] {
            buffer.clear();
            buffer.resize(len, 0);
        }
        self.chunks = shape.width().div_ceil(2).div_ceil(WIDTH);
        self.means.resize(2 * shape.height() * self.chunks, [0; WIDTH]);
        self.tables.resize(self.chunks, [0; WIDTH]);
    }

    /// The number of symbols in the runs of the two phases.
    pub(crate) fn runs(&self) -> [usize; 2] {
        let width = self.shape.map_or(0, |shape| shape.width());
        [width.div_ceil(2), width / 2]
    }
}

impl Window {
    /// Takes in the symbols of a channel before they are coded.
    pub(crate) fn load(&mut self, channel: usize, plane: &[i16]) {
        let Some(shape) = self.shape else { return };
        let first = channel * self.grid.plane;
        for (row, line) in plane.chunks_exact(shape.width()).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            let (pairs, last) = line.as_chunks::<2>();
            let halves = self.symbols[even..odd + pairs.len()].split_at_mut(odd - even);
            for ((even, odd), pair) in halves.0.iter_mut().zip(halves.1).zip(pairs) {
                (*even, *odd) = (pair[0], pair[1]);
            }
            if let [last] = last {
                self.symbols[even + pairs.len()] = *last;
            }
        }
    }

    /// Gives out the symbols of a channel after they were decoded.
    pub(crate) fn store(&self, channel: usize, plane: &mut [i16]) {
        let Some(shape) = self.shape else { return };
        let first = channel * self.grid.plane;
        for (row, line) in plane.chunks_exact_mut(shape.width()).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            let (pairs, last) = line.as_chunks_mut::<2>();
            for ((pair, even), odd) in pairs.iter_mut().zip(&self.symbols[even..]).zip(&self.symbols[odd..]) {
                *pair = [*even, *odd];
            }
            if let [last] = last {
                *last = self.symbols[even + pairs.len()];
            }
        }
    }

    /// Turns to a channel.
    pub(crate) fn turn(&mut self, rules: Rules<'_>, channel: usize) {
        let Grid { plane, own, around, .. } = self.grid;
        for phase in 0..2 {
            let count = OWN[phase].len();
            let (mean, activity) = (&rules.means[phase], &rules.activities[phase]);
            let near = own[phase].into_iter().zip(mean.own).take(count);
            let taps = mean.taps.iter().map(|tap| {
                let planes = (usize::from(tap.plane) * plane).cast_signed() - (channel * plane).cast_signed();
                (planes + around[phase][usize::from(tap.place)], tap.weight)
            });
            pair(near.chain(taps), &mut self.mean_pairs[phase]);
            pair(own[phase].into_iter().zip(activity.own).take(count), &mut self.activity_pairs[phase]);
        }
    }

    /// Finds the means of a run of `count` symbols.
    pub(crate) fn predict(&mut self, context: &Context, rules: Rules<'_>, run: Run, count: usize) {
        let begin = self.means_at(run);
        let mut means = std::mem::take(&mut self.means);
        let chunks = &mut means[begin..begin + count.div_ceil(WIDTH)];
        let sight = self.sight(context, rules, run);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => crate::avx2::means(token, &sight, chunks),
            _ => sight.means(chunks),
        }
        self.means = means;
    }

    /// Finds the tables of a run of `count` symbols whose means are known.
    pub(crate) fn look(&mut self, context: &Context, rules: Rules<'_>, run: Run, count: usize) {
        let begin = self.means_at(run);
        let mut tables = std::mem::take(&mut self.tables);
        let chunks = count.div_ceil(WIDTH);
        let means = &self.means[begin..begin + chunks];
        let sight = self.sight(context, rules, run);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => crate::avx2::tables(token, &sight, means, &mut tables[..chunks]),
            _ => sight.tables(means, &mut tables[..chunks]),
        }
        self.tables = tables;
    }

    fn sight<'a>(&'a self, context: &'a Context, rules: Rules<'a>, (channel, row, phase): Run) -> Sight<'a> {
        let at = self.grid.at(row, phase);
        Sight {
            symbols: &self.symbols,
            magnitudes: &self.magnitudes,
            far: &self.far,
            wide: &self.wide,
            mean_pairs: &self.mean_pairs[phase],
            activity_pairs: &self.activity_pairs[phase],
            rules,
            context,
            phase,
            at,
            first: channel * self.grid.plane + at,
        }
    }

    /// Where the means of a run are.
    fn means_at(&self, (_, row, phase): Run) -> usize {
        (2 * row + phase) * self.chunks
    }

    /// The tables of the run that was looked at.
    pub(crate) fn tables(&self, count: usize) -> &[u8] {
        &self.tables.as_flattened()[..count]
    }

    /// The values to code for the run that was looked at.
    pub(crate) fn values(&self, (channel, row, phase): Run, count: usize) -> impl Iterator<Item = i16> {
        let at = channel * self.grid.plane + self.grid.at(row, phase);
        let means = self.means[self.means_at((channel, row, phase))..].as_flattened();
        let symbols = &self.symbols[at..at + count];
        symbols.iter().zip(means).map(|(symbol, mean)| symbol.wrapping_sub((mean >> 2) as i16))
    }

    /// Takes in the values that were decoded for the run that was looked at.
    pub(crate) fn restore(&mut self, (channel, row, phase): Run, values: &[i16]) {
        let at = channel * self.grid.plane + self.grid.at(row, phase);
        let means = self.means[self.means_at((channel, row, phase))..].as_flattened();
        let symbols = &mut self.symbols[at..at + values.len()];
        for ((symbol, mean), value) in symbols.iter_mut().zip(means).zip(values) {
            *symbol = value.wrapping_add((mean >> 2) as i16);
        }
    }

    /// Notes the magnitudes of the run that was looked at, now that its symbols are known.
    pub(crate) fn settle(&mut self, context: &Context, coarse: u8, (channel, row, phase): Run, count: usize) {
        let at = self.grid.at(row, phase);
        let symbols = &self.symbols[channel * self.grid.plane + at..][..count];
        let magnitudes = &mut self.magnitudes[at..at + count];
        let means = self.means[(2 * row + phase) * self.chunks..].as_flattened();
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => {
                crate::avx2::settle(token, magnitudes, symbols, means, (context.cap, coarse));
            }
            _ => settle(magnitudes, symbols, means, (context.cap, coarse)),
        }
    }

    /// Adds the magnitudes of a finished channel to what later ones see.
    pub(crate) fn finish(&mut self) {
        for (far, magnitude) in self.far.iter_mut().zip(&self.magnitudes) {
            *far += 8 * magnitude - (*far >> 2);
        }
        let Some(shape) = self.shape else { return };
        let [evens, odds] = self.runs();
        let half = self.grid.half;
        for line in 0..shape.height() {
            let at = self.grid.at(line, 0);
            let (even, odd) = (&self.far[at - 1..at + half], &self.far[at - 1 + half..at + 2 * half]);
            let (smooth_even, smooth_odd) = self.smooth[at..at + half + odds].split_at_mut(half);
            blur(&mut smooth_even[..evens], &even[1..], odd, &odd[1..]);
            blur(smooth_odd, &odd[1..], &even[1..], &even[2..]);
        }
        let (begin, end, row) = (self.grid.at(0, 0), self.grid.at(shape.height(), 0), 2 * half);
        let wide = &mut self.wide[begin..end];
        blur(wide, &self.smooth[begin..], &self.smooth[begin - row..], &self.smooth[begin + row..]);
        wide.iter_mut().for_each(|wide| *wide >>= 4);
    }
}

/// Twice the middle and both sides.
fn blur(out: &mut [i16], middle: &[i16], before: &[i16], after: &[i16]) {
    for (((out, middle), before), after) in out.iter_mut().zip(middle).zip(before).zip(after) {
        *out = 2 * middle + before + after;
    }
}

/// The magnitudes of symbols with these means.
#[inline(always)]
pub(crate) fn settle(magnitudes: &mut [i16], symbols: &[i16], means: &[i32], (cap, coarse): (u8, u8)) {
    for ((magnitude, symbol), mean) in magnitudes.iter_mut().zip(symbols).zip(means) {
        *magnitude = ((4 * i32::from(*symbol) - mean).abs() >> coarse).min(cap.into()) as i16;
    }
}

impl Sight<'_> {
    /// Means of a run, as many chunks as there is room for. Those past the run's end have no meaning.
    #[inline(always)]
    pub(crate) fn means(&self, means: &mut [[i32; WIDTH]]) {
        for (chunk, means) in means.iter_mut().enumerate() {
            let mut sums = [self.mean_bias(); WIDTH];
            add_pairs(&mut sums, self.symbols, self.first + chunk * WIDTH, self.mean_pairs);
            *means = sums.map(|sum| sum >> 8);
        }
    }

    /// Tables of a run, as [`means`](Self::means).
    #[inline(always)]
    pub(crate) fn tables(&self, means: &[[i32; WIDTH]], tables: &mut [[u8; WIDTH]]) {
        let activity = self.rules.activities[self.phase];
        let shift = self.context.shift;
        for (chunk, (means, tables)) in means.iter().zip(tables).enumerate() {
            let at = self.at + chunk * WIDTH;
            let mut sums = [self.activity_bias(); WIDTH];
            add(&mut sums, self.far, at, activity.far);
            add(&mut sums, self.wide, at, activity.wide);
            add_pairs(&mut sums, self.magnitudes, at, self.activity_pairs);
            for ((table, sum), mean) in tables.iter_mut().zip(sums).zip(means) {
                let level = (sum >> shift).clamp(0, ACTIVITY_MAX as i32) as usize;
                *table = self.context.shapes[level] | (mean & 3) as u8;
            }
        }
    }

    /// Where the sums begin.
    #[inline(always)]
    pub(crate) fn mean_bias(&self) -> i32 {
        16 * i32::from(self.rules.biases[self.phase].mean)
    }

    #[inline(always)]
    pub(crate) fn activity_bias(&self) -> i32 {
        i32::from(self.rules.biases[self.phase].activity) << (self.context.shift - 4)
    }
}

#[inline(always)]
fn add_pairs(sums: &mut [i32; WIDTH], plane: &[i16], at: usize, pairs: &[Pair]) {
    for Pair { offsets, weights } in pairs {
        for (offset, weight) in offsets.iter().zip(weights) {
            add(sums, plane, at.wrapping_add_signed(*offset), *weight);
        }
    }
}

/// What is at a place and after it.
#[inline(always)]
pub(crate) fn chunk(plane: &[i16], place: usize) -> &[i16; WIDTH] {
    plane[place..place + WIDTH].as_array().expect("as many as were sliced")
}

/// Adds `weight` times what is at a place, to each sum that of its own place.
#[inline(always)]
fn add(sums: &mut [i32; WIDTH], plane: &[i16], place: usize, weight: i16) {
    for (sum, value) in sums.iter_mut().zip(chunk(plane, place)) {
        *sum += i32::from(*value) * i32::from(weight);
    }
}
