//! `narrows-bench compare` with the real binaries, kept short: what is written, not how fast anything was.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_bench::compare::report::{Energy, Metric, NO_LINK, Report, Run, UNSPLIT};
use narrows_eval::local_f32::Weights;
use narrows_models::{Bundle, Parts};
use narrows_tests::{bundle, photos, runtime, said};

/// Twentieths of a second that a run may take until its first run is over.
const TRIES: usize = 1200;

/// A comparison of a few variants that classify the bundled photos.
fn compare(out: &Path) -> Command {
    let mut command = narrows_pair::bench();
    command.args(["compare", "--tasks", "classify", "--in-flight", "1", "--bundle"]).arg(bundle());
    command.arg("--source").arg(photos()).arg("--runtime").arg(runtime()).arg("--out").arg(out);
    command
        .args(["--variants", "split 1,raw 1,JPEG 75,local int8,local f32"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn report(out: &Path) -> Result<Report> {
    Report::parse(&fs::read_to_string(out.join("report.json"))?)
}

#[test]
fn a_short_comparison_over_two_links_is_whole() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path();
    let mut command = compare(out);
    command.args(["--links", "loopback,bluetooth", "--rounds", "2", "--frames", "2", "--seed", "3"]);
    let output = command.stderr(Stdio::piped()).output()?;
    assert!(output.status.success(), "{}", said(&output));
    let report = report(out)?;
    assert!(report.provenance.complete && report.provenance.notes[0].starts_with("No labelled data"));

    let unsplit = report.accuracy("classify", UNSPLIT).context("the unsplit network")?;
    assert_eq!((unsplit.metric, unsplit.count, unsplit.value), (Metric::Agreement, 5, 1.0));
    let bytes =
        |variant: &str| report.accuracy("classify", variant).and_then(|of| of.bytes).unwrap_or_default();
    assert!(bytes("split 1") < bytes("JPEG 75") && bytes("JPEG 75") < bytes("raw 1"));
    // The same symbols, coded otherwise.
    let value = |variant: &str| report.accuracy("classify", variant).map(|of| of.value);
    assert_eq!(value("split 1"), value("raw 1"));

    // Three variants over two links, two without one.
    assert_eq!(report.cells.len(), 8);
    let (alone, sent): (Vec<_>, Vec<_>) = report.cells.iter().partition(|cell| cell.link == NO_LINK);
    for cell in &alone {
        assert_eq!((cell.frames, cell.failed, cell.wire), (4, 0, None), "{}", cell.variant);
        assert!(cell.total.p50 > cell.stages["head"].p50 && cell.stages["head"].p50 > 0.0, "{cell:?}");
        assert!(!cell.stages.get("network").is_some_and(|network| network.p50 > 0.0), "{cell:?}");
        assert!(matches!(&cell.energy, Energy::Measured { .. }) || cell.energy.radio().is_none());
    }
    assert_eq!(
        alone.iter().map(|cell| cell.variant.as_str()).collect::<Vec<_>>(),
        ["local int8", "local f32"]
    );
    // Without an f32 form in the bundle it is timed on noise, and no accuracy is claimed.
    let own = Weights::of(&Bundle::open(bundle(), Parts::All)?) == Some(Weights::Bundle);
    assert!(report.accuracy("classify", "local int8").is_some());
    assert_eq!(report.accuracy("classify", "local f32").is_some(), own);
    assert_eq!(report.provenance.notes.iter().any(|note| note.contains("its accuracy is not known")), !own);
    assert!(report.winners.iter().all(|winner| {
        winner.best.iter().chain(&winner.others).all(|place| place.variant != "local f32")
    }));
    for cell in sent {
        assert_eq!((cell.frames, cell.failed), (4, 0), "{} {}", cell.link, cell.variant);
        assert!(cell.floor.is_some());
        let (up, _) = cell.wire.context("bytes on the wire")?;
        let (request, _) = cell.request.context("bytes of the request")?;
        assert!(up > request * 0.8, "{up} {request}");
    }
    let of = |round: usize| -> Vec<&Run> { report.runs.iter().filter(|run| run.round == round).collect() };
    assert_eq!((of(0).len(), of(1).len()), (8, 8));
    assert_eq!(report.claims.len(), 2);
    assert_eq!(report.claims.iter().filter(|claim| claim.wanted.is_some()).count(), 1);

    assert_eq!(fs::read_to_string(out.join("rows.csv"))?.lines().count(), 1 + 16 * 4);
    assert_eq!(fs::read_to_string(out.join("accuracy.csv"))?.lines().count(), 1 + (5 + usize::from(own)) * 5);
    let page = fs::read_to_string(out.join("report.html"))?;
    assert!(
        page.contains("<svg") && page.contains(&report.provenance.bundle) && !page.contains("INCOMPLETE")
    );
    assert!(out.join("pictures/latency-classify-bluetooth.svg").is_file());

    // The recorded report draws the same page again.
    let again = folder.path().join("again");
    let status = narrows_pair::bench()
        .arg("compare")
        .arg("--from")
        .arg(out.join("report.json"))
        .arg("--out")
        .arg(&again)
        .output()?;
    assert!(status.status.success(), "{}", said(&status));
    assert_eq!(fs::read_to_string(again.join("report.html"))?, page);
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
    for (flag, value, known) in [
        ("--links", "carrier-pigeon", "lte"),
        ("--tasks", "taste", "classify"),
        ("--variants", "split 9", "split 1"),
    ] {
        let mut command = narrows_pair::bench();
        command.arg("compare").arg("--bundle").arg(bundle()).arg("--source").arg(photos());
        let output = command.arg("--out").arg(folder.path()).args([flag, value]).output()?;
        assert!(!output.status.success());
        assert!(said(&output).contains(value) && said(&output).contains(known), "{}", said(&output));
    }
    Ok(())
}
