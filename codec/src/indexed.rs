//! Mode indexed: tables chosen per tile of a channel, with the choice in the packet (FORMAT.md, section 5.2).

use crate::{
    LevelId, Shape,
    format::{indexed_section::IndexedSection, table::Table},
    limits::LANES_MAX,
    rans::table_set::{MixedTableSet, RunTableSet, TableSet},
};

/// The indexed section with what encoder and decoder derive from it.
#[derive(Clone, Debug)]
pub(crate) struct IndexedModel {
    section: IndexedSection,
    /// The tables that tiles choose from.
    pub(crate) tables: MixedTableSet,
    /// The table of the index differences, per level.
    deltas: RunTableSet,
    costs: Costs,
}

/// The cost of every value in every table, in 1/256 bit.
#[derive(Clone, Debug)]
struct Costs {
    /// The value of the first row, which is below every table's regular values.
    low: i32,
    /// For each value a row of blocks, each of which holds the costs in [`BLOCK`] tables. The values of the first and the
    /// last row are escapes in every table, as are all values beyond them.
    rows: Box<[[u16; BLOCK]]>,
    /// The number of blocks in a row.
    blocks: usize,
}

/// Tables whose costs are added at once.
const BLOCK: usize = 32;

impl IndexedModel {
    pub(crate) fn new(section: IndexedSection, precision: u32) -> Self {
        let tables = MixedTableSet::new(&section.tables, precision);
        let deltas = RunTableSet::new(&section.deltas, precision);
        let costs = Costs::new(&tables.set, &section.tables);
        Self { section, tables, deltas, costs }
    }

    /// The predicted index of the first tile of a channel.
    pub(crate) fn base(&self, level: LevelId, channel: usize) -> u8 {
        self.section.base(level, channel)
    }

    /// The tables of the index differences, one per level.
    pub(crate) fn deltas(&self) -> &RunTableSet {
        &self.deltas
    }

    /// The number of tables that tiles choose from.
    pub(crate) fn count(&self) -> u8 {
        self.tables.no_value
    }

    /// The tiles of a plane of `shape`.
    pub(crate) fn tiles(&self, shape: Shape) -> Tiles {
        let side = if self.section.tile == 0 { usize::MAX } else { self.section.tile };
        let (height, width) = (side.min(shape.height()), side.min(shape.width()));
        Tiles {
            height,
            width,
            rows: shape.height().div_ceil(height),
            columns: shape.width().div_ceil(width),
            plane_height: shape.height(),
            plane_width: shape.width(),
        }
    }

    /// The index of the table in which the symbols of a tile cost least, including the cost of the index itself when
    /// `predicted` is expected; the lowest of several. `lines` are the rows of the tile, `sums` is memory to work in.
    pub(crate) fn best_index<'a>(
        &self,
        lines: impl Iterator<Item = &'a [i16]>,
        (level, predicted): (LevelId, u8),
        sums: &mut Vec<u64>,
    ) -> u8 {
        let count = usize::from(self.count());
        let deltas = &self.deltas.set.costs_of(level.index())[..count];
        let (back, front) = deltas.split_at(count - usize::from(predicted));
        sums.clear();
        sums.extend(front.iter().chain(back).map(|&cost| u64::from(cost)));
        for line in lines {
            // The costs of a line of at most 4096 values sum to less than 2^32.
            for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
                let costs = self.costs.of_line(line, block);
                sums.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += u64::from(cost));
            }
        }
        let best = (0..).zip(sums.iter()).min_by_key(|(_, sum)| **sum);
        best.map_or(0, |(index, _)| index)
    }
}

impl Costs {
    fn new(set: &TableSet, tables: &[Table]) -> Self {
        let spans = &set.spans[..tables.len()];
        let low = spans.iter().map(|span| span.range()[0]).min().unwrap_or(0) - 1;
        let high = spans.iter().map(|span| span.range()[1]).max().unwrap_or(0);
        let blocks = tables.len().div_ceil(BLOCK);
        let row = |value: i32| {
            let costs = spans.iter().enumerate().map(move |(table, span)| {
                let at = usize::try_from(value - span.range()[0]).unwrap_or(usize::MAX);
                set.costs_of(table)[at.min(span.escape.into())]
            });
            let mut row = vec![[0; BLOCK]; blocks];
            row.as_flattened_mut().iter_mut().zip(costs).for_each(|(to, cost)| *to = cost);
            row
        };
        Self { low, rows: (low..=high).flat_map(row).collect(), blocks }
    }

    /// The costs of a line of values in each table of a block.
    fn of_line(&self, line: &[i16], block: usize) -> [u32; BLOCK] {
        let last = (self.rows.len() / self.blocks) as i32 - 1;
        let mut sums = [0; BLOCK];
        for &value in line {
            let row = (i32::from(value) - self.low).clamp(0, last) as usize;
            for (sum, &cost) in sums.iter_mut().zip(&self.rows[row * self.blocks + block]) {
                *sum += u32::from(cost);
            }
        }
        sums
    }
}

/// The tiles of a plane, row by row from the top left. Those at the right and lower edge may be smaller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    /// The sides of a tile in symbols.
    height: usize,
    width: usize,
    /// The number of tiles down and across.
    rows: usize,
    columns: usize,
    plane_height: usize,
    plane_width: usize,
}

impl Tiles {
    /// The number of tiles.
    pub(crate) fn count(self) -> usize {
        self.rows * self.columns
    }

    /// The lines of each tile of a plane, tile by tile.
    pub(crate) fn lines(self, plane: &[i16]) -> impl Iterator<Item = impl Iterator<Item = &[i16]>> {
        (0..self.count()).map(move |tile| {
            let (row, column) = (tile / self.columns, tile % self.columns);
            let lines = plane.chunks_exact(self.plane_width).skip(row * self.height).take(self.height);
            let begin = column * self.width;
            lines.map(move |line| &line[begin..(begin + self.width).min(line.len())])
        })
    }

    /// The predicted index of the next tile, given the base of the channel and the indices of the tiles before it.
    pub(crate) fn predicted(self, base: u8, before: &[u8]) -> u8 {
        let tile = before.len();
        match (tile / self.columns, tile % self.columns) {
            (0, 0) => base,
            (_, 0) => before[tile - self.columns],
            _ => before[tile - 1],
        }
    }

    /// Replaces `tables` by the table index of every symbol of a plane, given that of every tile, and zeros for a round of
    /// lanes.
    pub(crate) fn expand(self, indices: &[u8], tables: &mut Vec<u8>) {
        tables.clear();
        for line in 0..self.plane_height {
            let row = &indices[line / self.height * self.columns..][..self.columns];
            for (column, &index) in row.iter().enumerate() {
                let begin = column * self.width;
                tables.extend(std::iter::repeat_n(index, self.width.min(self.plane_width - begin)));
            }
        }
        tables.extend([0; LANES_MAX]);
    }
}
