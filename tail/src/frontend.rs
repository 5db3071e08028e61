//! Front ends: they translate between a protocol and the [engine](crate::engine).

pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod codes;
pub(crate) mod enrol;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod oip;
pub(crate) mod panic;
pub(crate) mod peers;
pub(crate) mod quic;
