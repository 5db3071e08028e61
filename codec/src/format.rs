//! The bytes of packets and tables files (FORMAT.md): parsing and writing, without entropy coding.

pub(crate) mod checksum;
pub(crate) mod context_section;
pub(crate) mod cursor;
pub(crate) mod directory;
pub(crate) mod header;
pub(crate) mod indexed_section;
pub(crate) mod mode;
pub(crate) mod plain;
pub(crate) mod states;
pub(crate) mod table;
pub(crate) mod tables_file;
