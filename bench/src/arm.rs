//! `narrows-bench arm`: instructions of the networks and of a camera's frame on emulated 64-bit ARM, by class.
//!
//! QEMU runs a build of this program for ARM, and a plugin (`bench/arm/count.c`) counts what it executes. Counts are exact and the
//! same on every machine, but they are not time: a lower bound of the time that a board takes follows from them.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_int8::Isa;
use narrows_models::{Bundle, Parts};
use serde::Serialize;

use crate::{json, micro};

/// What the plugin tells apart, in its order.
const CLASSES: [&str; 7] = ["dot", "widening", "float", "vector", "memory", "branch", "integer"];
/// Candidates whose instructions are stated as a ratio, beside those of [`micro`].
const RATIOS: [[&str; 2]; 2] =
    [[micro::HEAD, "head, tract f32"], [micro::LOCAL, "EfficientNet-Lite0, tract f32"]];
/// How often a candidate runs between two marks.
const TIMES: u64 = 2;

/// Where the programs and libraries for ARM are. `make micro-arm` makes them and runs this command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  narrows-bench arm --bundle models/bundles/lite2 \
                  --program target/micro-arm/aarch64-unknown-linux-gnu/release/narrows-bench \
                  --plugin target/micro-arm/count.so --runtime target/micro-arm/ort/libonnxruntime.so")]
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
    /// bench/arm/tract, built for 64-bit ARM, which runs the f32 networks by tract
    #[arg(long, value_name = "FILE")]
    pub tract: Option<PathBuf>,
    /// Folder whose `lib` has the C library for 64-bit ARM
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
    /// The fastest kernels that it runs.
    kernel: Isa,
    /// Its number, and what Linux says of its features, in /proc/cpuinfo.
    part: &'static str,
    features: &'static str,
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
    Core {
        name: "cortex-a72",
        kernel: Isa::Neon,
        part: "0xd08",
        features: "fp asimd evtstrm crc32 cpuid",
        board: ("Raspberry Pi 4", 1.8),
        width: 3,
        vector: 2,
        memory: 2,
    },
    Core {
        name: "cortex-a76",
        kernel: Isa::NeonDot,
        part: "0xd0b",
        features: "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        board: ("Raspberry Pi 5", 2.4),
        width: 4,
        vector: 2,
        memory: 2,
    },
];

/// What was counted.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    bundle: String,
    emulator: String,
    onnx_runtime: String,
    classes: [&'static str; 7],
    cores: Vec<Counted>,
}

/// Counts on one processor.
#[derive(Debug, Serialize)]
struct Counted {
    core: &'static str,
    board: String,
    kernel: &'static str,
    rows: Vec<Row>,
    /// Two candidates, and the first one's instructions over the other's.
    ratios: Vec<(&'static str, &'static str, f64)>,
}

/// Instructions of one run of a candidate.
#[derive(Debug, Serialize)]
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
    /// Makes the folder `root` from which emulated programs read what the kernel of a board says of its processor, and the
    /// libraries of `sysroot`. ONNX Runtime reads it, and does not survive that of another kind of machine.
    fn describe(&self, root: &Path, sysroot: &Path) -> Result<()> {
        let cores = root.join("sys/devices/system/cpu");
        for number in ["0", "1"] {
            let topology = cores.join(format!("cpu{number}/topology"));
            fs::create_dir_all(&topology)?;
            fs::write(topology.join("physical_package_id"), "0\n")?;
            fs::write(topology.join("cluster_cpus_list"), "0-1\n")?;
        }
        fs::write(cores.join("possible"), "0-1\n")?;
        fs::write(cores.join("present"), "0-1\n")?;
        fs::write(cores.join("kernel_max"), "1\n")?;
        let of = |number: u32| {
            format!(
                "processor\t: {number}\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\n\
                 CPU variant\t: 0x0\nCPU part\t: {}\nCPU revision\t: 3\n\n",
                self.features, self.part
            )
        };
        fs::create_dir_all(root.join("proc"))?;
        fs::write(root.join("proc/cpuinfo"), of(0) + &of(1))?;
        let lib = sysroot.join("lib");
        std::os::unix::fs::symlink(&lib, root.join("lib")).with_context(|| lib.display().to_string())
    }

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
            version: env!("CARGO_PKG_VERSION"),
            bundle: bundle.digest().to_string(),
            emulator,
            onnx_runtime: self.runtime.display().to_string(),
            classes: CLASSES,
            cores: Vec::new(),
        };
        let folder = tempfile::tempdir()?;
        let mut tract_args = vec![OsString::from(TIMES.to_string())];
        for (number, (name, file)) in micro::f32_files(&bundle)?.into_iter().enumerate() {
            let path = folder.path().join(format!("{number}.onnx"));
            fs::write(&path, file)?;
            let mut arg = OsString::from(format!("{name}, tract f32="));
            arg.push(path);
            tract_args.push(arg);
        }
        println!("{}; bundle {}", report.emulator, report.bundle);
        println!(
            "Instructions of one run of each, counted. They are not time. The last column is the least time that the"
        );
        println!(
            "board takes: all instructions over those that are dispatched in a cycle, those of vectors or those of"
        );
        println!("memory over their pipelines, whichever is most, at its clock. Waiting comes on top of it.");
        for core in &CORES {
            let root = folder.path().join(core.name);
            core.describe(&root, &self.sysroot)?;
            let own = |name: &str, more: &[&OsStr]| {
                let times = OsString::from(TIMES.to_string());
                let args = ["--marked".as_ref(), &*times, "--bundle".as_ref(), self.bundle.as_os_str()];
                let args = [name.as_ref()].into_iter().chain(args).chain(more.iter().copied());
                self.count(core, &root, &self.program, args)
            };
            let mut rows = own("micro", &["--runtime".as_ref(), self.runtime.as_os_str()])?;
            rows.extend(own("frame", &[])?);
            if let Some(tract) = &self.tract {
                rows.extend(self.count(core, &root, tract, tract_args.iter().map(OsString::as_os_str))?);
            }
            let counted = Counted {
                core: core.name,
                kernel: core.kernel.name(),
                board: format!("{}, {} GHz", core.board.0, core.board.1),
                ratios: ratios(&rows),
                rows,
            };
            counted.print();
            report.cores.push(counted);
        }
        json::write(self.json.as_deref(), &report)
    }

    /// Runs a program on an emulated processor whose files are in `root`; a row for each name that it prints.
    fn count<'a>(
        &self,
        core: &Core,
        root: &Path,
        program: &Path,
        args: impl Iterator<Item = &'a OsStr>,
    ) -> Result<Vec<Row>> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("counts");
        let output = Command::new(&self.emulator)
            .arg("-L")
            .arg(root)
            .args(["-cpu", core.name, "-plugin"])
            .arg(format!("{},out={}", self.plugin.display(), out.display()))
            .arg(program)
            .args(args)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", program.display());
        let marks = fs::read_to_string(&out)?;
        let marks = marks
            .lines()
            .map(|line| line.split(' ').map(|count| Ok(count.parse::<u64>()?)).collect::<Result<Vec<_>>>());
        let marks = marks.collect::<Result<Vec<_>>>()?;
        let names = String::from_utf8_lossy(&output.stdout);
        let names: Vec<&str> = names.lines().collect();
        let is_whole = marks.len() == 2 * names.len() && marks.iter().all(|mark| mark.len() == CLASSES.len());
        ensure!(is_whole, "{}: {} marks for {} names", program.display(), marks.len(), names.len());
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
fn ratios(rows: &[Row]) -> Vec<(&'static str, &'static str, f64)> {
    let total = |name: &str| Some(rows.iter().find(|row| row.name == name)?.total() as f64);
    let ratio = |[ours, other]: [&'static str; 2]| Some((ours, other, total(ours)? / total(other)?));
    micro::RATIOS.into_iter().chain(RATIOS).filter_map(ratio).collect()
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
