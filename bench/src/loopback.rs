//! `narrows-bench loopback`: the time that the runtime adds to the stages of a frame.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_head::report::{Line, Status};
use narrows_pair::Pair;
use serde::Serialize;

use crate::{
    json,
    latencies::{Latencies, Percentiles},
};

/// Which photos to send, and how often.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench loopback --bundle models/bundles/lite2 --source bench/photos --rounds 40"
)]
pub struct Loopback {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// A photo, a folder of photos or a glob, sent over and over
    #[arg(long)]
    pub source: String,
    /// How often the source is sent; the first time is not counted. Percentiles need enough frames: 20 for p95, 1000 for
    /// p99
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rounds: usize,
    /// Tasks to run, by name
    #[arg(long, value_name = "LIST", default_value = "classify")]
    pub tasks: String,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    frames: usize,
    total_ms: Percentiles,
    /// Total less decode, resize, head, encode, and the server's decode and network.
    overhead_ms: Percentiles,
}

impl Loopback {
    /// Sends the frames one at a time through a real head and a real server, and prints percentiles.
    ///
    /// # Errors
    /// When head or server cannot be started, or a frame gets no answer.
    pub fn run(&self) -> Result<()> {
        let pair = Pair::start(&self.bundle, &[])?;
        let mut head = pair
            .head(&self.bundle)
            .args(["--source", &self.source, "--tasks", &self.tasks, "--in-flight", "1"])
            .args(["--repeat", &(self.rounds + 1).to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("narrows-head cannot be started")?;
        let lines = BufReader::new(head.stdout.take().context("the head has no output")?).lines();
        let mut lines =
            lines.map(|line| Ok(serde_json::from_str::<Line>(&line?)?)).collect::<Result<Vec<_>>>()?;
        ensure!(head.wait()?.success(), "narrows-head failed; see its messages above");
        pair.drain()?;
        lines.drain(..lines.len() / (self.rounds + 1));
        let (mut total, mut overhead) = (Latencies::default(), Latencies::default());
        for line in &lines {
            ensure!(line.status == Status::Answered, "{}: got no answer", line.file.display());
            let ms = line.ms.as_ref().context("an answered line without times")?;
            let stages = ms.decode + ms.resize + ms.head + ms.encode + ms.tail_decode + ms.tail_infer;
            total.record(Duration::from_secs_f64(ms.total / 1e3));
            overhead.record(Duration::from_secs_f64((ms.total - stages).max(0.0) / 1e3));
        }
        let (total_ms, overhead_ms) = (total.percentiles(), overhead.percentiles());
        println!("{} frames, one at a time       p50      p95      p99", lines.len());
        for (name, Percentiles { p50, p95, p99 }) in
            [("total", total_ms), ("without the stages", overhead_ms)]
        {
            let [p50, p95, p99] = [p50, p95, p99].map(|ms| ms.map_or("-".into(), |ms| format!("{ms:.2}")));
            println!("  {name:24} {p50:>7}  {p95:>7}  {p99:>7} ms");
        }
        json::write(self.json.as_deref(), &Report { frames: lines.len(), total_ms, overhead_ms })
    }
}
