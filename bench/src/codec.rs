//! `narrows-bench codec`: bytes and speed of the codec and of other coders on the same features, on one thread.
//!
//! Sizes are means over all features of a set. Speed is measured on its first features, interleaved in one run.

mod constriction;
mod set;
mod sizes;
mod speed;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use narrows_models::{Bundle, Parts};
use serde::Serialize;

use crate::{json, machine::processor};

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
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    rounds: u32,
    sizes: Vec<sizes::Sizes>,
    speed: speed::Speed,
}

impl Codec {
    /// Measures, prints the tables and writes the report.
    ///
    /// # Errors
    /// When the bundle, the photos or a program that takes part cannot be used, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        let bundle = Bundle::open(&self.bundle, Parts::Head)?;
        let (digest, level) = (bundle.digest().to_string(), bundle.default_level());
        let sets = set::sets(bundle, &self.photos, &self.source)?;
        println!("{}, one thread; bundle {digest}", processor());
        let sizes = sets.iter().map(sizes::measure).collect::<Result<Vec<_>>>()?;
        sizes::print(&sizes);
        let speed = speed::measure(&sets[level], self.rounds as usize)?;
        speed.print();
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: digest,
            processor: processor(),
            rounds: self.rounds,
            sizes,
            speed,
        };
        json::write(self.json.as_deref(), &report)
    }
}
