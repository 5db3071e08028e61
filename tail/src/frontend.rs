//! Front ends: they translate between a protocol and the [engine](crate::engine).

pub(crate) mod admission;
pub(crate) mod metrics;
pub(crate) mod quic;
