//! `--level auto` with the real head and tail over links of several rates.
#![expect(clippy::unwrap_used, reason = "a test fails where it may")]

use std::process::Output;

use anyhow::{Result, ensure};
use narrows_netsim::{Rate, Relay, Shape};
use narrows_tests::{bundle, lines, photos, said, start};
use serde_json::Value;

/// Runs a head with `--level auto` over a link of this rate and returns its lines.
fn run(kbit: Option<u64>, args: &[&str]) -> Result<(Output, Vec<Value>)> {
    let pair = start()?;
    let up = Shape {
        rate: kbit.map(|kbit| Rate::Fixed(kbit * 1000)),
        delay: std::time::Duration::from_millis(10),
        ..Shape::default()
    };
    let down = Shape { rate: None, ..up.clone() };
    let relay = Relay::with_shapes(up, down, pair.address().parse()?, 1)?;
    let mut head = pair.head_to(&bundle(), &relay.address().to_string());
    head.args(["--level", "auto", "--source"]).arg(photos()).args(args);
    let output = head.output()?;
    let lines = lines(&output)?;
    pair.drain()?;
    Ok((output, lines))
}

fn answered(line: &Value) -> bool {
    line["status"] == "answered" && line["path"] == "split"
}

fn mean_level(lines: &[Value]) -> f64 {
    let levels: Vec<u64> =
        lines.iter().filter(|line| answered(line)).map(|line| line["level"].as_u64().unwrap()).collect();
    levels.iter().sum::<u64>() as f64 / levels.len() as f64
}

#[test]
fn the_level_follows_the_link() -> Result<()> {
    let args = [
        "--tasks",
        "classify",
        "--budget",
        "20000",
        "--repeat",
        "6",
        "--in-flight",
        "1",
        "--fallback",
        "never",
    ];
    let (fast, lines) = run(None, &args)?;
    ensure!(fast.status.success(), "{}", said(&fast));
    // Once the rate is known, the finest level costs nothing.
    assert!(mean_level(&lines[lines.len() / 2..]) < 0.5, "{}", mean_level(&lines));
    assert!(lines.iter().all(|line| line["groups"]["used"] == line["groups"]["total"]));
    let (slow, lines) = run(
        Some(60),
        &[
            "--tasks",
            "classify",
            "--budget",
            "400",
            "--repeat",
            "6",
            "--in-flight",
            "1",
            "--fallback",
            "never",
        ],
    )?;
    // 400 ms of 60 kbit/s are 3 kB, with the way there and back and the server's work.
    let sent: Vec<&Value> = lines.iter().filter(|line| answered(line)).collect();
    assert!(!sent.is_empty(), "{}", said(&slow));
    assert!(mean_level(&lines) > 2.0, "{}", mean_level(&lines));
    for line in sent {
        let (used, total) =
            (line["groups"]["used"].as_u64().unwrap(), line["groups"]["total"].as_u64().unwrap());
        assert!(used >= 1 && used <= total && line["bytes"]["sent"].as_u64().unwrap() < 4000, "{line}");
    }
    Ok(())
}

#[test]
fn what_the_link_has_no_time_for_is_answered_here() -> Result<()> {
    let args = ["--tasks", "classify", "--budget", "700", "--repeat", "8", "--in-flight", "8"];
    let (output, lines) = run(Some(40), &args)?;
    assert!(output.status.success(), "{}", said(&output));
    assert!(lines.iter().all(|line| line["status"] == "answered"), "{}", said(&output));
    let local = lines.iter().filter(|line| line["path"] == "local");
    let reasons: Vec<&str> = local.map(|line| line["fallback"].as_str().unwrap()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("link")), "{reasons:?}");
    Ok(())
}

#[test]
fn a_level_that_is_neither_a_number_nor_auto_is_named() -> Result<()> {
    for (args, parts) in [
        (&["--level", "fine"][..], &["--level", "auto"][..]),
        (&["--level", "9"], &["--level", "0 (finest) to 5"]),
        (&["--for", "latency"], &["--for", "--level auto"]),
    ] {
        let mut head = narrows_pair::head();
        head.args(["run", "--server", "localhost:1", "--identity", "nowhere", "--bundle"]).arg(bundle());
        let output = head.arg("--source").arg(photos()).args(args).output()?;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        for part in parts {
            assert!(said(&output).contains(part), "{part}: {}", said(&output));
        }
    }
    Ok(())
}
