//! The real head and tail over a recorded link.
#![expect(clippy::disallowed_methods, reason = "frames are captured in real time")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_codec::{Choice, Encoder, GeometryId, LevelId, Mode, Tables, prefixes};
use narrows_head::{Head, load, report::Line};
use narrows_models::{Bundle, Parts};
use narrows_netsim::{Rate, Relay, Shape, Trace};
use narrows_pair::Pair;
use narrows_policy::Ladder;

use super::{ladder, scene::Scene};

/// How long the head may take to connect before the first frame is captured.
const BEFORE: Duration = Duration::from_secs(3);

/// How long the head may take to end after its last frame.
const AFTER: Duration = Duration::from_secs(10);

/// The frames of a run: photos in turn.
pub(super) struct Frames {
    /// JPEG files.
    files: Vec<Vec<u8>>,
    /// What they cost and are worth, on average.
    pub(super) ladder: Ladder,
}

/// What the pair did with the frames of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PairOutcome {
    /// From the relay's start to the first capture.
    pub(super) begin: Duration,
    /// Sum of the values of the answers that came in time.
    pub(super) value: f64,
    /// Answers that came in time.
    pub(super) answered: u64,
    /// Those of them that are not from a whole packet.
    pub(super) cut: u64,
    /// Mean time of a frame in the head before it could be sent, and in the tail.
    pub(super) stages: Duration,
}

impl Frames {
    /// The JPEG files of a folder, for one task of a bundle.
    ///
    /// # Errors
    /// When the bundle has no such task or does not say what its levels are worth, or without a photo.
    pub(super) fn open(folder: &Path, bundle: &Path, task: &str) -> Result<Self> {
        let task = ladder::task(bundle, task)?;
        let bundle = Bundle::open(bundle, Parts::Head)?;
        let geometry = GeometryId(u8::try_from(task.geometry)?);
        let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
        let mut head = Head::open(bundle)?;
        let mut encoder = Encoder::new().truncatable(true);
        let (mut files, mut sums) = (Vec::new(), vec![Vec::<u64>::new(); task.ladder.len()]);
        let mut names: Vec<_> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        names.retain(|name| name.extension().is_some_and(|extension| extension == "jpg"));
        names.sort();
        for name in names {
            let image = load(&name)?;
            for (level, sums) in sums.iter_mut().enumerate() {
                let level = LevelId(u8::try_from(level)?);
                let feature = head.encode_image(&image, geometry, level)?.feature;
                let mut packet = Vec::new();
                let choice = Choice::Only(Mode::Context);
                encoder.encode(&tables, geometry, level, choice, &feature, &mut packet)?;
                let ends: Vec<usize> = prefixes(&packet)?.collect();
                sums.resize(ends.len(), 0);
                sums.iter_mut().zip(ends).for_each(|(sum, end)| *sum += end as u64);
            }
            files.push(fs::read(&name)?);
        }
        ensure!(!files.is_empty(), "no .jpg in {}", folder.display());
        let mean = |sum: &u64| u32::try_from(sum / files.len() as u64).unwrap_or(u32::MAX);
        let ladder = ladder::with_sizes(&task, |level| sums[level].iter().map(mean).collect())?;
        Ok(Frames { ladder, files })
    }

    /// Sends frames from a head to the tail of `pair` over a link, in real time.
    ///
    /// # Errors
    /// When the head does not start, or does not end by itself.
    pub(super) fn run(
        &self,
        pair: &Pair,
        bundle: &Path,
        task: &str,
        trace: &Trace,
        scene: &Scene,
    ) -> Result<PairOutcome> {
        let up = Shape {
            rate: Some(Rate::Recorded(Arc::new(trace.clone()))),
            delay: scene.one_way,
            ..Shape::default()
        };
        let down = Shape { delay: scene.one_way, ..Shape::default() };
        let started = Instant::now();
        let relay = Relay::with_shapes(up, down, pair.address().parse()?, 1)?;
        let budget = scene.budget.as_millis().to_string();
        let mut command = pair.head_to(bundle, &relay.address().to_string());
        command
            .args(["--tasks", task, "--level", "auto", "--for", "latency", "--fallback", "never"])
            .args(["--budget", &budget, "--in-flight", "8", "--source", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut head = command.spawn().context("narrows-head cannot be started")?;
        let camera = head.stdin.take().context("no pipe to the head")?;
        let lines = head.stdout.take().context("no pipe from the head")?;
        let begin = started + BEFORE;
        let outcome = thread::scope(|scope| {
            scope.spawn(|| self.capture(camera, begin, scene));
            self.count(BufReader::new(lines), scene.budget)
        })?;
        let ended = Instant::now();
        while head.try_wait()?.is_none() {
            if ended.elapsed() > AFTER {
                head.kill()?;
                bail!("narrows-head did not end after its last frame");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(PairOutcome { begin: BEFORE, ..outcome })
    }

    /// Writes the frames as a camera does that writes JPEG pictures one after the other.
    fn capture(&self, mut camera: ChildStdin, begin: Instant, scene: &Scene) {
        for frame in 0..scene.frames {
            let at = begin + scene.interval * u32::try_from(frame).unwrap_or(u32::MAX);
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let file = &self.files[frame as usize % self.files.len()];
            // A head that has ended shows in its lines.
            if camera.write_all(file).and_then(|()| camera.flush()).is_err() {
                return;
            }
        }
    }

    /// Adds up the answers that came in time.
    fn count(&self, lines: impl BufRead, budget: Duration) -> Result<PairOutcome> {
        let (mut outcome, mut stages) = (PairOutcome::default(), 0.0);
        for line in lines.lines() {
            let line: Line = serde_json::from_str(&line?)?;
            let (Some(ms), Some(level), Some(groups)) = (line.ms, line.level, line.groups) else { continue };
            let rung = self.ladder.rungs().iter().find(|rung| usize::from(rung.level()) == level);
            let cut = rung.and_then(|rung| rung.cut_points().get(usize::from(groups.used).checked_sub(1)?));
            let Some(cut) = cut.filter(|_| ms.total <= 1e3 * budget.as_secs_f64()) else { continue };
            outcome.answered += 1;
            outcome.cut += u64::from(groups.used < groups.total);
            outcome.value += cut.value;
            stages += ms.decode + ms.resize + ms.head + ms.encode;
            stages += ms.tail_queue + ms.tail_decode + ms.tail_infer + ms.tail_answer;
        }
        if outcome.answered > 0 {
            outcome.stages = Duration::from_secs_f64(stages / outcome.answered as f64 / 1e3);
        }
        Ok(outcome)
    }
}
