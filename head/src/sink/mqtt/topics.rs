//! The topics of a device.

use crate::config::topic_level;

/// Payloads of the topic that says whether the device runs.
pub(super) const ONLINE: &str = "online";
pub(super) const OFFLINE: &str = "offline";

/// The names of a device's topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    prefix: String,
    available: String,
    /// Where Home Assistant says that it has started.
    birth: Option<String>,
}

impl Topics {
    pub(super) fn new(prefix: &str, discovery: Option<&str>) -> Self {
        Topics {
            prefix: prefix.to_owned(),
            available: format!("{prefix}/available"),
            birth: discovery.map(|discovery| format!("{discovery}/status")),
        }
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
        std::iter::once(self.available.as_str()).chain(self.birth.as_deref())
    }

    /// Whether a message says that Home Assistant has started.
    pub(super) fn is_birth(&self, topic: &[u8], payload: &[u8]) -> bool {
        self.birth.as_ref().is_some_and(|birth| birth.as_bytes() == topic) && payload == ONLINE.as_bytes()
    }
}
