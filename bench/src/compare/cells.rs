//! From rows and runs to cells.

use std::collections::BTreeMap;

use narrows_eval::stats::{bootstrap, mean, quantile};

use super::report::{Cell, Energy, Floor, LinkSummary, NO_LINK, Percentiles, Pipelined, Row, Run, STAGES};

/// Milliseconds that a frame's bytes take on a link, beside one round trip.
pub type Serialisation<'a> = &'a dyn Fn(&LinkSummary, f64, f64) -> f64;

/// What the cells are made from.
pub struct Measured<'a> {
    /// One per frame.
    pub rows: &'a [Row],
    /// One per head that was started.
    pub runs: &'a [Run],
    /// The links that the rows name.
    pub links: &'a [LinkSummary],
    /// What read the joules of the runs, or why nothing did.
    pub energy: &'a str,
    /// For the intervals.
    pub seed: u64,
}

/// A cell for each link, variant and task that has rows, in the order of their first rows.
pub fn cells(measured: &Measured<'_>, serialisation: Serialisation<'_>) -> Vec<Cell> {
    let mut keys: Vec<(&str, &str, &str)> = Vec::new();
    for row in measured.rows {
        let key = (row.link.as_str(), row.variant.as_str(), row.task.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| cell(measured, key, serialisation)).collect()
}

fn cell(measured: &Measured<'_>, key: (&str, &str, &str), serialisation: Serialisation<'_>) -> Cell {
    let (link, variant, task) = key;
    let of = |row: &&Row| (row.link.as_str(), row.variant.as_str(), row.task.as_str()) == key;
    let all: Vec<&Row> = measured.rows.iter().filter(of).collect();
    let rows: Vec<&Row> = all.iter().copied().filter(|row| !row.warm_up).collect();
    let single: Vec<&Row> = rows.iter().copied().filter(|row| row.in_flight == 1 && row.answered).collect();
    let column = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<f64> {
        single.iter().filter_map(|row| value(row)).collect()
    };
    let total = column(&|row| row.total);
    let stages: Vec<Vec<f64>> = (0..STAGES.len()).map(|i| column(&|row| row.stages()[i])).collect();
    let sizes = |value: &dyn Fn(&Row) -> Option<usize>| {
        let sizes = column(&|row| value(row).map(|bytes| bytes as f64));
        (!sizes.is_empty()).then(|| mean(&sizes))
    };
    let request = sizes(&|row| row.sent).zip(sizes(&|row| row.received));
    let p50 = quantile(&total, 0.5);
    let runs: Vec<(usize, &Run)> = (0..)
        .zip(measured.runs)
        .filter(|(_, run)| (run.link.as_str(), run.variant.as_str(), run.task.as_str()) == key)
        .collect();
    let rung = measured.links.iter().find(|rung| rung.name == link && link != NO_LINK);
    let floor = rung.zip(request).filter(|_| !total.is_empty()).map(|(rung, (up, down))| {
        let network = STAGES.iter().position(|stage| *stage == "network");
        let work = single.iter().map(|row| {
            let stages = row.stages().into_iter().enumerate();
            stages.filter(|(stage, _)| Some(*stage) != network).filter_map(|(_, ms)| ms).sum()
        });
        let work: Vec<f64> = work.collect();
        let mut floor = Floor {
            stages: quantile(&work, 0.5),
            bytes: serialisation(rung, up, down),
            rtt: rung.rtt_ms,
            holds: false,
        };
        floor.holds = p50 <= floor.bound();
        floor
    });
    Cell {
        link: link.into(),
        variant: variant.into(),
        task: task.into(),
        frames: single.len(),
        failed: rows.iter().filter(|row| !row.answered).count(),
        total: percentiles(&total),
        p50_interval: interval(&single, measured.seed),
        stages: STAGES
            .iter()
            .zip(&stages)
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(name, samples)| ((*name).to_owned(), percentiles(samples)))
            .collect::<BTreeMap<_, _>>(),
        packet: sizes(&|row| row.packet),
        request,
        wire: wire(&runs, measured.rows),
        pipelined: pipelined(&all),
        energy: energy(measured, &runs),
        floor,
    }
}

fn percentiles(samples: &[f64]) -> Percentiles {
    let at = |q| quantile(samples, q);
    Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

/// Frames of one run share what the machine did meanwhile, so that whole runs are drawn.
fn interval(rows: &[&Row], seed: u64) -> (f64, f64) {
    let mut runs = BTreeMap::<usize, Vec<f64>>::new();
    for row in rows {
        runs.entry(row.run).or_default().extend(row.total);
    }
    let runs: Vec<Vec<f64>> = runs.into_values().collect();
    bootstrap(runs.len(), seed, |drawn| {
        let samples: Vec<f64> = drawn.iter().flat_map(|&run| runs[run].iter().copied()).collect();
        quantile(&samples, 0.5)
    })
}

/// Answers per second: the answers of each run over the time from the beginning of its first frame to the last answer.
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

/// Bytes per frame on the wire. Only frames behind the first answer count: the handshake is not theirs.
fn wire(runs: &[(usize, &Run)], rows: &[Row]) -> Option<(f64, f64)> {
    let (mut frames, mut up, mut down) = (0, 0, 0);
    for (index, run) in runs.iter().filter(|(_, run)| run.in_flight == 1) {
        let Some((run_up, run_down)) = run.wire else { continue };
        frames += rows.iter().filter(|row| row.run == *index).count().saturating_sub(1);
        (up, down) = (up + run_up, down + run_down);
    }
    (frames > 0).then(|| (up as f64 / frames as f64, down as f64 / frames as f64))
}

fn energy(measured: &Measured<'_>, runs: &[(usize, &Run)]) -> Energy {
    let (mut frames, mut gross, mut net) = (0, 0.0, 0.0);
    for (_, run) in runs.iter().filter(|(_, run)| run.in_flight == 1) {
        let Some((run_gross, run_net)) = run.joules else { continue };
        (frames, gross, net) = (frames + run.frames, gross + run_gross, net + run_net);
    }
    match frames {
        0 => Energy::Unknown { why: measured.energy.into(), radio: None },
        _ => Energy::Measured {
            gross: gross / frames as f64,
            net: net / frames as f64,
            source: measured.energy.into(),
            radio: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture;

    fn all(rows: &[Row], runs: &[Run]) -> Vec<Cell> {
        let links = [fixture::rung("lte", 6e6, 50.0)];
        let measured = Measured { rows, runs, links: &links, energy: "sensor", seed: 1 };
        cells(&measured, &|rung, up, _| up * 8e3 / rung.up.unwrap_or(f64::INFINITY))
    }

    #[test]
    fn percentiles_leave_out_warm_up_failures_and_pipelined_frames() {
        let mut rows: Vec<Row> =
            (0..20).map(|i| fixture::row("lte", "split 1", i, 100.0 + i as f64)).collect();
        rows[0].warm_up = true;
        rows[19].answered = false;
        rows[18].in_flight = 4;
        let cells = all(&rows, &[]);
        assert_eq!(cells.len(), 1);
        let cell = &cells[0];
        assert_eq!((cell.frames, cell.failed), (17, 1));
        // 101 to 117.
        assert_eq!((cell.total.p50, cell.total.p95, cell.total.p99), (109.0, 117.0, 117.0));
        assert_eq!(cell.packet, Some(6000.0));
        assert_eq!(cell.energy, Energy::Unknown { why: "sensor".into(), radio: None });
    }

    #[test]
    fn the_floor_is_stages_and_bytes_and_one_round_trip() {
        // Stages of 20 ms, 6,060 bytes at 6 Mbit/s: 8.08 ms; 50 ms of round trip. 10 % + 2 ms more: 87.9 ms.
        let floor = |total| all(&[fixture::row("lte", "split 1", 1, total)], &[])[0].floor.unwrap();
        let holding = floor(87.0);
        assert!((holding.sum() - 78.08).abs() < 1e-9, "{holding:?}");
        assert!(holding.holds);
        assert!(!floor(88.5).holds);
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
    fn wire_bytes_and_joules_are_per_frame_of_their_turns() {
        let rows: Vec<Row> = (0..5).map(|i| fixture::row("lte", "split 1", i, 100.0)).collect();
        let mut run = fixture::run("lte", "split 1", 5);
        (run.wire, run.joules) = (Some((28_000, 2_000)), Some((10.0, 2.5)));
        let cells = all(&rows, &[run]);
        assert_eq!(cells[0].wire, Some((7000.0, 500.0)));
        assert_eq!(
            cells[0].energy,
            Energy::Measured { gross: 2.0, net: 0.5, source: "sensor".into(), radio: None }
        );
    }

    #[test]
    fn nothing_measured_is_no_cell() {
        assert!(all(&[], &[]).is_empty());
    }
}
