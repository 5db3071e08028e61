//! The figures of each link, variant and task, computed from rows and runs.

use std::collections::{BTreeMap, BTreeSet};

use narrows_eval::stats::{bootstrap, mean, quantile};
use narrows_netsim::{Ideal, Link};

use super::report::{Cell, Energy, Floor, Percentiles, Pipelined, Row, Run, STAGES};

/// Rounds below which a median has no interval.
pub const ROUNDS_FOR_INTERVAL: usize = 5;
/// Frames below which there is no 95th percentile: with fewer it is the slowest frame.
pub const FRAMES_FOR_P95: usize = 20;
/// Frames below which there is no 99th percentile: with fewer it rests on less than ten frames.
pub const FRAMES_FOR_P99: usize = 1000;

/// What cells are computed from.
pub struct Measured<'a> {
    /// Every frame.
    pub rows: &'a [Row],
    /// The runs that sent them.
    pub runs: &'a [Run],
    /// The links that the rows name.
    pub links: &'a [Link],
    /// The sensor that gave the runs' joules, or why none did.
    pub energy: &'a str,
    /// Seed of the bootstraps.
    pub seed: u64,
}

/// A cell for each link, variant and task that has rows, in the order of their first rows.
#[must_use]
pub fn cells(measured: &Measured<'_>) -> Vec<Cell> {
    let mut keys: Vec<(&str, &str, &str)> = Vec::new();
    for row in measured.rows {
        let key = (row.link.as_str(), row.variant.as_str(), row.task.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| cell(measured, key)).collect()
}

fn cell(measured: &Measured<'_>, key: (&str, &str, &str)) -> Cell {
    let (link, variant, task) = key;
    let all: Vec<&Row> = measured.rows.iter().filter(|row| row.is_of(key)).collect();
    let counted = || all.iter().copied().filter(|row| !row.warm_up);
    let single: Vec<&Row> = counted().filter(|row| row.in_flight == 1 && row.answered).collect();
    // Request and wire are means of the same frames, so that the difference is what the transport adds.
    let on_wire: Vec<&Row> = single.iter().copied().filter(|row| row.wire_up.is_some()).collect();
    let sized = if on_wire.is_empty() { &single } else { &on_wire };
    let total = column(&single, |row| row.total);
    let stages = STAGES.iter().enumerate().filter_map(|(index, name)| {
        let samples = column(&single, |row| row.stages()[index]);
        (!samples.is_empty()).then(|| ((*name).to_owned(), percentiles(&samples)))
    });
    let request = mean_of(sized, |row| row.sent).zip(mean_of(sized, |row| row.received));
    let link_of = measured.links.iter().find(|other| other.name == link);
    Cell {
        link: link.into(),
        variant: variant.into(),
        task: task.into(),
        frames: single.len(),
        rounds: single.iter().map(|row| row.round).collect::<BTreeSet<_>>().len(),
        failed: counted().filter(|row| !row.answered).count(),
        total: percentiles(&total),
        p50_interval: interval(&single, measured.seed),
        stages: stages.collect(),
        packet: mean_of(&single, |row| row.packet),
        request,
        wire: mean_of(&on_wire, |row| row.wire_up).zip(mean_of(&on_wire, |row| row.wire_down)),
        pipelined: pipelined(&all),
        energy: energy(measured, key),
        floor: link_of.zip(request).map(|(link, request)| floor(link, request, &single)),
    }
}

fn column<T>(rows: &[&Row], value: impl Fn(&Row) -> Option<T>) -> Vec<T> {
    rows.iter().filter_map(|row| value(row)).collect()
}

fn mean_of<T: TryInto<u32>>(rows: &[&Row], bytes: impl Fn(&Row) -> Option<T>) -> Option<f64> {
    let bytes = column(rows, |row| bytes(row)?.try_into().ok().map(f64::from));
    (!bytes.is_empty()).then(|| mean(&bytes))
}

fn percentiles(samples: &[f64]) -> Percentiles {
    let at = |q, least| (samples.len() >= least).then(|| quantile(samples, q));
    Percentiles { p50: quantile(samples, 0.5), p95: at(0.95, FRAMES_FOR_P95), p99: at(0.99, FRAMES_FOR_P99) }
}

/// The 95 % interval of the median. Frames of one round share what the machine did meanwhile, so whole rounds are drawn.
fn interval(rows: &[&Row], seed: u64) -> Option<(f64, f64)> {
    let mut rounds = BTreeMap::<usize, Vec<f64>>::new();
    for row in rows {
        rounds.entry(row.round).or_default().extend(row.total);
    }
    let rounds: Vec<Vec<f64>> = rounds.into_values().collect();
    (rounds.len() >= ROUNDS_FOR_INTERVAL).then(|| {
        bootstrap(rounds.len(), seed, |drawn| {
            let samples: Vec<f64> = drawn.iter().flat_map(|&round| rounds[round].iter().copied()).collect();
            quantile(&samples, 0.5)
        })
    })
}

fn floor(link: &Link, (up, down): (f64, f64), rows: &[&Row]) -> Floor {
    let ms = |time: std::time::Duration| 1e3 * time.as_secs_f64();
    let ideal = Ideal::of(link, up.ceil() as usize, down.ceil() as usize);
    let computing = rows.iter().map(|row| {
        let stages = STAGES.iter().zip(row.stages());
        stages.filter(|(name, _)| **name != "network").filter_map(|(_, ms)| ms).sum()
    });
    Floor {
        stages: quantile(&computing.collect::<Vec<_>>(), 0.5),
        bytes: ms(ideal.up + ideal.down),
        rtt: ms(ideal.round_trip),
    }
}

/// Answers per second: the answers of each run over the time from the start of its first frame to its last answer.
fn pipelined(rows: &[&Row]) -> Option<Pipelined> {
    let mut runs = BTreeMap::<usize, (usize, f64, f64)>::new();
    for row in rows.iter().filter(|row| row.in_flight > 1) {
        let Some(total) = row.total else { continue };
        let (frames, from, to) = runs.entry(row.run).or_insert((0, f64::MAX, 0.0));
        (*frames, *from, *to) = (*frames + 1, from.min(row.at - total), to.max(row.at));
    }
    let frames = runs.values().map(|(frames, ..)| frames).sum();
    let ms: f64 = runs.values().map(|(_, from, to)| to - from).sum();
    let in_flight = rows.iter().map(|row| row.in_flight).max()?;
    (frames > 0 && ms > 0.0).then(|| Pipelined { in_flight, frames, rate: 1e3 * frames as f64 / ms })
}

fn energy(measured: &Measured<'_>, (link, variant, task): (&str, &str, &str)) -> Energy {
    let (mut frames, mut gross, mut net) = (0, 0.0, 0.0);
    for run in measured.runs.iter().filter(|run| run.in_flight == 1) {
        if run.link == link && run.variant == variant && run.task == task {
            let Some((run_gross, run_net)) = run.joules else { continue };
            (frames, gross, net) = (frames + run.frames, gross + run_gross, net + run_net);
        }
    }
    let (source, per_frame) = (measured.energy.to_owned(), |joules: f64| joules / frames as f64);
    match frames {
        0 => Energy::Unknown { why: source, radio: None },
        _ => Energy::Measured { gross: per_frame(gross), net: per_frame(net), source, radio: None },
    }
}

#[cfg(test)]
mod tests {
    use narrows_netsim::Ladder;

    use super::*;
    use crate::compare::fixture;

    fn all(rows: &[Row], runs: &[Run]) -> Vec<Cell> {
        cells(&Measured { rows, runs, links: &Ladder::shipped().links, energy: "sensor", seed: 1 })
    }

    #[test]
    fn percentiles_leave_out_warm_up_failures_and_pipelined_frames() {
        let mut rows: Vec<Row> =
            (0..23).map(|i| fixture::row("lte", "split 1", i, 100.0 + i as f64)).collect();
        rows[0].warm_up = true;
        rows[22].answered = false;
        rows[21].in_flight = 4;
        let cells = all(&rows, &[]);
        assert_eq!(cells.len(), 1);
        let cell = &cells[0];
        assert_eq!((cell.frames, cell.failed), (20, 1));
        // 101 to 120.
        assert_eq!((cell.total.p50, cell.total.p95, cell.total.p99), (110.0, Some(119.0), None));
        assert_eq!(cell.packet, Some(6000.0));
        assert_eq!(cell.energy, Energy::Unknown { why: "sensor".into(), radio: None });
    }

    #[test]
    fn small_samples_have_no_interval_and_no_percentiles_but_the_median() {
        let row = |round: usize, frame: u64| Row {
            round,
            ..fixture::row("lte", "split 1", frame, 100.0 + (round + frame as usize) as f64)
        };
        let rows = |rounds: usize, frames: u64| -> Vec<Row> {
            (0..rounds).flat_map(|round| (0..frames).map(move |frame| row(round, frame))).collect()
        };
        let cell = |rounds, frames| all(&rows(rounds, frames), &[]).remove(0);
        let few = cell(4, 4);
        assert_eq!((few.rounds, few.p50_interval, few.total.p95, few.total.p99), (4, None, None, None));
        let enough = cell(5, 200);
        let (low, high) = enough.p50_interval.unwrap();
        assert!(low <= enough.total.p50 && enough.total.p50 <= high && low < high, "{low} {high}");
        assert!(enough.total.p99.is_some());
        assert!(cell(5, 199).total.p99.is_none());
    }

    #[test]
    fn the_floor_is_stages_and_bytes_and_one_round_trip() {
        let floor = all(&[fixture::row("lte", "split 1", 1, 100.0)], &[])[0].floor.unwrap();
        // 6,060 bytes in five datagrams up at 6 Mbit/s, 310 in one down at 13 Mbit/s, each with 61 bytes of headers.
        let bytes = (6060.0 + 5.0 * 61.0) * 8e3 / 6e6 + 371.0 * 8e3 / 13e6;
        assert!((floor.bytes - bytes).abs() < 1e-6, "{floor:?}");
        assert_eq!((floor.stages, floor.rtt), (20.0, 50.0));
        assert!((floor.sum() - 70.0 - bytes).abs() < 1e-6);
    }

    #[test]
    fn throughput_is_answers_over_the_time_from_the_first_frames_beginning() {
        // The first frame, which warms up, begins at 150 ms; five answers until 900 ms.
        let rows: Vec<Row> = (0..5)
            .map(|i| Row {
                in_flight: 4,
                warm_up: i == 0,
                at: 500.0 + 100.0 * i as f64,
                ..fixture::row("lte", "x", i, 350.0)
            })
            .collect();
        let cells = all(&rows, &[]);
        let pipelined = cells[0].pipelined.unwrap();
        assert_eq!((pipelined.in_flight, pipelined.frames), (4, 5));
        assert!((pipelined.rate - 5.0 / 0.75).abs() < 1e-9, "{pipelined:?}");
        assert_eq!(cells[0].frames, 0);
        assert_eq!(cells[0].floor, None);
    }

    #[test]
    fn request_and_wire_are_means_of_the_same_frames() {
        let rows: Vec<Row> = (0..5)
            .map(|i| Row {
                warm_up: i < 2,
                // Warm-up frames are larger, and the last run's reading of the relay was not usable.
                sent: Some(if i < 2 { 9000 } else { 6060 + i as usize }),
                wire_up: (i < 4).then_some(6500 + i),
                wire_down: (i < 4).then_some(600),
                ..fixture::row("lte", "split 1", i, 100.0)
            })
            .collect();
        let cell = &all(&rows, &[])[0];
        assert_eq!(cell.request, Some((6062.5, 310.0)));
        assert_eq!(cell.wire, Some((6502.5, 600.0)));
        assert_eq!(cell.frames, 3);
    }

    #[test]
    fn joules_are_per_frame_of_their_runs() {
        let rows: Vec<Row> = (0..5).map(|i| fixture::row("lte", "split 1", i, 100.0)).collect();
        let mut run = fixture::run("lte", "split 1", 5);
        run.joules = Some((10.0, 2.5));
        assert_eq!(
            all(&rows, &[run])[0].energy,
            Energy::Measured { gross: 2.0, net: 0.5, source: "sensor".into(), radio: None }
        );
    }

    #[test]
    fn nothing_measured_is_no_cell() {
        assert!(all(&[], &[]).is_empty());
    }
}
