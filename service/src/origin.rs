//! Where the settings of a running program come from, and how they are read again.

use std::{fmt, sync::Arc};

use crate::{ParseError, Settings};

/// The configuration file of a running program.
#[derive(Clone)]
pub struct Origin<F> {
    /// The file as it was read last.
    pub settings: Settings,
    again: Arc<Again<F>>,
}

/// Returns the flags of the program with the file that they come from, or what is wrong with them.
type Again<F> = dyn Fn() -> Result<(F, Settings), String> + Send + Sync;

impl<F> Origin<F> {
    /// A file that was read as `settings`, and that `again` reads again, with the same command line.
    pub fn new(
        settings: Settings,
        again: impl Fn() -> Result<(F, Settings), String> + Send + Sync + 'static,
    ) -> Self {
        Origin { settings, again: Arc::new(again) }
    }

    /// Reads the command line and the file again.
    ///
    /// # Errors
    /// What is wrong with the file, each fault in a line of its own.
    pub fn read_again(&self) -> Result<(F, Settings), String> {
        (self.again)()
    }
}

impl<F> fmt::Debug for Origin<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ParseError {
    /// What is wrong, without the hints for one who has just typed the command.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            ParseError::Usage(error) => {
                let text = error.to_string();
                let words = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
                words.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
            }
            ParseError::Settings(error) => {
                // The text of an error does not repeat its source.
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                text
            }
        }
    }
}
