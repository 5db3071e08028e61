//! `--level auto` with the real head and tail over links of several rates.
#![expect(clippy::unwrap_used, reason = "a test fails where it may")]

use std::{process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use narrows_netsim::{Rate, Relay, Shape};
use narrows_tests::{bundle, lines, photos, said, start};
use serde_json::Value;

/// Runs a head with `--level auto` over a link of this rate and returns its lines.
fn run(kbit: Option<u64>, args: &[&str]) -> Result<(Output, Vec<Value>)> {
    let pair = start()?;
    let up = Shape {
        rate: kbit.map(|kbit| Rate::Fixed(kbit * 1000)),
        delay: Duration::from_millis(10),
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

#[test]
fn queues_stay_short_before_a_large_buffer() -> Result<()> {
    let (folder, pair) = (tempfile::TempDir::new()?, start()?);
    // 5 Mbit/s, 20 ms each way, and a buffer of 500 ms.
    let (rate, delay) = (5_000_000, Duration::from_millis(20));
    let queue = rate as usize / 8 / 2;
    let up = Shape { rate: Some(Rate::Fixed(rate)), delay, queue, ..Shape::default() };
    let relay = Relay::with_shapes(up, Shape { delay, ..Shape::default() }, pair.address().parse()?, 1)?;
    let record = folder.path().join("decisions.jsonl");
    let mut head = pair.head_to(&bundle(), &relay.address().to_string());
    head.args(["--tasks", "classify", "--level", "auto", "--for", "accuracy", "--fallback", "never"]);
    head.args(["--budget", "2000", "--in-flight", "16", "--repeat", "120", "--lines", "none", "--source"]);
    let output = head.arg(photos()).arg("--decisions").arg(&record).output()?;
    let lost = relay.counts().up.overflowed;
    pair.drain()?;
    // A record with round trips has one of each datagram.
    let replay = narrows_pair::bench().args(["policy", "--replay"]).arg(&record).output()?;
    let text = String::from_utf8(replay.stdout)?;
    ensure!(replay.status.success(), "{text}");
    let trips = text.lines().find(|line| line.contains("round trips")).context("round trips")?;
    let figures: Vec<f64> = trips.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [shortest, median, most] = figures[..] else { anyhow::bail!("{trips}") };
    eprintln!("{trips} {}", said(&output));
    // A busy machine delays what it receives, so the bounds are wide: without rate control the buffer is full.
    ensure!(shortest >= 40.0, "{trips}");
    ensure!(shortest < 80.0 && median < shortest + 150.0 && most < shortest + 400.0, "{trips}");
    ensure!(lost == 0, "{lost} datagrams did not fit into the buffer");
    Ok(())
}
