//! The reasons for which a job or one of its tasks is not answered.

use std::time::Duration;

/// The reason why a job, or one task of it, was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The reason, for programs.
    pub reason: RefusalReason,
    /// The reason, for people.
    pub text: String,
    /// The time after which another attempt may succeed, if it can be estimated.
    pub retry: Option<Duration>,
}

/// The reason of a [`Refusal`], for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The packet does not decode, or the latent does not fit the bundle.
    BadLatent,
    /// The image does not decode, is too large, or does not have the size that its framing promises.
    BadImage,
    /// The bundle has no task of this index.
    NoSuchTask,
    /// The task does not answer queries of this kind.
    WrongQuery,
    /// The unsplit network of the task is not served, so the task does not take images.
    UnsplitNotServed,
    /// A queue is full, the device's own frames are estimated to last longer than the deadline allows, or a quota of the device
    /// is used up.
    Busy,
    /// The deadline passed before a run began, or would have passed before it ended.
    Expired,
    /// The engine is shutting down.
    ShuttingDown,
    /// The answer is over a limit of the front end.
    TooLarge,
    /// The engine failed on this job.
    Internal,
}

impl Refusal {
    /// A refusal without a retry hint.
    #[must_use]
    pub fn new(reason: RefusalReason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: text.into(), retry: None }
    }

    /// The same refusal with a hint that another attempt may succeed after `wait`.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Refusal {
        Refusal { retry: Some(wait), ..self }
    }
}
