//! `narrows-demo`: photos through a real head, real QUIC and a real tail, beside the unsplit network.

mod answer;
mod table;
mod unsplit;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use narrows_models::{Bundle, Parts, TaskKind};
use narrows_pair::{INTERRUPTED, Interrupt, Pair};
use narrows_tail::engine::Runtime;
use serde::Serialize;

use crate::{
    answer::Answer,
    unsplit::{Comparison, Unsplit},
};

/// Show photos going through a split network: the first layers in narrows-head, the rest in narrows-tail
///
/// Starts both programs on this machine with certificates of their own, sends the photos one at a time, and compares
/// each answer with the one of the unsplit network. Pictures and summary.json are written into a folder.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "Example:\n  narrows-demo --bundle models/bundles/lite2 --classify bench/photos --segment bench/photos/road --out demo-out"
)]
struct Demo {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Photos to be classified: a file, a folder or a glob
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    classify: Option<String>,
    /// Photos to be segmented: a file, a folder or a glob; the shipped bundle knows road scenes
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    segment: Option<String>,
    /// Where pictures and summary.json go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,
}

/// What summary.json holds.
#[derive(Serialize)]
struct Summary {
    /// The bundle's digest.
    bundle: String,
    frames: usize,
    answered: usize,
    /// Classified photos whose best class is the unsplit network's.
    same_top1: usize,
    photos: Vec<Photo>,
}

/// One photo, asked for one task.
#[derive(Serialize)]
struct Photo {
    task: String,
    #[serde(flatten)]
    answer: Answer,
    /// None where the photo got no answer or the bundle brings no unsplit network for the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsplit: Option<Comparison>,
}

fn main() -> ExitCode {
    let demo = Demo::parse();
    let interrupt = match Interrupt::watch() {
        Ok(interrupt) => interrupt,
        Err(error) => return fail(&error),
    };
    match demo.run(&interrupt) {
        _ if interrupt.seen() => {
            eprintln!("narrows-demo: interrupted; the tail has ended and its certificates are removed");
            ExitCode::from(INTERRUPTED)
        }
        Ok(summary) if summary.answered == summary.frames => ExitCode::SUCCESS,
        Ok(summary) => {
            eprintln!("narrows-demo: {} photos got no answer", summary.frames - summary.answered);
            ExitCode::FAILURE
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("narrows-demo: {error:#}");
    ExitCode::FAILURE
}

impl Demo {
    fn run(&self, interrupt: &Interrupt) -> Result<Summary> {
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        println!("Bundle {} {}: {}", bundle.name(), bundle.digest().short(), bundle.manifest().description());
        println!("Starting narrows-tail, which loads its networks and tests them; then one photo at a time.");
        let runtime = self.runtime.as_ref().map(|path| path.display().to_string());
        let args: Vec<&str> = runtime.iter().flat_map(|path| ["--runtime", path]).collect();
        let pair = Pair::start(&self.bundle, &args)?;
        let mut asked = Vec::new();
        for (kind, source) in [(TaskKind::Classify, &self.classify), (TaskKind::Segment, &self.segment)] {
            let (Some(source), Some(task)) =
                (source, bundle.tasks().iter().position(|task| task.kind == kind))
            else {
                continue;
            };
            let answers = self.answers(&pair, &bundle.tasks()[task].name, source, interrupt)?;
            asked.extend(answers.into_iter().map(|answer| (task, answer)));
        }
        pair.drain()?;
        ensure!(
            !asked.is_empty(),
            "nothing to show: give --classify or --segment for a task that the bundle has"
        );
        let mut unsplit = Unsplit::new(Runtime::open(self.runtime.as_deref())?);
        let photos = asked.into_iter().map(|(task, answer)| {
            let unsplit = unsplit.compare(&bundle, task, &answer)?;
            Ok(Photo { task: bundle.tasks()[task].name.clone(), answer, unsplit })
        });
        let photos = photos.collect::<Result<Vec<_>>>()?;
        let summary = Summary {
            bundle: bundle.digest().to_string(),
            frames: photos.len(),
            answered: photos.iter().filter(|photo| photo.answer.is_answered()).count(),
            same_top1: photos
                .iter()
                .filter(|photo| matches!(photo.unsplit, Some(Comparison::Classify { same_top1: true, .. })))
                .count(),
            photos,
        };
        table::print(&summary);
        let path = self.out.join("summary.json");
        fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        self.next_steps(&summary, &path);
        Ok(summary)
    }

    /// Runs a head over the photos of `source`; returns its answers in the order of the source.
    fn answers(&self, pair: &Pair, task: &str, source: &str, interrupt: &Interrupt) -> Result<Vec<Answer>> {
        ensure!(!interrupt.seen(), "interrupted");
        let mut head = pair
            .head(&self.bundle)
            .args(["--source", source, "--tasks", task, "--in-flight", "1", "--out"])
            .arg(&self.out)
            .stdout(Stdio::piped())
            .spawn()
            .context("narrows-head cannot be started")?;
        interrupt.passes_to(head.id());
        let lines = BufReader::new(head.stdout.take().context("the head has no output")?).lines();
        let mut answers = lines.map(|line| Answer::parse(&line?)).collect::<Result<Vec<_>>>()?;
        let status = head.wait()?;
        ensure!(!answers.is_empty(), "narrows-head ended with {status}");
        answers.sort_by_key(|answer| answer.frame);
        Ok(answers)
    }

    /// Says what to open and what to do next.
    fn next_steps(&self, summary: &Summary, json: &Path) {
        let picture = |segmented: bool| {
            let of_kind = summary.photos.iter().filter(|photo| photo.answer.segment.is_some() == segmented);
            of_kind.filter_map(|photo| photo.answer.picture()).next().map(|path| path.display().to_string())
        };
        println!("\nOpen");
        for (path, what) in
            [(picture(true), "the mask of a scene"), (picture(false), "the classes of a photo")]
        {
            if let Some(path) = path {
                println!("  {path:<38} {what}; those of the others are beside it");
            }
        }
        println!("  {:<38} every answer, byte and millisecond of the tables", json.display());
        println!("Next");
        println!("  {:<38} your own photos; TASKS=segment asks for masks only", "make demo SOURCE=DIR");
        println!("  {:<38} the device and the server on two machines", "docs/two-machines.md");
        println!("  {:<38} on which link splitting pays, as a report", "make bench");
    }
}
