//! `narrows-bench codec`: bytes and speed of the codec beside every coder one could pick, one thread, one run.
//!
//! Sizes are of every feature of a set. For speed, contenders take turns on its first features; ratios are of medians.

mod accept;
mod bound;
mod compressai;
mod instructions;
mod mixer;
mod set;
mod sizes;
mod speed;
mod synthetic;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use self::sizes::UNCOUNTED;
use crate::machine::processor;

/// Features of each synthetic set.
const SYNTHETIC: usize = 48;

/// Which bundle, which photos, how long.
#[derive(Debug, Args)]
#[command(
    after_help = "Percent over an entropy are of all bytes of a packet but its header's (four; never more than six are left out).\n\n\
    Example:\n  narrows-bench codec --bundle models/bundles/lite2 --photos photos-00.tar \\\n    \
    --photos photos-01.tar --photos photos-02.tar --json codec.json"
)]
pub struct Codec {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Tar of the recipe's photos, of which the 200 held out from training are taken; may be given again. Without
    /// it the photos of --source stand in
    #[arg(long, value_name = "TAR")]
    pub photos: Vec<PathBuf>,
    /// Folder of photos that stand in for --photos
    #[arg(long, value_name = "DIR", default_value = "bench/photos")]
    pub source: PathBuf,
    /// How many turns every contender takes; five more rounds come first and are not counted
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub rounds: usize,
    /// A Python interpreter that has the package compressai, whose coder then takes part
    #[arg(long, value_name = "PYTHON")]
    pub compressai: Option<PathBuf>,
    /// Count instructions per symbol as well (needs valgrind)
    #[arg(long)]
    pub instructions: bool,
    /// Only report how many bits a strong mixing model would still save on the latents
    #[arg(long)]
    pub bound: bool,
    /// Code the bundle's vectors so many times and nothing else; for --instructions
    #[arg(long, hide = true, value_name = "WORK", num_args = 2)]
    pub count: Vec<String>,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    processor: String,
    rounds: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sizes: Vec<sizes::Sizes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    speed: Vec<speed::Speed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instructions: Vec<instructions::Count>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<accept::Mark>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bound: Vec<bound::Bound>,
}

impl Codec {
    /// Measures, prints the tables and writes the report.
    pub fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds 0 measures nothing");
        if let [work, turns] = &self.count[..] {
            return instructions::work(&self.bundle, work, turns.parse().context("--count: turns")?);
        }
        let mut sets = set::real(&self.bundle, &self.photos, &self.source)?;
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            bundle: narrows_models::Bundle::open(&self.bundle, narrows_models::Parts::Head)?
                .digest()
                .to_string(),
            processor: processor(),
            rounds: self.rounds,
            sizes: Vec::new(),
            speed: Vec::new(),
            instructions: Vec::new(),
            marks: Vec::new(),
            bound: Vec::new(),
        };
        println!("{}, one thread; bundle {}", report.processor, report.bundle);
        if self.bound {
            for set in &sets {
                report.bound.push(bound::measure(set)?);
            }
            bound::print(&report.bound);
        } else {
            sets.extend(set::synthetic(SYNTHETIC)?);
            for set in &sets {
                report.sizes.push(sizes::measure(set)?);
            }
            print_sizes(&report.sizes);
            for set in sets.iter().filter(|set| set.timed) {
                let speed = speed::measure(set, self.rounds, self.compressai.as_deref())?;
                print_speed(&speed);
                report.speed.push(speed);
            }
            if self.instructions {
                report.instructions = instructions::measure(&self.bundle)?;
            }
            instructions::print(&report.instructions);
            report.marks = accept::marks(&report.sizes, &report.speed);
            accept::print(&report.marks);
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }
}

/// A table without lines whose columns but the first lean to the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn print_sizes(sizes: &[sizes::Sizes]) {
    println!(
        "\nMean bytes, and percent over the cross-entropy of the static tables, {UNCOUNTED} bytes of header not counted. \
         `auto` took:"
    );
    let coders: Vec<&str> = sizes
        .iter()
        .max_by_key(|set| set.coders.len())
        .map_or(Vec::new(), |set| set.coders.iter().map(|size| size.coder.as_str()).collect());
    let mut header = vec!["set", "features", "entropy"];
    header.extend(&coders);
    header.push("took");
    let mut rows = table(&header);
    for set in sizes {
        let mut row = vec![set.set.clone(), set.features.to_string(), format!("{:.0}", set.entropy_bytes)];
        row.extend(coders.iter().map(|coder| {
            set.of(coder).map_or_else(String::new, |size| {
                format!("{:.0} {:+.1}%", size.bytes, size.over_static_entropy)
            })
        }));
        let taken: Vec<_> = set.taken.iter().map(|(mode, count)| format!("{mode} {count}")).collect();
        row.push(taken.join(", "));
        rows.add_row(row);
    }
    println!("{rows}");
}

fn print_speed(speed: &speed::Speed) {
    println!("\n{}: {} features in turns; MB/s is million symbols per second", speed.set, speed.features);
    let mut rows = table(&["coder", "us per feature", "MB/s", "p95 us"]);
    for row in &speed.rows {
        let each = 1e6 / speed.features as f64;
        rows.add_row([
            row.name.clone(),
            format!("{:.1}", each * row.median),
            format!("{:.0}", speed.symbols as f64 / 1e6 / row.median),
            format!("{:.1}", each * row.p95),
        ]);
    }
    println!("{rows}");
    if let Some(report) = &speed.compressai {
        let each = 1e6 / speed.features as f64;
        println!(
            "  CompressAI {}: encode {:.0} us and decode {:.0} us, after {:.0} and {:.0} us of call overhead; {:.0} bytes",
            report.version,
            each * report.encode_s,
            each * report.decode_s,
            each * report.encode_overhead_s,
            each * report.decode_overhead_s,
            report.bytes
        );
    }
    for (name, ratio) in &speed.ratios {
        println!("  {name:44} {ratio:6.2}");
    }
}
