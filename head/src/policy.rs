//! Decisions about frames and about the server, as pure state: observations and `now` in, values out.

mod backoff;
mod plan;

pub(crate) use backoff::Backoff;
pub(crate) use plan::FixedPolicy;
