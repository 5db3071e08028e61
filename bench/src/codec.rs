//! `narrows-bench codec`: bytes and speed of the codec and of other coders on the same features, on one thread.
//!
//! Sizes are means over all features of a set. Speed is measured on its first features, interleaved in one run.

mod compressai;
mod constriction;
mod instructions;
mod set;
mod sizes;
mod speed;
mod synthetic;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_models::{Bundle, Parts};
use serde::Serialize;

use crate::{json, machine::processor};

/// Features of each synthetic set.
const SYNTHETIC: usize = 48;

/// Which features to code, and how thoroughly to measure.
#[derive(Debug, Args)]
#[command(
    after_help = "Percentages over an entropy count all bytes of a packet except for its header's (four; never more than six).\n\n\
    Example:\n  narrows-bench codec --bundle models/bundles/lite2 --photos photos-00.tar \\\n    \
    --photos photos-01.tar --photos photos-02.tar --json codec.json"
)]
pub struct Codec {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Tar of the recipe's photos, of which the 200 held out from training are used; may be given again [default: the
    /// photos of --source]
    #[arg(long, value_name = "TAR")]
    pub photos: Vec<PathBuf>,
    /// Folder of photos that are used without --photos
    #[arg(long, value_name = "DIR", default_value = "bench/photos")]
    pub source: PathBuf,
    /// Rounds, in each of which every candidate runs; five more come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub rounds: usize,
    /// A Python interpreter with the package compressai, whose coder is then measured too
    #[arg(long, value_name = "PYTHON")]
    pub compressai: Option<PathBuf>,
    /// Count instructions per symbol too (needs valgrind)
    #[arg(long)]
    pub instructions: bool,
    /// Code the bundle's vectors N times and do nothing else; --instructions counts this
    #[arg(long, hide = true, value_names = ["WORK", "N"], num_args = 2)]
    pub count: Vec<String>,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    rounds: usize,
    sizes: Vec<sizes::Sizes>,
    speed: Vec<speed::Speed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instructions: Vec<instructions::Count>,
}

impl Codec {
    /// Measures, prints the tables and writes the report.
    ///
    /// # Errors
    /// When the bundle, the photos or a program that takes part cannot be used, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds 0 measures nothing");
        let open = |parts| Bundle::open(&self.bundle, parts);
        if let [work, repeats] = &self.count[..] {
            return instructions::work(&open(Parts::All)?, work, repeats.parse().context("--count: N")?);
        }
        let bundle = open(Parts::Head)?;
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: bundle.digest().to_string(),
            processor: processor(),
            rounds: self.rounds,
            sizes: Vec::new(),
            speed: Vec::new(),
            instructions: Vec::new(),
        };
        let mut sets = set::real(bundle, &self.photos, &self.source)?;
        sets.extend(set::synthetic(SYNTHETIC)?);
        println!("{}, one thread; bundle {}", report.processor, report.bundle);
        report.sizes = sets.iter().map(sizes::measure).collect::<Result<_>>()?;
        sizes::print(&report.sizes);
        for set in sets.iter().filter(|set| set.timed) {
            let speed = speed::measure(set, self.rounds, self.compressai.as_deref())?;
            speed.print();
            report.speed.push(speed);
        }
        if self.instructions {
            report.instructions = instructions::measure(&open(Parts::All)?)?;
            instructions::print(&report.instructions);
        }
        json::write(self.json.as_deref(), &report)
    }
}
