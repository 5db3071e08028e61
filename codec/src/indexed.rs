//! Tables chosen per tile, with the choice sent beside them (FORMAT.md, sections 2.3 and 5.2).

use crate::{
    Error, LevelId, Shape,
    cursor::Cursor,
    error::TableName,
    model::MixedTables,
    rans::LANES_MAX,
    table::{TableSet, tables_truncated},
};

/// The section of the tables file.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    tile: usize,
    pub(crate) set: TableSet,
    pub(crate) shared: MixedTables,
    /// Level by level, in a level channel by channel.
    bases: Box<[u8]>,
    /// One family of one table per level.
    deltas: Box<[TableSet]>,
    channels: usize,
    costs: Costs,
}

/// What a value costs in each table of the set, in 1/256 bit.
#[derive(Clone, Debug)]
struct Costs {
    low: i32,
    /// Value by value from `low`, for each a block after the other; those outside cost as much as the first and the last,
    /// which are outside of every table.
    rows: Box<[[u16; BLOCK]]>,
    /// Blocks of a value.
    blocks: usize,
}

/// Tables whose costs are summed at once.
const BLOCK: usize = 32;

impl Indexed {
    pub(crate) fn parse(
        cursor: &mut Cursor<'_>,
        precision: u32,
        channels: usize,
        levels: usize,
    ) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Tables { field, found, expected });
        let tile = usize::from(cursor.u8("tile").map_err(tables_truncated)?);
        let count = cursor.u8("indexed tables").map_err(tables_truncated)?;
        if !(2..=128).contains(&count) {
            return wrong("indexed tables", count.into(), "2 to 128");
        }
        let (set, shared) = TableSet::parse_shared(cursor, precision, (0..count).map(TableName::Indexed))?;
        let mut bases = Vec::new();
        let mut deltas = Vec::new();
        for level in 0..levels {
            let of_level = cursor.take(channels, "bases").map_err(tables_truncated)?;
            if let Some(&base) = of_level.iter().find(|base| **base >= count) {
                return wrong("base", base.into(), "an index of the tables");
            }
            bases.extend_from_slice(of_level);
            let place = TableName::Deltas { level: level as u8 };
            let table = TableSet::parse(cursor, precision, std::iter::once(place))?;
            let span = table.spans[0];
            if (span.low, span.escape) != (0, count.into()) {
                return wrong("deltas", span.escape.into(), "low 0, and as many values as tables");
            }
            deltas.push(table);
        }
        let costs = Costs::new(&set);
        Ok(Self { tile, set, shared, bases: bases.into(), deltas: deltas.into(), channels, costs })
    }

    /// The base of a level and channel.
    pub(crate) fn base(&self, level: LevelId, channel: usize) -> u8 {
        self.bases[level.index() * self.channels + channel]
    }

    /// The table of a level's indices.
    pub(crate) fn deltas(&self, level: LevelId) -> &TableSet {
        &self.deltas[level.index()]
    }

    /// Number of tables.
    pub(crate) fn count(&self) -> u8 {
        self.set.tables.len() as u8
    }

    /// How the planes of `shape` are cut.
    pub(crate) fn tiles(&self, shape: Shape) -> Tiles {
        let side = if self.tile == 0 { usize::MAX } else { self.tile };
        let (height, width) = (side.min(shape.height()), side.min(shape.width()));
        Tiles {
            height,
            width,
            rows: shape.height().div_ceil(height),
            columns: shape.width().div_ceil(width),
            down: shape.height(),
            across: shape.width(),
        }
    }

    /// The table in which `values` cost least, with what the index costs where `predicted` is expected; of those that
    /// cost as much, the one with the lowest index. `sums` has room for a sum per table.
    pub(crate) fn best<'a>(
        &self,
        values: impl Iterator<Item = &'a [i16]>,
        (level, predicted): (LevelId, u8),
        sums: &mut Vec<u64>,
    ) -> u8 {
        let count = self.set.tables.len();
        let deltas = &self.deltas(level).costs[..count];
        let (back, front) = deltas.split_at(count - usize::from(predicted));
        sums.clear();
        sums.extend(front.iter().chain(back).map(|&cost| u64::from(cost)));
        for line in values {
            // A line of at most 4096 values costs less than 2^32.
            for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
                let line = self.costs.of(line, block);
                sums.iter_mut().zip(line).for_each(|(sum, cost)| *sum += u64::from(cost));
            }
        }
        let best = (0..).zip(sums.iter()).min_by_key(|(_, sum)| **sum);
        best.map_or(0, |(index, _)| index)
    }
}

impl Costs {
    fn new(set: &TableSet) -> Self {
        let spans = &set.spans[..set.tables.len()];
        let low = spans.iter().map(|span| i32::from(span.low)).min().unwrap_or(0) - 1;
        let end = |span: &crate::table::Span| i32::from(span.low) + i32::from(span.escape);
        let high = spans.iter().map(end).max().unwrap_or(0);
        let row = |value: i32| {
            let tables = spans.iter().zip(0..);
            let costs = tables.map(move |(span, table)| {
                let at = usize::try_from(value - i32::from(span.low)).unwrap_or(usize::MAX);
                set.costs_of(table)[at.min(span.escape.into())]
            });
            let mut row = vec![[0; BLOCK]; spans.len().div_ceil(BLOCK)];
            row.as_flattened_mut().iter_mut().zip(costs).for_each(|(to, cost)| *to = cost);
            row
        };
        Self { low, rows: (low..=high).flat_map(row).collect(), blocks: spans.len().div_ceil(BLOCK) }
    }

    /// What a line of values costs in the tables of a block.
    fn of(&self, line: &[i16], block: usize) -> [u32; BLOCK] {
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

/// The tiles of a plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    /// The sides of the plane.
    down: usize,
    across: usize,
}

impl Tiles {
    pub(crate) fn count(self) -> usize {
        self.rows * self.columns
    }

    /// The rows of each tile of a plane, tile by tile.
    pub(crate) fn cut(self, plane: &[i16]) -> impl Iterator<Item = impl Iterator<Item = &[i16]>> {
        (0..self.count()).map(move |tile| {
            let (row, column) = (tile / self.columns, tile % self.columns);
            let lines = plane.chunks_exact(self.across).skip(row * self.height).take(self.height);
            let begin = column * self.width;
            lines.map(move |line| &line[begin..(begin + self.width).min(line.len())])
        })
    }

    /// The index from which a tile's is predicted, given those before it.
    pub(crate) fn predicted(self, base: u8, before: &[u8]) -> u8 {
        let tile = before.len();
        match (tile / self.columns, tile % self.columns) {
            (0, 0) => base,
            (_, 0) => before[tile - self.columns],
            _ => before[tile - 1],
        }
    }

    /// The index of every place of a plane, from that of every tile, and zeros for one turn of lanes after them.
    pub(crate) fn spread(self, indices: &[u8], places: &mut Vec<u8>) {
        places.clear();
        for line in 0..self.down {
            let row = &indices[line / self.height * self.columns..][..self.columns];
            for (column, &index) in row.iter().enumerate() {
                let begin = column * self.width;
                places.extend(std::iter::repeat_n(index, self.width.min(self.across - begin)));
            }
        }
        places.extend([0; LANES_MAX]);
    }
}
