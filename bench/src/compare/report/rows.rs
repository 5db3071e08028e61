//! What is measured: frames and the runs that they were sent in.

use serde::{Deserialize, Serialize};

/// Names of a frame's stages, in the order in which they happen, as in the head's lines.
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

/// One frame that was sent and what came of it: a line of rows.csv.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The run it was sent in, a place in [`Report::runs`](super::Report::runs).
    pub run: usize,
    /// Name of the link; `none` where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Number of the frame within its run.
    pub frame: u64,
    /// The photo's file name.
    pub file: String,
    /// Sent to warm the connection and the caches; in no figure.
    pub warm_up: bool,
    /// Whether an answer came.
    pub answered: bool,
    /// Why none came.
    pub error: Option<String>,
    /// Bytes of the packet or the image file.
    pub packet: Option<usize>,
    /// Bytes of the request.
    pub sent: Option<usize>,
    /// Bytes of the reply.
    pub received: Option<usize>,
    /// Milliseconds of each stage, of [`STAGES`].
    pub decode: Option<f64>,
    /// As above.
    pub resize: Option<f64>,
    /// As above.
    pub head: Option<f64>,
    /// As above.
    pub encode: Option<f64>,
    /// As above.
    pub network: Option<f64>,
    /// As above.
    pub tail_decode: Option<f64>,
    /// As above.
    pub tail_queue: Option<f64>,
    /// As above.
    pub tail_infer: Option<f64>,
    /// As above.
    pub tail_answer: Option<f64>,
    /// Milliseconds from reading the photo to having the answer.
    pub total: Option<f64>,
    /// Milliseconds from the start of the run to the line.
    pub at: f64,
}

impl Row {
    /// The stages, in the order of [`STAGES`].
    pub fn stages(&self) -> [Option<f64>; STAGES.len()] {
        let device = [self.decode, self.resize, self.head, self.encode];
        let tail = [self.tail_decode, self.tail_queue, self.tail_infer, self.tail_answer];
        let [decode, resize, head, encode] = device;
        let [tail_decode, tail_queue, tail_infer, tail_answer] = tail;
        [decode, resize, head, encode, self.network, tail_decode, tail_queue, tail_infer, tail_answer]
    }
}

/// One stretch of frames through one variant over one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The round it belongs to, from 0.
    pub round: usize,
    /// Name of the link.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Frames asked for, those to warm up included.
    pub frames: usize,
    /// Seconds from the start of the run.
    pub begun: f64,
    /// Seconds.
    pub lasted: f64,
    /// Bytes on the wire up and down from the first answer to the last, all headers included.
    pub wire: Option<(u64, u64)>,
    /// Load average of one minute when it began.
    pub load: Option<f64>,
    /// Clock of the fastest core in MHz when it ended.
    pub mhz: Option<f64>,
    /// Joules of the run, gross and net; `None` where no sensor was read.
    pub joules: Option<(f64, f64)>,
}
