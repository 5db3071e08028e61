//! What is wrong with a configuration file, each fault with its line.

use std::{fmt, io, path::PathBuf};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system reported.
        source: io::Error,
    },
    /// Its content cannot be used. Every fault is told, in the order of the lines.
    #[error("{}", Listed(.file, .faults))]
    Content {
        /// The file.
        file: PathBuf,
        /// At least one.
        faults: Vec<Fault>,
    },
    /// Neither it nor the command line gives what is needed.
    #[error("{}: {}", .file.display(), .keys.join("; "))]
    Missing {
        /// The file.
        file: PathBuf,
        /// What is missing: each key, and what can be given.
        keys: Vec<String>,
    },
}

/// One fault of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, from 1 on.
    pub line: usize,
    /// The key, what was given, and what can be given.
    pub text: String,
}

/// Faults as `file:line: text`, one in each line.
struct Listed<'a>(&'a PathBuf, &'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed(file, faults) = self;
        for (place, Fault { line, text }) in faults.iter().enumerate() {
            let end = if place + 1 < faults.len() { "\n" } else { "" };
            write!(f, "{}:{line}: {text}{end}", file.display())?;
        }
        Ok(())
    }
}
