//! Refusals of hellos, of frames and of single tasks (PROTOCOL.md sections 3 and 5).

use std::{fmt, time::Duration};

use crate::{bundle::BundleId, codes::RefusalCode, text::Quoted};

/// A refusal: a code, a text for people, and a hint when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The time after which another attempt may succeed; `None` gives no hint. It is sent in milliseconds.
    pub retry: Option<Duration>,
    /// The reason, for people. Only the first [`crate::limits::MAX_TEXT`] bytes are sent.
    pub text: String,
}

/// The server's answer to a hello that it does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRefusal {
    /// The reason.
    pub refusal: Refusal,
    /// The oldest version the server speaks.
    pub oldest: u16,
    /// The newest version the server speaks.
    pub newest: u16,
    /// The bundles that the server has, so that an operator sees which one to install.
    pub serves: Vec<BundleId>,
}

impl Refusal {
    /// A refusal without a retry hint.
    #[must_use]
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Refusal {
        Refusal { code, retry: None, text: text.into() }
    }

    /// The same refusal with a hint that another attempt may succeed after `wait`.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Refusal {
        Refusal { retry: Some(wait), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.text.is_empty() {
            write!(f, ": {}", Quoted(&self.text))?;
        }
        match self.retry {
            Some(wait) => write!(f, " (try again in {} ms)", wait.as_millis()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for HelloRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the hello: {}", self.refusal)?;
        if self.refusal.code == RefusalCode::Version {
            write!(f, "; it speaks versions {} to {}", self.oldest, self.newest)?;
        }
        if self.refusal.code == RefusalCode::Bundle {
            for (index, id) in self.serves.iter().enumerate() {
                write!(f, "{}{id}", if index == 0 { "; it serves " } else { ", " })?;
            }
        }
        Ok(())
    }
}
