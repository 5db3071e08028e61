//! `narrows-bench compare`: the same frames through the device alone, through images sent to the server and through the
//! split, over a ladder of links, between the real head and the real tail.
//!
//! Every cell of link, task and variant has a run in every round, in an order drawn anew: what the machine does
//! meanwhile meets all of them alike. Accuracy is measured once, over loopback, since the link changes no pixel.

#![expect(clippy::disallowed_methods, reason = "the report says when it was made")]

pub mod accuracy;
pub mod cells;
pub mod claims;
pub mod comparison;
pub mod dataset;
pub mod draw;
#[cfg(test)]
mod fixture;
pub mod harness;
pub mod judge;
mod link_models;
pub mod page;
pub mod plan;
pub mod provenance;
pub mod report;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use cells::Measured;
use clap::Args;
use comparison::{Comparison, Measurements};
use harness::Harness;
use narrows_eval::local_f32::LocalF32;
use narrows_models::{Bundle, Parts, Task, TaskKind};
use narrows_netsim::{Ladder, Link};
use narrows_pair::{INTERRUPTED, Interrupt};
use narrows_tail::engine::Runtime;
use plan::Scope;
use report::{LinkSummary, Method, Provenance, Report, SCHEMA, Variant};

use crate::{
    links::{self, Links},
    machine,
};

/// What is compared, and how much of it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  narrows-bench compare --bundle models/bundles/lite2 --source bench/photos --out bench-out\n  \
    narrows-bench compare --bundle models/bundles/lite2 --data DIR --full --out bench-out\n  \
    narrows-bench compare --bundle models/bundles/lite2 --data DIR --links lte,lora --tasks classify --out bench-out\n  \
    narrows-bench compare --from bench-out/report.json --out drawn-again"
)]
pub struct Compare {
    /// The bundle's folder
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    pub bundle: Option<PathBuf>,
    /// Where report.html, report.json, rows.csv, accuracy.csv and the pictures go; made if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder with imagenet500.tar and imagenet500.csv, camvid-val.tar, or both: labelled photos and frames
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Photos for every task that --data holds no labels for: agreement with the unsplit network stands for accuracy
    #[arg(long, value_name = "DIR", default_value = "bench/photos")]
    pub source: PathBuf,
    /// Every link, more qualities, more rounds and all labelled photos: hours, not minutes
    #[arg(long)]
    pub full: bool,
    /// Links by name [default: loopback, wifi-poor, lte, narrowband; with --full all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub links: Vec<String>,
    /// A ladder of links of your own, in the form of bench/links.toml
    #[arg(long, value_name = "FILE")]
    pub ladder: Option<PathBuf>,
    /// Tasks by name [default: all of the bundle; segmentation over fewer links unless --full or --links]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Variants by name, such as 'split 1,JPEG 75' [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub variants: Vec<String>,
    /// Turns of every cell [default: 2; with --full 5]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Most frames in a run; slow links get fewer [default: 12; with --full 24]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Labelled photos for the accuracy [default: 100; with --full all]
    #[arg(long, value_name = "N")]
    pub photos: Option<usize>,
    /// Labelled frames for the accuracy [default: 16; with --full all]
    #[arg(long, value_name = "N")]
    pub scenes: Option<usize>,
    /// Frames under way at once when throughput is measured; 1 leaves it out
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub in_flight: usize,
    /// Decides the order of runs, what the links lose and what is resampled
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// Draw a recorded report again; measures nothing
    #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
    pub from: Option<PathBuf>,
}

impl Compare {
    /// Measures and draws; after Ctrl-C it draws what it has, marks it and ends with the code of an interrupted program.
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
        let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
        let mut report = Report::parse(&text).with_context(|| from.display().to_string())?;
        report.winners = judge::winners(&report);
        report.claims = claims::claims(&report);
        self.write(&report)?;
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self) -> Result<ExitCode> {
        let interrupt = Interrupt::watch()?;
        let path = self.bundle.as_deref().context("--bundle is missing")?;
        let bundle = Bundle::open(path, Parts::All)?;
        let ladder = match &self.ladder {
            Some(file) => {
                Ladder::parse(&fs::read_to_string(file).with_context(|| file.display().to_string())?)?
            }
            None => Ladder::shipped(),
        };
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
        // As the head's own kernels: on one thread.
        let float = match variants.iter().any(|variant| variant.group == Method::Reference) {
            true => LocalF32::open(&bundle, &runtime, 1)?,
            false => None,
        };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let throttled = machine::throttled();

        println!("bundle {} {}", bundle.name(), bundle.digest().short());
        let found = self.fidelity(&links, &interrupt)?;
        let mut harness =
            Harness::start(path, self.runtime.as_deref(), float, &links, self.seed, &interrupt)?;
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
        let sensor = harness.finish(&mut measurements.runs)?;
        let cut = match (&measured, interrupt.seen()) {
            (_, true) => Some(format!("Interrupted after {} runs.", measurements.runs.len())),
            (Err(error), false) => Some(format!("{error:#}")),
            (Ok(()), false) => None,
        };
        let summaries: Vec<LinkSummary> =
            links.iter().map(|link| link_models::rung(link, &found.links)).collect();
        let cells = cells::cells(
            &Measured {
                rows: &measurements.rows,
                runs: &measurements.runs,
                links: &summaries,
                energy: &sensor,
                seed: self.seed,
            },
            &|rung, up, down| link_models::serialisation(&links, rung, up, down),
        );
        let mut report = Report {
            schema: SCHEMA,
            provenance: Provenance {
                complete: cut.is_none(),
                incomplete_because: cut,
                version: env!("CARGO_PKG_VERSION").into(),
                commit: machine::commit(),
                bundle: format!("{} {} {}", bundle.name(), bundle.manifest().version(), bundle.digest()),
                command: provenance::command(),
                started,
                seconds,
                seed: self.seed,
                rounds: measurements.runs.iter().map(|run| run.round + 1).max().unwrap_or(0),
                cross_check_skipped: found.cross_check_skipped,
                machine: provenance::machine(throttled, &sensor, &runtime.version(), &measurements.runs),
                data: sets.iter().map(|set| set.about.clone()).collect(),
                notes: provenance::notes(&bundle, &sets, &variants),
            },
            links: summaries,
            variants,
            accuracy: measurements.accuracy,
            cells,
            winners: Vec::new(),
            claims: Vec::new(),
            runs: measurements.runs,
        };
        report.sort();
        link_models::model_radios(&mut report)?;
        report.winners = judge::winners(&report);
        report.claims = claims::claims(&report);
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

    /// What every link really does, before the run, while the machine has nothing else to do.
    fn fidelity(&self, links: &[Link], interrupt: &Interrupt) -> Result<links::Report> {
        let measure = Links {
            links: None,
            only: Vec::new(),
            // Less leaves the slowest links no time to drain before their delay is measured.
            seconds: 2.0,
            seed: self.seed,
            no_cross_check: false,
            json: None,
        };
        measure.measure(&Ladder { links: links.to_vec() }, interrupt)
    }

    /// Those of `all` that were asked for.
    fn chosen(&self, all: Vec<Variant>) -> Result<Vec<Variant>> {
        for name in &self.variants {
            let known = || all.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", ");
            ensure!(
                all.iter().any(|variant| variant.name == *name),
                "--variants: there is no `{name}`; there are {}",
                known()
            );
        }
        let asked = |name: &str| self.variants.is_empty() || self.variants.iter().any(|other| other == name);
        Ok(all.into_iter().filter(|variant| asked(&variant.name)).collect())
    }

    /// The tasks by name with the links that each goes over.
    fn tasks(&self, bundle: &Bundle, scope: &Scope) -> Result<Vec<(String, Vec<String>)>> {
        for name in &self.tasks {
            let known = bundle.tasks().iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", ");
            ensure!(bundle.task(name).is_some(), "--tasks: the bundle has no task `{name}`; it has {known}");
        }
        let whole = |task: &&Task| task.reference.is_some();
        for task in bundle.tasks().iter().filter(|task| !whole(task)) {
            ensure!(
                !self.tasks.contains(&task.name),
                "--tasks: the bundle brings no unsplit network (`reference`) for {}: there is nothing to hold answers \
                 against, and nothing that images could be sent to",
                task.name
            );
            eprintln!("{}: left out, the bundle brings no unsplit network for it", task.name);
        }
        let asked = |task: &&Task| self.tasks.is_empty() || self.tasks.contains(&task.name);
        let tasks: Vec<_> = bundle.tasks().iter().filter(asked).filter(whole).collect();
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

    /// Writes the report, its pictures and what it says in short.
    fn write(&self, report: &Report) -> Result<()> {
        let pictures = draw::pictures(report)?;
        let page = page::page(report, &pictures)?;
        let folder = self.out.join("pictures");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
        };
        for picture in &pictures {
            write(folder.join(format!("{}.svg", picture.name)), &picture.svg)?;
        }
        write(self.out.join("report.html"), &page)?;
        let path = self.out.join("report.json");
        let file = File::create(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        serde_json::to_writer_pretty(std::io::BufWriter::new(file), report)?;
        judge::summary(report).iter().for_each(|line| println!("{line}"));
        println!("{}", self.out.join("report.html").display());
        Ok(())
    }
}
