//! `narrows-bench rate`: frames a second that real heads sustain of one camera, which delivers as many as they take.
//!
//! The camera shows the same picture all the time. On the split path the frame gate keeps the server's first answer: every frame
//! is read, decoded, brought to the input's size, taken through the head and compared, but the server, which may stand on the
//! same processor here, works for one alone. Heads take turns in one run.
#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use image::imageops;
use narrows_eval::{pipeline::encode_jpeg, stats::quantile};
use narrows_pair::Pair;
use serde::Serialize;

use crate::{json, machine};

const PHOTO: &[u8] = include_bytes!("../photos/road/street.jpg");
/// Size of the camera's frames, and quality of their JPEG.
const SIZE: (u32, u32) = (640, 480);
const QUALITY: u8 = 85;
/// Longer than any round: the gate keeps the first answer.
const KEPT_MS: &str = "3600000";
/// How long a head works before its frames are counted.
const WARM_UP: Duration = Duration::from_millis(700);

/// Which heads to compare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  narrows-bench rate --bundle models/bundles/lite2\n  \
                  narrows-bench rate --bundle models/bundles/lite2 --head other/narrows-head --head target/release/narrows-head")]
pub struct Rate {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// A head; may be given again, and the last one is compared with the first [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub head: Vec<PathBuf>,
    /// What runs of a frame
    #[arg(long, value_enum, default_value_t = Path::Split)]
    pub path: Path,
    /// How long each head's frames are counted in a round
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Rounds, in each of which every head runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What runs of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The head and the frame gate
    Split,
    /// The local network
    Local,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processor: String,
    cores: usize,
    path: Path,
    heads: Vec<Sustained>,
    /// The last head's median over the first one's, where there are several.
    ratio: Option<f64>,
}

/// Frames a second of a head, round by round.
#[derive(Debug, Serialize)]
struct Sustained {
    head: String,
    rounds: Vec<f64>,
    median: f64,
}

impl Rate {
    /// Runs every head in every round, prints the table and writes the report.
    ///
    /// # Errors
    /// When a head cannot be run or answers nothing, or the report cannot be written.
    pub fn run(&self) -> Result<()> {
        let photo = image::load_from_memory(PHOTO).context("the built-in photo")?.into_rgb8();
        let photo = imageops::resize(&photo, SIZE.0, SIZE.1, imageops::FilterType::CatmullRom);
        let frame = encode_jpeg(&photo, SIZE.0 as usize, SIZE.1 as usize, QUALITY)?;
        let beside = || PathBuf::from(narrows_pair::head().get_program());
        let heads = if self.head.is_empty() { vec![beside()] } else { self.head.clone() };
        let pair = (self.path == Path::Split).then(|| Pair::start(&self.bundle, &[])).transpose()?;
        let mut rounds = vec![Vec::new(); heads.len()];
        for _ in 0..self.rounds {
            for (head, rounds) in heads.iter().zip(&mut rounds) {
                let mut command = Command::new(head);
                command.args(["run", "--source", "-", "--frames", "every", "--bundle"]).arg(&self.bundle);
                match &pair {
                    None => command.args(["--path", "local"]),
                    Some(pair) => command
                        .args(["--server", pair.address(), "--gate", "1", "--gate-max-age", KEPT_MS])
                        .arg("--identity")
                        .arg(pair.certs().join("devices/device")),
                };
                rounds.push(self.measure(command, &frame).with_context(|| head.display().to_string())?);
            }
        }
        let sustained = heads.iter().zip(rounds).map(|(head, rounds)| Sustained {
            head: head.display().to_string(),
            median: quantile(&rounds, 0.5),
            rounds,
        });
        let heads: Vec<Sustained> = sustained.collect();
        let ratio = match &heads[..] {
            [first, .., last] => Some(last.median / first.median),
            _ => None,
        };
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            processor: machine::processor(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            path: self.path,
            heads,
            ratio,
        };
        report.print(self);
        json::write(self.json.as_deref(), &report)
    }

    /// Frames a second of the head that `command` starts, to which a camera delivers `frame` over and over.
    fn measure(&self, mut command: Command, frame: &[u8]) -> Result<f64> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut camera = child.stdin.take().context("no pipe to it")?;
        let lines = BufReader::new(child.stdout.take().context("no pipe from it")?).lines();
        let window = Duration::from_secs(self.seconds.into());
        let (first_in, first) = mpsc::channel();
        let rate = thread::scope(|scope| {
            scope.spawn(move || {
                // The camera stops when the head ends, which closes the pipe.
                while camera.write_all(frame).is_ok() {}
            });
            let counting = scope.spawn(move || {
                let mut counted = None::<(Instant, u64)>;
                let is_answered = |line: &String| line.contains(r#""status":"answered""#);
                for _ in lines.map_while(Result::ok).filter(is_answered) {
                    let now = Instant::now();
                    // Nobody waits for it a second time.
                    let _ = first_in.send(now);
                    let (begin, count) = counted.get_or_insert((now + WARM_UP, 0));
                    if now >= *begin && now < *begin + window {
                        *count += 1;
                    }
                }
                counted
            });
            // The head loads its networks before the first line.
            let began = first.recv_timeout(Duration::from_secs(60)).is_ok();
            if began {
                thread::sleep(WARM_UP + window);
            }
            narrows_pair::terminate(child.id())?;
            child.wait()?;
            let counted = counting.join().ok().flatten();
            ensure!(began, "it answered nothing within a minute");
            Ok(counted.map_or(0.0, |(_, count)| count as f64 / window.as_secs_f64()))
        })?;
        ensure!(rate > 0.0, "it answered no frame in {} s", self.seconds);
        Ok(rate)
    }
}

impl Report {
    fn print(&self, rate: &Rate) {
        let path = match self.path {
            Path::Split => "split path with the frame gate",
            Path::Local => "local path",
        };
        println!("{}, {} cores; {path}, {} s a round", self.processor, self.cores, rate.seconds);
        println!("a camera of JPEG frames of {}×{}, as many as are taken\n", SIZE.0, SIZE.1);
        println!("{:60} median   each round", "frames a second");
        for Sustained { head, rounds, median } in &self.heads {
            let each: String = rounds.iter().map(|rate| format!(" {rate:6.1}")).collect();
            println!("  {head:58} {median:6.1}  {each}");
        }
        if let Some(ratio) = self.ratio {
            println!("  {:58} {ratio:6.2}", "the last one to the first one");
        }
    }
}
