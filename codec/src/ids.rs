//! The indices in a packet's header, as types of their own so that they cannot be swapped.

use std::fmt;

/// Index of a rate level: of the tables' levels and of the levels in the bundle's manifest. 0 is the finest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LevelId(pub u8);

/// Index of a geometry, which is an input size of the network, in the bundle's manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GeometryId(pub u8);

impl LevelId {
    /// The index as a number for slices.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl GeometryId {
    /// The index as a number for slices.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for LevelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GeometryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
