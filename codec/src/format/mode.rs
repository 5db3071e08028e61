//! The coding modes of packets (FORMAT.md, section 3.1).

use std::fmt;

/// How the symbols of a packet are coded (FORMAT.md, section 3.1). The discriminants are the numbers in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Mode {
    /// One or two bytes per symbol.
    Raw = 0,
    /// Range ANS with one table per level and channel.
    Static = 1,
    /// A Zstandard frame over the bytes of [`Mode::Raw`].
    Zstd = 2,
    /// Range ANS with one table per tile, whose index is part of the packet.
    Indexed = 3,
    /// Range ANS with a table per symbol, which follows from the symbols decoded before it.
    Context = 4,
    /// As [`Mode::Context`], with the symbol above as the prediction of each symbol.
    Columns = 5,
    /// As [`Mode::Columns`] with rows and columns exchanged, so with the symbol to the left as the prediction.
    Rows = 6,
}

impl Mode {
    /// Every mode, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Raw, Self::Static, Self::Zstd, Self::Indexed, Self::Context, Self::Columns, Self::Rows];

    /// Whether the mode codes with range ANS, in lanes and groups.
    #[must_use]
    pub fn is_coded(self) -> bool {
        !matches!(self, Self::Raw | Self::Zstd)
    }

    /// Whether the table of each symbol follows from the symbols decoded before it.
    pub(crate) fn has_contexts(self) -> bool {
        matches!(self, Self::Context | Self::Columns | Self::Rows)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Static => "static",
            Self::Zstd => "zstd",
            Self::Indexed => "indexed",
            Self::Context => "context",
            Self::Columns => "columns",
            Self::Rows => "rows",
        })
    }
}
