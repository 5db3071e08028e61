//! `narrows-bench demo`: photos through a real head, real QUIC and a real tail, beside the unsplit network.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use narrows_eval::{
    pipeline::{UnsplitNetworks, encode_jpeg},
    scores::argmax,
};
use narrows_head::{
    image::{decode, fit},
    report::{Line, Millis, Status},
};
use narrows_models::{Bundle, Parts, TaskKind};
use narrows_tail::net::Runtime;
use serde::Serialize;

use crate::{
    interrupt::{INTERRUPTED, Interrupt},
    pair::Pair,
};

/// Quality of the JPEG whose size stands beside the packet's.
const QUALITY: u8 = 75;

/// Which photos, through which bundle.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench demo --bundle models/bundles/lite2 --source bench/photos --out demo-out"
)]
pub struct Demo {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// A photo, a folder of photos or a glob
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    pub source: String,
    /// Where overlays and summary.json go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
}

#[derive(Serialize)]
struct Summary {
    bundle: String,
    frames: usize,
    answered: usize,
    same_top1: usize,
    photos: Vec<Photo>,
}

#[derive(Serialize)]
struct Photo {
    #[serde(flatten)]
    line: Line,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsplit: Option<UnsplitNetworksAnswer>,
}

/// What the unsplit network says to the head's input, and what that input costs as a JPEG.
#[derive(Serialize)]
struct UnsplitNetworksAnswer {
    label: String,
    probability: f32,
    same_top1: bool,
    jpeg75_bytes: usize,
}

/// The first task that classifies and has an unsplit network beside it; a bundle need not have one.
fn classifier(bundle: &Bundle) -> Option<usize> {
    let first = bundle.tasks().iter().position(|task| task.kind == TaskKind::Classify)?;
    bundle.tasks()[first].reference.is_some().then_some(first)
}

impl Demo {
    /// Runs the demo; its exit code is the head's when a photo got no answer.
    pub fn run(&self) -> ExitCode {
        let interrupt = match Interrupt::watch() {
            Ok(interrupt) => interrupt,
            Err(error) => {
                eprintln!("narrows-bench demo: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        match self.show(&interrupt) {
            _ if interrupt.seen() => {
                eprintln!(
                    "narrows-bench demo: interrupted; the tail is stopped and its certificates are gone"
                );
                ExitCode::from(INTERRUPTED)
            }
            Ok(summary) if summary.answered == summary.frames => ExitCode::SUCCESS,
            Ok(summary) => {
                eprintln!("narrows-bench demo: {} photos got no answer", summary.frames - summary.answered);
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("narrows-bench demo: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn show(&self, interrupt: &Interrupt) -> Result<Summary> {
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        println!("bundle {} {}: {}", bundle.name(), bundle.digest().short(), bundle.manifest().description());
        let runtime = self.runtime.as_ref().map(|path| path.display().to_string());
        let args: Vec<&str> = runtime.iter().flat_map(|path| ["--runtime", path]).collect();
        let pair = Pair::start(&self.bundle, &args)?;
        println!("tail on {}, certificates made for this demo alone", pair.address());
        let lines = self.answers(&pair, interrupt)?;
        pair.drain()?;
        println!("tail drained");
        let mut unsplit = UnsplitNetworks::open(&bundle, &Runtime::open(self.runtime.as_deref())?)?;
        let photos = lines.into_iter().map(|line| compare(&bundle, &mut unsplit, line));
        let photos = photos.collect::<Result<Vec<_>>>()?;
        let summary = Summary {
            bundle: bundle.digest().to_string(),
            frames: photos.len(),
            answered: photos.iter().filter(|photo| photo.line.status == Status::Answered).count(),
            same_top1: photos
                .iter()
                .flat_map(|photo| &photo.unsplit)
                .filter(|unsplit| unsplit.same_top1)
                .count(),
            photos,
        };
        self.print(&summary);
        let path = self.out.join("summary.json");
        fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        println!("overlays and summary.json are in {}", self.out.display());
        Ok(summary)
    }

    /// The head's line for every photo, in the order of the source.
    fn answers(&self, pair: &Pair, interrupt: &Interrupt) -> Result<Vec<Line>> {
        ensure!(!interrupt.seen(), "interrupted");
        let mut head = pair
            .head(&self.bundle)
            .args(["--source", &self.source, "--out"])
            .arg(&self.out)
            .stdout(Stdio::piped())
            .spawn()
            .context("narrows-head cannot be started")?;
        interrupt.passes_to(head.id());
        let mut lines = Vec::new();
        for line in BufReader::new(head.stdout.take().context("the head has no output")?).lines() {
            lines.push(
                serde_json::from_str::<Line>(&line?).context("the head said something that is no line")?,
            );
        }
        let status = head.wait()?;
        ensure!(!lines.is_empty(), "narrows-head ended with {status}");
        lines.sort_by_key(|line| line.frame);
        Ok(lines)
    }

    fn print(&self, summary: &Summary) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        let ms = ["decode", "resize", "head", "encode", "network", "queue", "t.dec", "t.infer", "total ms"];
        let head = ["photo", "label", "prob.", "unsplit network", "", "bytes", "JPEG q75"];
        table.set_header(head.into_iter().chain(ms));
        for photo in &summary.photos {
            table.add_row(row(photo));
        }
        for column in (2..16).filter(|column| ![3, 4].contains(column)) {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{table}");
        let compared = summary.photos.iter().filter(|photo| photo.unsplit.is_some()).count();
        let same = match compared {
            0 => String::new(),
            _ => format!(", {} of {compared} with the unsplit network's top label", summary.same_top1),
        };
        println!("{} of {} photos answered{same}", summary.answered, summary.frames);
    }
}

fn row(photo: &Photo) -> Vec<String> {
    let name = photo.line.file.file_name().unwrap_or(photo.line.file.as_os_str());
    let mut row = vec![name.to_string_lossy().into_owned()];
    let (Some(bytes), Some(ms)) = (&photo.line.bytes, &photo.line.ms) else {
        row.push(photo.line.error.clone().unwrap_or_else(|| "no answer".into()));
        return row;
    };
    // The class of the photo, else the one that most of its map shows.
    let guess = photo.line.classify.as_ref().and_then(|guesses| guesses.first());
    let most = photo.line.segment.as_ref().and_then(|segment| segment.classes.first());
    let said = guess.map(|guess| (&guess.label, guess.probability));
    let said = said.or_else(|| most.map(|most| (&most.label, most.share)));
    match said {
        Some((label, share)) => row.extend([label.clone(), format!("{share:.2}")]),
        None => row.extend(["–".to_owned(), "–".to_owned()]),
    }
    match &photo.unsplit {
        Some(unsplit) => row.extend([
            format!("{} {:.2}", unsplit.label, unsplit.probability),
            if unsplit.same_top1 { "same" } else { "DIFFERS" }.to_owned(),
            bytes.packet.to_string(),
            unsplit.jpeg75_bytes.to_string(),
        ]),
        None => row.extend(["–".to_owned(), String::new(), bytes.packet.to_string(), "–".to_owned()]),
    }
    row.extend(stages(ms).map(|ms| format!("{ms:.1}")));
    row
}

fn stages(ms: &Millis) -> [f64; 9] {
    let tail = [ms.tail_queue, ms.tail_decode, ms.tail_infer];
    [ms.decode, ms.resize, ms.head, ms.encode, ms.network, tail[0], tail[1], tail[2], ms.total]
}

fn compare(bundle: &Bundle, unsplit: &mut UnsplitNetworks, line: Line) -> Result<Photo> {
    let (Some(task), Status::Answered) = (classifier(bundle), line.status) else {
        return Ok(Photo { line, unsplit: None });
    };
    let geometry = bundle.geometries().iter().find(|geometry| geometry.name == line.geometry);
    let geometry = geometry.context("the head named a geometry that the bundle does not have")?;
    let file = fs::read(&line.file).with_context(|| line.file.display().to_string())?;
    let pixels = fit(&decode(&file)?, geometry);
    let logits = unsplit.run(task, &pixels, (geometry.width, geometry.height))?;
    let best = argmax(&logits);
    let top1 =
        line.classify.as_ref().and_then(|guesses| guesses.first()).map(|guess| usize::from(guess.index));
    let answer = UnsplitNetworksAnswer {
        label: bundle.tasks()[task].labels[best].name.clone(),
        probability: 1.0 / logits.iter().map(|logit| (logit - logits[best]).exp()).sum::<f32>(),
        same_top1: top1 == Some(best),
        jpeg75_bytes: encode_jpeg(&pixels, geometry.width, geometry.height, QUALITY)?.len(),
    };
    Ok(Photo { line, unsplit: Some(answer) })
}
