//! The topics of a device.

use crate::config::topic_level;

/// Where Home Assistant says that it has started unless it is set up otherwise, whatever the topic of its discovery is.
const BIRTH: &str = "homeassistant/status";

/// Payloads of the topic that says whether the device runs.
pub(super) const ONLINE: &str = "online";
pub(super) const OFFLINE: &str = "offline";

/// The names of a device's topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    prefix: String,
    available: String,
    /// Where Home Assistant may say that it has started.
    births: Vec<String>,
    /// This device's own discovery, which the broker holds from an earlier run.
    discovery: Option<String>,
}

impl Topics {
    pub(super) fn new(prefix: &str, discovery: Option<&str>) -> Self {
        let births = |discovery: &str| vec![format!("{discovery}/status"), BIRTH.to_owned()];
        let mut births = discovery.map_or_else(Vec::new, births);
        births.dedup();
        let available = format!("{prefix}/available");
        Topics { prefix: prefix.to_owned(), available, births, discovery: None }
    }

    /// Hears the device's own discovery, too.
    pub(super) fn discovering(self, discovery: Option<String>) -> Self {
        Topics { discovery, ..self }
    }

    /// Whether a message is this device's own discovery.
    pub(super) fn is_discovery(&self, topic: &[u8]) -> bool {
        self.discovery.as_ref().is_some_and(|own| own.as_bytes() == topic)
    }

    /// Whether a topic is one of this device.
    pub(super) fn is_own(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('/'))
    }

    /// `online` or `offline`, retained.
    pub(super) fn available(&self) -> &str {
        &self.available
    }

    /// The state of the device and its cameras as JSON, retained.
    pub(super) fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// A topic of a camera: `answer`, `class`, `state` or `picture`.
    pub(super) fn of(&self, camera: &str, kind: &str) -> String {
        format!("{}/{}/{kind}", self.prefix, topic_level(camera))
    }

    /// The topics to subscribe to.
    pub(super) fn heard(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.available).chain(&self.births).chain(&self.discovery).map(String::as_str)
    }

    /// Whether a message says that Home Assistant has started.
    pub(super) fn is_birth(&self, topic: &[u8], payload: &[u8]) -> bool {
        payload == ONLINE.as_bytes() && self.births.iter().any(|birth| birth.as_bytes() == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_assistant_is_heard_below_its_discovery_and_where_it_speaks_by_default() {
        let heard = |discovery: Option<&str>| -> Vec<String> {
            let topics = Topics::new("narrows/pi", discovery);
            topics.heard().map(str::to_owned).collect()
        };
        assert_eq!(heard(None), ["narrows/pi/available"]);
        assert_eq!(heard(Some("homeassistant")), ["narrows/pi/available", "homeassistant/status"]);
        assert_eq!(heard(Some("ha")), ["narrows/pi/available", "ha/status", "homeassistant/status"]);
        let topics = Topics::new("narrows/pi", Some("ha"));
        assert!(
            topics.is_birth(b"homeassistant/status", b"online") && topics.is_birth(b"ha/status", b"online")
        );
        assert!(
            !topics.is_birth(b"ha/status", b"offline")
                && !topics.is_birth(b"narrows/pi/available", b"online")
        );
    }
}
