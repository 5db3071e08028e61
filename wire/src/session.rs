//! The two sides of a connection as pure state machines: bytes and `now` in, values out (PROTOCOL.md section 2).
//! Sockets and clocks belong to the caller, so a pair can be run in virtual time.

mod client;
mod server;

pub use client::{Answered, Client};
pub use server::{Accepted, Catalog, CatalogBundle, CatalogTask, HelloOutcome, Server, Verdict};
