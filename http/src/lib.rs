//! A small HTTP/1.1 server for the pages and figures that head and tail show of themselves.
//!
//! It reads requests and leaves the answers to a [`Site`]: GET and HEAD without bodies, and for sites that take them POST with bodies of
//! a length that is told. Whatever a client does is bounded: the
//! size of a request and its headers, the time to send one and to read its answer, and the number of connections. What a
//! browser does with the answers is bound by their headers: nothing is loaded from elsewhere, and no other site can embed or
//! read them.

mod request;
mod response;
mod server;

pub use request::{BodyFault, Method, Reader, Request, decoded};
pub use response::{Response, begin, respond, write};
pub use server::{Site, serve};
