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
    /// Of the current run: means in quarter symbols, and tables.
    means: Vec<[i32; WIDTH]>,
    tables: Vec<[u8; WIDTH]>,
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

/// What the tables of a run follow from.
pub(crate) struct Sight<'a> {
    symbols: &'a [i16],
    magnitudes: &'a [i16],
    far: &'a [i16],
    wide: &'a [i16],
    grid: &'a Grid,
    rules: Rules<'a>,
    context: &'a Context,
    /// Where the channel begins.
    first: usize,
    phase: usize,
    at: usize,
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
        let chunks = shape.width().div_ceil(2).div_ceil(WIDTH);
        self.means.resize(chunks, [0; WIDTH]);
        self.tables.resize(chunks, [0; WIDTH]);
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

    /// Finds the means and tables of a run of `count` symbols.
    pub(crate) fn look(
        &mut self,
        context: &Context,
        rules: Rules<'_>,
        (channel, row, phase): Run,
        count: usize,
    ) {
        let run = Sight {
            symbols: &self.symbols,
            magnitudes: &self.magnitudes,
            far: &self.far,
            wide: &self.wide,
            grid: &self.grid,
            rules,
            context,
            first: channel * self.grid.plane,
            phase,
            at: self.grid.at(row, phase),
        };
        let chunks = count.div_ceil(WIDTH);
        let (means, tables) = (&mut self.means[..chunks], &mut self.tables[..chunks]);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            Simd { avx2: Some(token) } => crate::avx2::look(token, &run, means, tables),
            _ => run.look(means, tables),
        }
    }

    /// The tables of the run that was looked at.
    pub(crate) fn tables(&self, count: usize) -> &[u8] {
        &self.tables.as_flattened()[..count]
    }

    /// The values to code for the run that was looked at.
    pub(crate) fn values(&self, (channel, row, phase): Run, count: usize) -> impl Iterator<Item = i16> {
        let at = channel * self.grid.plane + self.grid.at(row, phase);
        let means = &self.means.as_flattened()[..count];
        let symbols = &self.symbols[at..at + count];
        symbols.iter().zip(means).map(|(symbol, mean)| symbol.wrapping_sub((mean >> 2) as i16))
    }

    /// Takes in the values that were decoded for the run that was looked at.
    pub(crate) fn restore(&mut self, (channel, row, phase): Run, values: &[i16]) {
        let at = channel * self.grid.plane + self.grid.at(row, phase);
        let symbols = &mut self.symbols[at..at + values.len()];
        for ((symbol, mean), value) in symbols.iter_mut().zip(self.means.as_flattened()).zip(values) {
            *symbol = value.wrapping_add((mean >> 2) as i16);
        }
    }

    /// Notes the magnitudes of the run that was looked at, now that its symbols are known.
    pub(crate) fn settle(
        &mut self,
        context: &Context,
        coarse: u8,
        (channel, row, phase): Run,
        count: usize,
    ) {
        let at = self.grid.at(row, phase);
        let symbols = &self.symbols[channel * self.grid.plane + at..][..count];
        let magnitudes = &mut self.magnitudes[at..at + count];
        let cap = i32::from(context.cap);
        for ((magnitude, symbol), mean) in magnitudes.iter_mut().zip(symbols).zip(self.means.as_flattened()) {
            *magnitude = ((4 * i32::from(*symbol) - mean).abs() >> coarse).min(cap) as i16;
        }
    }

    /// Adds the magnitudes of a finished channel to what later ones see.
    pub(crate) fn finish(&mut self) {
        for (far, magnitude) in self.far.iter_mut().zip(&self.magnitudes) {
            *far += 8 * magnitude - (*far >> 2);
        }
        let Some(shape) = self.shape else { return };
        let (half, row) = (self.grid.half, 2 * self.grid.half);
        for line in 0..shape.height() {
            let at = self.grid.at(line, 0);
            let [evens, odds] = self.runs();
            let (even, odd) = (&self.far[at - 1..at + half], &self.far[at - 1 + half..at + 2 * half]);
            let smooth = &mut self.smooth[at..at + half + odds];
            for i in 0..evens {
                smooth[i] = 2 * even[i + 1] + odd[i] + odd[i + 1];
            }
            for i in 0..odds {
                smooth[half + i] = 2 * odd[i + 1] + even[i + 1] + even[i + 2];
            }
        }
        let begin = self.grid.at(0, 0);
        let end = self.grid.at(shape.height(), 0);
        let (above, here, below) = (&self.smooth[begin - row..], &self.smooth[begin..], &self.smooth[begin + row..]);
        for (((wide, above), here), below) in self.wide[begin..end].iter_mut().zip(above).zip(here).zip(below) {
            *wide = (2 * here + above + below) >> 4;
        }
    }
}

impl Sight<'_> {
    /// Means and tables of a run, as many chunks as there is room for. Those past the run's end have no meaning.
    #[inline(always)]
    pub(crate) fn look(&self, means: &mut [[i32; WIDTH]], tables: &mut [[u8; WIDTH]]) {
        let phase = self.phase;
        let (mean, activity) = (&self.rules.means[phase], &self.rules.activities[phase]);
        let biases = self.rules.biases[phase];
        let own = &self.grid.own[phase][..OWN[phase].len()];
        let shift = self.context.shift;
        for (chunk, (means, tables)) in means.iter_mut().zip(tables).enumerate() {
            let at = self.at + chunk * WIDTH;
            let mut sums = [16 * i32::from(biases.mean); WIDTH];
            for tap in &mean.taps {
                let offset = self.grid.around[phase][usize::from(tap.place)];
                let place = usize::from(tap.plane) * self.grid.plane + at.wrapping_add_signed(offset);
                add(&mut sums, self.symbols, place, tap.weight);
            }
            let mut levels = [i32::from(biases.activity) << (shift - 4); WIDTH];
            add(&mut levels, self.far, at, activity.far);
            add(&mut levels, self.wide, at, activity.wide);
            for ((offset, mean), activity) in own.iter().zip(mean.own).zip(activity.own) {
                let place = at.wrapping_add_signed(*offset);
                add(&mut sums, self.symbols, self.first + place, mean);
                add(&mut levels, self.magnitudes, place, activity);
            }
            for i in 0..WIDTH {
                means[i] = sums[i] >> 8;
                let level = (levels[i] >> shift).clamp(0, ACTIVITY_MAX as i32) as usize;
                tables[i] = self.context.shapes[level] | (means[i] & 3) as u8;
            }
        }
    }
}

/// Adds `weight` times what is at a place, to each sum that of its own place.
#[inline(always)]
fn add(sums: &mut [i32; WIDTH], plane: &[i16], place: usize, weight: i16) {
    let values: &[i16; WIDTH] = plane[place..place + WIDTH].as_array().expect("as many as were sliced");
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += i32::from(*value) * i32::from(weight);
    }
}
