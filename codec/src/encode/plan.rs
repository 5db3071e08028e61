//! The table entry that codes each symbol of a feature, and what the entries cost (FORMAT.md, section 5).

use std::ops::Range;

use crate::{
    Feature, LevelId, Mode, Tables,
    context::state::{CHUNK_ROOM, ChannelEntries, ContextState},
    rans::{entry::EncodeEntry, table_set::TableSet},
    simd::Simd,
};

/// One value in so many is sampled to estimate the size of a packet (FORMAT.md, section 4.3).
const SAMPLED: usize = 8;

/// The entries of a feature in the order of coding, for one mode.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Per symbol, the index of its entry: in the channel's table in mode static, in the mixed set in the other modes. In
    /// modes with contexts runs are a stride apart, with entries of no value between them.
    entries: Vec<u16>,
    /// Per tile, the index of the entry of its index difference.
    indices: Vec<u16>,
    /// The coded values in modes with contexts, in the places of `entries`. In the other modes the symbols are coded.
    values: Vec<i16>,
    /// The starts of all runs with escapes, counted from the first value of their channel.
    escaped: Vec<u32>,
    /// Per channel in the order of coding, the end of its part of `escaped`.
    escaped_ends: Vec<usize>,
    /// The cost of the sampled values, and that of the tile indices, in 1/256 bit.
    sampled_cost: u64,
    indices_cost: u64,
    scratch: Scratch,
}

/// Memory that is used again.
#[derive(Debug, Default)]
struct Scratch {
    context: ContextState,
    tile_tables: Vec<u8>,
    symbol_tables: Vec<u8>,
    sums: Vec<u64>,
}

/// What is coded of one channel.
pub(crate) struct ChannelPlan<'a> {
    /// The table or set of tables that `entries` index.
    pub(crate) table: &'a [EncodeEntry],
    /// Per element of `table`, whether it is an escape.
    pub(crate) escapes: &'a [bool],
    pub(crate) entries: &'a [u16],
    /// The values that the entries code, of which only escaped ones are needed.
    pub(crate) values: &'a [i16],
    /// The lengths of the channel's even and odd runs.
    pub(crate) runs: [usize; 2],
    /// The distance between the starts of runs.
    pub(crate) stride: usize,
    /// The starts of runs with escapes.
    pub(crate) escaped: &'a [u32],
    /// The run of tile indices, which precedes the symbols: its table and entries.
    pub(crate) indices: Option<(&'a [EncodeEntry], &'a [u16])>,
}

impl ChannelPlan<'_> {
    /// The places of the run that starts at `begin`.
    pub(crate) fn run(&self, begin: usize) -> Range<usize> {
        begin..begin + self.runs[begin / self.stride % 2]
    }
}

impl Plan {
    /// The index in [`LANES`](crate::format::header::LANES) of the number of lanes that the estimated size of the packet asks
    /// for (FORMAT.md, section 4.3).
    pub(crate) fn lanes(&self, mode: Mode) -> usize {
        // In bytes. Sixteen lanes are for modes with contexts alone, thirty-two for the others.
        let limits =
            if mode.has_contexts() { &[256, 896, 1920, 4608][..] } else { &[256, 1792, 3840, 24576, 24576] };
        let estimate = self.sampled_cost * SAMPLED as u64 / (8 * 256);
        limits.iter().filter(|limit| estimate >= **limit).count()
    }

    /// The cost of all values and tile indices, in 1/256 bit.
    pub(crate) fn cost(&self, mode: Mode, tables: &Tables, level: LevelId) -> u64 {
        let set = tables.table_set(mode, level);
        let plane = self.entries.len() / tables.channels();
        let order = tables.order().flatten().map(|&channel| usize::from(channel));
        let values = order.zip(self.entries.chunks_exact(plane)).map(|(channel, entries)| {
            let costs = if mode == Mode::Static { set.costs_of(channel) } else { &set.costs[..] };
            cost(entries, costs)
        });
        values.sum::<u64>() + self.indices_cost
    }

    /// Finds the entries of `feature` in a coded mode that `tables` support.
    pub(crate) fn fill(
        &mut self,
        mode: Mode,
        tables: &Tables,
        level: LevelId,
        feature: &Feature,
        simd: Simd,
    ) {
        self.indices.clear();
        self.escaped.clear();
        self.escaped_ends.clear();
        (self.sampled_cost, self.indices_cost) = (0, 0);
        match mode {
            _ if mode.has_contexts() => self.fill_contexts(mode, tables, level, feature, simd),
            Mode::Indexed => self.fill_indexed(tables, level, feature),
            _ => self.fill_static(tables, level, feature),
        }
    }

    fn fill_static(&mut self, tables: &Tables, level: LevelId, feature: &Feature) {
        let set = tables.table_set(Mode::Static, level);
        self.entries.clear();
        for channel in tables.order().flatten().map(|&channel| usize::from(channel)) {
            let span = set.spans[channel];
            let begin = self.entries.len();
            let mut escapes = false;
            self.entries.extend(feature.plane(channel).iter().map(|&symbol| {
                let entry = span.offset(symbol);
                escapes |= entry == span.escape;
                entry
            }));
            self.escaped.extend(escapes.then_some(0));
            self.escaped_ends.push(self.escaped.len());
            self.sampled_cost += sampled_cost(&self.entries[begin..], set.costs_of(channel));
        }
    }

    fn fill_indexed(&mut self, tables: &Tables, level: LevelId, feature: &Feature) {
        let Some(indexed) = &tables.indexed else { return };
        self.entries.clear();
        let tiles = indexed.tiles(feature.shape());
        let set = &indexed.tables.set;
        let delta_costs = indexed.deltas().set.costs_of(level.index());
        let Scratch { tile_tables, symbol_tables, sums, .. } = &mut self.scratch;
        for channel in tables.order().flatten().map(|&channel| usize::from(channel)) {
            let plane = feature.plane(channel);
            let base = indexed.base(level, channel);
            tile_tables.clear();
            for lines in tiles.lines(plane) {
                let predicted = tiles.predicted(base, tile_tables);
                let index = indexed.best_index(lines, (level, predicted), sums);
                let delta = (u16::from(index) + u16::from(indexed.count()) - u16::from(predicted))
                    % u16::from(indexed.count());
                self.indices.push(delta);
                self.indices_cost += u64::from(delta_costs[usize::from(delta)]);
                tile_tables.push(index);
            }
            tiles.expand(tile_tables, symbol_tables);
            let begin = self.entries.len();
            let mut escapes = false;
            self.entries.extend(plane.iter().zip(symbol_tables.iter()).map(|(&symbol, &table)| {
                let entry = indexed.tables.spans[usize::from(table)].entry(symbol);
                escapes |= set.escapes[usize::from(entry)];
                entry
            }));
            self.escaped.extend(escapes.then_some(0));
            self.escaped_ends.push(self.escaped.len());
            self.sampled_cost += sampled_cost(&self.entries[begin..], &set.costs);
        }
    }

    fn fill_contexts(&mut self, mode: Mode, tables: &Tables, level: LevelId, feature: &Feature, simd: Simd) {
        let Some(model) = &tables.context else { return };
        let shape = feature.shape().coded_shape(mode);
        let state = &mut self.scratch.context;
        state.begin(model, feature.shape(), mode, simd);
        let plane = 2 * shape.height() * state.stride();
        self.entries.resize(shape.channels() * plane + CHUNK_ROOM, 0);
        self.values.resize(shape.channels() * plane + CHUNK_ROOM, 0);
        for (place, channel) in tables.order().flatten().map(|&channel| usize::from(channel)).enumerate() {
            let here = place * plane..(place + 1) * plane + CHUNK_ROOM;
            let out = ChannelEntries {
                values: &mut self.values[here.clone()],
                entries: &mut self.entries[here.clone()],
                escaped: &mut self.escaped,
            };
            state.encode_channel(&model.channel(mode, level, channel), feature.plane(channel), out);
            self.escaped_ends.push(self.escaped.len());
            self.sampled_cost += sampled_cost(&self.entries[here][..plane], &model.tables.set.costs);
        }
        self.entries.truncate(shape.channels() * plane);
    }

    /// What is coded of `channel`, which is in `place` in the order of coding. `set` is the one that the mode codes symbols
    /// with.
    pub(crate) fn channel<'a>(
        &'a self,
        mode: Mode,
        tables: &'a Tables,
        set: &'a TableSet,
        level: LevelId,
        feature: &'a Feature,
        (place, channel): (usize, usize),
    ) -> ChannelPlan<'a> {
        let plane = self.entries.len() / tables.channels();
        let here = place * plane..(place + 1) * plane;
        let begin = if place == 0 { 0 } else { self.escaped_ends[place - 1] };
        let mut plan = ChannelPlan {
            table: &set.entries,
            escapes: &set.escapes,
            entries: &self.entries[here.clone()],
            values: feature.plane(channel),
            runs: [plane, 0],
            stride: plane,
            escaped: &self.escaped[begin..self.escaped_ends[place]],
            indices: None,
        };
        match (mode, &tables.indexed) {
            _ if mode.has_contexts() => {
                let shape = feature.shape().coded_shape(mode);
                plan.values = &self.values[here];
                plan.runs = [shape.width().div_ceil(2), shape.width() / 2];
                plan.stride = plane / (2 * shape.height());
            }
            (Mode::Indexed, Some(indexed)) => {
                let count = indexed.tiles(feature.shape()).count();
                let indices = &self.indices[place * count..(place + 1) * count];
                plan.indices = Some((indexed.deltas().set.entries_of(level.index()), indices));
            }
            _ => (plan.table, plan.escapes) = (set.entries_of(channel), set.escapes_of(channel)),
        }
        plan
    }
}

/// The one of modes columns and rows in whose direction symbols change by at least a quarter less than in the other, if
/// there is one. The other mode is not worth trying.
pub(crate) fn pick_direction(feature: &Feature, simd: Simd) -> Option<Mode> {
    let width = feature.shape().width();
    let [down, across] = simd.vectorize(|| changes(feature.symbols(), feature.shape().plane(), width));
    if 4 * down < 3 * across { Some(Mode::Columns) } else { (4 * across < 3 * down).then_some(Mode::Rows) }
}

/// How much symbols change down columns and along rows, over all planes.
#[inline(always)]
fn changes(symbols: &[i16], plane: usize, width: usize) -> [u64; 2] {
    symbols.chunks_exact(plane).fold([0, 0], |[down, across], plane| {
        // From the end of a row to the start of the next one nothing is counted.
        let ends = plane.chunks_exact(width).zip(plane.chunks_exact(width).skip(1));
        let between: u64 = ends.map(|(row, next)| u64::from(row[width - 1].abs_diff(next[0]))).sum();
        [down + change(plane, &plane[width..]), across + change(plane, &plane[1..]) - between]
    })
}

/// The sum of the differences between symbols and those in the places of `others`, as far as there are any.
#[inline(always)]
fn change(symbols: &[i16], others: &[i16]) -> u64 {
    // A block's sum fits 32 bits.
    const BLOCK: usize = 1 << 16;
    let blocks = symbols.chunks(BLOCK).zip(others.chunks(BLOCK));
    let sum = |(a, b): (&[i16], &[i16])| a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
    blocks.map(|block| u64::from(sum(block))).sum()
}

/// What entries cost together, in 1/256 bit.
fn cost(entries: &[u16], costs: &[u16]) -> u64 {
    let (eights, rest) = entries.as_chunks::<8>();
    let of = |&entry: &u16| u32::from(costs[usize::from(entry)]);
    let eights = eights.iter().map(|eight| u64::from(eight.iter().map(of).sum::<u32>()));
    eights.sum::<u64>() + u64::from(rest.iter().map(of).sum::<u32>())
}

fn sampled_cost(entries: &[u16], costs: &[u16]) -> u64 {
    entries.iter().step_by(SAMPLED).map(|&entry| u64::from(costs[usize::from(entry)])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    /// Changes by the definition, symbol by symbol.
    fn counted(feature: &Feature) -> [u64; 2] {
        let (width, plane) = (feature.shape().width(), feature.shape().plane());
        let mut sums = [0, 0];
        for (at, symbol) in feature.symbols().iter().enumerate() {
            let mut count = |direction: usize, step: usize| {
                sums[direction] += u64::from(symbol.abs_diff(feature.symbols()[at + step]));
            };
            if at % plane + width < plane {
                count(0, width);
            }
            if at % width + 1 < width {
                count(1, 1);
            }
        }
        sums
    }

    #[test]
    fn changes_are_those_between_neighbours_alone() {
        for (channels, height, width) in [(1, 1, 1), (2, 1, 9), (3, 9, 1), (2, 5, 7), (3, 33, 40)] {
            let shape = Shape::new(channels, height, width).unwrap();
            let symbol = |at: usize| (at as i16).wrapping_mul(20_011);
            let feature = Feature::new(shape, (0..shape.symbols()).map(symbol).collect()).unwrap();
            for simd in [Simd::default(), Simd::detect()] {
                let found = simd.vectorize(|| changes(feature.symbols(), shape.plane(), width));
                assert_eq!(found, counted(&feature), "{channels}x{height}x{width}");
            }
        }
    }
}
