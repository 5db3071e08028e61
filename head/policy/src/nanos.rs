//! Durations as whole nanoseconds in JSON.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Writes a duration; one of more than 584 years as that.
pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(whole(*time))
}

/// Reads a duration.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_nanos)
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The same for one that may be missing.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer, whole};

    /// Writes a duration or null.
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&whole(*time)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration or null.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
    }
}
