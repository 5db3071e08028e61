//! `narrows-bench schedule`: a recording of `narrows-tail serve --record-arrivals`, replayed in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use narrows_scheduler::{
    Dropped, Event, NetworkLimits, Outcome, Record, Refused, SimulatedFrame, Simulation,
};
use serde::Serialize;

use crate::{
    json,
    latencies::{Latencies, Percentiles, shown},
};

/// Which recording, and what is to be different.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    narrows-tail serve … --record-arrivals arrivals.jsonl\n  \
    narrows-bench schedule --arrivals arrivals.jsonl\n  \
    narrows-bench schedule --arrivals arrivals.jsonl --workers 2 --batch 16 --json schedule.json\n\n\
    The frames arrive as they were recorded, with the quotas and priorities of then, and the server's own scheduler decides.\n\
    A run takes the median of the recorded runs of the same network, shape and size, or what the nearest size that was\n\
    recorded makes likely. A frame for several networks counts as answered when all of them have run.")]
pub struct Schedule {
    /// The recording
    #[arg(long, value_name = "FILE")]
    pub arrivals: PathBuf,
    /// Frames in one run [default: as recorded]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch: Option<u16>,
    /// Workers per network [default: as recorded]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Option<u16>,
    /// Frames that may wait for one network [default: as recorded]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub queue: Option<u32>,
    /// Milliseconds of every run, whatever was recorded
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub run_ms: Option<u64>,
    /// Write the report to this file; - prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What became of the frames of a recording.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Frames that arrived.
    pub frames: usize,
    /// Those that were answered by their deadline, or have none and were answered.
    pub in_time: usize,
    /// By device.
    pub devices: BTreeMap<String, DeviceReport>,
}

/// What became of the frames of one device.
#[derive(Debug, Default, Serialize)]
pub struct DeviceReport {
    /// Frames that arrived.
    pub frames: usize,
    /// Frames that were answered by all their networks.
    pub answered: usize,
    /// Those of them that were answered by their deadline, or have none.
    pub in_time: usize,
    /// Frames that were not admitted, by reason.
    pub refused: BTreeMap<&'static str, usize>,
    /// Frames that were dropped, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
    /// From arrival to the beginning of the last run, of answered frames.
    pub waiting_ms: Option<Percentiles>,
    /// From arrival to the end of the last run, of answered frames.
    pub answered_ms: Option<Percentiles>,
    #[serde(skip)]
    times: [Latencies; 2],
}

/// The time of a run by network, shape and size, as far as it was recorded.
type Costs = BTreeMap<(usize, usize), BTreeMap<usize, Duration>>;

/// A recording, taken apart.
struct Recording {
    networks: Vec<NetworkLimits>,
    devices: Vec<String>,
    frames: Vec<SimulatedFrame>,
    costs: Costs,
}

impl Schedule {
    /// Replays the recording, prints the outcome and writes the report.
    ///
    /// # Errors
    /// A file that is no recording, or that records no run.
    pub fn run(&self) -> Result<()> {
        let name = self.arrivals.display();
        let text = fs::read_to_string(&self.arrivals).with_context(|| format!("{name}"))?;
        let records = Record::parse(&text).with_context(|| format!("{name}"))?;
        let report = self.replay(&records).with_context(|| format!("{name}"))?;
        if self.json.as_deref().is_some_and(|path| path.as_os_str() == "-") {
            println!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(());
        }
        println!("{} frames, {} of them answered in time\n{}", report.frames, report.in_time, report.table());
        json::write(self.json.as_deref(), &report)
    }

    fn replay(&self, records: &[Record]) -> Result<Report> {
        let mut recording = Recording::new(records);
        ensure!(!recording.frames.is_empty(), "records no frame");
        for limits in &mut recording.networks {
            limits.batch = self.batch.map_or(limits.batch, usize::from);
            limits.workers = self.workers.map_or(limits.workers, usize::from);
            limits.queue = self.queue.map_or(limits.queue, |queue| queue as usize);
        }
        let fixed = self.run_ms.map(Duration::from_millis);
        let parts: BTreeSet<(usize, usize)> =
            recording.frames.iter().flat_map(|frame| frame.parts.iter().copied()).collect();
        if fixed.is_none()
            && let Some((network, shape)) = parts.iter().find(|part| !recording.costs.contains_key(part))
        {
            bail!("records no run of network {network} on frames of shape {shape}; give --run-ms");
        }
        let cost = |network, shape, batch| {
            fixed.unwrap_or_else(|| {
                recording.costs.get(&(network, shape)).map_or(Duration::ZERO, |of| nearest(of, batch))
            })
        };
        let simulation = Simulation { networks: recording.networks.clone(), cost, primed: true };
        let outcomes = simulation.run(&recording.frames);
        let mut devices: BTreeMap<String, DeviceReport> = BTreeMap::new();
        for (frame, outcomes) in recording.frames.iter().zip(&outcomes) {
            let device = devices.entry(recording.devices[frame.device].clone()).or_default();
            device.count(frame, outcomes);
        }
        devices.values_mut().for_each(DeviceReport::finish);
        let sum = |of: fn(&DeviceReport) -> usize| devices.values().map(of).sum();
        Ok(Report { frames: sum(|device| device.frames), in_time: sum(|device| device.in_time), devices })
    }
}

impl Recording {
    fn new(records: &[Record]) -> Recording {
        let mut recording = Recording {
            networks: Vec::new(),
            devices: Vec::new(),
            frames: Vec::new(),
            costs: BTreeMap::new(),
        };
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut runs: BTreeMap<(usize, usize), BTreeMap<usize, Vec<u64>>> = BTreeMap::new();
        for Record { event, .. } in records {
            if let Event::Run { network, shape, batch, took_us } = event {
                runs.entry((*network, *shape)).or_default().entry(*batch).or_default().push(*took_us);
            }
        }
        // The shape of a frame that was refused before it was known: the first one of the network.
        let usual = |network| runs.keys().find(|(of, _)| *of == network).map_or(0, |(_, shape)| *shape);
        for Record { at_us, event } in records {
            match event {
                Event::Network { batch, wait_us, queue, workers, .. } => {
                    recording.networks.push(NetworkLimits {
                        batch: *batch,
                        wait: Duration::from_micros(*wait_us),
                        queue: *queue,
                        workers: *workers,
                    })
                }
                Event::Frame { device, terms, budget_us, parts } => {
                    let number = *numbers.entry(device).or_insert_with(|| {
                        recording.devices.push(device.clone());
                        recording.devices.len() - 1
                    });
                    let at = Duration::from_micros(*at_us);
                    recording.frames.push(SimulatedFrame {
                        at,
                        device: number,
                        terms: *terms,
                        deadline: budget_us.map(|budget| at.saturating_add(Duration::from_micros(budget))),
                        parts: parts
                            .iter()
                            .map(|part| (part.network, part.shape.unwrap_or_else(|| usual(part.network))))
                            .collect(),
                    });
                }
                Event::Run { .. } => {}
            }
        }
        // Threads may write their records in another order than they took the time.
        recording.frames.sort_by_key(|frame| frame.at);
        for (part, sizes) in runs {
            let median = |mut times: Vec<u64>| {
                times.sort_unstable();
                Duration::from_micros(times[times.len() / 2])
            };
            recording
                .costs
                .insert(part, sizes.into_iter().map(|(size, times)| (size, median(times))).collect());
        }
        recording
    }
}

/// The time of a run of `batch` frames: that of the nearest size, in proportion.
fn nearest(sizes: &BTreeMap<usize, Duration>, batch: usize) -> Duration {
    let Some((size, time)) = sizes.iter().min_by_key(|(size, _)| size.abs_diff(batch)) else {
        return Duration::ZERO;
    };
    time.mul_f64(batch as f64 / *size as f64)
}

impl DeviceReport {
    fn count(&mut self, frame: &SimulatedFrame, outcomes: &[Outcome]) {
        self.frames += 1;
        let (mut began, mut ended) = (frame.at, frame.at);
        for outcome in outcomes {
            match outcome {
                Outcome::Ran { began: from, ended: to, .. } => {
                    (began, ended) = (began.max(*from), ended.max(*to));
                }
                Outcome::Refused(refused) => {
                    *self.refused.entry(cause(refused)).or_default() += 1;
                    return;
                }
                Outcome::Dropped(_, reason) => {
                    let reason = match reason {
                        Dropped::Displaced => "displaced",
                        Dropped::Hopeless => "no time left",
                        _ => "expired",
                    };
                    *self.dropped.entry(reason).or_default() += 1;
                    return;
                }
            }
        }
        self.answered += 1;
        self.in_time += usize::from(frame.deadline.is_none_or(|deadline| ended <= deadline));
        self.times[0].record(began - frame.at);
        self.times[1].record(ended - frame.at);
    }

    fn finish(&mut self) {
        let [waiting, answered] = &self.times;
        let some = |of: &Latencies| (of.len() > 0).then(|| of.percentiles());
        (self.waiting_ms, self.answered_ms) = (some(waiting), some(answered));
    }
}

fn cause(refused: &Refused) -> &'static str {
    match refused {
        Refused::TooLong { .. } => "backlog over the budget",
        Refused::FrameQuota { .. } => "quota of frames",
        Refused::TimeQuota { .. } => "quota of time",
        _ => "queue full",
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let heads =
            ["device", "frames", "answered", "in time", "refused", "dropped", "waiting, ms p50 / p90 / p99"];
        table.set_header(heads);
        for (name, device) in &self.devices {
            let list = |counts: &BTreeMap<&str, usize>| {
                let counts = counts.iter().map(|(name, number)| format!("{number} × {name}"));
                counts.collect::<Vec<_>>().join(", ")
            };
            let ms = |of: Percentiles| [of.p50, of.p90, of.p99].map(shown).join(" / ");
            table.add_row([
                name.clone(),
                device.frames.to_string(),
                device.answered.to_string(),
                device.in_time.to_string(),
                list(&device.refused),
                list(&device.dropped),
                device.waiting_ms.map(ms).unwrap_or_default(),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        schedule: Schedule,
    }

    fn replay(more: &[&str], records: &str) -> Result<Report> {
        let schedule = Cli::parse_from([&["test", "--arrivals", "unread"], more].concat()).schedule;
        schedule.replay(&Record::parse(records)?)
    }

    #[test]
    fn a_recording_is_replayed_with_the_times_of_its_runs() {
        let mut text = String::from(
            "{\"at_us\":0,\"network\":{\"name\":\"n\",\"batch\":2,\"wait_us\":0,\"queue\":8,\"workers\":1}}\n\
             {\"at_us\":9,\"run\":{\"network\":0,\"shape\":1,\"batch\":1,\"took_us\":10000}}\n",
        );
        for at in 0..10 {
            text += &format!(
                "{{\"at_us\":{},\"frame\":{{\"device\":\"d{}\",\"budget_us\":25000,\"parts\":[{{\"network\":0}}]}}}}\n",
                at * 12_000,
                at % 2
            );
        }
        let report = replay(&[], &text).unwrap();
        assert_eq!((report.frames, report.in_time, report.devices.len()), (10, 10, 2));
        let slow = replay(&["--run-ms", "20"], &text).unwrap();
        assert!(slow.in_time < 10, "{slow:?}");
        assert_eq!(replay(&["--run-ms", "20", "--workers", "2"], &text).unwrap().in_time, 10);
        let without: String =
            text.lines().filter(|line| !line.contains("run")).map(|line| format!("{line}\n")).collect();
        assert!(replay(&[], &without).unwrap_err().to_string().contains("--run-ms"));
    }
}
