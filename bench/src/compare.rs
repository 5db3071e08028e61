//! `narrows-bench compare`: the same frames through the device alone, through images sent to the server and through the
//! split, over a ladder of links, between the real head and the real tail.

#![expect(clippy::disallowed_methods, reason = "the report says when it was made")]

pub mod accuracy;
pub mod cells;
pub mod charts;
pub mod comparison;
pub mod dataset;
pub mod fastest;
#[cfg(test)]
mod fixture;
pub mod harness;
mod link_models;
pub mod page;
pub mod plan;
pub mod provenance;
pub mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use cells::Measured;
use clap::Args;
use comfy_table::{Table, presets};
use comparison::{Comparison, Measurements};
use harness::Harness;
use narrows_models::{Bundle, Parts, Task, TaskKind};
use narrows_netsim::{Ladder, Link};
use narrows_pair::{INTERRUPTED, Interrupt};
use narrows_tail::engine::Runtime;
use plan::Scope;
use report::{Provenance, Report, SCHEMA, Variant};

use crate::machine;

/// What is compared, and how much of it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  narrows-bench compare --bundle models/bundles/lite2 --source bench/photos --out bench-out\n  \
    narrows-bench compare --bundle models/bundles/lite2 --data DIR --full --out bench-out\n  \
    narrows-bench compare --bundle models/bundles/lite2 --data DIR --links lte,lora --tasks classify --out bench-out\n  \
    narrows-bench compare --from bench-out/report.json --out again"
)]
pub struct Compare {
    /// The bundle's folder
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    pub bundle: Option<PathBuf>,
    /// Folder for report.html, report.json, rows.csv, accuracy.csv and charts; made if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder with imagenet500.tar and imagenet500.csv, camvid-val.tar, or both: labelled photos and frames
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Photos for tasks that --data has no labels for, a file, a folder or a glob: answers are compared with the
    /// unsplit network's
    #[arg(long, value_name = "PATH", default_value = "bench/photos")]
    pub source: PathBuf,
    /// Every link, more qualities, more rounds and all labelled photos: hours, not minutes
    #[arg(long)]
    pub full: bool,
    /// Links by name [default: loopback, wifi-poor, lte, narrowband; with --full all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub links: Vec<String>,
    /// Your own links, in the form of bench/links.toml
    #[arg(long, value_name = "FILE")]
    pub ladder: Option<PathBuf>,
    /// Tasks by name [default: all of the bundle; segmentation over fewer links unless --full or --links]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Variants by name, such as 'split 1,JPEG 75' [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub variants: Vec<String>,
    /// Rounds: runs of every variant on every link; intervals take five [default: 5]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Most frames in a run; slow links get fewer [default: 8; with --full 24]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Labelled photos for the accuracy [default: 100; with --full all]
    #[arg(long, value_name = "N")]
    pub photos: Option<usize>,
    /// Labelled frames for the accuracy [default: 30; with --full all]
    #[arg(long, value_name = "N")]
    pub scenes: Option<usize>,
    /// Frames under way at once when throughput is measured; 1 leaves it out
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub in_flight: usize,
    /// Seed of the order of runs, of the links' losses and of the bootstraps
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// Write the page and the charts of a recorded report again; measures nothing
    #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
    pub from: Option<PathBuf>,
}

impl Compare {
    /// Measures and writes the report. After Ctrl-C it writes what has been measured, marked as incomplete, and returns
    /// the exit code of an interrupted program.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let done = match &self.from {
            Some(from) => self.again(from),
            None => self.measure(),
        };
        match done {
            Ok(code) => code,
            Err(error) => {
                eprintln!("narrows-bench compare: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn again(&self, from: &Path) -> Result<ExitCode> {
        let name = || from.display().to_string();
        let mut report = Report::parse(&fs::read_to_string(from).with_context(name)?).with_context(name)?;
        report.fastest = fastest::fastest(&report);
        self.write(&report)?;
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self) -> Result<ExitCode> {
        let interrupt = Interrupt::watch()?;
        let path = self.bundle.as_deref().context("--bundle is missing")?;
        let bundle = Bundle::open(path, Parts::All)?;
        let ladder = self.ladder()?;
        let scope = self.scope(&ladder);
        let tasks = self.tasks(&bundle, &scope)?;
        let links: Vec<Link> = ladder
            .links
            .iter()
            .filter(|link| tasks.iter().any(|(_, links)| links.contains(&link.name)))
            .cloned()
            .collect();
        for name in tasks.iter().flat_map(|(_, links)| links) {
            ladder.find(name)?;
        }
        fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        let folder = tempfile::Builder::new().prefix("narrows-").tempdir().context("no temporary folder")?;
        let sets = tasks.iter().map(|(name, _)| {
            let (task, _) = bundle.task(name).context("a task of the bundle")?;
            dataset::set(&bundle, task, self.data.as_deref(), &self.source, &scope, folder.path())
        });
        let sets: Vec<_> = sets.collect::<Result<_>>()?;
        let variants = self.chosen(scope.variants(&bundle))?;
        let runtime = Runtime::open(self.runtime.as_deref())?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let throttled = machine::throttled();

        println!("bundle {} {}", bundle.name(), bundle.digest().short());
        let mut harness = Harness::start(path, self.runtime.as_deref(), &links, self.seed, &interrupt)?;
        let comparison = Comparison {
            bundle: &bundle,
            sets: &sets,
            tasks: &tasks,
            variants: &variants,
            links: &links,
            scope: &scope,
            in_flight: self.in_flight,
            seed: self.seed,
            folder: folder.path(),
            out: &self.out,
            runtime: &runtime,
        };
        let mut measurements = Measurements::default();
        let measured = comparison.measure(&mut harness, &mut measurements);
        let seconds = harness.seconds();
        // A failure at the end, too, leaves a report of what was measured before.
        let (sensor, ended) = match harness.finish(&mut measurements.runs) {
            Ok(sensor) => (sensor, Ok(())),
            Err(error) => ("not read: the run failed".to_owned(), Err(error)),
        };
        let measured = measured.and(ended);
        let incomplete = match (&measured, interrupt.seen()) {
            (_, true) => Some(format!("Interrupted after {} runs.", measurements.runs.len())),
            (Err(error), false) => Some(format!("{error:#}")),
            (Ok(()), false) => None,
        };
        let cells = cells::cells(&Measured {
            rows: &measurements.rows,
            runs: &measurements.runs,
            links: &links,
            energy: &sensor,
            seed: self.seed,
        });
        let mut report = Report {
            schema: SCHEMA,
            provenance: Provenance {
                complete: incomplete.is_none(),
                incomplete_because: incomplete,
                version: env!("CARGO_PKG_VERSION").into(),
                commit: machine::commit(),
                bundle: format!("{} {} {}", bundle.name(), bundle.manifest().version(), bundle.digest()),
                command: provenance::command(),
                started,
                seconds,
                seed: self.seed,
                rounds: measurements.runs.iter().map(|run| run.round + 1).max().unwrap_or(0),
                machine: provenance::machine(throttled, &sensor, &runtime.version(), &measurements.runs),
                data: sets.iter().map(|set| set.about.clone()).collect(),
                notes: provenance::notes(&bundle, &sets),
            },
            links: links.iter().map(link_models::summary).collect(),
            variants,
            accuracy: measurements.accuracy,
            cells,
            fastest: Vec::new(),
            runs: measurements.runs,
        };
        report.sort();
        link_models::add_radio_energy(&mut report)?;
        report.fastest = fastest::fastest(&report);
        self.write(&report)?;
        match (measured, interrupt.seen()) {
            (_, true) => {
                eprintln!(
                    "narrows-bench compare: interrupted; what was measured is in {}",
                    self.out.display()
                );
                Ok(ExitCode::from(INTERRUPTED))
            }
            (Err(error), false) => Err(error.context("the report is incomplete")),
            (Ok(()), false) => Ok(ExitCode::SUCCESS),
        }
    }

    fn scope(&self, ladder: &Ladder) -> Scope {
        let every = || ladder.links.iter().map(|link| link.name.clone()).collect();
        let mut scope = if self.full { Scope::full(every()) } else { Scope::reduced() };
        if self.ladder.is_some() && self.links.is_empty() {
            (scope.links, scope.frame_links) = (every(), every());
        }
        if !self.links.is_empty() {
            (scope.links, scope.frame_links) = (self.links.clone(), self.links.clone());
        }
        scope.rounds = self.rounds.unwrap_or(scope.rounds);
        scope.frames = self.frames.unwrap_or(scope.frames);
        scope.photos = self.photos.unwrap_or(scope.photos);
        scope.scenes = self.scenes.unwrap_or(scope.scenes);
        scope
    }

    /// The links of `--ladder`, or the shipped ones.
    fn ladder(&self) -> Result<Ladder> {
        let Some(path) = &self.ladder else { return Ok(Ladder::shipped()) };
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", name()))?;
        Ladder::parse(&text).with_context(name)
    }

    /// The variants of `--variants`, or all.
    fn chosen(&self, all: Vec<Variant>) -> Result<Vec<Variant>> {
        for name in &self.variants {
            let known = || all.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", ");
            ensure!(
                all.iter().any(|variant| variant.name == *name),
                "--variants: no variant `{name}`; the bundle allows {}",
                known()
            );
        }
        let chosen = |name: &str| self.variants.is_empty() || self.variants.iter().any(|other| other == name);
        Ok(all.into_iter().filter(|variant| chosen(&variant.name)).collect())
    }

    /// The tasks by name, each with its links.
    fn tasks(&self, bundle: &Bundle, scope: &Scope) -> Result<Vec<(String, Vec<String>)>> {
        for name in &self.tasks {
            let known = bundle.tasks().iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", ");
            ensure!(bundle.task(name).is_some(), "--tasks: the bundle has no task `{name}`; it has {known}");
        }
        let has_unsplit = |task: &&Task| task.reference.is_some();
        for task in bundle.tasks().iter().filter(|task| !has_unsplit(task)) {
            ensure!(
                !self.tasks.contains(&task.name),
                "--tasks: the bundle brings no unsplit network (`reference`) for {}: there is nothing to compare answers \
                 with, and no network for images",
                task.name
            );
            eprintln!("{}: left out, the bundle brings no unsplit network for it", task.name);
        }
        let chosen = |task: &&Task| self.tasks.is_empty() || self.tasks.contains(&task.name);
        let tasks: Vec<_> = bundle.tasks().iter().filter(chosen).filter(has_unsplit).collect();
        ensure!(
            !tasks.is_empty(),
            "the bundle brings no unsplit network (`reference`) for any task: export it with one to compare"
        );
        let tasks = tasks.into_iter().map(|task| {
            let links = match task.kind {
                TaskKind::Classify => &scope.links,
                TaskKind::Segment => &scope.frame_links,
            };
            (task.name.clone(), links.clone())
        });
        Ok(tasks.collect())
    }

    /// Writes the report, its page and its charts, and prints the fastest variants.
    fn write(&self, report: &Report) -> Result<()> {
        let charts = charts::charts(report);
        let folder = self.out.join("charts");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
        };
        for chart in &charts {
            write(folder.join(format!("{}.vl.json", chart.name)), &chart.spec.to_string())?;
        }
        let page = self.out.join("report.html");
        write(page.clone(), &page::page(report, &charts))?;
        write(self.out.join("report.json"), &(serde_json::to_string_pretty(report)? + "\n"))?;
        if let Some(because) = &report.provenance.incomplete_because {
            println!("INCOMPLETE: {because}");
        }
        println!("{}\n{}", summary(report), page.display());
        Ok(())
    }
}

/// The fastest variants within each bound on the loss, for a terminal. A question mark follows what the sample does not show.
fn summary(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let bounds = fastest::MOST_LOST.map(|most| format!("fastest, loss ≤ {most}"));
    table.set_header(["task".into(), "link".into()].into_iter().chain(bounds));
    for of in report.fastest.chunks(fastest::MOST_LOST.len()) {
        let best = of.iter().map(|of| match of.candidates.first() {
            Some(best) => {
                let mark = if of.undecided.is_some() { " ?" } else { "" };
                format!("{} {} ms{mark}", best.variant, charts::millis(best.p50))
            }
            None => "–".into(),
        });
        table.add_row([of[0].task.clone(), of[0].link.clone()].into_iter().chain(best));
    }
    table
}
