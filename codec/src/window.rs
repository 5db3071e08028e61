//! What is already known around a symbol, and which table follows from it (FORMAT.md, section 5.3).
//!
//! A plane is kept with its even and its odd columns apart, so that what a run of symbols needs lies side by side and a
//! processor works on many of them at once. Around it are zeros. What is written in whole chunks runs over the end of a
//! run, with zeros, into what is written after it or is zero anyway.

#[cfg(target_arch = "x86_64")]
use fearless_simd::Simd as _;

use crate::context::{Context, OWN, OWN_MAX, Rules};
use crate::rans::{LANES_MAX, Reader};
use crate::sight::{self, Hand, Pair, Portable, Sight, WIDTH, chunk, chunk_mut, pair};
use crate::simd::Simd;
use crate::{Error, Shape};

/// Rows of zeros above and below a plane.
const ABOVE: usize = 2;
const BELOW: usize = 1;

/// The planes of one feature, used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Window {
    shape: Option<Shape>,
    height: usize,
    width: usize,
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
    /// Of the current run: means in quarter symbols, tables, values.
    means: Vec<[i32; WIDTH]>,
    tables: Vec<[u8; WIDTH]>,
    values: Vec<[i16; WIDTH]>,
}

/// A channel, and how it is predicted.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) context: &'a Context,
    pub(crate) rules: Rules<'a>,
    pub(crate) channel: usize,
}

/// Where a channel's values go, and the entries that code them: both have room for [`WIDTH`] more. Then the places of
/// the runs that have escapes.
pub(crate) struct Sheet<'a> {
    pub(crate) values: &'a mut [i16],
    pub(crate) entries: &'a mut [u16],
    pub(crate) escaped: &'a mut Vec<u32>,
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

impl Window {
    /// Forgets what was known and makes room for a feature of `shape`.
    pub(crate) fn begin(&mut self, shape: Shape, simd: Simd) {
        self.simd = simd;
        if self.shape == Some(shape) {
            // Of the others only borders are read before they are written, and those stay zero.
            self.far.fill(0);
            self.wide.fill(0);
            return;
        }
        self.shape = Some(shape);
        (self.height, self.width) = (shape.height(), shape.width());
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
        // Whole turns of lanes.
        let chunks = self.runs()[0].next_multiple_of(LANES_MAX) / WIDTH;
        self.means.resize(chunks, [0; WIDTH]);
        self.tables.resize(chunks, [0; WIDTH]);
        self.values.resize(chunks, [0; WIDTH]);
    }

    /// The number of symbols in the runs of the two phases.
    pub(crate) fn runs(&self) -> [usize; 2] {
        [self.width.div_ceil(2), self.width / 2]
    }

    /// Takes in a channel before it is coded, and tells what is to be coded.
    pub(crate) fn survey(&mut self, subject: Subject<'_>, plane: &[i16], sheet: Sheet<'_>) {
        self.turn(subject);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.survey_by(token, subject, plane, sheet),
            ),
            _ => self.survey_by(Portable, subject, plane, sheet),
        }
    }

    #[inline(always)]
    fn survey_by<H: Hand>(&mut self, hand: H, subject: Subject<'_>, plane: &[i16], sheet: Sheet<'_>) {
        let Subject { context, rules, channel } = subject;
        let Sheet { values, entries, escaped } = sheet;
        self.load(channel, plane);
        let runs = self.runs();
        let limits = (context.cap, rules.coarse);
        let (symbols, magnitudes) = (&self.symbols[..], &mut self.magnitudes[..]);
        let sights = [0, 1].map(|phase| {
            let pairs = (&self.mean_pairs[phase][..], &self.activity_pairs[phase][..]);
            Sight::new((context, rules, phase), pairs, (&self.far, &self.wide))
        });
        let mut to = 0;
        for row in 0..self.height {
            for (phase, (sight, count)) in sights.iter().zip(runs).enumerate() {
                let begin = self.grid.at(row, phase);
                let mut any = false;
                for done in (0..count).step_by(WIDTH) {
                    let (at, left) = (begin + done, count - done);
                    let own = chunk(symbols, channel * self.grid.plane + at);
                    let means = hand.means(sight, symbols, channel * self.grid.plane + at);
                    let tables = hand.tables(sight, magnitudes, at, &means);
                    *chunk_mut(magnitudes, at) = sight::first(left, hand.magnitudes(own, &means, limits));
                    let coded = hand.values(own, &means);
                    *chunk_mut(values, to + done) = coded;
                    let (named, escapes) = hand.entries(&context.spans, &tables, &coded, left);
                    *chunk_mut(entries, to + done) = named;
                    any |= escapes;
                }
                if any {
                    escaped.push(to as u32);
                }
                to += count;
            }
        }
        self.finish();
    }

    /// Decodes a channel.
    pub(crate) fn follow<const N: usize>(
        &mut self,
        subject: Subject<'_>,
        reader: &mut Reader<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        self.turn(subject);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => token.vectorize(
                #[inline(always)]
                || self.follow_by(token, subject, reader, plane),
            ),
            _ => self.follow_by(Portable, subject, reader, plane),
        }
    }

    #[inline(always)]
    fn follow_by<H: Hand, const N: usize>(
        &mut self,
        hand: H,
        subject: Subject<'_>,
        reader: &mut Reader<'_, N>,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let Subject { context, rules, channel } = subject;
        let runs = self.runs();
        let limits = (context.cap, rules.coarse);
        let (symbols, magnitudes) = (&mut self.symbols[..], &mut self.magnitudes[..]);
        let (means, tables, values) = (&mut self.means[..], &mut self.tables[..], &mut self.values[..]);
        let sights = [0, 1].map(|phase| {
            let pairs = (&self.mean_pairs[phase][..], &self.activity_pairs[phase][..]);
            Sight::new((context, rules, phase), pairs, (&self.far, &self.wide))
        });
        let mut begin = self.grid.at(0, 0);
        let far = channel * self.grid.plane;
        for run in 0..2 * self.height {
            let (sight, count) = (&sights[run % 2], runs[run % 2]);
            for at in 0..count.div_ceil(WIDTH) {
                let here = begin + at * WIDTH;
                means[at] = hand.means(sight, symbols, far + here);
                tables[at] = hand.tables(sight, magnitudes, here, &means[at]);
            }
            if reader.mixed(
                &context.family.models,
                tables.as_flattened(),
                &mut values.as_flattened_mut()[..count],
            ) {
                reader.escapes(
                    &context.family,
                    tables.as_flattened(),
                    &mut values.as_flattened_mut()[..count],
                    channel,
                )?;
            }
            for at in 0..count.div_ceil(WIDTH) {
                let (here, left) = (begin + at * WIDTH, count - at * WIDTH);
                let own = hand.symbols(&values[at], &means[at]);
                *chunk_mut(symbols, far + here) = sight::first(left, own);
                let found = hand.magnitudes(&own, &means[at], limits);
                *chunk_mut(magnitudes, here) = sight::first(left, found);
            }
            begin += self.grid.half;
        }
        self.finish();
        self.store(channel, plane);
        Ok(())
    }

    /// Turns to a channel.
    fn turn(&mut self, Subject { rules, channel, .. }: Subject<'_>) {
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

    #[inline(always)]
    fn load(&mut self, channel: usize, plane: &[i16]) {
        let first = channel * self.grid.plane;
        for (row, line) in plane.chunks_exact(self.width).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            let (pairs, last) = line.as_chunks::<2>();
            let (evens, odds) = self.symbols[even..odd + pairs.len()].split_at_mut(odd - even);
            for ((even, odd), pair) in evens.iter_mut().zip(odds).zip(pairs) {
                (*even, *odd) = (pair[0], pair[1]);
            }
            if let [last] = last {
                self.symbols[even + pairs.len()] = *last;
            }
        }
    }

    #[inline(always)]
    fn store(&self, channel: usize, plane: &mut [i16]) {
        let first = channel * self.grid.plane;
        for (row, line) in plane.chunks_exact_mut(self.width).enumerate() {
            let (even, odd) = (first + self.grid.at(row, 0), first + self.grid.at(row, 1));
            let (blocks, rest) = line.as_chunks_mut::<{ 2 * WIDTH }>();
            let done = blocks.len() * 2 * WIDTH;
            for (at, block) in blocks.iter_mut().enumerate() {
                let halves = [even, odd].map(|half| chunk(&self.symbols, half + at * WIDTH));
                *block = std::array::from_fn(|lane| halves[lane % 2][lane / 2]);
            }
            for (at, symbol) in (done..).zip(rest) {
                *symbol = self.symbols[if at % 2 == 0 { even } else { odd } + at / 2];
            }
        }
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
