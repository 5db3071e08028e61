//! A real tail, a relay for every link, and real heads, one run after another.
#![expect(clippy::disallowed_methods, reason = "runs and answers are timed here")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_eval::{local_f32::LocalF32, scores::argmax};
use narrows_head::{
    load,
    report::{Line, Status},
};
use narrows_netsim::{Counts, Link, Relay};
use narrows_pair::{Interrupt, Pair};
use narrows_power::{Places, Plan, Recording, Sampler, Window, discover, total};

use super::{
    accuracy::{self, Answer, Prediction},
    dataset::Dataset,
    plan::{PlannedRun, WARM_UP},
    report::{Method, NO_LINK, Row, Run, Variant},
};
use crate::machine;

/// Longest that a frame may take, in milliseconds: a raw frame over the slowest link, with room.
const BUDGET: &str = "180000";
/// Seconds that a head looks for the tail: a handshake over the slowest link, with room.
const RETRY_FOR: &str = "60";
/// Frames under way while the accuracy is measured: that has no clock to watch.
const ACCURACY_IN_FLIGHT: &str = "4";
/// Idle time before and after the runs, for the baseline of net joules.
const IDLE: Duration = Duration::from_secs(5);

/// Everything that runs while runs are had. Dropping it ends all of it.
pub struct Harness<'a> {
    bundle: PathBuf,
    pair: Pair,
    float: Option<LocalF32>,
    relays: BTreeMap<String, Relay>,
    interrupt: &'a Interrupt,
    power: Power,
    epoch: Instant,
}

/// Sensors, and the windows of the runs on their clock.
struct Power {
    sampler: Sampler,
    /// Sensors that are there and cannot be read.
    absent: Vec<String>,
    found: Vec<String>,
    idle: [Option<Window>; 2],
    windows: Vec<Window>,
}

/// Bytes on the wire, up and down.
type Wire = Option<(u64, u64)>;

/// What a head said in one run.
struct HeadOutput {
    lines: Vec<(Line, Duration)>,
    /// What the relay had carried at the first answer and at the last.
    carried: Option<(Counts, Counts)>,
}

impl<'a> Harness<'a> {
    /// Starts the tail and a relay for every link; `float` answers where the local network in f32 is asked.
    pub fn start(
        bundle: &Path,
        runtime: Option<&Path>,
        float: Option<LocalF32>,
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
        Ok(Harness {
            bundle: bundle.to_owned(),
            pair,
            float,
            relays,
            interrupt,
            power,
            epoch: Instant::now(),
        })
    }

    /// Whether the run was asked to end.
    pub fn interrupted(&self) -> bool {
        self.interrupt.seen()
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    /// Does nothing for a while where there are sensors, before the first run (0) and after the last (1).
    pub fn idle(&mut self, place: usize) -> Result<()> {
        if self.power.found.is_empty() || self.interrupted() {
            return Ok(());
        }
        let from = self.power.sampler.mark()?;
        std::thread::sleep(IDLE);
        self.power.idle[place] = Some(Window::new(from, self.power.sampler.mark()?));
        Ok(())
    }

    /// What a variant answers to every item of a set, over loopback.
    ///
    /// # Errors
    /// When one is not answered: an accuracy of less than all would be another one.
    pub fn answers(
        &mut self,
        variant: &Variant,
        set: &Dataset,
        out: &Path,
        step: impl Fn(),
    ) -> Result<Vec<Answer>> {
        if variant.group == Method::Reference {
            let answers = set.items.iter().map(|item| {
                ensure!(!self.interrupted(), "interrupted");
                let (scores, _) = self.float(&item.file)?;
                step();
                Ok(Answer { prediction: Prediction::Class(argmax(&scores)), bytes: None })
            });
            return answers.collect();
        }
        let masks = out.join("masks");
        let mut command = self.head(variant, self.pair.address());
        command.arg("--source").arg(&set.folder).args(["--tasks", &set.name]);
        command.args(["--in-flight", ACCURACY_IN_FLIGHT]);
        if set.kind == narrows_models::TaskKind::Segment {
            command.arg("--out").arg(&masks);
        }
        let mut answers: Vec<Option<Answer>> = vec![None; set.items.len()];
        let output = self.run_head(command, None, &step)?;
        for (line, _) in &output.lines {
            let place = || format!("{}: {}", variant.name, line.file.display());
            let item = set.items.iter().position(|item| item.file == line.file).with_context(place)?;
            if !answered(line, variant) {
                bail!("{}: {}", place(), line.error.as_deref().unwrap_or("answered by another path"));
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

    /// Has one run: the photos in `folder`, of which the first only warms up. `place` is the run's place among all.
    pub fn run(
        &mut self,
        due: &PlannedRun,
        variant: &Variant,
        folder: &Path,
        place: usize,
    ) -> Result<(Run, Vec<Row>)> {
        let (load, begun) = (machine::load(), self.seconds());
        let from = self.power.sampler.mark()?;
        let (rows, wire) = match variant.group {
            Method::Reference => (self.own(due, variant, folder, place)?, None),
            _ => self.sent(due, variant, folder, place)?,
        };
        self.power.windows.push(Window::new(from, self.power.sampler.mark()?));
        let run = Run {
            round: due.round,
            link: due.link.clone(),
            variant: variant.name.clone(),
            task: due.task.clone(),
            in_flight: due.in_flight,
            frames: rows.len(),
            begun,
            lasted: self.seconds() - begun,
            wire,
            load,
            mhz: machine::mhz(),
            joules: None,
        };
        Ok((run, rows))
    }

    /// The rows of a head's run, and the bytes on the wire.
    fn sent(
        &self,
        due: &PlannedRun,
        variant: &Variant,
        folder: &Path,
        place: usize,
    ) -> Result<(Vec<Row>, Wire)> {
        let relay = self.relays.get(&due.link);
        ensure!(relay.is_some() || due.link == NO_LINK, "no relay for the link {}", due.link);
        let server =
            relay.map_or_else(|| self.pair.address().to_owned(), |relay| relay.address().to_string());
        let mut command = self.head(variant, &server);
        command.arg("--source").arg(folder).args(["--tasks", &due.task]);
        command.args(["--in-flight", &due.in_flight.to_string()]);
        let output = self.run_head(command, relay, &|| ())?;
        let mut rows: Vec<Row> =
            output.lines.iter().map(|(line, at)| row(due, variant, place, line, *at)).collect();
        rows.sort_by_key(|row| row.frame);
        let wire = output.carried.map(|(first, last)| {
            (
                last.up.bytes - first.up.bytes + 28 * (last.up.datagrams - first.up.datagrams),
                last.down.bytes - first.down.bytes + 28 * (last.down.datagrams - first.down.datagrams),
            )
        });
        Ok((rows, wire))
    }

    /// The rows of a run of the local network in f32.
    fn own(&mut self, due: &PlannedRun, variant: &Variant, folder: &Path, place: usize) -> Result<Vec<Row>> {
        let list = || folder.display().to_string();
        let files = fs::read_dir(folder).with_context(list)?.map(|entry| Ok(entry?.path()));
        let mut files = files.collect::<Result<Vec<PathBuf>>>().with_context(list)?;
        files.sort();
        let started = Instant::now();
        let mut rows = Vec::new();
        for (file, frame) in files.iter().zip(0..) {
            if self.interrupted() {
                break;
            }
            let (_, [decode, resize, head]) = self.float(file)?;
            rows.push(Row {
                answered: true,
                decode: Some(decode),
                resize: Some(resize),
                head: Some(head),
                total: Some(decode + resize + head),
                at: started.elapsed().as_secs_f64() * 1e3,
                ..unanswered(due, variant, place, file, frame)
            });
        }
        Ok(rows)
    }

    /// The scores of the local network in f32, and the milliseconds of reading, fitting and running.
    fn float(&mut self, file: &Path) -> Result<(Vec<f32>, [f64; 3])> {
        let float = self.float.as_mut().context("no local network in f32")?;
        let mut last = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            1e3 * (now - std::mem::replace(&mut last, now)).as_secs_f64()
        };
        let photo = load(file)?;
        let decode = lap();
        float.fit(&photo);
        let resize = lap();
        let scores = float.scores()?;
        Ok((scores, [decode, resize, lap()]))
    }

    /// Ends everything and fills in the joules of the runs. Returns what was read, or why nothing was.
    pub fn finish(self, runs: &mut [Run]) -> Result<String> {
        drop(self.relays);
        // A Ctrl-C in a terminal has reached the tail too, and dropping the pair ends it either way.
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

    /// The head's command for a variant, without a source.
    fn head(&self, variant: &Variant, server: &str) -> std::process::Command {
        let mut command = match variant.group {
            Method::Local => {
                let mut command = narrows_pair::head();
                command.arg("run").arg("--bundle").arg(&self.bundle).stdin(Stdio::null());
                command
            }
            _ => {
                let mut command = self.pair.head_to(&self.bundle, server);
                // An answer made on the device would be another path's.
                command.args(["--fallback", "never", "--budget", BUDGET, "--retry-for", RETRY_FOR]);
                command
            }
        };
        command.args(&variant.flags);
        command
    }

    /// Runs a head to its end and notes when each line came.
    fn run_head(
        &self,
        mut command: std::process::Command,
        relay: Option<&Relay>,
        step: &dyn Fn(),
    ) -> Result<HeadOutput> {
        // What it says of refusals and failures stands in its lines.
        let mut head = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let head =
            head.as_mut().map_err(|error| anyhow::anyhow!("narrows-head cannot be started: {error}"))?;
        self.interrupt.passes_to(head.id());
        let complaints = head.stderr.take().context("the head has no messages")?;
        let complaints = std::thread::spawn(move || std::io::read_to_string(complaints).unwrap_or_default());
        let started = Instant::now();
        let (mut lines, mut carried) = (Vec::new(), None);
        for line in BufReader::new(head.stdout.take().context("the head has no output")?).lines() {
            let at = started.elapsed();
            let line: Line =
                serde_json::from_str(&line?).context("the head said something that is no line")?;
            if let Some(relay) = relay {
                let now = relay.counts();
                carried = Some((carried.map_or(now, |(first, _)| first), now));
            }
            lines.push((line, at));
            step();
        }
        let status = head.wait()?;
        self.interrupt.passes_to(0);
        let complaints = complaints.join().unwrap_or_default();
        if lines.is_empty() && !self.interrupted() {
            bail!("{command:?} ended with {status}:\n{complaints}");
        }
        Ok(HeadOutput { lines, carried })
    }
}

/// Whether a line holds an answer of the path that was asked for.
fn answered(line: &Line, variant: &Variant) -> bool {
    let path = match variant.group {
        Method::Local | Method::Reference => "local",
        Method::Jpeg | Method::Webp => "image",
        Method::Split | Method::Raw => "split",
    };
    line.status == Status::Answered && line.path.as_deref() == Some(path)
}

fn row(due: &PlannedRun, variant: &Variant, run: usize, line: &Line, at: Duration) -> Row {
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
        ..unanswered(due, variant, run, &line.file, line.frame)
    }
}

/// A frame's row before anything came of it.
fn unanswered(due: &PlannedRun, variant: &Variant, run: usize, file: &Path, frame: u64) -> Row {
    Row {
        run,
        link: due.link.clone(),
        variant: variant.name.clone(),
        task: due.task.clone(),
        in_flight: due.in_flight,
        frame,
        file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        warm_up: frame < WARM_UP as u64,
        ..Row::default()
    }
}
