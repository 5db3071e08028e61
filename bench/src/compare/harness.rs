//! The processes of a comparison: one tail, a relay for every link, and the head, started anew for every run.
#![expect(clippy::disallowed_methods, reason = "runs and answers are timed here")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_head::report::{Line, Status};
use narrows_netsim::{Counts, Link, Relay};
use narrows_pair::{Interrupt, Pair};
use narrows_power::{Places, Plan, Recording, Sampler, Window, discover, total};

use super::{
    accuracy::{self, Answer},
    dataset::Dataset,
    plan::{PlannedRun, WARM_UP},
    report::{Method, NO_LINK, Row, Run, Variant},
};
use crate::machine;

/// `--budget` of the head in milliseconds: several times what an uncoded frame takes over the slowest link.
const BUDGET: &str = "180000";
/// `--retry-for` of the head in seconds: several times a handshake over the slowest link.
const RETRY_FOR: &str = "60";
/// Frames under way while accuracy is measured, where time does not matter.
const ACCURACY_IN_FLIGHT: &str = "4";
/// Idle time before and after the runs, the baseline of net joules.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes of IPv4 and UDP headers, which the relay's counts leave out.
const HEADERS: u64 = 28;

/// The processes of a comparison. Dropping it ends them.
pub struct Harness<'a> {
    bundle: PathBuf,
    pair: Pair,
    relays: BTreeMap<String, Relay>,
    interrupt: &'a Interrupt,
    power: Power,
    epoch: Instant,
}

/// The power sensors, and the time windows of the runs on their clock.
struct Power {
    sampler: Sampler,
    /// Sensors that exist and cannot be read, with the reason.
    absent: Vec<String>,
    found: Vec<String>,
    idle: [Option<Window>; 2],
    windows: Vec<Window>,
}

/// A line of the head, when it came, and what the relay had carried by then.
struct TimedLine {
    line: Line,
    at: Duration,
    carried: Option<Counts>,
}

impl<'a> Harness<'a> {
    /// Starts the tail and a relay for every link.
    ///
    /// # Errors
    /// When a process, a relay or the power sensors cannot be started.
    pub fn start(
        bundle: &Path,
        runtime: Option<&Path>,
        links: &[Link],
        seed: u64,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let runtime = runtime.map(|path| path.display().to_string());
        let mut args = vec!["--offload"];
        args.extend(runtime.iter().flat_map(|path| ["--runtime", path]));
        let pair = Pair::start(bundle, &args)?;
        let tail = pair.address().parse().context("the tail's address")?;
        let relays = links.iter().map(|link| {
            let relay =
                Relay::start(link, tail, seed).with_context(|| format!("no relay for {}", link.name))?;
            Ok((link.name.clone(), relay))
        });
        let relays = relays.collect::<Result<_>>()?;
        let sensors = discover(&Places::default());
        let power = Power {
            found: sensors.rails().map(|rail| format!("{rail:?}")).collect(),
            absent: sensors.absent.iter().map(|of| format!("{}: {}", of.sensor, of.reason)).collect(),
            sampler: Sampler::start(sensors.sources)?,
            idle: [None, None],
            windows: Vec::new(),
        };
        Ok(Harness { bundle: bundle.to_owned(), pair, relays, interrupt, power, epoch: Instant::now() })
    }

    /// Whether the user interrupts the comparison.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupt.seen()
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    /// Waits for the length of an idle measurement where there are sensors: before the first run (`place` 0) and after the last (1).
    ///
    /// # Errors
    /// When the sensors' thread has ended.
    pub fn idle(&mut self, place: usize) -> Result<()> {
        if self.power.found.is_empty() || self.interrupted() {
            return Ok(());
        }
        let from = self.power.sampler.mark()?;
        std::thread::sleep(IDLE);
        self.power.idle[place] = Some(Window::new(from, self.power.sampler.mark()?));
        Ok(())
    }

    /// The answers of a variant to every item of a set, over loopback; `step` is called after each.
    ///
    /// # Errors
    /// When any item has no answer: an accuracy over the others would not be comparable.
    pub fn answers(
        &self,
        variant: &Variant,
        set: &Dataset,
        out: &Path,
        step: impl Fn(),
    ) -> Result<Vec<Answer>> {
        let masks = out.join("masks");
        let mut command = self.head(variant, self.pair.address());
        command.arg("--source").arg(&set.folder).args(["--tasks", &set.name]);
        command.args(["--in-flight", ACCURACY_IN_FLIGHT]);
        if set.kind == narrows_models::TaskKind::Segment {
            command.arg("--out").arg(&masks);
        }
        let mut answers: Vec<Option<Answer>> = vec![None; set.items.len()];
        for TimedLine { line, .. } in &self.run_head(command, None, &step)? {
            let place = || format!("{}: {}", variant.name, file_of(line).display());
            let item = set.items.iter().position(|item| item.file == file_of(line)).with_context(place)?;
            if !answered(line, variant) {
                bail!("{}: {}", place(), line.error.as_deref().unwrap_or("answered by another method"));
            }
            answers[item] = Some(accuracy::answer(line, set.kind).with_context(place)?);
        }
        if masks.is_dir() {
            fs::remove_dir_all(&masks).with_context(|| masks.display().to_string())?;
        }
        ensure!(!self.interrupted(), "interrupted");
        let answers: Option<Vec<Answer>> = answers.into_iter().collect();
        answers.with_context(|| format!("{}: the head ended before every photo had its answer", variant.name))
    }

    /// Makes one run over the photos in `folder`, of which the first only warm up. `index` is its place among all runs.
    ///
    /// # Errors
    /// When the head cannot be started or says nothing. A frame without an answer is no error but a row that says so.
    pub fn run(
        &mut self,
        planned: &PlannedRun,
        variant: &Variant,
        folder: &Path,
        index: usize,
    ) -> Result<(Run, Vec<Row>)> {
        let (load, start) = (machine::load(), self.seconds());
        let from = self.power.sampler.mark()?;
        let empty = Row {
            run: index,
            round: planned.round,
            link: planned.link.clone(),
            variant: variant.name.clone(),
            task: planned.task.clone(),
            in_flight: planned.in_flight,
            ..Row::default()
        };
        let rows = self.rows(&empty, variant, folder)?;
        self.power.windows.push(Window::new(from, self.power.sampler.mark()?));
        let run = Run {
            round: planned.round,
            link: planned.link.clone(),
            variant: variant.name.clone(),
            task: planned.task.clone(),
            in_flight: planned.in_flight,
            frames: rows.len(),
            start,
            seconds: self.seconds() - start,
            load,
            mhz: machine::mhz(),
            joules: None,
        };
        Ok((run, rows))
    }

    /// The rows of a run of the head.
    fn rows(&self, empty: &Row, variant: &Variant, folder: &Path) -> Result<Vec<Row>> {
        let relay = self.relays.get(&empty.link);
        ensure!(relay.is_some() || empty.link == NO_LINK, "no relay for the link {}", empty.link);
        let server =
            relay.map_or_else(|| self.pair.address().to_owned(), |relay| relay.address().to_string());
        let mut command = self.head(variant, &server);
        command.arg("--source").arg(folder).args(["--tasks", &empty.task]);
        command.args(["--in-flight", &empty.in_flight.to_string()]);
        let lines = self.run_head(command, relay, &|| ())?;
        let mut rows: Vec<Row> = lines.iter().map(|line| row(empty, variant, line)).collect();
        if empty.in_flight == 1 {
            wire_bytes(&mut rows, &lines);
        }
        rows.sort_by_key(|row| row.frame);
        Ok(rows)
    }

    /// Ends the processes and fills in the joules of the runs. Returns the sensor, or why none was read.
    ///
    /// # Errors
    /// When the tail does not drain, or the sensors' thread has failed.
    pub fn finish(self, runs: &mut [Run]) -> Result<String> {
        drop(self.relays);
        // A Ctrl-C in a terminal reaches the tail too; dropping the pair ends it either way.
        if !self.interrupt.seen() {
            self.pair.drain()?;
        }
        let Power { sampler, absent, found, idle, windows } = self.power;
        let recording: Recording = sampler.stop()?;
        let mut why = None;
        let mut about = None;
        for (run, window) in runs.iter_mut().zip(windows) {
            let plan = Plan { run: window, idle_before: idle[0], idle_after: idle[1] };
            match total(&recording.over(&plan)) {
                Ok(total) if total.complete => {
                    run.joules = total.net_joules.map(|net| (total.gross_joules, net));
                    about =
                        Some(format!("{:?}, {:?}: {}", total.scope, total.quality, total.rails.join(" + ")));
                }
                Ok(_) => why = Some("the sensor left gaps".to_owned()),
                Err(reason) => why = Some(reason),
            }
        }
        let mut about = about.or(why).unwrap_or_else(|| "no run was measured".to_owned());
        if found.is_empty() && !absent.is_empty() {
            about = format!("{about} ({})", absent.join("; "));
        }
        Ok(about)
    }

    /// The head's command line for a variant, without a source.
    fn head(&self, variant: &Variant, server: &str) -> Command {
        let mut command = match variant.method {
            Method::Local => {
                let mut command = narrows_pair::head();
                command.arg("run").arg("--bundle").arg(&self.bundle).stdin(Stdio::null());
                command
            }
            _ => {
                let mut command = self.pair.head_to(&self.bundle, server);
                // An answer made on the device would be another method's.
                command.args(["--fallback", "never", "--budget", BUDGET, "--retry-for", RETRY_FOR]);
                command
            }
        };
        command.args(&variant.flags);
        command
    }

    /// Runs a head to its end; `step` is called after each line.
    fn run_head(
        &self,
        mut command: Command,
        relay: Option<&Relay>,
        step: &dyn Fn(),
    ) -> Result<Vec<TimedLine>> {
        let mut head =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("narrows-head")?;
        self.interrupt.passes_to(head.id());
        // Read by a thread, so that a head with much to say does not wait for a reader.
        let messages = head.stderr.take().context("the head has no standard error")?;
        let messages = std::thread::spawn(move || std::io::read_to_string(messages).unwrap_or_default());
        let started = Instant::now();
        let mut lines = Vec::new();
        for line in BufReader::new(head.stdout.take().context("the head has no standard output")?).lines() {
            let at = started.elapsed();
            let line = serde_json::from_str(&line?).context("a line of the head cannot be read")?;
            lines.push(TimedLine { line, at, carried: relay.map(Relay::counts) });
            step();
        }
        let status = head.wait()?;
        self.interrupt.passes_to(0);
        let messages = messages.join().unwrap_or_default();
        ensure!(!lines.is_empty() || self.interrupted(), "{command:?} ended with {status}:\n{messages}");
        Ok(lines)
    }
}

/// Whether a line holds an answer of the variant's own method.
fn answered(line: &Line, variant: &Variant) -> bool {
    let path = match variant.method {
        Method::Local => "local",
        Method::Jpeg | Method::Webp => "image",
        Method::Split | Method::Raw => "split",
    };
    line.status == Status::Answered && line.path.as_deref() == Some(path)
}

/// The photo of a line; measurements are made on files.
fn file_of(line: &Line) -> &Path {
    line.file.as_deref().unwrap_or(Path::new(""))
}

/// The row of a line. `empty` has what all rows of the run share.
fn row(empty: &Row, variant: &Variant, TimedLine { line, at, .. }: &TimedLine) -> Row {
    let answered = answered(line, variant);
    let ms = line.ms.as_ref().filter(|_| answered);
    Row {
        answered,
        error: line.error.clone(),
        packet: line.bytes.map(|bytes| bytes.packet),
        sent: line.bytes.map(|bytes| bytes.sent),
        received: line.bytes.map(|bytes| bytes.received),
        decode: ms.map(|ms| ms.decode),
        resize: ms.map(|ms| ms.resize),
        head: ms.map(|ms| ms.head),
        encode: ms.map(|ms| ms.encode),
        network: ms.map(|ms| ms.network),
        tail_decode: ms.map(|ms| ms.tail_decode),
        tail_queue: ms.map(|ms| ms.tail_queue),
        tail_infer: ms.map(|ms| ms.tail_infer),
        tail_answer: ms.map(|ms| ms.tail_answer),
        total: ms.map(|ms| ms.total),
        at: at.as_secs_f64() * 1e3,
        frame: line.frame,
        file: file_of(line).file_name().unwrap_or_default().to_string_lossy().into_owned(),
        warm_up: line.frame < WARM_UP as u64,
        ..empty.clone()
    }
}

/// Fills in what the relay carried between one line and the next. Rows and lines are in the order of the lines.
///
/// The first line has the handshake before it and gets none. Where this program was late to read a line, the relay may
/// have carried part of the next request already; a run whose counted frames seem to have taken fewer bytes on the wire
/// than their requests and replies have is such a case, and its rows get none.
fn wire_bytes(rows: &mut [Row], lines: &[TimedLine]) {
    let total =
        |carried: &Counts| [&carried.up, &carried.down].map(|count| count.bytes + HEADERS * count.datagrams);
    for (row, pair) in rows.iter_mut().skip(1).zip(lines.windows(2)) {
        let Some((before, after)) = pair[0].carried.as_ref().zip(pair[1].carried.as_ref()) else { return };
        let ([up_before, down_before], [up, down]) = (total(before), total(after));
        (row.wire_up, row.wire_down) = (Some(up - up_before), Some(down - down_before));
    }
    let sum = |of: fn(&Row) -> Option<u64>| -> u64 {
        rows.iter().filter(|row| row.answered && !row.warm_up).filter_map(of).sum()
    };
    let late = sum(|row| row.wire_up) < sum(|row| Some(row.sent? as u64))
        || sum(|row| row.wire_down) < sum(|row| Some(row.received? as u64));
    if late {
        rows.iter_mut().for_each(|row| (row.wire_up, row.wire_down) = (None, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture;

    fn line(frame: u64, up: u64, down: u64) -> TimedLine {
        let text = format!(r#"{{"frame":{frame},"file":"a.png","status":"answered","geometry":"photo"}}"#);
        let mut carried = Counts::default();
        (carried.up.bytes, carried.up.datagrams) = (up, up / 1000);
        (carried.down.bytes, carried.down.datagrams) = (down, down / 1000);
        TimedLine { line: serde_json::from_str(&text).unwrap(), at: Duration::ZERO, carried: Some(carried) }
    }

    fn rows(count: u64) -> Vec<Row> {
        let row = |frame| Row { warm_up: frame < 2, ..fixture::row("lte", "split 1", frame, 100.0) };
        (0..count).map(row).collect()
    }

    #[test]
    fn wire_bytes_are_what_the_relay_carried_since_the_answer_before() {
        let lines = [line(0, 9_000, 5_000), line(1, 16_000, 6_000), line(2, 23_000, 7_000)];
        let mut rows = rows(3);
        wire_bytes(&mut rows, &lines);
        let found: Vec<_> = rows.iter().map(|row| row.wire_up.zip(row.wire_down)).collect();
        // Seven datagrams up and one down, 28 bytes of headers each.
        assert_eq!(found, [None, Some((7196, 1028)), Some((7196, 1028))]);
    }

    #[test]
    fn a_run_with_fewer_bytes_on_the_wire_than_in_its_requests_has_none() {
        // By the time that the second line was read, most of the third request of 6,060 bytes had gone through.
        let lines = [line(0, 9_000, 5_000), line(1, 21_000, 6_000), line(2, 23_000, 7_000)];
        let mut rows = rows(3);
        wire_bytes(&mut rows, &lines);
        assert!(rows.iter().all(|row| row.wire_up.is_none() && row.wire_down.is_none()));
    }
}
