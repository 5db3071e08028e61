//! The rights of devices by the names in their certificates.

mod file;
mod pattern;

use std::{fmt, sync::Arc};

use narrows_models::Digest;

pub use self::file::Fault;
pub(crate) use self::pattern::Pattern;
use crate::engine::Terms;

/// The rights of all devices: sections with a pattern of names each, of which the first that fits counts, and a default.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices {
    sections: Vec<(Pattern, Arc<Rights>)>,
    default: Option<Arc<Rights>>,
    /// The digests of tokens, and the names of those who have them.
    tokens: Vec<(Digest, Arc<str>)>,
}

/// What a device may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// The bundles and tasks that it may use, and whether it may send images.
    pub scope: Scope,
    /// Connections that it may have open at once; `None` is the server's limit.
    pub connections: Option<usize>,
    /// Its class and quotas.
    pub terms: Terms,
}

/// The part of what is served that a device may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Names of bundles, or beginnings of their digests; `None` is all.
    pub bundles: Option<Vec<String>>,
    /// Names of tasks; `None` is all.
    pub tasks: Option<Vec<String>>,
    /// Whether its images are answered.
    pub images: bool,
}

impl Default for Scope {
    fn default() -> Self {
        Scope { bundles: None, tasks: None, images: true }
    }
}

impl Default for Devices {
    /// Every device may use everything.
    fn default() -> Self {
        Devices { sections: Vec::new(), default: Some(Arc::default()), tokens: Vec::new() }
    }
}

impl Devices {
    /// The rights of a device by the first name in its certificate. `None` if it may not use the server.
    #[must_use]
    pub fn rights(&self, name: &str) -> Option<Arc<Rights>> {
        let section = self.sections.iter().find(|(pattern, _)| pattern.fits(name));
        section.map(|(_, rights)| rights).or(self.default.as_ref()).cloned()
    }

    /// The name of the device that has this token.
    #[must_use]
    pub fn name_of(&self, token: &str) -> Option<Arc<str>> {
        let digest = Digest::of(token.as_bytes());
        self.tokens.iter().find(|(own, _)| *own == digest).map(|(_, name)| Arc::clone(name))
    }

    /// The number of sections besides the default.
    #[must_use]
    pub fn sections(&self) -> usize {
        self.sections.len()
    }
}

impl Scope {
    /// Whether a bundle of this name and digest may be used.
    #[must_use]
    pub fn has_bundle(&self, name: &str, digest: &str) -> bool {
        let named =
            |entry: &String| entry == name || (entry.len() >= 8 && digest.starts_with(entry.as_str()));
        self.bundles.as_ref().is_none_or(|bundles| bundles.iter().any(named))
    }

    /// Whether a task of this name may be used.
    #[must_use]
    pub fn has_task(&self, name: &str) -> bool {
        self.tasks.as_ref().is_none_or(|tasks| tasks.iter().any(|task| task == name))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.default.is_some() { "have the default section" } else { "are refused" };
        write!(f, "{} sections, other names {default}", self.sections.len())
    }
}
