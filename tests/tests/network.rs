//! Real heads and a real tail over emulated links, and many simulated heads against a real tail.

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Result, ensure};
use clap::Parser;
use narrows_bench::load::{Load, Report};
use narrows_netsim::{Ladder, Relay};
use narrows_pair::{Interrupt, Pair};
use narrows_tests::{bundle, lines, photos, runtime, said};

#[derive(Debug, Parser)]
struct Loading {
    #[command(flatten)]
    load: Load,
}

/// Starts a tail on the CPU, loads it with simulated heads and returns the report.
fn load(args: &[&str], tail_args: &[&str]) -> Result<Report> {
    let (bundle, runtime) = (bundle().display().to_string(), runtime().display().to_string());
    let all =
        [&["load", "--bundle", &bundle], args, &["--", "--device", "cpu", "--runtime", &runtime], tail_args];
    Loading::try_parse_from(all.concat())?.load.measure(&Interrupt::never())
}

#[test]
fn every_photo_is_answered_over_a_lossy_link_and_the_relay_saw_it_pass() -> Result<()> {
    let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])?;
    let tail: SocketAddr = pair.address().parse()?;
    let text = "[[link]]\nname = \"rough\"\nabout = \"\"\nsource = \"\"\nup_kbit = 20_000\nrtt_ms = 10\njitter_ms = 2\n\
        loss = 0.03\nreorder = 0.02\nreorder_ms = 5";
    let relay = Relay::start(&Ladder::parse(text)?.links[0], tail, 5)?;
    let output = pair
        .head_to(&bundle(), &relay.address().to_string())
        .args(["--source", &photos().display().to_string(), "--tasks", "classify"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let lines = lines(&output)?;
    assert!(!lines.is_empty() && lines.iter().all(|line| line["status"] == "answered"), "{lines:?}");
    let packets: u64 = lines.iter().filter_map(|line| line["bytes"]["packet"].as_u64()).sum();
    let counts = relay.counts();
    assert!(counts.up.bytes > packets && counts.down.datagrams > 0, "{packets} bytes of packets, {counts:?}");
    assert_eq!((counts.up.overflowed, counts.up.unsent, counts.down.unsent), (0, 0, 0), "{counts:?}");
    pair.drain()
}

#[test]
fn few_heads_are_answered_and_every_frame_is_accounted_for() -> Result<()> {
    for arrivals in ["poisson", "fixed"] {
        let args =
            ["--heads", "6", "--rate", "2", "--seconds", "2", "--budget", "30000", "--arrivals", arrivals];
        let report = load(&args, &[])?;
        assert!(report.complete);
        assert_eq!((report.heads, report.sockets), ((6, 6), 1), "{:?}", report.not_connected);
        let step = &report.step;
        assert!(step.frames > 0 && step.answered == step.frames, "{step:?}");
        assert_eq!(step.batches.values().sum::<usize>(), step.answered);
        assert!(step.cpu > 0.0 && step.tail_cpu.is_some(), "{step:?}");
        let ms = step.answered_ms;
        // About 24 frames: too few for a 99th percentile, and perhaps for a 95th.
        assert!(
            ms.p50 > Some(0.0) && ms.p95.is_none_or(|p95| ms.p50 <= Some(p95)) && ms.p99.is_none(),
            "{ms:?}"
        );
        assert!(report.tail_memory.is_some_and(|memory| memory.after_kb > Some(0)));
    }
    Ok(())
}

#[test]
fn what_a_tail_has_no_time_for_is_counted_by_its_reason() -> Result<()> {
    let args = ["--heads", "10", "--rate", "30", "--seconds", "1", "--ramp", "0"];
    let report = load(&args, &["--queue", "1", "--batch", "1"])?;
    let step = &report.step;
    let refused: usize = step.refusals.values().sum();
    assert_eq!(step.answered + refused + step.failures.values().sum::<usize>(), step.frames, "{step:?}");
    assert!(step.refusals.keys().any(|name| name.starts_with("18 ")), "{:?}", step.refusals);
    Ok(())
}

#[test]
fn heads_that_find_no_room_are_named_with_the_reason() -> Result<()> {
    let args = ["--heads", "5", "--rate", "1", "--seconds", "0.5", "--budget", "30000"];
    let report = load(&args, &["--connections", "3"])?;
    assert_eq!(report.heads, (5, 3));
    assert_eq!(report.not_connected.iter().map(|(_, number)| number).sum::<usize>(), 2);
    Ok(())
}
