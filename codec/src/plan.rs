//! Which table codes each symbol of a feature, and what that costs (FORMAT.md, section 5). What comes out is what
//! [`rans`](crate::rans) writes.

use crate::{
    Feature, LevelId, Mode, Tables,
    kernel::WIDTH,
    model::EncodeEntry,
    simd::Simd,
    state::{ChannelEntries, CodedChannel, ContextState},
    table::TableSet,
};

/// One value in so many is looked at to estimate the size: strides are multiples of it.
const SAMPLED: usize = 8;

/// The values of a feature in the order of coding, for one mode.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// For each symbol, an entry: of the channel's table in mode static, of the shared set in the others. With contexts
    /// runs are a stride apart, and between them entries stand for no value.
    entries: Vec<u16>,
    /// For each tile, an entry of the table of indices.
    indices: Vec<u16>,
    /// The values in modes with contexts, as far apart; those of the other modes are the symbols.
    values: Vec<i16>,
    /// The places of runs that have escapes, each counted from its channel's first value, and for each channel where its
    /// own end here.
    escaped: Vec<u32>,
    escaped_ends: Vec<usize>,
    /// What the sampled values cost, and the indices, in 1/256 bit.
    sampled: u64,
    indices_cost: u64,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    window: ContextState,
    chosen: Vec<u8>,
    places: Vec<u8>,
    sums: Vec<u64>,
}

/// What is coded of one channel.
pub(crate) struct ChannelPlan<'a> {
    pub(crate) encode_entries: &'a [EncodeEntry],
    /// Which of the encode_entries are escapes.
    pub(crate) escapes: &'a [bool],
    pub(crate) entries: &'a [u16],
    /// What the entries stand for; only escapes are looked up here.
    pub(crate) values: &'a [i16],
    /// The lengths of its runs, which take turns, and how far one is from the next.
    pub(crate) runs: [usize; 2],
    pub(crate) stride: usize,
    /// Where those of its runs begin that have escapes.
    pub(crate) escaped: &'a [u32],
    /// The run of tile indices before it.
    pub(crate) indices: Option<(&'a [EncodeEntry], &'a [u16])>,
}

impl ChannelPlan<'_> {
    /// The places of the run that begins at one.
    pub(crate) fn run(&self, begin: usize) -> std::ops::Range<usize> {
        begin..begin + self.runs[begin / self.stride % 2]
    }
}

impl Plan {
    /// Which number of lanes is chosen, by the estimated size in bytes (FORMAT.md, section 4.3).
    pub(crate) fn lanes(&self, mode: Mode) -> usize {
        // Sixteen are for contexts alone, and thirty-two for the others.
        let limits =
            if mode.has_contexts() { &[256, 896, 1920, 4608][..] } else { &[256, 1792, 3840, 24576, 24576] };
        let estimate = self.sampled * SAMPLED as u64 / (8 * 256);
        limits.iter().filter(|limit| estimate >= **limit).count()
    }

    /// What every value costs, and the indices, in 1/256 bit.
    pub(crate) fn cost(&self, mode: Mode, tables: &Tables, level: LevelId) -> u64 {
        let set = tables.table_set(mode, level);
        let plane = self.entries.len() / tables.channels();
        let order = tables.order().flatten().map(|&channel| usize::from(channel));
        let values = order.zip(self.entries.chunks_exact(plane)).map(|(channel, entries)| {
            let costs = if mode == Mode::Static { set.costs_of(channel) } else { &set.costs[..] };
            entries.iter().map(|&entry| u64::from(costs[usize::from(entry)])).sum::<u64>()
        });
        values.sum::<u64>() + self.indices_cost
    }

    fn begin(&mut self) {
        self.indices.clear();
        self.escaped.clear();
        self.escaped_ends.clear();
        (self.sampled, self.indices_cost) = (0, 0);
    }

    pub(crate) fn fill(
        &mut self,
        mode: Mode,
        tables: &Tables,
        level: LevelId,
        feature: &Feature,
        simd: Simd,
    ) {
        self.begin();
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
            let mut escaped = false;
            self.entries.extend(feature.plane(channel).iter().map(|symbol| {
                let entry = symbol.wrapping_sub(span.low).cast_unsigned().min(span.escape);
                escaped |= entry == span.escape;
                entry
            }));
            self.escaped.extend(escaped.then_some(0));
            self.escaped_ends.push(self.escaped.len());
            self.sampled += sampled(&self.entries[begin..], set.costs_of(channel));
        }
    }

    fn fill_indexed(&mut self, tables: &Tables, level: LevelId, feature: &Feature) {
        let Some(indexed) = &tables.indexed else { return };
        self.entries.clear();
        let tiles = indexed.tiles(feature.shape());
        let (set, deltas) = (&indexed.set, indexed.deltas(level));
        let Scratch { chosen, places, sums, .. } = &mut self.scratch;
        for channel in tables.order().flatten().map(|&channel| usize::from(channel)) {
            let plane = feature.plane(channel);
            let base = indexed.base(level, channel);
            chosen.clear();
            for tile in tiles.cut(plane) {
                let predicted = tiles.predicted(base, chosen);
                let index = indexed.best(tile, (level, predicted), sums);
                let delta = (u16::from(index) + u16::from(indexed.count()) - u16::from(predicted))
                    % u16::from(indexed.count());
                self.indices.push(delta);
                self.indices_cost += u64::from(deltas.costs[usize::from(delta)]);
                chosen.push(index);
            }
            tiles.spread(chosen, places);
            let begin = self.entries.len();
            let mut escaped = false;
            self.entries.extend(plane.iter().zip(places.iter()).map(|(&symbol, &table)| {
                let entry = set.spans[usize::from(table)].entry(symbol);
                escaped |= set.escapes[usize::from(entry)];
                entry
            }));
            self.escaped.extend(escaped.then_some(0));
            self.escaped_ends.push(self.escaped.len());
            self.sampled += sampled(&self.entries[begin..], &set.costs);
        }
    }

    fn fill_contexts(&mut self, mode: Mode, tables: &Tables, level: LevelId, feature: &Feature, simd: Simd) {
        let Some(context) = &tables.context else { return };
        let shape = mode.coded_shape(feature.shape());
        let window = &mut self.scratch.window;
        window.begin(feature.shape(), mode, simd);
        let plane = 2 * shape.height() * window.stride();
        self.entries.resize(shape.channels() * plane + WIDTH, 0);
        self.values.resize(shape.channels() * plane + WIDTH, 0);
        for (place, channel) in tables.order().flatten().map(|&channel| usize::from(channel)).enumerate() {
            let here = place * plane..(place + 1) * plane + WIDTH;
            let sheet = ChannelEntries {
                values: &mut self.values[here.clone()],
                entries: &mut self.entries[here.clone()],
                escaped: &mut self.escaped,
            };
            let rules = context.rules(mode, level, channel);
            window.encode_channel(CodedChannel { context, rules, channel }, feature.plane(channel), sheet);
            self.escaped_ends.push(self.escaped.len());
            self.sampled += sampled(&self.entries[here][..plane], &context.set.costs);
        }
        self.entries.truncate(shape.channels() * plane);
    }

    /// What is coded of the channel that is coded in this place.
    pub(crate) fn part<'a>(
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
        let mut part = ChannelPlan {
            encode_entries: &set.encode_entries,
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
                let shape = mode.coded_shape(feature.shape());
                part.values = &self.values[here];
                part.runs = [shape.width().div_ceil(2), shape.width() / 2];
                part.stride = plane / (2 * shape.height());
            }
            (Mode::Indexed, Some(indexed)) => {
                let count = indexed.tiles(feature.shape()).count();
                let indices = &self.indices[place * count..(place + 1) * count];
                part.indices = Some((&indexed.deltas(level).encode_entries, indices));
            }
            _ => {
                (part.encode_entries, part.escapes) =
                    (set.encode_entries_of(channel), set.escapes_of(channel))
            }
        }
        part
    }
}

/// The one of modes columns and rows that is worth a try: where symbols change by a quarter less along it than across.
pub(crate) fn pick_direction(feature: &Feature) -> Option<Mode> {
    let width = feature.shape().width();
    let apart = |(a, b): (&i16, &i16)| u64::from(a.abs_diff(*b));
    let changes = |plane: &[i16]| -> [u64; 2] {
        let down = plane.iter().zip(plane.get(width..).unwrap_or_default()).map(apart);
        let across = plane.chunks_exact(width).map(|row| row.iter().zip(&row[1..]).map(apart).sum::<u64>());
        [down.sum(), across.sum()]
    };
    let [down, across] =
        feature.planes().map(changes).fold([0, 0], |sum, of| [sum[0] + of[0], sum[1] + of[1]]);
    if 4 * down < 3 * across { Some(Mode::Columns) } else { (4 * across < 3 * down).then_some(Mode::Rows) }
}

fn sampled(entries: &[u16], costs: &[u16]) -> u64 {
    entries.iter().step_by(SAMPLED).map(|&entry| u64::from(costs[usize::from(entry)])).sum()
}
