//! `narrows-bench micro`: the head, the coder and JPEG against their peers, one thread, as ratios of one run.
//!
//! Contenders take turns in every round, so that what the machine does meanwhile meets all of them alike. The ratios
//! are of medians.

mod coder;
mod head;
mod twin;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_models::{Bundle, Parts};
use narrows_tail::engine::Runtime;
use serde::Serialize;

use crate::{contest::Row, machine};

/// Which bundle, how long.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  narrows-bench micro --bundle models/bundles/lite2 --json micro.json")]
pub struct Micro {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// How many turns every contender takes; five more rounds come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub rounds: usize,
    /// ONNX Runtime's library, if not where `make runtime` puts it
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    onnx_runtime: String,
    rounds: usize,
    head: head::Head,
    coder: coder::Coder,
}

impl Micro {
    /// Runs every contender, prints the table and writes the report.
    pub fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds 0 measures nothing");
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let runtime = Runtime::open(self.runtime.as_deref())?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: bundle.digest().to_string(),
            processor: machine::processor(),
            onnx_runtime: runtime.version(),
            rounds: self.rounds,
            head: head::measure(&bundle, &runtime, self.rounds)?,
            coder: coder::measure(&bundle, self.rounds)?,
        };
        print(&report);
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }
}

fn print(report: &Report) {
    let head = &report.head;
    println!("{}, one thread, {} rounds; bundle {}", report.processor, report.rounds, report.bundle);
    println!("\n{:44}   median      p95      min        GMAC/s", "head and whole networks (ms)");
    for row in &head.rows {
        row.print(1e3);
    }
    println!(
        "  the f32 head's latent, as symbols, is {:.2} off ours in the mean: the same network",
        head.twin_difference
    );
    for (name, ratio) in [
        ("head to tract f32, same head", head.to_tract_f32),
        ("head to ONNX Runtime f32, same head", head.to_ort_f32),
        ("head to whole EfficientNet-Lite0, ONNX Runtime f32", head.to_lite0_ort_f32),
        ("head to JPEG of 224x224", head.to_jpeg_224),
        ("head to JPEG of 640x480", head.to_jpeg_640x480),
    ] {
        println!("  {name:52} {ratio:7.3}");
    }
    if let Some(ratio) = head.local_to_lite0_ort_f32 {
        println!("  {:52} {ratio:7.3}", "whole Lite0 int8 local to ONNX Runtime f32");
    }
    let coder = &report.coder;
    println!("\n{:44}   median      p95      min", "entropy coder, all vectors of the bundle (us)");
    for row in &coder.rows {
        row.print(1e6);
    }
    println!("  {:52} {:7.2}", "encode, times constriction's speed", coder.encode_times_constriction);
    println!("  {:52} {:7.2}", "decode, times constriction's speed", coder.decode_times_constriction);
    println!(
        "  payload less 3 bytes a lane is {:+.3} % off the tables' cross-entropy of {:.0} bytes",
        coder.over_percent, coder.entropy_bytes
    );
}

/// The median of the row of this name, in seconds.
pub(crate) fn median(rows: &[Row], name: &str) -> Result<f64> {
    let row = rows.iter().find(|row| row.name == name);
    row.map(|row| row.median).with_context(|| format!("nothing called `{name}` was measured"))
}
