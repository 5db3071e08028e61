//! The two sides of a connection as state machines (PROTOCOL.md section 2). They take bytes and the current time and return
//! values; sockets and clocks are the caller's, so tests run a pair in virtual time.

mod client;
mod server;

pub use client::{Answered, Client};
pub use server::{Accepted, Catalog, CatalogBundle, CatalogTask, HelloOutcome, Server, Verdict};
