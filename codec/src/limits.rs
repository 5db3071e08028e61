//! The limits that the format sets (FORMAT.md, section 1).

/// The largest number of channels of a feature.
pub const CHANNELS_MAX: usize = 1024;

/// The largest height or width of a feature.
pub const SIDE_MAX: usize = 4096;

/// The largest number of symbols in a feature.
pub const SYMBOLS_MAX: usize = 1 << 22;

/// The largest number of rate levels in a tables file.
pub const LEVELS_MAX: usize = 16;

/// The largest number of channel groups in a tables file.
pub const GROUPS_MAX: usize = 32;

/// The largest tables file, in bytes.
pub const TABLES_MAX: usize = 1 << 22;

/// The largest number of geometries that a bundle may have.
pub(crate) const GEOMETRIES_MAX: usize = 16;

/// The largest number of lanes in a packet.
pub(crate) const LANES_MAX: usize = 32;

// Levels, geometries and groups share bytes of the header.
const _: () = assert!(LEVELS_MAX <= 16 && GEOMETRIES_MAX <= 16 && GROUPS_MAX <= 32);
