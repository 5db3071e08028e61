//! The command line of `narrows-head run`.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::ValueEnum;

use super::{
    DecisionFlags, EnergyFlags, OutputFlags, SignatureFlags, SpoolFlags, exit::ExitMode, gate::GateMode,
};
use crate::encoding::{Chroma, Format};

/// The flags of `narrows-head run`, as given.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// File of settings (TOML), whose keys are the other flags of this command; a flag given here counts more, and paths in the
    /// file are relative to it. `narrows-head config` prints one with every key
    #[arg(long, value_name = "FILE", display_order = 0)]
    pub config: Option<PathBuf>,

    /// Folder of the bundle; the server must serve the same bundle
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,

    /// Which bundles are taken.
    #[command(flatten)]
    pub signature: SignatureFlags,

    /// Address of the tail: a name in its certificate, and a port, for example `tail.local:7461`, `[::1]:7461` or
    /// `[fe80::1%eth0]:7461`; not needed with --path local. May be given several times, for tails that take each other's place
    /// (docs/servers.md)
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Vec<String>,

    /// How one of several servers is chosen
    #[arg(long, value_name = "HOW", value_enum, default_value_t = ServerChoice::Order)]
    pub servers: ServerChoice,

    /// With --servers order: seconds for which an earlier server must have been back before it is used again
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub return_after: u64,

    /// Folder with ca.pem, cert.pem and key.pem of this device, as `narrows-head enrol` or `narrows-tail certs device` makes it; not
    /// needed with --path local
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// Address of a tail that enrols devices, at which this device renews its certificate when a third of its life is left, or off
    /// (docs/enrolment.md) [default: where `narrows-head enrol` got it; a device whose identity was copied does not]
    #[arg(long, value_name = "HOST[:PORT]|off")]
    pub renew_at: Option<String>,

    /// Where frames come from; may be given several times, each as [NAME=]SOURCE. An image file, a folder of images (without
    /// its subfolders), a quoted pattern such as 'photos/**/*.jpg', or a FIFO, which is opened anew for every frame; or a live
    /// source, of which the newest frame counts: - (standard input), pipe:FIFO, watch:DIR, rpicam:OPTIONS, v4l2:DEVICE,
    /// ffmpeg:ADDRESS, gst:PIPELINE or command:COMMAND. @FILE reads one of these from a file, so that no secret in it is seen in
    /// the list of processes. A path that exists is never taken for anything else
    #[arg(long, value_name = "SOURCE", required = true)]
    pub source: Vec<OsString>,

    /// Most frames to take from each source in a second [default: as many as can be worked on]
    #[arg(long, value_name = "N")]
    pub fps: Option<f64>,

    /// Seconds without a frame after which a live source counts as stalled and is opened anew; its first frame may take four
    /// times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub stall: f64,

    /// Which frames of a live source are taken
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = FrameChoice::Newest)]
    pub frames: FrameChoice,

    /// Name of this device in the lines and in MQTT's topics [default: the name in its certificate, or that of the host]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Names of the tasks to answer [default: the bundle's first task of each kind]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    pub tasks: Vec<String>,

    /// Where the network runs
    #[arg(long, value_name = "PATH", value_enum, default_value_t = Path::Split)]
    pub path: Path,

    /// When this device answers instead of the server, where the bundle's local network can
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = FallbackMode::Lost)]
    pub fallback: FallbackMode,

    /// Frame gate: below which distance of a frame's features from those of the last answered frame of its source that answer
    /// is kept and nothing is sent, in quantiser steps where it moved most; `auto` is a distance that the noise of a still
    /// camera stays below (docs/paths.md) [default: off; auto with --for energy and live sources]
    #[arg(long, value_name = "off|auto|0…255")]
    pub gate: Option<GateMode>,

    /// Milliseconds for which --gate may keep an answer, from the capture of the frame that it was given to [default: 5000]
    #[arg(long, value_name = "MS")]
    pub gate_max_age: Option<u64>,

    /// Early exit of --path split and image: from which confidence on the local network's answer is used and the frame is not
    /// sent; `auto` is the bundle's calibrated threshold. For --tasks that the local network answers alone, which is
    /// classification. The local network runs on every frame, before it is sent: that costs its time and energy; with
    /// --for energy only while it saves more than it costs [default: off; auto with --for energy, where it can be used]
    #[arg(long, value_name = "off|auto|0…1")]
    pub exit: Option<ExitMode>,

    /// Rate level; 0 is the finest and makes the largest packets. `auto` chooses it for each frame by what the link carries until
    /// the frame's deadline, and ends packets early that would come too late [default: auto with live sources, else the bundle's]
    #[arg(long, value_name = "N|auto")]
    pub level: Option<LevelFlag>,

    /// With --level auto: what is wanted of the answers (docs/rate-control.md) [default: latency with live sources, else accuracy]
    #[arg(long = "for", value_name = "PURPOSE", value_enum)]
    pub purpose: Option<Purpose>,

    /// What computing and sending cost.
    #[command(flatten)]
    pub energy: EnergyFlags,

    /// Coding of the packets of --path split [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub coding: Option<Coding>,

    /// File format of --path image [default: jpeg]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Quality of --path image, 1 (smallest) to 100 [default: 75]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,

    /// Colour planes of --path image: 420 halves their height and width, 444 (JPEG only) keeps them [default: 420]
    #[arg(long, value_name = "420|444", value_enum)]
    pub subsampling: Option<Chroma>,

    /// Size of --path image [default: fitted]
    #[arg(long, value_name = "SIZE", value_enum)]
    pub send: Option<Size>,

    /// Geometry by which an image is resized and cropped to the network's input [default: the first task's]
    #[arg(long, value_name = "NAME")]
    pub geometry: Option<String>,

    /// Write an annotated picture and a mask for each image into this folder, which is created if missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Milliseconds from the capture of a frame to its answer; work past that is dropped on both sides [default: 1000 where
    /// features of the newest frames of live sources are sent, else 30000, and at least twice the time between two frames of --fps]
    #[arg(long, value_name = "MS")]
    pub budget: Option<u64>,

    /// Frames between capture and answer; 1 finishes each frame before the next one begins
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub in_flight: usize,

    /// Seconds to look for the server, at the start and after the connection was lost
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub retry_for: u64,

    /// How often to read a source that has an end; 0 repeats without end
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: u32,

    /// Where frames wait that no server answered.
    #[command(flatten)]
    pub spool: SpoolFlags,

    /// Where observations and decisions are recorded.
    #[command(flatten)]
    pub decisions: DecisionFlags,

    /// Socket at which `narrows-head status` asks this run how it is doing; its user and group may connect [default: head.sock in
    /// the folder that systemd names in $RUNTIME_DIRECTORY, else none]
    #[arg(long, value_name = "FILE")]
    pub status_socket: Option<PathBuf>,

    /// Where sysfs is mounted, for temperature and throttling; in a container the host's may be elsewhere
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sys: PathBuf,

    /// Settings of the transport.
    #[command(flatten)]
    pub transport: Transport,

    /// Where answers go.
    #[command(flatten)]
    pub outputs: OutputFlags,
}

/// The flags that set timeouts of QUIC, as given.
#[derive(Debug, Clone, clap::Args)]
pub struct Transport {
    /// Milliseconds of silence after which the connection counts as lost; the shorter time of head and tail counts. A tail
    /// that crashed is looked for sooner; this is how long one that hangs, or its network, is waited for
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub idle_timeout: u64,

    /// Milliseconds between the packets that keep an idle connection open, at most a third of --idle-timeout; each costs
    /// about 70 bytes of traffic and wakes the radio
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub keep_alive: u64,
}

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// Here up to the bottleneck, on the server from there: features are sent
    Split,
    /// On the server, which must serve the whole network (`narrows-tail serve --offload`): an image is sent
    Image,
    /// Here, with the bundle's local network: nothing is sent
    Local,
}

/// How one of several servers is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServerChoice {
    /// The first that answers, in the order given; an earlier one is used again when it has been back for --return-after
    Order,
    /// Of two at random the one that reports less load; another one is looked for while frames wait at this one
    Load,
}

/// Which frames of a live source are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrameChoice {
    /// The newest one whenever one is wanted; those before it are counted and dropped
    Newest,
    /// Every one in order; the source is held up meanwhile
    Every,
}

/// The rate level as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelFlag {
    /// This one.
    Number(usize),
    /// Chosen for each frame.
    Auto,
}

impl FromStr for LevelFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(LevelFlag::Auto),
            number => number.parse().map(LevelFlag::Number).map_err(|_| "neither a number nor auto"),
        }
    }
}

/// What is wanted of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Those to the newest frames: a frame that waits is replaced by the next one
    Latency,
    /// As many as arrive in time, the oldest frame first
    Accuracy,
    /// Those that cost the fewest joules for what they are worth, for devices that run on a battery: coarser levels, and frames that
    /// need not be sent stay here. Of live sources the newest frame counts, of others every one
    Energy,
}

/// When this device answers instead of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FallbackMode {
    /// When the server was not found within --retry-for, cannot be used or has no time, for a frame that has waited for half of
    /// its --budget while the server was away, and for one that would not be answered in time; the server is used again as soon
    /// as it is back
    Lost,
    /// Never: without a server, frames fail and the run ends
    Never,
}

/// How a packet is coded (codec/FORMAT.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Coding {
    /// The smallest of: tables chosen by context, along columns or rows where that suits, and one table for each channel
    Auto,
    /// One table for each channel
    Static,
    /// Zstandard on the 8-bit symbols
    Zstd,
    /// The 8-bit symbols as they are
    Raw,
}

/// The size at which an image is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// The network's input size, resized and cropped here: both paths use the same pixels
    Fitted,
    /// The image's own size; the server resizes and crops
    Original,
}
