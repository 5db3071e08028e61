//! The flags of the bundles that are served.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{millis, number};
use crate::engine::{self, BundleOptions};

/// The bundles that are served, and their memory.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Bundles")]
pub struct Bundles {
    /// Folder of a bundle to serve; may be repeated, also with several versions of one bundle, of which clients are told to take
    /// the last. When a folder changes, and on SIGHUP, the bundles are read again, and each new one is loaded and tested
    /// before it takes the place of another (docs/bundles.md)
    #[arg(long = "bundle", value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
    /// Mebibytes of memory that the networks of all loaded bundles may take, estimated as twice the size of their files for each
    /// worker; 0 is no limit. Beyond it the bundle is unloaded that was used least recently and that no connection uses, and loaded
    /// again when a head asks for it, which takes seconds
    #[arg(long = "bundles-memory", value_name = "MIB", default_value_t = 0, value_parser = number(0, 1 << 24))]
    pub memory: usize,
    /// When bundles are loaded. With start the server is ready once all have been loaded that fit into the memory
    #[arg(long = "bundles-load", value_name = "WHEN", value_enum, default_value_t = Load::Start)]
    pub load: Load,
    /// Milliseconds after which a bundle is unloaded that is no longer served, from when the last connection that uses it is
    /// gone; a head that was cut off comes back to it until then
    #[arg(long = "bundles-unload-after", value_name = "MS", default_value = "60000", value_parser = millis)]
    pub unload_after: Duration,
    /// Runs that each network does before it serves, so that first frames need not wait. Each takes the time of two runs, and a
    /// server with all of them starts seconds later
    #[arg(long = "bundles-warm-up", value_name = "RUNS", value_enum, default_value_t = WarmUp::Auto)]
    pub warm_up: WarmUp,
}

/// When bundles are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// When the server starts, as far as the memory reaches.
    #[default]
    Start,
    /// When a head asks for them.
    Demand,
}

/// The runs that a network does before it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WarmUp {
    /// all on a GPU, used on the CPU.
    #[default]
    Auto,
    /// Every geometry of the bundle with 1, 2, 4 … --batch frames.
    All,
    /// The geometries and batch sizes that the version before it has run; none at the start.
    Used,
}

impl Bundles {
    /// The settings of the engine.
    pub(super) fn options(&self) -> BundleOptions {
        BundleOptions {
            memory: (self.memory > 0).then_some((self.memory as u64) << 20),
            load: match self.load {
                Load::Start => engine::Load::Start,
                Load::Demand => engine::Load::Demand,
            },
            unload_after: self.unload_after,
            warm_up: match self.warm_up {
                WarmUp::Auto => engine::WarmUp::Auto,
                WarmUp::All => engine::WarmUp::All,
                WarmUp::Used => engine::WarmUp::Used,
            },
        }
    }
}
