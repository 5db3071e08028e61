//! Discovery of the sensors that this machine has.

use std::path::PathBuf;

use crate::{
    Absent, Rail, Source,
    sources::{battery, gpu, jetson, pi, rapl, wired},
};

/// Paths under which sensors are searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The sysfs of the kernel, `/sys`; in a container the host's may be mounted elsewhere.
    pub sys: PathBuf,
    /// The command-line client of the Raspberry Pi's firmware.
    pub vcgencmd: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places { sys: "/sys".into(), vcgencmd: "vcgencmd".into() }
    }
}

/// The sensors of this machine.
pub struct Sensors {
    /// Name of the board, if it has a device tree.
    pub board: Option<String>,
    /// Sources that returned a reading.
    pub sources: Vec<Box<dyn Source>>,
    /// Sensors that exist and returned none.
    pub absent: Vec<Absent>,
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

/// Searches every kind of sensor and reads each once. It goes by the files that exist, not by a table of boards.
#[must_use]
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
