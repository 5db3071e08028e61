//! `narrows-bench compare` with the real binaries, kept short: what is written, not how fast anything was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_bench::compare::report::{Cell, Energy, Metric, NO_LINK, Report, Run, UNSPLIT};
use narrows_tests::{bundle, photos, runtime, said};

/// Twentieths of a second until the first run of the head must be over.
const TRIES: usize = 1200;

/// A comparison of a few variants that classify the bundled photos.
fn compare(out: &Path) -> Command {
    let mut command = narrows_pair::bench();
    command.args(["compare", "--tasks", "classify", "--in-flight", "1", "--bundle"]).arg(bundle());
    command.arg("--source").arg(photos()).arg("--runtime").arg(runtime()).arg("--out").arg(out);
    command
        .args(["--variants", "split 1,raw 1,JPEG 75,local int8"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn report(out: &Path) -> Result<Report> {
    Report::parse(&fs::read_to_string(out.join("report.json"))?)
}

/// A table with a header, as it was written: each line by the names of its columns.
fn table(file: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let mut reader = csv::Reader::from_path(file)?;
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

/// The numbers of a column, without empty fields.
fn numbers(rows: &[&BTreeMap<String, String>], column: &str) -> Vec<f64> {
    rows.iter().filter_map(|row| row[column].parse().ok()).collect()
}

/// The sample at a percentile: at least this share of all samples is not larger.
fn percentile(mut samples: Vec<f64>, percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() * percent).div_ceil(100) - 1]
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

fn close(figure: f64, expected: f64) -> bool {
    (figure - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

/// Computes figures of the report again from the raw rows, without the code that made it.
fn recompute(out: &Path, report: &Report) -> Result<()> {
    let rows = table(&out.join("rows.csv"))?;
    for cell in &report.cells {
        let of_cell = |row: &&BTreeMap<String, String>| {
            [&row["link"], &row["variant"], &row["task"]] == [&cell.link, &cell.variant, &cell.task]
        };
        let counted: Vec<_> = rows
            .iter()
            .filter(of_cell)
            .filter(|row| row["warm_up"] == "false" && row["in_flight"] == "1")
            .collect();
        let name = format!("{} {}", cell.link, cell.variant);
        assert_eq!(cell.frames, counted.len(), "{name}");
        let rounds: BTreeSet<&str> = counted.iter().map(|row| row["round"].as_str()).collect();
        assert_eq!(cell.rounds, rounds.len(), "{name}");
        // Figures one and two: median and 95th percentile of the latency.
        let total = numbers(&counted, "total");
        assert!(close(cell.total.p50, percentile(total.clone(), 50)), "{name}: {}", cell.total.p50);
        let p95 = cell.total.p95.context("20 frames have a 95th percentile")?;
        assert!(close(p95, percentile(total, 95)), "{name}: {p95}");
        // Figure three: the median of every stage.
        for (stage, percentiles) in &cell.stages {
            let median = percentile(numbers(&counted, stage), 50);
            assert!(close(percentiles.p50, median), "{name}: {stage} {}", percentiles.p50);
        }
        // Figures four and five: bytes of the packet, and of request and wire over the same frames.
        if cell.link == NO_LINK {
            assert_eq!((cell.packet, cell.request, cell.wire), (None, None, None), "{name}");
            continue;
        }
        let packet = cell.packet.context("bytes of the packet")?;
        assert!(close(packet, mean(&numbers(&counted, "packet"))), "{name}: {packet}");
        let on_wire: Vec<_> = counted.iter().copied().filter(|row| !row["wire_up"].is_empty()).collect();
        let (wire_up, wire_down) = cell.wire.context("bytes on the wire")?;
        assert!(close(wire_up, mean(&numbers(&on_wire, "wire_up"))), "{name}: {wire_up}");
        assert!(close(wire_down, mean(&numbers(&on_wire, "wire_down"))), "{name}: {wire_down}");
        let (request, reply) = cell.request.context("bytes of request and reply")?;
        assert!(close(request, mean(&numbers(&on_wire, "sent"))), "{name}: {request}");
        assert!(close(reply, mean(&numbers(&on_wire, "received"))), "{name}: {reply}");
        assert!(wire_up >= request && wire_down >= reply, "{name}: {wire_up} {request}, {wire_down} {reply}");
    }
    // Figure six: accuracy and its bytes. Figure seven: the loss against the unsplit network.
    let scores = table(&out.join("accuracy.csv"))?;
    let of = |variant: &str| -> Vec<_> { scores.iter().filter(|row| row["variant"] == variant).collect() };
    let unsplit = mean(&numbers(&of(UNSPLIT), "value"));
    for accuracy in &report.accuracy {
        let lines = of(&accuracy.variant);
        let value = mean(&numbers(&lines, "value"));
        assert!(close(accuracy.value, value) && accuracy.count == lines.len(), "{accuracy:?}");
        if let Some(bytes) = accuracy.bytes {
            assert!(close(bytes, mean(&numbers(&lines, "bytes"))), "{accuracy:?}");
        }
        if let Some(drop) = accuracy.drop {
            assert!(close(drop, 100.0 * (unsplit - value)), "{accuracy:?}");
        }
    }
    Ok(())
}

#[test]
fn a_short_comparison_over_two_links_is_whole() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path();
    let mut command = compare(out);
    command.args(["--links", "loopback,bluetooth", "--rounds", "5", "--frames", "4", "--seed", "3"]);
    let output = command.stderr(Stdio::piped()).output()?;
    assert!(output.status.success(), "{}", said(&output));
    let report = report(out)?;
    assert!(report.provenance.complete && report.provenance.notes[0].starts_with("No labelled data"));

    let unsplit = report.accuracy("classify", UNSPLIT).context("the unsplit network")?;
    assert_eq!((unsplit.metric, unsplit.count, unsplit.value), (Metric::Agreement, 5, 1.0));
    let bytes =
        |variant: &str| report.accuracy("classify", variant).and_then(|of| of.bytes).unwrap_or_default();
    assert!(bytes("split 1") < bytes("JPEG 75") && bytes("JPEG 75") < bytes("raw 1"));
    // The same symbols, coded in two ways.
    let value = |variant: &str| report.accuracy("classify", variant).map(|of| of.value);
    assert_eq!(value("split 1"), value("raw 1"));

    // Three variants over two links, one without one.
    assert_eq!(report.cells.len(), 7);
    let (local, sent): (Vec<&Cell>, Vec<&Cell>) = report.cells.iter().partition(|cell| cell.link == NO_LINK);
    for cell in &local {
        assert_eq!((cell.frames, cell.failed, cell.wire), (20, 0, None), "{}", cell.variant);
        assert!(cell.total.p50 > cell.stages["head"].p50 && cell.stages["head"].p50 > 0.0, "{cell:?}");
        assert!(!cell.stages.get("network").is_some_and(|network| network.p50 > 0.0), "{cell:?}");
        assert!(matches!(&cell.energy, Energy::Measured { .. }) || cell.energy.radio().is_none());
    }
    assert_eq!(local.iter().map(|cell| cell.variant.as_str()).collect::<Vec<_>>(), ["local int8"]);
    // Another network's agreement with the unsplit one is no loss, so that it cannot be the fastest within a bound.
    assert!(report.accuracy("classify", "local int8").is_some_and(|local| local.drop.is_none()));
    assert_eq!(report.fastest.len(), 2 * 4);
    assert!(report.fastest.iter().flat_map(|of| &of.candidates).all(|of| !of.variant.starts_with("local")));
    for cell in sent {
        assert_eq!((cell.frames, cell.failed), (20, 0), "{} {}", cell.link, cell.variant);
        assert!(cell.floor.is_some() && cell.p50_interval.is_some() && cell.total.p99.is_none());
    }
    let of = |round: usize| -> Vec<&Run> { report.runs.iter().filter(|run| run.round == round).collect() };
    assert_eq!((of(0).len(), of(4).len()), (7, 7));
    recompute(out, &report)?;

    assert_eq!(fs::read_to_string(out.join("rows.csv"))?.lines().count(), 1 + 35 * 6);
    assert_eq!(fs::read_to_string(out.join("accuracy.csv"))?.lines().count(), 1 + 5 * 5);
    let page = fs::read_to_string(out.join("report.html"))?;
    assert!(
        page.contains("<figure") && page.contains(&report.provenance.bundle) && !page.contains("INCOMPLETE")
    );
    assert!(out.join("charts/latency-classify-bluetooth.vl.json").is_file());

    // The page of the recorded report is the same.
    let again = folder.path().join("again");
    let status = narrows_pair::bench()
        .arg("compare")
        .arg("--from")
        .arg(out.join("report.json"))
        .arg("--out")
        .arg(&again)
        .output()?;
    assert!(status.status.success(), "{}", said(&status));
    assert!(fs::read_to_string(again.join("report.html"))? == page, "another page from the same report");
    Ok(())
}

#[test]
fn an_interrupted_comparison_writes_what_it_has() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path();
    let mut command = compare(out);
    command.args(["--links", "loopback", "--rounds", "500", "--frames", "2"]);
    let mut child = command.process_group(0).stderr(Stdio::piped()).spawn()?;
    let lines = || fs::read_to_string(out.join("rows.csv")).map_or(0, |rows| rows.lines().count());
    let mut tries = 0;
    while lines() < 4 && tries < TRIES && child.try_wait()?.is_none() {
        sleep(Duration::from_millis(50));
        tries += 1;
    }
    // A terminal's Ctrl-C reaches all of them: this program, its head and its tail.
    let sent = Command::new("sh").arg("-c").arg(format!("kill -s INT -- -{}", child.id())).status()?;
    assert!(sent.success());
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let report = report(out)?;
    assert!(!report.provenance.complete && !report.runs.is_empty() && !report.cells.is_empty());
    assert!(fs::read_to_string(out.join("report.html"))?.contains("INCOMPLETE"));
    Ok(())
}

#[test]
fn what_is_not_there_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let invalid = "[[link]]\nname = \"mine\"\nabout = \"\"\nsource = \"\"\nloss = 2";
    fs::write(folder.path().join("mine.toml"), invalid)?;
    for (flag, value, known) in [
        ("--links", "carrier-pigeon", "lte"),
        ("--tasks", "taste", "classify"),
        ("--variants", "split 9", "split 1"),
        ("--ladder", "mine.toml", "link mine: loss is 2, must be 0 to 0.9"),
    ] {
        let mut command = narrows_pair::bench();
        command.arg("compare").arg("--bundle").arg(bundle()).arg("--source").arg(photos());
        command.arg("--out").arg(folder.path().join("out")).args([flag, value]).current_dir(folder.path());
        let output = command.output()?;
        assert!(!output.status.success());
        assert!(said(&output).contains(value) && said(&output).contains(known), "{}", said(&output));
    }
    Ok(())
}
