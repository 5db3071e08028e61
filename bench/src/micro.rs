//! `narrows-bench micro`: speed of the int8 head and of other implementations on one thread, interleaved in one run.

mod head;
mod twin;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use narrows_models::{Bundle, Parts};
use narrows_tail::engine::Runtime;
use serde::Serialize;

use crate::{json, machine};

/// Which bundle to measure, and how thoroughly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  narrows-bench micro --bundle models/bundles/lite2 --json micro.json")]
pub struct Micro {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Rounds, in each of which every candidate runs; five more come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub rounds: usize,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// Write the report to this file
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
}

impl Micro {
    /// Runs every candidate, prints the table and writes the report.
    ///
    /// # Errors
    /// When the bundle or the runtime cannot be used, or the report cannot be written.
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
        };
        print(&report);
        json::write(self.json.as_deref(), &report)
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
        "  mean distance between the latents of the f32 and the int8 head: {:.2} symbols",
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
}
