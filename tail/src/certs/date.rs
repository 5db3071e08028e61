//! Dates of certificates.
#![expect(clippy::disallowed_methods, reason = "certificates begin to be valid now")]

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The present time.
pub(crate) fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

/// A time in seconds since 1970 as RFC 3339 writes it.
pub(crate) fn text(at: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(at).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

/// The day of a time in seconds since 1970, as YYYY-MM-DD.
pub(super) fn day(at: i64) -> String {
    text(at).chars().take(10).collect()
}
