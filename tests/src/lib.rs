//! Proof that the parts hold together: the tests of this crate run the real binaries and read the real tree.
//!
//! It has no code of its own; see `tests/`, and `fuzz/` for the fuzz targets.
