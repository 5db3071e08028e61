//! `narrows-bench loopback`: what the runtime adds to the work itself.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_eval::stats::quantile;
use narrows_head::report::{Line, Status};
use narrows_pair::Pair;
use serde::Serialize;

/// How often, which photos.
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
    /// How often the source is sent; the first round is not counted
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rounds: usize,
    /// Tasks to ask for
    #[arg(long, value_name = "LIST", default_value = "classify")]
    pub tasks: String,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    frames: usize,
    total_ms: Percentiles,
    /// Total less decode, resize, head, encode, tail decode and tail infer.
    overhead_ms: Percentiles,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Percentiles {
    fn of(samples: &[f64]) -> Self {
        let at = |q| quantile(samples, q);
        Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

impl Loopback {
    /// Sends the frames one at a time through a real pair and prints the percentiles.
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
        let mut total = Vec::new();
        let mut overhead = Vec::new();
        for line in &lines {
            ensure!(line.status == Status::Answered, "{}: got no answer", line.file.display());
            let ms = line.ms.as_ref().context("an answered line without times")?;
            let work = ms.decode + ms.resize + ms.head + ms.encode + ms.tail_decode + ms.tail_infer;
            total.push(ms.total);
            overhead.push(ms.total - work);
        }
        let report = Report {
            frames: lines.len(),
            total_ms: Percentiles::of(&total),
            overhead_ms: Percentiles::of(&overhead),
        };
        println!("{} frames, one at a time       p50      p95      p99", report.frames);
        for (name, of) in [("total", &report.total_ms), ("beside the work itself", &report.overhead_ms)] {
            println!("  {name:24} {:7.2}  {:7.2}  {:7.2} ms", of.p50, of.p95, of.p99);
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }
}
