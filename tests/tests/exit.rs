//! Early exit: photos that the local network is sure of stay on the device, the others are sent.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{bundle, changed_bundle, lines_of, photos, root, said, start};
use serde_json::Value;

const BAD_FLAG: i32 = 2;

/// A head that classifies the demo's photos with an early exit.
fn head(tail: &Pair, exit: &str) -> Command {
    let mut command = tail.head(&bundle());
    command.args(["--tasks", "classify", "--exit", exit, "--source"]).arg(photos());
    command.current_dir(root()).stdin(Stdio::null());
    command
}

fn confidence(line: &Value) -> Result<f64> {
    line["exit"]["confidence"].as_f64().with_context(|| line.to_string())
}

/// The confidence halfway between those of the least and the most sure photo, as a line shows them.
fn halfway(lines: &[Value]) -> Result<f64> {
    let mut sure = lines.iter().map(confidence).collect::<Result<Vec<f64>>>()?;
    sure.sort_by(f64::total_cmp);
    assert!(sure[0] < sure[sure.len() - 1], "{sure:?}");
    Ok((sure[0] + sure[sure.len() - 1]) / 2.0)
}

#[test]
fn a_sure_photo_stays_and_an_unsure_one_is_sent() -> Result<()> {
    let tail = start()?;
    let all = lines_of(&mut head(&tail, "0"))?;
    assert!(all.iter().all(|line| line["path"] == "local"), "{all:?}");
    let threshold = halfway(&all)?;
    for path in ["split", "image"] {
        let server = if path == "image" { offload()? } else { start()? };
        let found = lines_of(head(&server, &threshold.to_string()).args(["--path", path]))?;
        assert_eq!(found.len(), all.len());
        for line in &found {
            assert_eq!(line["exit"]["threshold"], threshold, "{line}");
            assert!(line["fallback"].is_null() && line["status"] == "answered", "{line}");
            let stays = confidence(line)? >= threshold;
            assert_eq!(line["path"], if stays { "local" } else { path }, "{line}");
            assert_eq!(line["bytes"].is_null(), stays, "{line}");
            assert_eq!(line["ms"]["exit"].is_null(), stays, "{line}");
            if stays {
                assert!(
                    line["level"].is_null() && line["coding"].is_null() && line["format"].is_null(),
                    "{line}"
                );
                let first = line["classify"][0]["probability"].as_f64().context("a probability")?;
                assert!((first - confidence(line)?).abs() < 2e-4, "{line}");
            }
        }
        assert!(
            found.iter().any(|line| line["path"] == "local") && found.iter().any(|line| line["path"] == path)
        );
    }
    Ok(())
}

fn offload() -> Result<Pair> {
    let runtime = narrows_tests::runtime().display().to_string();
    Pair::start(&bundle(), &["--device", "cpu", "--offload", "--runtime", &runtime])
}

#[test]
fn the_default_sends_every_photo_and_auto_takes_the_threshold_of_the_bundle() -> Result<()> {
    let tail = start()?;
    let sent = lines_of(&mut head(&tail, "off"))?;
    assert!(sent.iter().all(|line| line["path"] == "split" && line["exit"].is_null()), "{sent:?}");
    let local =
        Bundle::open(bundle(), Parts::Head)?.local().cloned().context("the bundle has a local network")?;
    let threshold = local.exit.context("it has a calibrated exit")?.threshold;
    let found = lines_of(&mut head(&tail, "auto"))?;
    assert!(found.iter().all(|line| line["exit"]["threshold"] == threshold), "{found:?}");
    assert!(found.iter().any(|line| line["path"] == "local"), "{found:?}");
    Ok(())
}

#[test]
fn an_exit_that_cannot_be_is_named_with_the_way_out() -> Result<()> {
    let refuses = |command: &mut Command, parts: &[&str]| -> Result<()> {
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(BAD_FLAG), "{}", said(&output));
        assert!(parts.iter().all(|part| said(&output).contains(part)), "{parts:?}: {}", said(&output));
        Ok(())
    };
    let bare = changed_bundle("manifest.toml", false, |text| {
        let whole = String::from_utf8_lossy(text).into_owned();
        let start = whole.find("[local.exit]").expect("the bundle has one");
        let end = whole.find("[digests]").expect("digests come last");
        *text = [&whole[..start], &whole[end..]].concat().into_bytes();
    })?;
    let shipped = bundle();
    let head = |bundle: &std::path::Path, args: &[&str]| {
        let mut command = narrows_pair::head();
        command.args(["run", "--server", "tail:1", "--identity", "nowhere", "--bundle"]).arg(bundle);
        command.arg("--source").arg(photos()).args(args);
        command
    };
    let classify = ["--tasks", "classify", "--exit"];
    for wrong in ["1.5", "-1", "nan", "on", "45%"] {
        let args = ["--exit=".to_owned() + wrong];
        refuses(&mut head(&shipped, &[&args[0]]), &["--exit", wrong, "off, auto or a number from 0 to 1"])?;
    }
    refuses(&mut head(bare.path(), &[&classify[..], &["auto"]].concat()), &["--exit: auto", "recipe exit"])?;
    refuses(&mut head(&shipped, &["--exit", "auto"]), &["--exit: segment", "--tasks classify"])?;
    refuses(&mut head(&shipped, &["--exit", "0.5", "--tasks", "segment"]), &["--exit: ", "segment"])?;
    refuses(
        &mut head(&shipped, &[&classify[..], &["0.5", "--path", "local"]].concat()),
        &["--exit: --path local sends nothing"],
    )?;
    Ok(())
}

#[test]
fn without_a_server_unsure_photos_are_answered_by_the_fallback() -> Result<()> {
    let mut tail = start()?;
    let all = lines_of(&mut head(&tail, "0"))?;
    let threshold = halfway(&all)?;
    tail.kill()?;
    let found = lines_of(head(&tail, &threshold.to_string()).args(["--retry-for", "1"]))?;
    assert_eq!(found.len(), all.len());
    for line in &found {
        assert_eq!(line["path"], "local", "{line}");
        let sure = confidence(line)? >= threshold;
        assert_eq!(line["fallback"].is_null(), sure, "{line}");
        // The fallback gives the answer of the attempt; the network does not run again.
        assert_eq!(line["ms"]["exit"].is_null(), sure, "{line}");
        assert_eq!(line["ms"]["head"] == 0.0, !sure, "{line}");
        let same = all.iter().find(|other| other["file"] == line["file"]).context("the same photo")?;
        assert_eq!(line["classify"], same["classify"], "{line}");
    }
    assert!(found.iter().any(|line| line["fallback"].is_null()), "{found:?}");
    assert!(found.iter().any(|line| !line["fallback"].is_null()), "{found:?}");
    Ok(())
}
