//! `narrows-bench arm`: instructions of the networks and of a camera's frame on emulated 64-bit ARM, by class.
//!
//! QEMU runs a build of this program for ARM, and a plugin (`bench/arm/count.c`) counts what it executes. Counts are exact and the
//! same on every machine, but they are not time: [`Core::bound`] says what is concluded of them.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_models::{Bundle, Parts};
use serde::{Deserialize, Serialize};

use crate::{json, micro};

/// What the plugin tells apart, in its order.
const CLASSES: [&str; 7] = ["dot", "widening", "float", "vector", "memory", "branch", "integer"];
/// How often a candidate runs between two marks.
const TIMES: u64 = 2;

/// Where the programs and libraries for ARM are. `make micro-arm` makes them and runs this command.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench arm --bundle models/bundles/lite2 --program target/micro-arm/narrows-bench \
                  --plugin target/micro-arm/count.so --runtime target/micro-arm/ort/libonnxruntime.so"
)]
pub struct Arm {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// This program, built for 64-bit ARM
    #[arg(long, value_name = "FILE")]
    pub program: PathBuf,
    /// The plugin, built of bench/arm/count.c for this machine
    #[arg(long, value_name = "FILE")]
    pub plugin: PathBuf,
    /// ONNX Runtime's library for 64-bit ARM
    #[arg(long, value_name = "FILE")]
    pub runtime: PathBuf,
    /// Folder with the C library for 64-bit ARM
    #[arg(long, value_name = "DIR", default_value = "/usr/aarch64-linux-gnu")]
    pub sysroot: PathBuf,
    /// The emulator; a static one takes no plugins
    #[arg(long, value_name = "FILE", default_value = "qemu-aarch64")]
    pub emulator: PathBuf,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A processor and what Arm states of it in its Software Optimization Guide.
struct Core {
    name: &'static str,
    /// A board that has it, and its clock in GHz.
    board: (&'static str, f64),
    /// Instructions that are dispatched in a cycle.
    width: u64,
    /// Pipelines for vectors and floating point.
    vector: u64,
    /// Pipelines for loads and stores.
    memory: u64,
}

/// One without the dot product, and one with it.
const CORES: [Core; 2] = [
    Core { name: "cortex-a72", board: ("Raspberry Pi 4", 1.8), width: 3, vector: 2, memory: 2 },
    Core { name: "cortex-a76", board: ("Raspberry Pi 5", 2.4), width: 4, vector: 2, memory: 2 },
];

/// What was counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    version: String,
    pub(crate) bundle: String,
    emulator: String,
    onnx_runtime: String,
    classes: Vec<String>,
    pub(crate) cores: Vec<Counted>,
}

/// Counts on one processor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) core: String,
    pub(crate) board: String,
    rows: Vec<Row>,
    /// Two candidates, and the first one's instructions over the other's.
    pub(crate) ratios: Vec<(String, String, f64)>,
}

/// Instructions of one run of a candidate.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    /// In the order of the report's classes.
    counts: Vec<u64>,
    /// Milliseconds that the board takes at least.
    bound_ms: f64,
}

impl Row {
    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Core {
    /// The milliseconds that these instructions take at least on the board: those of the busiest of dispatch, vector pipelines
    /// and pipelines for loads and stores, if it is never kept waiting.
    fn bound(&self, counts: &[u64]) -> f64 {
        let vector: u64 = counts[..4].iter().sum();
        let total: u64 = counts.iter().sum();
        let cycles =
            [total.div_ceil(self.width), vector.div_ceil(self.vector), counts[4].div_ceil(self.memory)];
        cycles.into_iter().max().unwrap_or_default() as f64 / (self.board.1 * 1e6)
    }
}

impl Arm {
    /// Counts on every processor, prints the tables and writes the report.
    ///
    /// # Errors
    /// When the bundle, the emulator or what it runs cannot be used, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        let bundle = Bundle::open(&self.bundle, Parts::Head)?;
        let said = Command::new(&self.emulator).arg("--version").output();
        let said = said.with_context(|| format!("{} (apt install qemu-user)", self.emulator.display()))?;
        let emulator = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned();
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bundle: bundle.digest().to_string(),
            emulator,
            onnx_runtime: self.runtime.display().to_string(),
            classes: CLASSES.map(str::to_owned).into(),
            cores: Vec::new(),
        };
        println!("{}; bundle {}", report.emulator, report.bundle);
        println!(
            "Instructions of one run of each, counted. They are not time. The last column is the least time that the board"
        );
        println!(
            "takes: instructions over those that are dispatched in a cycle, those of vectors or of memory over their"
        );
        println!(
            "pipelines, whichever is most, at its clock. Waiting for memory and for results comes on top."
        );
        for core in &CORES {
            let mut rows = self.count(core, "micro", &["--runtime".into(), self.runtime.clone()])?;
            rows.extend(self.count(core, "frame", &[])?);
            let counted = Counted {
                core: core.name.to_owned(),
                board: format!("{}, {} GHz", core.board.0, core.board.1),
                ratios: ratios(&rows),
                rows,
            };
            counted.print();
            report.cores.push(counted);
        }
        json::write(self.json.as_deref(), &report)
    }

    /// Runs a command of the program on an emulated processor.
    fn count(&self, core: &Core, command: &str, more: &[PathBuf]) -> Result<Vec<Row>> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("counts");
        let output = Command::new(&self.emulator)
            .arg("-L")
            .arg(&self.sysroot)
            .args(["-cpu", core.name, "-plugin"])
            .arg(format!("{},out={}", self.plugin.display(), out.display()))
            .arg(&self.program)
            .args([command, "--marked", &TIMES.to_string(), "--bundle"])
            .arg(&self.bundle)
            .args(more)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {command}: {said}", self.program.display());
        let marks = fs::read_to_string(&out)?;
        let marks = marks
            .lines()
            .map(|line| line.split(' ').map(|count| Ok(count.parse::<u64>()?)).collect::<Result<Vec<_>>>());
        let marks = marks.collect::<Result<Vec<_>>>()?;
        let names = String::from_utf8_lossy(&output.stdout);
        let names: Vec<&str> = names.lines().collect();
        let is_whole = marks.len() == 2 * names.len() && marks.iter().all(|mark| mark.len() == CLASSES.len());
        ensure!(is_whole, "{command}: {} marks for {} candidates", marks.len(), names.len());
        Ok(names
            .iter()
            .zip(marks.as_chunks::<2>().0)
            .map(|(name, [begin, end])| {
                let counts: Vec<u64> =
                    end.iter().zip(begin).map(|(end, begin)| (end - begin) / TIMES).collect();
                Row { name: (*name).to_owned(), bound_ms: core.bound(&counts), counts }
            })
            .collect())
    }
}

/// The ratios that are stated of times elsewhere, of instructions.
fn ratios(rows: &[Row]) -> Vec<(String, String, f64)> {
    let total = |name: &str| Some(rows.iter().find(|row| row.name == name)?.total() as f64);
    let ratio = |[ours, other]: &[&str; 2]| {
        Some(((*ours).to_owned(), (*other).to_owned(), total(ours)? / total(other)?))
    };
    micro::RATIOS.iter().filter_map(ratio).collect()
}

impl Counted {
    fn print(&self) {
        println!(
            "\n{:44}    total {} at least ms",
            self.core,
            CLASSES.map(|class| format!("{class:>9}")).concat()
        );
        for row in &self.rows {
            let million = |count: u64| format!("{:9.3}", count as f64 / 1e6);
            let counts: String = row.counts.iter().map(|&count| million(count)).collect();
            println!("  {:42}{} {counts} {:11.2}", row.name, million(row.total()), row.bound_ms);
        }
        println!("  in million instructions; the board is a {}", self.board);
        for (ours, other, ratio) in &self.ratios {
            println!("  {:60} {ratio:7.3}", format!("{ours} / {other}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_time_is_that_of_the_busiest_part() {
        let [a72, a76] = &CORES;
        // A million of each class: 7 million in all, 4 million of vectors, 1 million of memory.
        let even = [1_000_000; 7];
        assert!((a72.bound(&even) - 7.0 / 3.0 / 1.8).abs() < 1e-3);
        assert!((a76.bound(&even) - 2.0 / 2.4).abs() < 1e-3);
        assert!((a76.bound(&[0, 0, 0, 0, 1_000_000, 0, 0]) - 0.5 / 2.4).abs() < 1e-3);
    }
}
