//! Why a camera is lost.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use narrows_video::StreamFault;

use crate::name::Escaped;

/// Why a camera was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CameraFault {
    /// No program is installed that could read it.
    #[error("{} installed; {remedy}", missing(.programs))]
    Missing {
        /// The programs of which one is needed.
        programs: Vec<&'static str>,
        /// How to get them.
        remedy: &'static str,
    },
    /// Its program cannot be started.
    #[error("{program} cannot be started")]
    Start {
        /// The program.
        program: &'static str,
        /// What the operating system reported.
        source: io::Error,
    },
    /// Its FIFO, device or folder cannot be read.
    #[error("{}", Escaped(.path))]
    Open {
        /// The FIFO, device or folder.
        path: PathBuf,
        /// What the operating system reported.
        source: io::Error,
    },
    /// Its program ended.
    #[error("{program} ended{}{}", how(.status), quoted(.words))]
    Ended {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: Option<ExitStatus>,
        /// What it said last.
        words: Option<String>,
    },
    /// It delivers no frames.
    #[error("no frame for {:.1} s{}", .time.as_secs_f64(), quoted(.words))]
    Stalled {
        /// How long.
        time: Duration,
        /// What its program said last.
        words: Option<String>,
    },
    /// It delivers something that cannot be read.
    #[error("{fault}{}", quoted(.words))]
    Stream {
        /// What is wrong with it.
        fault: StreamFault,
        /// What its program said last.
        words: Option<String>,
    },
    /// It cannot be read any more.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

fn missing(programs: &[&str]) -> String {
    match programs {
        [one] => format!("{one} is not"),
        [first, last] => format!("neither {first} nor {last} is"),
        _ => format!("{} are not", programs.join(", ")),
    }
}

fn how(status: &Option<ExitStatus>) -> String {
    status.map(|status| format!(" ({status})")).unwrap_or_default()
}

fn quoted(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!(": {words}")).unwrap_or_default()
}
