//! The planes of the feature that is coded, and the coding of its channels (FORMAT.md, section 5.3).
//!
//! A plane keeps even and odd columns apart ([`PlaneLayout`]) and has zeros around it. Chunks are written as a whole: the
//! lanes beyond the end of a run are zeros, and go into what is zero anyway or is written later.

#[cfg(target_arch = "x86_64")]
use fearless_simd::Simd as _;

use crate::{
    Error, Mode, Shape,
    context::{
        kernel::{ContextKernel, Sums},
        lanes::{WIDTH, chunk, chunk_mut, keep_first},
        layout::PlaneLayout,
        model::{ChannelModel, ContextModel, IN_PREVIOUS_RUN},
        phase::{PhaseModel, PhaseTerms, pair_terms},
        portable::Portable,
    },
    format::context_section::NEIGHBORS,
    limits::LANES_MAX,
    rans::decoder::RansDecoder,
    simd::Simd,
};

/// Values that [`ChannelEntries`] must have room for beyond the last run.
pub(crate) const CHUNK_ROOM: usize = WIDTH;

/// The state of the context model, whose memory is used again for the next feature.
#[derive(Debug, Default)]
pub(crate) struct ContextState {
    /// The shape in which the feature is coded.
    shape: Option<Shape>,
    height: usize,
    width: usize,
    /// Whether rows and columns are exchanged, and memory for a plane in which they are.
    transposed: bool,
    plane: Vec<i16>,
    layout: PlaneLayout,
    simd: Simd,
    /// The thresholds as the kernel has prepared them.
    thresholds: Vec<[i16; WIDTH]>,
    /// The symbols of all channels, and the magnitudes of the current one.
    symbols: Vec<i16>,
    magnitudes: Vec<i16>,
    /// A, h and B of FORMAT.md: the decayed magnitudes of earlier channels, those blurred along rows, and along both.
    far: Vec<i16>,
    smooth: Vec<i16>,
    wide: Vec<i16>,
    /// The terms of the current channel's predictions, per phase.
    terms: [PhaseTerms; 2],
    /// Per chunk of the current run, what it needs of the previous one.
    neighbors: Vec<Neighbors>,
    /// Per chunk of the current run while decoding: sums, means in quarter symbols, tables, values.
    sums: Vec<Sums>,
    means: Vec<[i32; WIDTH]>,
    tables: Vec<[u8; WIDTH]>,
    values: Vec<[i16; WIDTH]>,
    /// The tables of all values of the current channel while encoding, runs a [`stride`](Self::stride) apart.
    channel_tables: Vec<u8>,
}

/// The values to the left and to the right of a chunk's symbols, which are in the previous run.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbors {
    symbols: [[i16; WIDTH]; 2],
    magnitudes: [[i16; WIDTH]; 2],
}

/// What a channel is encoded to. Runs are a [`stride`](ContextState::stride) apart, with values of no meaning between
/// them.
pub(crate) struct ChannelEntries<'a> {
    /// Two runs per row, and room for [`CHUNK_ROOM`] more values.
    pub(crate) values: &'a mut [i16],
    /// The entries that code the values, with as much room.
    pub(crate) entries: &'a mut [u16],
    /// The starts of runs with escapes are added here.
    pub(crate) escaped: &'a mut Vec<u32>,
}

impl ContextState {
    /// Forgets the last feature, and makes room for one of `shape` that is coded in `mode`.
    pub(crate) fn begin(&mut self, model: &ContextModel, shape: Shape, mode: Mode, simd: Simd) {
        (self.simd, self.transposed) = (simd, mode == Mode::Rows);
        match simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.prepare_thresholds(model.thresholds(), &mut self.thresholds),
            _ => Portable.prepare_thresholds(model.thresholds(), &mut self.thresholds),
        }
        let shape = shape.coded_shape(mode);
        if self.shape == Some(shape) {
            // Of the other planes only the zeros around them are read before they are written.
            self.far.fill(0);
            self.wide.fill(0);
            return;
        }
        self.shape = Some(shape);
        (self.height, self.width) = (shape.height(), shape.width());
        self.layout = PlaneLayout::new(shape);
        let plane = self.layout.len + WIDTH;
        for (buffer, len) in [
            (&mut self.symbols, shape.channels() * self.layout.len + WIDTH),
            (&mut self.magnitudes, plane),
            (&mut self.far, plane),
            (&mut self.smooth, plane),
            (&mut self.wide, plane),
        ] {
            buffer.clear();
            buffer.resize(len, 0);
        }
        // A whole round of lanes.
        let chunks = self.runs()[0].next_multiple_of(LANES_MAX) / WIDTH;
        self.neighbors.resize(self.runs()[0].div_ceil(WIDTH), Neighbors::default());
        self.sums.resize(self.neighbors.len(), Sums::default());
        self.channel_tables.resize(2 * self.height * self.stride() + WIDTH, 0);
        self.means.resize(chunks, [0; WIDTH]);
        self.tables.resize(chunks, [0; WIDTH]);
        self.values.resize(chunks, [0; WIDTH]);
    }

    /// The number of symbols in the runs of the two phases.
    pub(crate) fn runs(&self) -> [usize; 2] {
        [self.width.div_ceil(2), self.width / 2]
    }

    /// The distance between the runs in [`ChannelEntries`], a multiple of eight lanes.
    pub(crate) fn stride(&self) -> usize {
        self.runs()[0].next_multiple_of(8)
    }

    /// Finds the values and entries that code a channel, whose symbols are in `plane`.
    pub(crate) fn encode_channel(
        &mut self,
        model: &ChannelModel<'_>,
        plane: &[i16],
        out: ChannelEntries<'_>,
    ) {
        self.set_terms(model);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.encode_channel_with(token, model, plane, out),
            ),
            _ => self.encode_channel_with(Portable, model, plane, out),
        }
    }

    #[inline(always)]
    fn encode_channel_with<K: ContextKernel>(
        &mut self,
        kernel: K,
        model: &ChannelModel<'_>,
        plane: &[i16],
        ChannelEntries { values, entries, escaped }: ChannelEntries<'_>,
    ) {
        self.load(model.channel, plane);
        let (runs, stride) = (self.runs(), self.stride());
        let (symbols, magnitudes) = (&self.symbols[..], &mut self.magnitudes[..]);
        let phases = [0, 1].map(|phase| {
            let prepared = (&self.terms[phase], &self.thresholds[..]);
            PhaseModel::new((model, phase), &self.layout, prepared, (&self.far, &self.wide))
        });
        let (neighbors, tables) = (&mut self.neighbors[..], &mut self.channel_tables[..]);
        neighbors.fill(Neighbors::default());
        let (set, limits) = (&model.context.tables, model.limits);
        let (first, phase_stride) = (model.channel * self.layout.len, self.layout.phase_stride);
        let (mut begin, mut to) = (self.layout.run_start(0, 0), 0);
        for run in 0..2 * self.height {
            let (phase, count) = (&phases[run % 2], runs[run % 2]);
            for (at, neighbors) in neighbors.iter_mut().enumerate() {
                let (here, left) = (begin + at * WIDTH, count.saturating_sub(at * WIDTH));
                let own = chunk(symbols, first + here);
                let sums = kernel.sums(phase, (symbols, first + here), (magnitudes, here));
                let means = kernel.means(phase, &sums, &neighbors.symbols);
                let of_chunk = kernel.tables(phase, (&sums, &means), &neighbors.magnitudes, left);
                *chunk_mut(tables, to + at * WIDTH) = of_chunk;
                *chunk_mut(values, to + at * WIDTH) = keep_first(left, kernel.values(own, &means));
                let magnitude = keep_first(left, kernel.magnitudes(own, &means, limits));
                *chunk_mut(magnitudes, here) = magnitude;
                neighbors.symbols = kernel.shift_neighbors(&keep_first(left, *own), run % 2);
                neighbors.magnitudes = kernel.shift_neighbors(&magnitude, run % 2);
            }
            join_chunks(neighbors, run % 2);
            begin += phase_stride;
            to += stride;
        }
        let (spans, mut any_escape) = (&*set.spans, false);
        for at in (0..to).step_by(WIDTH) {
            let (of_chunk, escapes) = kernel.entries(spans, chunk(tables, at), chunk(values, at));
            *chunk_mut(entries, at) = of_chunk;
            any_escape |= escapes;
        }
        if any_escape {
            let has_escape = |run: &[u16]| run.iter().any(|&entry| set.set.escapes[usize::from(entry)]);
            let runs = entries[..to].chunks_exact(stride).zip((0..).step_by(stride));
            escaped.extend(runs.filter_map(|(run, at)| has_escape(run).then_some(at)));
        }
        self.add_magnitudes();
    }

    /// Decodes the symbols of a channel to `plane`.
    ///
    /// # Errors
    /// [`Error::Escape`].
    pub(crate) fn decode_channel<const N: usize>(
        &mut self,
        model: &ChannelModel<'_>,
        decoder: &mut RansDecoder<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        self.set_terms(model);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.decode_channel_with(token, model, decoder, plane),
            ),
            _ => self.decode_channel_with(Portable, model, decoder, plane),
        }
    }

    #[inline(always)]
    fn decode_channel_with<K: ContextKernel, const N: usize>(
        &mut self,
        kernel: K,
        model: &ChannelModel<'_>,
        decoder: &mut RansDecoder<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let runs = self.runs();
        let (set, limits) = (&model.context.tables, model.limits);
        let (symbols, magnitudes) = (&mut self.symbols[..], &mut self.magnitudes[..]);
        let (means, tables, values) = (&mut self.means[..], &mut self.tables[..], &mut self.values[..]);
        let phases = [0, 1].map(|phase| {
            let prepared = (&self.terms[phase], &self.thresholds[..]);
            PhaseModel::new((model, phase), &self.layout, prepared, (&self.far, &self.wide))
        });
        let (neighbors, sums) = (&mut self.neighbors[..], &mut self.sums[..]);
        neighbors.fill(Neighbors::default());
        let (first, phase_stride) = (model.channel * self.layout.len, self.layout.phase_stride);
        let mut begin = self.layout.run_start(0, 0);
        for (at, sums) in sums.iter_mut().enumerate() {
            let here = begin + at * WIDTH;
            *sums = kernel.sums(&phases[0], (symbols, first + here), (magnitudes, here));
        }
        for run in 0..2 * self.height {
            let (phase, next, count) = (&phases[run % 2], &phases[(run + 1) % 2], runs[run % 2]);
            for (at, (neighbors, sums)) in neighbors.iter().zip(&mut *sums).enumerate() {
                let left = count.saturating_sub(at * WIDTH);
                means[at] = kernel.means(phase, sums, &neighbors.symbols);
                tables[at] = kernel.tables(phase, (sums, &means[at]), &neighbors.magnitudes, left);
                // The sums of the next run are computed here, while the processor waits for the states of this one.
                if run + 1 < 2 * self.height {
                    let here = begin + phase_stride + at * WIDTH;
                    *sums = kernel.sums(next, (symbols, first + here), (magnitudes, here));
                }
            }
            if kernel.decode(decoder, set, tables.as_flattened(), values.as_flattened_mut(), count) {
                let values = &mut values.as_flattened_mut()[..count];
                decoder.mixed_escapes(set, tables.as_flattened(), values, model.channel)?;
            }
            for (at, neighbors) in neighbors.iter_mut().enumerate() {
                let (here, left) = (begin + at * WIDTH, count.saturating_sub(at * WIDTH));
                let own = kernel.symbols(&values[at], &means[at]);
                let magnitude = keep_first(left, kernel.magnitudes(&own, &means[at], limits));
                let own = keep_first(left, own);
                *chunk_mut(symbols, first + here) = own;
                *chunk_mut(magnitudes, here) = magnitude;
                neighbors.symbols = kernel.shift_neighbors(&own, run % 2);
                neighbors.magnitudes = kernel.shift_neighbors(&magnitude, run % 2);
            }
            join_chunks(neighbors, run % 2);
            begin += phase_stride;
        }
        self.add_magnitudes();
        self.store(model.channel, plane);
        Ok(())
    }

    /// Sets the terms of a channel's predictions.
    fn set_terms(&mut self, model: &ChannelModel<'_>) {
        let PlaneLayout { len, own, taps, .. } = self.layout;
        for (phase, terms) in self.terms.iter_mut().enumerate() {
            let count = NEIGHBORS[phase].len();
            let (mean, activity) = (&model.means[phase], &model.activities[phase]);
            let own = |weights| {
                let earlier = |(at, term)| (!IN_PREVIOUS_RUN[phase].contains(&at)).then_some(term);
                own[phase].into_iter().zip(weights).take(count).enumerate().filter_map(earlier)
            };
            let taps = mean.taps.iter().map(|tap| {
                let planes =
                    (usize::from(tap.plane) * len).cast_signed() - (model.channel * len).cast_signed();
                (planes + taps[phase][usize::from(tap.place)], tap.weight)
            });
            pair_terms(own(mean.own).chain(taps), &mut terms.means);
            pair_terms(own(activity.own), &mut terms.activities);
        }
    }

    /// Copies a channel's symbols, with even and odd columns apart.
    #[inline(always)]
    fn load(&mut self, channel: usize, plane: &[i16]) {
        let mut transposed = std::mem::take(&mut self.plane);
        if self.transposed {
            transposed.resize(plane.len(), 0);
            transpose(plane, self.height, &mut transposed);
        }
        let plane = if self.transposed { &transposed } else { plane };
        let first = channel * self.layout.len;
        for (row, line) in plane.chunks_exact(self.width).enumerate() {
            let [even, odd] = [0, 1].map(|phase| first + self.layout.run_start(row, phase));
            // From right to left: the first odd columns overwrite what the last chunk of even ones wrote beyond its end.
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

    /// Copies a channel's symbols to `plane`, the inverse of [`load`](Self::load).
    #[inline(always)]
    fn store(&mut self, channel: usize, plane: &mut [i16]) {
        let mut transposed = std::mem::take(&mut self.plane);
        if self.transposed {
            transposed.resize(plane.len(), 0);
        }
        let to = if self.transposed { &mut transposed[..] } else { &mut *plane };
        let first = channel * self.layout.len;
        for (row, line) in to.chunks_exact_mut(self.width).enumerate() {
            let starts = [0, 1].map(|phase| first + self.layout.run_start(row, phase));
            for (at, block) in line.chunks_mut(2 * WIDTH).enumerate() {
                let halves = starts.map(|start| chunk(&self.symbols, start + at * WIDTH));
                let both: [i16; 2 * WIDTH] = std::array::from_fn(|lane| halves[lane % 2][lane / 2]);
                block.copy_from_slice(&both[..block.len()]);
            }
        }
        if self.transposed {
            transpose(&transposed, self.width, plane);
        }
        self.plane = transposed;
    }

    /// Adds the magnitudes of a coded channel to those of earlier channels, and blurs the sum for the next channel.
    #[inline(always)]
    fn add_magnitudes(&mut self) {
        for (far, magnitude) in self.far.iter_mut().zip(&self.magnitudes) {
            *far += 8 * magnitude - (*far >> 2);
        }
        let (stride, far) = (self.layout.phase_stride, &self.far[..]);
        for line in 0..self.height {
            for (phase, count) in self.runs().into_iter().enumerate() {
                let begin = self.layout.run_start(line, phase);
                // The columns to the left and right of an even column are odd, those of an odd column even.
                let to_left = if phase == 0 { stride - 1 } else { 0_usize.wrapping_sub(stride) };
                for at in (begin..begin + count).step_by(WIDTH) {
                    let left = at.wrapping_add(to_left);
                    let (middle, left, right) = (chunk(far, at), chunk(far, left), chunk(far, left + 1));
                    *chunk_mut(&mut self.smooth, at) =
                        std::array::from_fn(|lane| 2 * middle[lane] + left[lane] + right[lane]);
                }
            }
        }
        let (begin, end) = (self.layout.run_start(0, 0), self.layout.run_start(self.height, 0));
        let row = 2 * stride;
        self.smooth[end - 1..].fill(0);
        let (above, below) = (&self.smooth[begin - row..], &self.smooth[begin + row..]);
        let sides = above.iter().zip(&self.smooth[begin..]).zip(below);
        for (wide, ((above, middle), below)) in self.wide[begin..end].iter_mut().zip(sides) {
            *wide = (2 * middle + above + below) >> 4;
        }
    }
}

/// Copies neighbors from one chunk to the next where a run in `phase` is divided into chunks.
#[inline(always)]
fn join_chunks(neighbors: &mut [Neighbors], phase: usize) {
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

/// Writes `rows` of `width` values each to `columns`, column by column.
fn transpose(rows: &[i16], width: usize, columns: &mut [i16]) {
    let height = rows.len() / width;
    for (x, column) in columns.chunks_exact_mut(height).enumerate() {
        column.iter_mut().zip(rows[x..].iter().step_by(width)).for_each(|(to, symbol)| *to = *symbol);
    }
}
