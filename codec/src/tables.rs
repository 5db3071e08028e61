//! The tables of a bundle as encoder and decoder use them.

use crate::{
    Error, LevelId, Mode, Table,
    context::model::ContextModel,
    format::tables_file::TablesFile,
    indexed::IndexedModel,
    rans::table_set::{RunTableSet, TableSet},
};

/// The probability tables of a bundle, for every rate level and channel, with the lookup tables that encoder and decoder
/// derive from them.
#[derive(Clone, Debug)]
pub struct Tables {
    file: TablesFile,
    /// Per level, the static tables of all channels.
    levels: Box<[RunTableSet]>,
    pub(crate) indexed: Option<IndexedModel>,
    pub(crate) context: Option<ContextModel>,
}

impl Tables {
    /// Parses `tables.bin` (FORMAT.md, section 2) and derives the lookup tables: about four kilobytes per table and 30
    /// bytes per regular symbol.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) that names the field, and the table if the field
    /// is part of one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut file = TablesFile::parse(bytes)?;
        let precision = file.precision;
        let levels = file.levels.iter().map(|tables| RunTableSet::new(tables, precision)).collect();
        let indexed = file.indexed.take().map(|section| IndexedModel::new(section, precision));
        let context = file.context.take().map(|section| ContextModel::new(section, precision));
        Ok(Self { file, levels, indexed, context })
    }

    /// The first four bytes of the SHA-256 of the file. Packets hold the first one; their checksum covers the whole digest.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.file.digest;
        [a, b, c, d]
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.file.digest
    }

    /// The precision of the frequencies, 12 or 14: those of a table sum to 2^precision.
    #[must_use]
    pub fn precision(&self) -> u32 {
        self.file.precision
    }

    /// The number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.file.order.len()
    }

    /// The number of rate levels.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The static tables of one level, one per channel.
    #[must_use]
    pub fn level(&self, level: LevelId) -> Option<&[Table]> {
        Some(self.file.levels.get(level.index())?)
    }

    /// The static tables of a level that these tables have.
    pub(crate) fn static_tables(&self, level: LevelId) -> &RunTableSet {
        &self.levels[level.index()]
    }

    /// The tables that code symbols in `mode`, which is a coded mode that these tables support. `level` is one of theirs.
    pub(crate) fn table_set(&self, mode: Mode, level: LevelId) -> &TableSet {
        match (mode, &self.indexed, &self.context) {
            (Mode::Indexed, Some(indexed), _) => &indexed.tables.set,
            (Mode::Context | Mode::Columns | Mode::Rows, _, Some(context)) => &context.tables.set,
            _ => &self.levels[level.index()].set,
        }
    }

    /// The symbol with which a decoder fills a channel that a cut packet lacks.
    pub(crate) fn median(&self, level: LevelId, channel: usize) -> i16 {
        self.file.levels[level.index()][channel].median()
    }

    /// The number of channel groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.file.group_ends.len()
    }

    /// The channels of each group, in the order of coding.
    #[must_use]
    pub fn order(&self) -> impl DoubleEndedIterator<Item = &[u16]> + ExactSizeIterator {
        let ends = &self.file.group_ends;
        ends.iter().enumerate().map(|(group, &end)| {
            let begin = if group == 0 { 0 } else { ends[group - 1] };
            &self.file.order[usize::from(begin)..usize::from(end)]
        })
    }

    /// Whether packets of this mode can be written and read: whether the file has the section that it needs.
    #[must_use]
    pub fn supports(&self, mode: Mode) -> bool {
        match mode {
            Mode::Raw | Mode::Static | Mode::Zstd => true,
            Mode::Indexed => self.indexed.is_some(),
            Mode::Context | Mode::Columns | Mode::Rows => self.context.is_some(),
        }
    }
}
