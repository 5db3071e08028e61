//! A tail with several bundles: they are replaced, loaded and unloaded while heads are answered.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_models::{Bundle, Parts};
use narrows_pair::terminate;
use narrows_tests::{LiveHead, ServiceTail, TIMEOUT, bundle_of_version, output_within, said};
use serde_json::Value;

/// A head that sends frames all the time.
fn steady(tail: &ServiceTail, device: &str, bundle: &Path) -> Result<LiveHead> {
    let mut head = tail.head(device, bundle);
    head.args(["--repeat", "0", "--fps", "10", "--budget", "20000"]);
    head.stdout(Stdio::piped()).stderr(Stdio::piped());
    LiveHead::of(head)
}

fn answered(line: &Value) -> bool {
    line["status"] == "answered"
}

/// Waits for as many further answers.
fn goes_on(head: &LiveHead, answers: usize, lines: &mut Vec<Value>) -> Result<()> {
    for _ in 0..answers {
        lines.extend(head.lines_until(answered)?);
    }
    Ok(())
}

fn digest(folder: &Path) -> Result<String> {
    Ok(Bundle::open(folder, Parts::Head)?.digest().to_string())
}

#[test]
fn bundles_certificates_rights_and_quotas_change_under_load_without_a_failed_frame_of_anybody_else()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let (served, old) = (folder.path().join("served"), folder.path().join("old"));
    bundle_of_version(&served, "lite2", "0.1.0")?;
    bundle_of_version(&old, "lite2", "0.1.0")?;
    let next = folder.path().join("next");
    bundle_of_version(&next, "lite2", "0.2.0")?;
    let rest = "[bundles]\nfolders = ['served']\nunload-after = 0\n";
    let tail = ServiceTail::start_with(folder, "", rest)?;
    let heads = ["cam-1", "cam-2", "cam-3", "door"].map(|device| steady(&tail, device, &old));
    let [first, second, quota, revoked] = heads;
    let (first, second, quota, revoked) = (first?, second?, quota?, revoked?);
    let (mut lines, mut others) = (Vec::new(), Vec::new());
    let mut work = || -> Result<()> {
        goes_on(&first, 3, &mut lines)?;
        goes_on(&second, 3, &mut others)
    };
    work()?;
    for head in [&quota, &revoked] {
        head.lines_until(answered)?;
    }

    // A bundle that is broken does not take the place of the one that is served, and the log says why.
    let broken = tail.file("broken");
    bundle_of_version(&broken, "lite2", "0.1.5")?;
    let manifest = fs::read_to_string(broken.join("manifest.toml"))?;
    fs::remove_file(broken.join("tables.bin"))?;
    fs::write(broken.join("tables.bin"), "no tables")?;
    ensure!(manifest.contains("0.1.5"));
    fs::rename(tail.file("served"), tail.file("kept"))?;
    fs::rename(&broken, tail.file("served"))?;
    tail.logs("what was served before stays")?;
    ensure!(tail.log().contains("tables.bin"), "{}", tail.log());
    work()?;
    tail.accepts("cam-1", &old)?;

    // Another version takes the place of the one that is served, and heads with the old one are told and go on.
    fs::remove_dir_all(tail.file("served"))?;
    fs::rename(&next, tail.file("served"))?;
    first.hears("serves version \"0.2.0\"", 1)?;
    second.hears(&digest(&tail.file("served"))?, 1)?;
    work()?;
    tail.accepts("cam-1", &tail.file("served"))?;
    // As long as somebody uses it, so may others.
    tail.accepts("cam-1", &old)?;

    // A server certificate, by SIGHUP.
    let mut renew = narrows_pair::tail();
    renew.args(["certs", "server", "--dir"]).arg(tail.file("certs"));
    ensure!(renew.output()?.status.success());
    tail.hang_up()?;
    tail.logs("certificates were read again")?;
    work()?;

    // A device is revoked.
    let mut revoke = narrows_pair::tail();
    revoke.args(["certs", "revoke", "door", "--dir"]).arg(tail.file("certs"));
    ensure!(revoke.output()?.status.success());
    tail.logs("its certificate is no longer accepted")?;
    revoked.lines_until(|line| !answered(line))?;
    work()?;

    // A quota of one device.
    tail.write(&format!("{rest}[[devices.device]]\nname = 'cam-3'\nframes_per_second = 0.5\n"))?;
    quota.lines_until(|line| line.to_string().contains("0.5"))?;
    work()?;

    for head in [first, second] {
        let (rest, told) = head.interrupt()?;
        ensure!(!told.contains("lost the server"), "{told}");
        for line in rest.iter().chain(&lines).chain(&others) {
            let error = line["error"].as_str().unwrap_or_default();
            ensure!(answered(line) || error.contains("interrupted"), "{line}");
        }
    }
    // Who has the old version leaves, and it with them.
    ensure!(!tail.log().contains("nothing uses it any more"), "{}", tail.log());
    terminate(quota.child.id())?;
    terminate(revoked.child.id())?;
    tail.logs("nothing uses it any more")?;
    tail.refuses("cam-1", &old, "bundle")?;
    tail.accepts("cam-1", &tail.file("served"))
}

#[test]
fn of_bundles_that_do_not_fit_into_memory_together_the_one_that_was_used_last_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let names = ["yard", "gate"];
    let [yard, gate] = names.map(|name| folder.path().join(name));
    for name in names {
        bundle_of_version(&folder.path().join(name), name, "1.0")?;
    }
    // One takes about 52.
    let rest = "[bundles]\nfolders = ['yard', 'gate']\nmemory = 60\n[status]\nlisten = '127.0.0.1:0'\n";
    let tail = ServiceTail::start_with(folder, "", rest)?;
    let page = {
        let log = tail.log();
        let line = log.lines().find(|line| line.contains("status listening")).context(log.clone())?;
        line.rsplit("address=").next().context("an address")?.trim().to_owned()
    };
    let states = || -> Result<Value> {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", &format!("http://{page}/status")]);
        let output = output_within(&mut curl, TIMEOUT)?;
        ensure!(output.status.success(), "{}", said(&output));
        let status: Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["bundles"].as_array().context("bundles")?.iter().map(|own| own["state"].clone()).collect())
    };
    assert_eq!(states()?, serde_json::json!(["loaded", "unloaded"]));
    tail.accepts("cam-1", &gate)?;
    assert_eq!(states()?, serde_json::json!(["unloaded", "loaded"]));
    tail.logs("to make room for another bundle")?;

    // What is in use stays, and who wants the other is told to come back.
    let head = steady(&tail, "cam-2", &gate)?;
    head.lines_until(answered)?;
    tail.refuses("cam-1", &yard, "the bundles in use take 5")?;
    goes_on(&head, 3, &mut Vec::new())?;
    head.interrupt()?;
    let begin = Instant::now();
    while tail.classify("cam-1", &yard)?.0 != Some(0) {
        ensure!(begin.elapsed() < 2 * TIMEOUT, "{}", tail.log());
        sleep(Duration::from_millis(100));
    }
    assert_eq!(states()?, serde_json::json!(["loaded", "unloaded"]));

    // What was replaced on disk while it was not in memory is not taken for it.
    fs::remove_dir_all(tail.file("gate"))?;
    tail.logs("what was served before stays")?;
    let text = "[bundles]\nfolders = ['yard']\nload = 'demand'\n";
    tail.write(text)?;
    tail.hang_up()?;
    assert_eq!(states()?, serde_json::json!(["loaded"]));
    tail.accepts("cam-1", &yard)
}
