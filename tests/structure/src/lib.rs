//! Holds no code: the tests beside it read the sources of the workspace and check how they use each other.
//!
//! It depends on no other crate of the workspace, so `cargo test -p narrows-structure` runs within seconds and also
//! while another crate does not compile.
