//! Bundles without a task of some kind: the demo and `narrows-bench` use the tasks that there are.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use narrows_bench::compare::report::Report;
use narrows_tests::{bundle, changed_bundle, photos, runtime, said};
use serde_json::Value;
use tempfile::TempDir;

/// The flags of the shortest comparison.
const SHORT: [&str; 8] = ["--links", "loopback", "--rounds", "1", "--frames", "1", "--in-flight", "1"];

/// The shipped bundle without this task, and without the local network if it answers this task.
fn without(task: &str) -> Result<TempDir> {
    changed_bundle("manifest.toml", false, |bytes| {
        let mut tables: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
            match tables.last_mut().filter(|_| !line.starts_with('[')) {
                Some(table) => table.push_str(line),
                None => tables.push(line.to_owned()),
            }
        }
        let says = |table: &str, what: &str| table.contains(&format!("\n{what} = \"{task}\"\n"));
        assert!(tables.iter().any(|table| says(table, "name")), "the shipped bundle has no task {task}");
        let local = tables.iter().any(|table| table.starts_with("[local]") && says(table, "task"));
        tables.retain(|table| {
            let follows =
                local && (table.starts_with("[[local.vector]]") || table.starts_with("[local.exit]"));
            !(says(table, "name") || says(table, "task") || follows)
        });
        let gone = |line: &str| line.contains(task) || (local && line.contains("local"));
        for table in tables.iter_mut().filter(|table| table.starts_with("[digests]")) {
            *table = table.split_inclusive('\n').filter(|line| !gone(line)).collect();
        }
        *bytes = tables.concat().into_bytes();
    })
}

fn bench(command: &str, bundle: &Path, out: &Path) -> Command {
    let mut bench = narrows_pair::bench();
    bench.arg(command).arg("--bundle").arg(bundle).arg("--source").arg(photos());
    bench.arg("--runtime").arg(runtime()).arg("--out").arg(out);
    bench
}

#[test]
fn the_demo_shows_what_the_bundle_can() -> Result<()> {
    for (missing, other) in [("segment", "classify"), ("classify", "segment")] {
        let (some, out) = (without(missing)?, tempfile::tempdir()?);
        let output = narrows_pair::demo()
            .arg("--bundle")
            .arg(some.path())
            .arg("--classify")
            .arg(photos())
            .arg("--segment")
            .arg(photos().join("road"))
            .arg("--runtime")
            .arg(runtime())
            .arg("--out")
            .arg(out.path())
            .output()?;
        assert!(output.status.success(), "without {missing}: {}", said(&output));
        let summary: Value = serde_json::from_slice(&fs::read(out.path().join("summary.json"))?)?;
        assert_eq!(summary["answered"], summary["frames"]);
        for photo in summary["photos"].as_array().into_iter().flatten() {
            assert!(photo[missing].is_null() && !photo[other].is_null(), "{photo}");
            assert!(!photo["unsplit"].is_null(), "{photo}");
        }
    }
    Ok(())
}

#[test]
fn a_comparison_takes_the_tasks_that_there_are() -> Result<()> {
    for (missing, other, notes) in [("segment", "classify", 1), ("classify", "segment", 2)] {
        let (some, out) = (without(missing)?, tempfile::tempdir()?);
        let mut command = bench("compare", some.path(), out.path());
        let output = command.args(SHORT).args(["--variants", "split 1,JPEG 75"]).output()?;
        assert!(output.status.success(), "without {missing}: {}", said(&output));
        let report = Report::parse(&fs::read_to_string(out.path().join("report.json"))?)?;
        assert_eq!((report.tasks(), report.cells.len()), (vec![other], 2));
        // No labels; and without classes no local network.
        assert_eq!(report.provenance.notes.len(), notes, "{:?}", report.provenance.notes);
    }
    Ok(())
}

#[test]
fn labels_of_other_classes_are_not_taken() -> Result<()> {
    // One labelled photo, of a class that no task has.
    let (data, out) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(data.path().join("imagenet500.tar")).arg("-C").arg(photos()).arg("cat.png");
    assert!(tar.status()?.success());
    fs::write(data.path().join("imagenet500.csv"), "file,class\ncat.png,70000\n")?;
    let mut command = bench("compare", &bundle(), out.path());
    command.args(SHORT).args(["--variants", "split 1", "--data"]).arg(data.path());
    let output = command.output()?;
    assert!(output.status.success(), "{}", said(&output));
    let report = Report::parse(&fs::read_to_string(out.path().join("report.json"))?)?;
    let about = &report.provenance.data;
    assert!(about[0].contains("imagenet500.csv has labels of other classes"), "{about:?}");
    assert!(about[1].contains("camvid-val.tar is not there"), "{about:?}");
    assert!(report.accuracy("classify", "split 1").is_some_and(|of| of.count == 5));
    Ok(())
}
