//! The settings of an engine.

use std::{path::PathBuf, time::Duration};

use super::ort::Device;

/// The limits of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Frames in one run, at least 1.
    pub size: usize,
    /// Time that the oldest frame may wait for others of its shape while a worker is free.
    pub wait: Duration,
}

/// Which bundles are loaded when, and how much memory they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleOptions {
    /// Bytes that the networks of all loaded bundles may take, as [`BundleStatus::bytes`](super::BundleStatus::bytes) estimates them;
    /// `None` is no limit.
    pub memory: Option<u64>,
    /// When a bundle is loaded.
    pub load: Load,
    /// Time after which a bundle is unloaded that is no longer served and that nothing uses any more.
    pub unload_after: Duration,
    /// The runs that a network does before it serves.
    pub warm_up: WarmUp,
}

/// When a bundle is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// At the start as far as the memory reaches, the others when they are asked for.
    #[default]
    Start,
    /// When it is asked for.
    Demand,
}

/// The runs that a network does before it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarmUp {
    /// Every geometry and size on a GPU; on the CPU those that the version before it ran.
    #[default]
    Auto,
    /// Every geometry with every power of two of frames and the largest batch.
    All,
    /// Those that the version before it ran.
    Used,
}

/// The settings of an [`Engine`](super::Engine). The defaults are those of `narrows-tail serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// ONNX Runtime's library; `None` searches for it as [`Runtime::open`](super::Runtime::open) does.
    pub library: Option<PathBuf>,
    /// The device that the networks run on.
    pub device: Device,
    /// Threads of one inference run on the CPU; 0 takes one per core.
    pub threads: usize,
    /// Workers per network. Each has a thread and a copy of the network.
    pub workers: usize,
    /// Limits of one batch.
    pub batch: BatchLimits,
    /// Frames that may wait for one network, and images that may wait to be decoded. Where that many wait for a network, one of
    /// the device with the most makes room for one of a device with fewer.
    pub queue: usize,
    /// Which bundles are loaded when.
    pub bundles: BundleOptions,
    /// Load the unsplit networks as well, so that images are answered.
    pub unsplit: bool,
    /// Images that may be decoded at once.
    pub decoders: usize,
    /// Pixels that an image may have.
    pub max_image_pixels: u64,
    /// File in which arrivals and runs are recorded.
    pub record_arrivals: Option<PathBuf>,
}

impl Default for BundleOptions {
    fn default() -> Self {
        BundleOptions {
            memory: None,
            load: Load::Start,
            unload_after: Duration::from_secs(60),
            warm_up: WarmUp::Auto,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            library: None,
            device: Device::Auto,
            threads: 0,
            workers: 1,
            batch: BatchLimits { size: 8, wait: Duration::ZERO },
            queue: 512,
            bundles: BundleOptions::default(),
            unsplit: false,
            decoders: 2,
            max_image_pixels: 1 << 24,
            record_arrivals: None,
        }
    }
}
