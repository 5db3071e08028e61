//! `narrows-bench policy`: rate control over recorded links, compared with the most that any sender could earn.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_netsim::Trace;
use narrows_pair::Pair;
use narrows_policy::{EnergyModel, Ladder, Waiting};

use self::{
    pair::Frames,
    report::{Figures, PairFigures, Report, Run},
    scene::Scene,
    simulate::{Outcome, Sender},
};
use crate::json;

mod chart;
mod ladder;
mod optimum;
mod pair;
mod replay;
mod report;
mod scene;
mod simulate;

/// Stream bytes in a packet of a trace.
const PACKET_BYTES: u32 = 1300;

/// Which links, and which frames are sent over them.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench policy --trace traces/ --budget-ms 200,300,1000 --json policy.json\n\n\
    A trace has one column of milliseconds at which a packet of 1,500 bytes may leave (mahimahi), or two of seconds and \
    Mbit/s.\n\nEverything is simulated in virtual time: the same files give the same figures. The optimum knows the link's \
    future and has no congestion control; the senders hear of a delivery one round trip later.\n\n\
    Columns: `optimum` is the best mean value of a frame. `newest` and `all` are what rate control earns of it with \
    the newest or with all frames waiting; `answered`, `cut`, the round trips and `J` belong to `newest`. `energy` is what \
    it earns where answers are to cost little energy, with the joules of an answer behind it. `level 1` sends every frame \
    at that level, the newest first.\n\n\
    A bug report on rate control is complete with what a head recorded with --decisions:\n  narrows-bench policy --replay \
    decisions.jsonl.1 decisions.jsonl"
)]
pub struct Policy {
    /// A trace, or a folder of traces
    #[arg(long, value_name = "PATH", required_unless_present = "replay", num_args = 1..)]
    pub trace: Vec<PathBuf>,
    /// Decide again on what heads recorded with --decisions, oldest file first, and say where this policy differs
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["trace", "pair", "json", "chart"])]
    pub replay: Vec<PathBuf>,
    /// Budgets of a frame from its capture to its answer, in milliseconds
    #[arg(long, value_name = "MS,…", value_delimiter = ',', default_values_t = [200, 300, 600, 1000],
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub budget_ms: Vec<u64>,
    /// Frames per second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=240))]
    pub fps: u32,
    /// Delay of an empty link in each direction, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub one_way_ms: u64,
    /// Time from a frame's last byte at the server to its reply, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub server_ms: u64,
    /// Use at most this much of each trace
    #[arg(long, value_name = "S", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seconds: u64,
    /// The bundle whose rate levels are sent
    #[arg(long, value_name = "DIR", default_value = "models/bundles/lite2")]
    pub bundle: PathBuf,
    /// Time that a device computes on a frame before it is sent, in milliseconds; for the joules alone
    #[arg(long, value_name = "MS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub computing_ms: u64,
    /// What computing and sending cost: watts of computing, joules of a byte, watts of sending
    #[arg(long, value_name = "W,J,W", value_delimiter = ',', num_args = 3, default_values_t = [4.0, 2.265e-6, 0.133])]
    pub energy: Vec<f64>,
    /// The task whose answers are counted; the bundle says what they are worth
    #[arg(long, value_name = "TASK", default_value = "segment")]
    pub task: String,
    /// Also send frames from the real head to the real tail over the links, in real time
    #[arg(long)]
    pub pair: bool,
    /// With --pair: a folder of JPEG files, which are captured in turn
    #[arg(long, value_name = "DIR", default_value = "bench/photos/road", requires = "pair")]
    pub photos: PathBuf,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a chart of it to this file, as a Vega-Lite specification with its data
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,
}

impl Policy {
    /// Simulates, prints a table and writes the report.
    ///
    /// # Errors
    /// If a trace, a record or the ladder cannot be read, or is of another form, and where a decision differs from the recorded one.
    pub fn run(&self) -> Result<()> {
        if !self.replay.is_empty() {
            return replay::replay(&self.replay);
        }
        let ladder = ladder::stated(&ladder::task(&self.bundle, &self.task)?)?;
        let real = self.pair.then(|| Real::start(self)).transpose()?;
        let mut runs = Vec::new();
        for file in traces(&self.trace)? {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let trace = Trace::parse(&text).with_context(|| file.display().to_string())?;
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
            for &budget in &self.budget_ms {
                let run = match &real {
                    Some(real) => self.measure_pair(&name, &trace, budget, real)?,
                    None => self.measure(&name, &trace, &ladder, self.scene(&trace, budget)),
                };
                runs.push(run);
            }
        }
        let report = Report { runs };
        println!("{}", report.table());
        json::write(self.chart.as_deref(), &chart::chart(&report))?;
        json::write(self.json.as_deref(), &report)
    }

    fn scene(&self, trace: &Trace, budget_ms: u64) -> Scene {
        let interval = Duration::from_secs(1) / self.fps;
        let length = trace.period().min(Duration::from_secs(self.seconds));
        Scene {
            frames: (length.as_nanos() / interval.as_nanos()).max(1) as u64,
            begin: Duration::ZERO,
            interval,
            budget: Duration::from_millis(budget_ms),
            one_way: Duration::from_millis(self.one_way_ms),
            server: Duration::from_millis(self.server_ms),
            packet_bytes: PACKET_BYTES,
            computing: Duration::from_millis(self.computing_ms),
            energy: EnergyModel {
                computing: self.energy[0],
                per_byte: self.energy[1],
                sending: self.energy[2],
            },
        }
    }

    /// Runs the pair, and then optimum and simulation for the same captures with the time that the pair's stages took.
    fn measure_pair(&self, name: &str, trace: &Trace, budget_ms: u64, real: &Real) -> Result<Run> {
        let scene = self.scene(trace, budget_ms);
        let outcome = real.frames.run(&real.pair, &self.bundle, &self.task, trace, &scene)?;
        let scene = Scene { begin: outcome.begin, server: outcome.stages, ..scene };
        let run = self.measure(name, trace, &real.frames.ladder, scene);
        let share = |count: u64| count as f64 / scene.frames as f64;
        let pair = PairFigures {
            percent: 100.0 * outcome.value / (run.optimum * scene.frames as f64),
            answered: share(outcome.answered),
            cut: share(outcome.cut),
            stages_ms: 1e3 * outcome.stages.as_secs_f64(),
        };
        Ok(Run { pair: Some(pair), ..run })
    }

    fn measure(&self, name: &str, trace: &Trace, ladder: &Ladder, scene: Scene) -> Run {
        let optimum = optimum::optimum(trace, ladder, &scene);
        let figures =
            |sender| Figures::new(&simulate::simulate(trace, ladder, &scene, sender), optimum, &scene);
        Run {
            trace: name.to_owned(),
            mbit: trace.mean_rate() / 1e6,
            budget_ms: scene.budget.as_millis() as u64,
            frames: scene.frames,
            optimum: optimum / scene.frames as f64,
            newest: figures(Sender::Auto(Waiting::Newest)),
            all: figures(Sender::Auto(Waiting::All)),
            saving: figures(Sender::Saving),
            fixed: figures(Sender::Fixed(1.min(ladder.rungs().len() - 1))),
            pair: None,
        }
    }
}

/// The real head and tail.
struct Real {
    pair: Pair,
    frames: Frames,
}

impl Real {
    fn start(policy: &Policy) -> Result<Self> {
        let frames = Frames::open(&policy.photos, &policy.bundle, &policy.task)?;
        Ok(Real { frames, pair: Pair::start(&policy.bundle, &[])? })
    }
}

impl Figures {
    fn new(outcome: &Outcome, optimum: f64, scene: &Scene) -> Self {
        let percentile = |share: f64| {
            let last = outcome.rtts.len().saturating_sub(1);
            outcome.rtts.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
        };
        let share = |frames: u64| frames as f64 / scene.frames as f64;
        Figures {
            percent: if optimum > 0.0 { 100.0 * outcome.value / optimum } else { 100.0 },
            answered: share(outcome.answered),
            cut: share(outcome.cut),
            rtt_ms_p50: percentile(0.5),
            rtt_ms_p95: percentile(0.95),
            joules: outcome.joules / outcome.answered.max(1) as f64,
        }
    }
}

/// The files of `paths` and of the folders among them, by name; a folder's README is no trace.
fn traces(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        let entries: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()
            .with_context(|| path.display().to_string())?;
        let readme = |file: &Path| file.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("readme"));
        files.extend(entries.into_iter().filter(|file| file.is_file() && !readme(file)));
    }
    files.sort();
    ensure!(!files.is_empty(), "--trace: no file in {}", paths[0].display());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Ladder {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        ladder::stated(&ladder::task(folder.as_ref(), "segment").unwrap()).unwrap()
    }

    #[test]
    fn every_task_of_the_shipped_bundle_has_a_ladder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        for name in ["classify", "segment"] {
            let ladder = ladder::stated(&ladder::task(folder.as_ref(), name).unwrap()).unwrap();
            assert_eq!(ladder.rungs().len(), 6);
            assert!(ladder.rungs().is_sorted_by(|finer, coarser| finer.bytes() > coarser.bytes()));
        }
        let error = ladder::task(folder.as_ref(), "depth").unwrap_err().to_string();
        assert!(error.contains("no task \"depth\""), "{error}");
    }

    #[test]
    fn no_sender_earns_more_than_the_optimum() {
        let ladder = shipped();
        let mut random = fastrand::Rng::with_seed(3);
        for mean in [15, 60, 100].repeat(8) {
            let (mut at, mut lines) = (0, String::new());
            while at < 10_000 {
                at += if random.u32(0..50) == 0 { random.u64(0..1500) } else { random.u64(0..2 * mean) };
                lines += &format!("{at}\n");
            }
            let trace = Trace::parse(&lines).unwrap();
            let best = optimum::optimum(&trace, &ladder, &Scene::example());
            let senders = [Waiting::Newest, Waiting::All].map(Sender::Auto);
            for sender in senders.into_iter().chain([Sender::Saving, Sender::Fixed(1)]) {
                let outcome = simulate::simulate(&trace, &ladder, &Scene::example(), sender);
                assert!(outcome.value <= best + 1e-9, "{sender:?}: {} of {best}", outcome.value);
            }
            // A link of packets each 60 ms with pauses of a second and more is close to what nobody can foresee.
            let auto = simulate::simulate(&trace, &ladder, &Scene::example(), Sender::Auto(Waiting::All));
            assert!(mean > 15 || auto.value > 0.6 * best, "{} of {best}", auto.value);
        }
    }

    #[test]
    fn saving_energy_costs_value_and_saves_joules_of_each_answer() {
        let ladder = shipped();
        // Packets each 4 ms are 2.6 Mbit/s: enough for fine levels.
        let text: Vec<String> = (0..2500).map(|packet| (4 * packet).to_string()).collect();
        let trace = Trace::parse(&text.join("\n")).unwrap();
        let run = |scene: &Scene, sender| simulate::simulate(&trace, &ladder, scene, sender);
        let joules = |outcome: &Outcome| outcome.joules / outcome.answered as f64;
        // The more a byte costs, the more is saved and the less an answer is worth.
        let mut before = f64::INFINITY;
        for per_byte in [0.0, 2.265e-6, 2e-5, 1e-3] {
            let energy = EnergyModel { per_byte, ..Scene::example().energy };
            let scene = Scene { energy, ..Scene::example() };
            let newest = run(&scene, Sender::Auto(Waiting::Newest));
            let saving = run(&scene, Sender::Saving);
            assert!(joules(&saving) <= joules(&newest) + 1e-9, "{per_byte}");
            assert!(saving.value <= before + 1e-9 && saving.answered >= newest.answered - 2, "{per_byte}");
            before = saving.value;
        }
        assert!(before < 0.95 * run(&Scene::example(), Sender::Auto(Waiting::Newest)).value);
    }
}
