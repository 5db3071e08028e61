//! What is already known around a symbol, and which table follows from it (FORMAT.md, section 5.3).
//!
//! A plane is kept with its even and its odd columns apart, so that what a run of symbols needs lies side by side and a
//! processor works on many of them at once. Around it are zeros. What is written in whole chunks runs over the end of a
//! run, with zeros, into what is written after it or is zero anyway.

#[cfg(target_arch = "x86_64")]
use fearless_simd::Simd as _;

use crate::{
    Error, Mode, Shape,
    context::{ChannelModel, ContextModel, NEIGHBORS, NEIGHBORS_MAX, PREVIOUS_RUN},
    kernel::{
        self, ContextKernel, PhaseModel, Portable, Sums, TermPair, WIDTH, chunk, chunk_mut, pair_terms,
    },
    rans::{LANES_MAX, RansDecoder},
    simd::Simd,
};

/// Rows of zeros above and below a plane.
const ABOVE: usize = 2;
const BELOW: usize = 1;

/// The planes of one feature, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct ContextState {
    /// As symbols are coded.
    shape: Option<Shape>,
    /// Whether rows of the feature are columns here, and a channel of it.
    transposed: bool,
    plane: Vec<i16>,
    height: usize,
    width: usize,
    grid: PlaneLayout,
    simd: Simd,
    symbols: Vec<i16>,
    magnitudes: Vec<i16>,
    /// The decayed sum of the magnitudes of earlier channels, blurred along rows, and blurred.
    far: Vec<i16>,
    smooth: Vec<i16>,
    wide: Vec<i16>,
    /// What the means and the activities of the current channel are summed from, phase by phase.
    mean_pairs: [Vec<TermPair>; 2],
    activity_pairs: [Vec<TermPair>; 2],
    /// What the run before is for the current one, chunk by chunk.
    neighbors: Vec<Neighbors>,
    /// Of the current run: what means and activities are summed from, means in quarter symbols, tables, values.
    sums: Vec<Sums>,
    means: Vec<[i32; WIDTH]>,
    tables: Vec<[u8; WIDTH]>,
    values: Vec<[i16; WIDTH]>,
    /// The tables of a channel's values, as far apart as these.
    named: Vec<u8>,
}

/// What is to the left and to the right of a chunk in the run before.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbors {
    symbols: [[i16; WIDTH]; 2],
    magnitudes: [[i16; WIDTH]; 2],
}

/// Carries over what crosses from one chunk of a run in this phase to another.
#[inline(always)]
fn join(neighbors: &mut [Neighbors], phase: usize) {
    for at in 1..neighbors.len() {
        if let [before, after] = &mut neighbors[at - 1..=at] {
            for (right, left) in [
                (&mut before.symbols[1], &mut after.symbols[0]),
                (&mut before.magnitudes[1], &mut after.magnitudes[0]),
            ] {
                let (last, first) = (&mut right[WIDTH - 1], &mut left[0]);
                if phase == 0 { *last = *first } else { *first = *last }
            }
        }
    }
}

/// Makes columns of rows of so many values.
fn transpose(rows: &[i16], width: usize, columns: &mut [i16]) {
    let height = rows.len() / width;
    for (x, column) in columns.chunks_exact_mut(height).enumerate() {
        column.iter_mut().zip(rows[x..].iter().step_by(width)).for_each(|(to, symbol)| *to = *symbol);
    }
}

/// A channel, and how it is predicted.
#[derive(Clone, Copy)]
pub(crate) struct CodedChannel<'a> {
    pub(crate) context: &'a ContextModel,
    pub(crate) rules: ChannelModel<'a>,
    pub(crate) channel: usize,
}

/// Where a channel's values go, and the entries that code them, run by run, each as far from the next as
/// [`ContextState::stride`] says, with entries of no value in between: both have room for [`WIDTH`] more. Then the places of the
/// runs that have escapes.
pub(crate) struct ChannelEntries<'a> {
    pub(crate) values: &'a mut [i16],
    pub(crate) entries: &'a mut [u16],
    pub(crate) escaped: &'a mut Vec<u32>,
}

/// Where things are in a plane that is kept in two halves.
#[derive(Clone, Copy, Debug, Default)]
struct PlaneLayout {
    /// From a row of the even columns to that of the odd ones; a row is two of these.
    half: usize,
    plane: usize,
    own: [[isize; NEIGHBORS_MAX]; 2],
    around: [[isize; 9]; 2],
}

impl PlaneLayout {
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
        let mut own = [[0; NEIGHBORS_MAX]; 2];
        let mut around = [[0; 9]; 2];
        for phase in 0..2 {
            own[phase].iter_mut().zip(NEIGHBORS[phase]).for_each(|(to, &place)| *to = offset(phase, place));
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

impl ContextState {
    /// Forgets what was known and makes room for a feature of `shape` that is coded in `mode`.
    pub(crate) fn begin(&mut self, shape: Shape, mode: Mode, simd: Simd) {
        let shape = mode.coded_shape(shape);
        (self.simd, self.transposed) = (simd, mode == Mode::Rows);
        if self.shape == Some(shape) {
            // Of the others only group_ends are read before they are written, and those stay zero.
            self.far.fill(0);
            self.wide.fill(0);
            return;
        }
        self.shape = Some(shape);
        (self.height, self.width) = (shape.height(), shape.width());
        self.grid = PlaneLayout::new(shape);
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
        // Whole turns of lanes.
        let chunks = self.runs()[0].next_multiple_of(LANES_MAX) / WIDTH;
        self.neighbors.resize(self.runs()[0].div_ceil(WIDTH), Neighbors::default());
        self.sums.resize(self.neighbors.len(), Sums::default());
        self.named.resize(2 * self.height * self.stride() + WIDTH, 0);
        self.means.resize(chunks, [0; WIDTH]);
        self.tables.resize(chunks, [0; WIDTH]);
        self.values.resize(chunks, [0; WIDTH]);
    }

    /// The number of symbols in the runs of the two phases.
    pub(crate) fn runs(&self) -> [usize; 2] {
        [self.width.div_ceil(2), self.width / 2]
    }

    /// How far runs are apart in a [`ChannelEntries`]: whole turns of eight lanes.
    pub(crate) fn stride(&self) -> usize {
        self.runs()[0].next_multiple_of(8)
    }

    /// Takes in a channel before it is coded, and tells what is to be coded.
    pub(crate) fn encode_channel(
        &mut self,
        subject: CodedChannel<'_>,
        plane: &[i16],
        sheet: ChannelEntries<'_>,
    ) {
        self.set_channel(subject);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.encode_channel_with(token, subject, plane, sheet),
            ),
            _ => self.encode_channel_with(Portable, subject, plane, sheet),
        }
    }

    #[inline(always)]
    fn encode_channel_with<H: ContextKernel>(
        &mut self,
        kernel: H,
        subject: CodedChannel<'_>,
        plane: &[i16],
        sheet: ChannelEntries<'_>,
    ) {
        let CodedChannel { context, rules, channel } = subject;
        let ChannelEntries { values, entries, escaped } = sheet;
        self.load(channel, plane);
        let (runs, stride) = (self.runs(), self.stride());
        let limits = (context.cap, rules.coarse);
        let (symbols, magnitudes) = (&self.symbols[..], &mut self.magnitudes[..]);
        let phases = [0, 1].map(|phase| {
            let pairs = (&self.mean_pairs[phase][..], &self.activity_pairs[phase][..], self.grid.own[phase]);
            PhaseModel::new((context, rules, phase), pairs, (&self.far, &self.wide))
        });
        let (neighbors, tables) = (&mut self.neighbors[..], &mut self.named[..]);
        neighbors.fill(Neighbors::default());
        let (first, mut begin, mut to) = (channel * self.grid.plane, self.grid.at(0, 0), 0);
        for run in 0..2 * self.height {
            let (phase_model, count) = (&phases[run % 2], runs[run % 2]);
            for (at, neighbors) in neighbors.iter_mut().enumerate() {
                let (here, left) = (begin + at * WIDTH, count.saturating_sub(at * WIDTH));
                let own = chunk(symbols, first + here);
                let sums = kernel.sums(phase_model, (symbols, first + here), (magnitudes, here));
                let means = kernel.means(phase_model, &sums, &neighbors.symbols);
                let named = kernel.tables(phase_model, (&sums, &means), &neighbors.magnitudes, left);
                *chunk_mut(tables, to + at * WIDTH) = named;
                *chunk_mut(values, to + at * WIDTH) = kernel::keep_first(left, kernel.values(own, &means));
                let found = kernel::keep_first(left, kernel.magnitudes(own, &means, limits));
                *chunk_mut(magnitudes, here) = found;
                neighbors.symbols = kernel.shift_neighbors(&kernel::keep_first(left, *own), run % 2);
                neighbors.magnitudes = kernel.shift_neighbors(&found, run % 2);
            }
            join(neighbors, run % 2);
            begin += self.grid.half;
            to += stride;
        }
        let mut any = false;
        for at in (0..to).step_by(WIDTH) {
            let (named, escapes) = kernel.entries(&context.spans, chunk(tables, at), chunk(values, at));
            *chunk_mut(entries, at) = named;
            any |= escapes;
        }
        if any {
            let escapes = &context.set.escapes;
            let escape = |run: &[u16]| run.iter().any(|&entry| escapes[usize::from(entry)]);
            let runs = entries[..to].chunks_exact(stride).zip((0..).step_by(stride));
            escaped.extend(runs.filter_map(|(run, at)| escape(run).then_some(at)));
        }
        self.finish();
    }

    /// Decodes a channel.
    pub(crate) fn decode_channel<const N: usize>(
        &mut self,
        subject: CodedChannel<'_>,
        reader: &mut RansDecoder<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        self.set_channel(subject);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.decode_channel_with(token, subject, reader, plane),
            ),
            _ => self.decode_channel_with(Portable, subject, reader, plane),
        }
    }

    #[inline(always)]
    fn decode_channel_with<H: ContextKernel, const N: usize>(
        &mut self,
        kernel: H,
        subject: CodedChannel<'_>,
        reader: &mut RansDecoder<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let CodedChannel { context, rules, channel } = subject;
        let runs = self.runs();
        let limits = (context.cap, rules.coarse);
        let (symbols, magnitudes) = (&mut self.symbols[..], &mut self.magnitudes[..]);
        let (means, tables, values) = (&mut self.means[..], &mut self.tables[..], &mut self.values[..]);
        let phases = [0, 1].map(|phase| {
            let pairs = (&self.mean_pairs[phase][..], &self.activity_pairs[phase][..], self.grid.own[phase]);
            PhaseModel::new((context, rules, phase), pairs, (&self.far, &self.wide))
        });
        let (neighbors, sums) = (&mut self.neighbors[..], &mut self.sums[..]);
        neighbors.fill(Neighbors::default());
        let (first, half, mut begin) = (channel * self.grid.plane, self.grid.half, self.grid.at(0, 0));
        for (at, sums) in sums.iter_mut().enumerate() {
            let here = begin + at * WIDTH;
            *sums = kernel.sums(&phases[0], (symbols, first + here), (magnitudes, here));
        }
        for run in 0..2 * self.height {
            let (phase_model, next, count) = (&phases[run % 2], &phases[(run + 1) % 2], runs[run % 2]);
            for (at, (neighbors, sums)) in neighbors.iter().zip(&mut *sums).enumerate() {
                let left = count.saturating_sub(at * WIDTH);
                means[at] = kernel.means(phase_model, sums, &neighbors.symbols);
                tables[at] = kernel.tables(phase_model, (sums, &means[at]), &neighbors.magnitudes, left);
                // Of the next run, while the states of this one are waited for.
                if run + 1 < 2 * self.height {
                    let here = begin + half + at * WIDTH;
                    *sums = kernel.sums(next, (symbols, first + here), (magnitudes, here));
                }
            }
            let shared = &context.shared;
            if kernel.decode(reader, shared, tables.as_flattened(), values.as_flattened_mut(), count) {
                reader.escapes(
                    &context.set,
                    tables.as_flattened(),
                    &mut values.as_flattened_mut()[..count],
                    channel,
                )?;
            }
            for (at, neighbors) in neighbors.iter_mut().enumerate() {
                let (here, left) = (begin + at * WIDTH, count.saturating_sub(at * WIDTH));
                let own = kernel.symbols(&values[at], &means[at]);
                let found = kernel::keep_first(left, kernel.magnitudes(&own, &means[at], limits));
                let own = kernel::keep_first(left, own);
                *chunk_mut(symbols, first + here) = own;
                *chunk_mut(magnitudes, here) = found;
                neighbors.symbols = kernel.shift_neighbors(&own, run % 2);
                neighbors.magnitudes = kernel.shift_neighbors(&found, run % 2);
            }
            join(neighbors, run % 2);
            begin += half;
        }
        self.finish();
        self.store(channel, plane);
        Ok(())
    }

    /// Turns to a channel.
    fn set_channel(&mut self, CodedChannel { rules, channel, .. }: CodedChannel<'_>) {
        let PlaneLayout { plane, own, around, .. } = self.grid;
        for phase in 0..2 {
            let count = NEIGHBORS[phase].len();
            let (mean, activity) = (&rules.means[phase], &rules.activities[phase]);
            let own = |weights| {
                let far = |(at, place)| (!PREVIOUS_RUN[phase].contains(&at)).then_some(place);
                own[phase].into_iter().zip(weights).take(count).enumerate().filter_map(far)
            };
            let taps = mean.taps.iter().map(|tap| {
                let planes = (usize::from(tap.plane) * plane).cast_signed() - (channel * plane).cast_signed();
                (planes + around[phase][usize::from(tap.place)], tap.weight)
            });
            pair_terms(own(mean.own).chain(taps), &mut self.mean_pairs[phase]);
            pair_terms(own(activity.own), &mut self.activity_pairs[phase]);
        }
    }

    #[inline(always)]
    fn load(&mut self, channel: usize, plane: &[i16]) {
        let mut transposed = std::mem::take(&mut self.plane);
        if self.transposed {
            transposed.resize(plane.len(), 0);
            transpose(plane, self.height, &mut transposed);
        }
        let plane = if self.transposed { &transposed } else { plane };
        let first = channel * self.grid.plane;
        for (row, line) in plane.chunks_exact(self.width).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            // From right to left: what runs over the end of the even ones is written by the first odd ones.
            for (at, block) in line.chunks(2 * WIDTH).enumerate().rev() {
                let mut both = [0; 2 * WIDTH];
                both[..block.len()].copy_from_slice(block);
                *chunk_mut(&mut self.symbols, even + at * WIDTH) = std::array::from_fn(|lane| both[2 * lane]);
                *chunk_mut(&mut self.symbols, odd + at * WIDTH) =
                    std::array::from_fn(|lane| both[2 * lane + 1]);
            }
        }
        self.plane = transposed;
    }

    #[inline(always)]
    fn store(&mut self, channel: usize, plane: &mut [i16]) {
        let mut transposed = std::mem::take(&mut self.plane);
        if self.transposed {
            transposed.resize(plane.len(), 0);
        }
        let to = if self.transposed { &mut transposed[..] } else { &mut *plane };
        let first = channel * self.grid.plane;
        for (row, line) in to.chunks_exact_mut(self.width).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            for (at, block) in line.chunks_mut(2 * WIDTH).enumerate() {
                let halves = [even, odd].map(|half| chunk(&self.symbols, half + at * WIDTH));
                let both: [i16; 2 * WIDTH] = std::array::from_fn(|lane| halves[lane % 2][lane / 2]);
                block.copy_from_slice(&both[..block.len()]);
            }
        }
        if self.transposed {
            transpose(&transposed, self.width, plane);
        }
        self.plane = transposed;
    }

    /// Adds the magnitudes of a finished channel to what later ones see.
    #[inline(always)]
    fn finish(&mut self) {
        for (far, magnitude) in self.far.iter_mut().zip(&self.magnitudes) {
            *far += 8 * magnitude - (*far >> 2);
        }
        let (half, far) = (self.grid.half, &self.far[..]);
        for line in 0..self.height {
            for (phase, count) in self.runs().into_iter().enumerate() {
                let begin = self.grid.at(line, phase);
                // From an even column, the odd ones beside it; from an odd one, the even ones.
                let before = if phase == 0 { half - 1 } else { 0_usize.wrapping_sub(half) };
                for at in (begin..begin + count).step_by(WIDTH) {
                    let beside = at.wrapping_add(before);
                    let (middle, before, after) =
                        (chunk(far, at), chunk(far, beside), chunk(far, beside + 1));
                    *chunk_mut(&mut self.smooth, at) =
                        std::array::from_fn(|lane| 2 * middle[lane] + before[lane] + after[lane]);
                }
            }
        }
        let (begin, end, row) = (self.grid.at(0, 0), self.grid.at(self.height, 0), 2 * half);
        self.smooth[end - 1..].fill(0);
        let (above, below) = (&self.smooth[begin - row..], &self.smooth[begin + row..]);
        let sides = above.iter().zip(&self.smooth[begin..]).zip(below);
        for (wide, ((above, middle), below)) in self.wide[begin..end].iter_mut().zip(sides) {
            *wide = (2 * middle + above + below) >> 4;
        }
    }
}
