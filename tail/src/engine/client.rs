//! Who a job is for.

use std::sync::Arc;

pub use narrows_scheduler::{Priority, Terms};

/// The device that a job is for, as the scheduler knows it, and what it may ask for. Jobs of one name share one account,
/// whichever connections they come from; the newest terms count.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The name.
    pub name: Arc<str>,
    /// Class and quotas.
    pub terms: Terms,
}

impl Default for Client {
    /// The only client of an engine without a front end, of the usual class and without quotas.
    fn default() -> Self {
        Client { name: Arc::from(""), terms: Terms::default() }
    }
}
