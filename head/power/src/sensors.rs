//! What this machine can measure.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    Error, Rail, Source,
    sources::{battery, gpu, jetson, pi, rapl, wired},
};

/// Where sensors are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The kernel's tree, `/sys`; a container may have the host's elsewhere.
    pub sys: PathBuf,
    /// The Raspberry Pi's firmware client.
    pub vcgencmd: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places { sys: "/sys".into(), vcgencmd: "vcgencmd".into() }
    }
}

/// What was found.
pub struct Sensors {
    /// The board's name, if it has a device tree.
    pub board: Option<String>,
    /// Sources that gave a reading.
    pub sources: Vec<Box<dyn Source>>,
    /// Sensors that are there and gave none.
    pub absent: Vec<Absent>,
}

/// A sensor that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// Which.
    pub sensor: String,
    /// Why it cannot be read.
    pub reason: String,
    /// What would help, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Absent {
    pub(crate) fn new(sensor: impl Into<String>, error: &Error) -> Self {
        let reason = match error {
            Error::Forbidden { path, .. } => format!("{} may not be read by this user", path.display()),
            Error::Silent { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        Absent { sensor: sensor.into(), reason, remedy: error.remedy().map(str::to_owned) }
    }
}

impl Sensors {
    /// The rails of all sources.
    pub fn rails(&self) -> impl Iterator<Item = &Rail> {
        self.sources.iter().flat_map(|source| source.rails())
    }
}

impl std::fmt::Debug for Sensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rails: Vec<&str> = self.rails().map(|rail| rail.name.as_str()).collect();
        f.debug_struct("Sensors").field("rails", &rails).field("absent", &self.absent).finish_non_exhaustive()
    }
}

/// Looks for every kind of sensor by what is there, not by a table of boards, and reads each once.
pub fn discover(places: &Places) -> Sensors {
    let (sys, mut absent) = (places.sys.as_path(), Vec::new());
    let board = jetson::board(sys);
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    sources.extend(jetson::find(sys, &mut absent));
    sources.extend(pi::find(board.as_deref(), &places.vcgencmd, &mut absent));
    sources.extend(wired::find(sys, &mut absent));
    sources.extend(battery::find(sys, &mut absent));
    sources.extend(rapl::find(sys, &mut absent));
    sources.extend(gpu::find(sys, &mut absent));
    Sensors { board, sources, absent }
}
