//! CompressAI's C++ coder through its Python package, in a child that takes turns with the other contenders.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use narrows_codec::Feature;
use narrows_eval::stats::quantile;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::set::Set;

const SCRIPT: &str = include_str!("compressai.py");

/// Medians of what the child measured itself, in seconds for all features.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: String,
    /// Mean bytes of a packet, at its 16-bit precision.
    pub(super) bytes: f64,
    /// The call less its overhead, turn by turn.
    pub(super) encode_s: f64,
    pub(super) decode_s: f64,
    /// What was subtracted: the same call refused at its last argument, after all others are converted; when decoding,
    /// making a list of as many numbers, too.
    pub(super) encode_overhead_s: f64,
    pub(super) decode_overhead_s: f64,
}

/// A running child.
pub(super) struct CompressAi {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    hello: Hello,
    turns: Vec<Turn>,
    _folder: TempDir,
}

#[derive(Deserialize)]
struct Hello {
    version: String,
    bytes: f64,
    right: bool,
}

#[derive(Deserialize)]
struct Turn {
    encode: f64,
    decode: f64,
    encode_overhead: f64,
    decode_overhead: f64,
}

#[derive(Serialize)]
struct Job<'a> {
    channels: usize,
    plane: usize,
    total: u32,
    lows: Vec<i16>,
    frequencies: Vec<&'a [u16]>,
}

impl CompressAi {
    /// Starts `python` on `features` of `set` and waits until it has coded them once.
    pub(super) fn start(python: &Path, set: &Set, features: &[Feature]) -> Result<CompressAi> {
        let folder = tempfile::Builder::new().prefix("narrows-").tempdir()?;
        let channels = set.channels()?;
        let job = Job {
            channels: channels.len(),
            plane: set.shape().plane(),
            total: 1 << set.tables.precision(),
            lows: channels.iter().map(|table| table.low()).collect(),
            frequencies: channels.iter().map(|table| table.frequencies()).collect(),
        };
        fs::write(folder.path().join("job.json"), serde_json::to_string(&job)?)?;
        let symbols = features.iter().flat_map(|feature| feature.symbols());
        let symbols: Vec<u8> = symbols.flat_map(|symbol| symbol.to_le_bytes()).collect();
        fs::write(folder.path().join("symbols.bin"), symbols)?;
        let script = folder.path().join("turns.py");
        fs::write(&script, SCRIPT)?;
        let mut child = Command::new(python)
            .args(["-W", "ignore"])
            .arg(script)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be started", python.display()))?;
        let ask = child.stdin.take().context("a pipe to the child")?;
        let mut answers = BufReader::new(child.stdout.take().context("a pipe from the child")?);
        let hello: Hello = answer(&mut answers)
            .with_context(|| format!("{}: has it the package compressai?", python.display()))?;
        ensure!(hello.right, "CompressAI does not decode what it encoded");
        Ok(CompressAi { child, ask, answers, hello, turns: Vec::new(), _folder: folder })
    }

    /// One turn over all features.
    pub(super) fn turn(&mut self) -> Result<()> {
        self.ask.write_all(b"\n")?;
        self.ask.flush()?;
        self.turns.push(answer(&mut self.answers)?);
        Ok(())
    }

    /// Ends the child.
    pub(super) fn finish(mut self) -> Result<Report> {
        drop(self.ask);
        self.child.wait()?;
        let median = |of: fn(&Turn) -> f64| quantile(&self.turns.iter().map(of).collect::<Vec<_>>(), 0.5);
        Ok(Report {
            version: self.hello.version,
            bytes: self.hello.bytes,
            encode_s: median(|turn| turn.encode - turn.encode_overhead),
            decode_s: median(|turn| turn.decode - turn.decode_overhead),
            encode_overhead_s: median(|turn| turn.encode_overhead),
            decode_overhead_s: median(|turn| turn.decode_overhead),
        })
    }
}

fn answer<T: for<'a> Deserialize<'a>>(answers: &mut impl BufRead) -> Result<T> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the child ended");
    serde_json::from_str(&line).context("the child's answer")
}
