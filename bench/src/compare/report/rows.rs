//! The raw measurements: frames, and the runs of the head that sent them.

use serde::{Deserialize, Serialize};

/// Names of a frame's stages, in the order in which they happen.
pub const STAGES: [&str; 9] = [
    "decode",
    "resize",
    "head",
    "encode",
    "network",
    "tail_decode",
    "tail_queue",
    "tail_infer",
    "tail_answer",
];

/// One frame: a line of rows.csv. Times are in milliseconds; `None` where there was no answer or no such part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The run of the head that sent it, an index into [`Report::runs`](super::Report::runs).
    pub run: usize,
    /// The round of that run, from 0.
    pub round: usize,
    /// Name of the link; [`NO_LINK`](super::NO_LINK) where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Number of the frame within its run, from 0.
    pub frame: u64,
    /// The photo's file name.
    pub file: String,
    /// Whether the frame only warms up caches and the connection. Such frames enter no figure but the throughput.
    pub warm_up: bool,
    /// Whether an answer of the variant's own method came.
    pub answered: bool,
    /// Why none came.
    pub error: Option<String>,
    /// Bytes of the packet or the image file.
    pub packet: Option<usize>,
    /// Bytes of the request, without QUIC's headers.
    pub sent: Option<usize>,
    /// Bytes of the reply, without QUIC's headers.
    pub received: Option<usize>,
    /// Bytes on the wire to the server since the answer before, with IP, UDP and QUIC headers; frames sent one at a time.
    pub wire_up: Option<u64>,
    /// Bytes on the wire to the device, likewise.
    pub wire_down: Option<u64>,
    /// Reading the file and decoding the image.
    pub decode: Option<f64>,
    /// Fitting it to the network's input.
    pub resize: Option<f64>,
    /// The head's network, or the whole local one.
    pub head: Option<f64>,
    /// The entropy coder or the image encoder.
    pub encode: Option<f64>,
    /// From the packet to the reply, without the server's stages.
    pub network: Option<f64>,
    /// The server's decoder.
    pub tail_decode: Option<f64>,
    /// Waiting on the server.
    pub tail_queue: Option<f64>,
    /// The server's network.
    pub tail_infer: Option<f64>,
    /// Making the reply on the server.
    pub tail_answer: Option<f64>,
    /// From reading the photo to having the answer.
    pub total: Option<f64>,
    /// From the start of the head's process to its line.
    pub at: f64,
}

impl Row {
    /// The stages, in the order of [`STAGES`].
    #[must_use]
    pub fn stages(&self) -> [Option<f64>; STAGES.len()] {
        [
            self.decode,
            self.resize,
            self.head,
            self.encode,
            self.network,
            self.tail_decode,
            self.tail_queue,
            self.tail_infer,
            self.tail_answer,
        ]
    }

    /// Whether the frame belongs to the link, the variant and the task.
    #[must_use]
    pub fn is_of(&self, (link, variant, task): (&str, &str, &str)) -> bool {
        self.link == link && self.variant == variant && self.task == task
    }
}

/// One run of the head: a few frames through one variant over one link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The round it belongs to, from 0.
    pub round: usize,
    /// Name of the link; [`NO_LINK`](super::NO_LINK) where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Frames, with those that only warm up.
    pub frames: usize,
    /// Seconds from the start of the comparison to the start of the run.
    pub start: f64,
    /// Length in seconds, with the head's start and end.
    pub seconds: f64,
    /// Load average of one minute at the start.
    pub load: Option<f64>,
    /// Clock of the fastest core in MHz at the end.
    pub mhz: Option<f64>,
    /// Joules of the run, gross and net; `None` where no sensor was read.
    pub joules: Option<(f64, f64)>,
}
