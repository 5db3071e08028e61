//! CompressAI's C++ coder through its Python package, in a child process that the interleaved comparison starts for each run.

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

/// Medians of the times that the child measured, in seconds for all features.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: String,
    /// Mean bytes of a packet at CompressAI's 16-bit precision.
    pub(super) bytes: f64,
    /// Time of the call less its overhead.
    pub(super) encode_s: f64,
    pub(super) decode_s: f64,
    /// The overhead: the time of the same call with an invalid last argument, which is refused after all others are
    /// converted; for decoding also the time to make a list of as many numbers.
    pub(super) encode_overhead_s: f64,
    pub(super) decode_overhead_s: f64,
}

/// A running child process.
pub(super) struct CompressAi {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    hello: Hello,
    runs: Vec<Run>,
    _folder: TempDir,
}

#[derive(Deserialize)]
struct Hello {
    version: String,
    bytes: f64,
    lossless: bool,
}

#[derive(Deserialize)]
struct Run {
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
    ///
    /// # Errors
    /// When the child fails, or its coder does not decode what it encoded.
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
        let script = folder.path().join("compressai.py");
        fs::write(&script, SCRIPT)?;
        let mut child = Command::new(python)
            .args(["-W", "ignore"])
            .arg(script)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be started", python.display()))?;
        let input = child.stdin.take().context("a pipe to the child")?;
        let mut output = BufReader::new(child.stdout.take().context("a pipe from the child")?);
        let hello: Hello = read_line(&mut output)
            .with_context(|| format!("{}: is the package compressai installed?", python.display()))?;
        ensure!(hello.lossless, "CompressAI does not decode what it encoded");
        Ok(CompressAi { child, input, output, hello, runs: Vec::new(), _folder: folder })
    }

    /// Codes all features once.
    pub(super) fn run(&mut self) -> Result<()> {
        self.input.write_all(b"\n")?;
        self.input.flush()?;
        self.runs.push(read_line(&mut self.output)?);
        Ok(())
    }

    /// Ends the child; returns the medians.
    pub(super) fn finish(mut self) -> Result<Report> {
        drop(self.input);
        self.child.wait()?;
        let median = |of: fn(&Run) -> f64| quantile(&self.runs.iter().map(of).collect::<Vec<_>>(), 0.5);
        Ok(Report {
            version: self.hello.version,
            bytes: self.hello.bytes,
            encode_s: median(|run| run.encode - run.encode_overhead),
            decode_s: median(|run| run.decode - run.decode_overhead),
            encode_overhead_s: median(|run| run.encode_overhead),
            decode_overhead_s: median(|run| run.decode_overhead),
        })
    }
}

fn read_line<T: for<'a> Deserialize<'a>>(output: &mut impl BufRead) -> Result<T> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the child ended");
    serde_json::from_str(&line).context("the child's output")
}
