//! `narrows-head doctor` and `narrows-head power`: the real binary, against a real tail and on fixture trees.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_tests::{bundle, changed_bundle, root, said, start};
use serde_json::Value;

/// The doctor's checks, and its exit code.
fn examine(bundle: &Path, more: &[&str]) -> Result<(Vec<Value>, Option<i32>)> {
    let output =
        narrows_pair::head().args(["doctor", "--json", "--bundle"]).arg(bundle).args(more).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let checks = report["checks"].as_array().context("no checks")?.clone();
    for check in &checks {
        // Every line that is not ok tells what to do.
        assert_eq!(check["state"] == "ok", check.get("remedy").is_none(), "{check}");
    }
    Ok((checks, output.status.code()))
}

fn check<'a>(checks: &'a [Value], what: &str) -> Result<&'a Value> {
    checks.iter().find(|check| check["what"] == what).with_context(|| format!("no line {what}: {checks:#?}"))
}

fn expect(checks: &[Value], what: &str, state: &str, part: &str) -> Result<()> {
    let check = check(checks, what)?;
    let told = format!("{} {}", check["found"], check["remedy"]);
    ensure!(check["state"] == state && told.contains(part), "{what}: not {state} with {part:?}: {check:#}");
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of this project")
}

#[test]
fn the_doctor_finds_device_bundle_and_tail_in_order() -> Result<()> {
    let pair = start()?;
    let identity = pair.certs().join("devices/device");
    let (checks, code) = examine(&bundle(), &["--server", pair.address(), "--identity", path(&identity)])?;
    assert_eq!(code, Some(0), "{checks:#?}");
    expect(&checks, "kernels", "ok", narrows_int8::Isa::detect().name())?;
    expect(&checks, "bundle", "ok", "are not on this device")?;
    expect(&checks, "vectors", "ok", "bit for bit")?;
    expect(&checks, "local network", "ok", "vectors give the same scores, bit for bit")?;
    expect(&checks, "identity", "ok", "cert.pem is valid for another")?;
    expect(&checks, "udp", "ok", "answers")?;
    expect(&checks, "welcome", "ok", "serves this bundle")?;
    expect(&checks, "frame", "ok", "the tail answers one in")?;
    expect(&checks, "round trip", "ok", " ms")?;
    // Loopback lets far more than the least through; the link asks for no more than Ethernet's.
    expect(&checks, "packet size", "ok", "bytes of UDP payload")?;
    for what in ["processor", "head", "clock", "power", "udp buffer"] {
        check(&checks, what)?;
    }
    Ok(())
}

#[test]
fn a_closed_port_a_stranger_and_another_bundle_are_told_apart() -> Result<()> {
    let pair = start()?;
    let identity = pair.certs().join("devices/device");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let silent = nobody.local_addr()?.to_string();
    let (checks, code) = examine(&bundle(), &["--server", &silent, "--identity", path(&identity)])?;
    assert_eq!(code, Some(1));
    expect(&checks, "udp", "failed", "firewall")?;
    drop(nobody);
    let (checks, code) = examine(&bundle(), &["--server", &silent, "--identity", path(&identity)])?;
    assert_eq!(code, Some(1));
    expect(&checks, "udp", "failed", "nothing listens on UDP port")?;
    expect(&checks, "udp", "failed", "Start the tail")?;

    let others = tempfile::tempdir()?;
    let made = narrows_pair::tail().args(["certs", "init", "--dir"]).arg(others.path()).output()?;
    ensure!(made.status.success(), "{}", said(&made));
    let made =
        narrows_pair::tail().args(["certs", "device", "stranger", "--dir"]).arg(others.path()).output()?;
    ensure!(made.status.success(), "{}", said(&made));
    let stranger = others.path().join("devices/stranger");
    let (checks, code) = examine(&bundle(), &["--server", pair.address(), "--identity", path(&stranger)])?;
    assert_eq!(code, Some(1));
    expect(&checks, "udp", "ok", "answers")?;
    expect(&checks, "trust", "failed", "certs device")?;

    let other = changed_bundle("manifest.toml", false, |text| text.push(b'\n'))?;
    let (checks, code) = examine(other.path(), &["--server", pair.address(), "--identity", path(&identity)])?;
    assert_eq!(code, Some(1));
    expect(&checks, "welcome", "failed", "serves another bundle")?;
    Ok(())
}

#[test]
fn an_identity_that_no_tail_accepts_is_named_without_a_tail() -> Result<()> {
    let pair = start()?;
    let (certs, mixed) = (pair.certs(), tempfile::tempdir()?);
    let device = certs.join("devices/device");
    let (checks, code) = examine(&bundle(), &["--identity", path(&certs.join("server"))])?;
    assert_eq!(code, Some(1));
    first_failed(&checks, "not a device's certificate")?;
    for file in ["ca.pem", "cert.pem"] {
        fs::copy(device.join(file), mixed.path().join(file))?;
    }
    fs::copy(certs.join("server/key.pem"), mixed.path().join("key.pem"))?;
    let (checks, code) = examine(&bundle(), &["--identity", path(mixed.path())])?;
    assert_eq!(code, Some(1));
    expect(&checks, "identity", "failed", "key.pem")?;
    Ok(())
}

/// Looks for a failed check with these words.
fn first_failed(checks: &[Value], words: &str) -> Result<()> {
    let told = |check: &&Value| check["state"] == "failed" && check["found"].to_string().contains(words);
    checks.iter().find(told).map(drop).with_context(|| format!("{words}: {checks:#?}"))
}

#[test]
fn a_tail_that_has_no_time_is_no_ok() -> Result<()> {
    let pair = start()?;
    let identity = pair.certs().join("devices/device");
    let pid = pair.tail_pid().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status();
    assert!(signal("-STOP")?.success());
    let examined = examine(&bundle(), &["--server", pair.address(), "--identity", path(&identity)]);
    assert!(signal("-CONT")?.success());
    let (checks, code) = examined?;
    assert_eq!(code, Some(1));
    expect(&checks, "udp", "failed", "does not answer")
}

#[test]
fn a_tampered_part_and_wrong_integers_fail() -> Result<()> {
    let tampered = changed_bundle("tables.bin", false, |bytes| bytes[20] ^= 1)?;
    let (checks, code) = examine(tampered.path(), &[])?;
    assert_eq!(code, Some(1));
    expect(&checks, "bundle", "failed", "tables.bin")?;

    // As if this processor computed another integer than the exporter.
    let mut symbols = 0;
    let wrong = changed_bundle("vectors/photo-0-level1.symbols", true, |bytes| {
        symbols = bytes.len();
        bytes[7] ^= 1;
    })?;
    let (checks, code) = examine(wrong.path(), &[])?;
    assert_eq!(code, Some(1));
    expect(&checks, "vectors", "failed", &format!("1 of {symbols} symbols are wrong"))?;
    Ok(())
}

#[test]
fn wrong_scores_of_the_local_network_fail_and_a_bundle_without_one_has_no_line() -> Result<()> {
    let wrong = changed_bundle("vectors/local-photo-0.logits", true, |bytes| bytes[2] ^= 1)?;
    let (checks, code) = examine(wrong.path(), &[])?;
    assert_eq!(code, Some(1));
    expect(&checks, "local network", "failed", "local-photo-0: wrong scores")?;
    expect(&checks, "vectors", "ok", "bit for bit")?;

    // A device that was given the bundle without this part has nothing to check.
    fs::remove_file(wrong.path().join("local.onnx"))?;
    let (checks, code) = examine(wrong.path(), &[])?;
    assert_eq!(code, Some(0));
    assert!(checks.iter().all(|check| check["what"] != "local network"), "{checks:#?}");
    Ok(())
}

#[test]
fn power_without_sensors_says_unknown_and_why() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let output = narrows_pair::head().args(["power", "--sys", path(empty.path())]).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("No power sensor"));
    let mut command = narrows_pair::head();
    command.args([
        "power",
        "--json",
        "--idle",
        "0",
        "--sys",
        path(empty.path()),
        "--",
        "sh",
        "-c",
        "echo out; exit 3",
    ]);
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "out\n", "the command's output is kept out of the report");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["exit"], &report["total"]), (&Value::from(3), &Value::Null));
    assert!(report["unknown"].as_str().is_some_and(|why| why.contains("no power sensor")));
    Ok(())
}

#[test]
fn power_measures_a_command_on_a_boards_tree() -> Result<()> {
    let sys = fixture("orin-nano");
    let output = narrows_pair::head()
        .args(["power", "--json", "--idle", "0.3", "--sys", path(&sys), "--", "sleep", "0.6"])
        .output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    // The tree stands still: 5056 mV × 976 mA, running or idle.
    let (watts, seconds) = (5.056 * 0.976, report["seconds"].as_f64().context("seconds")?);
    let total = &report["total"];
    let gross = total["gross_joules"].as_f64().context("gross")?;
    assert!((gross - watts * seconds).abs() < 0.01 * gross, "{report:#}");
    assert!(total["net_joules"].as_f64().context("net")?.abs() < 0.01 * gross, "{report:#}");
    assert_eq!((&total["rails"][0], &report["complete"]), (&Value::from("VDD_IN"), &Value::from(true)));
    assert!(report["sampler"]["reads"].as_u64().is_some_and(|reads| reads > 10));
    assert!(
        report["rails"][1]["rail"]["covers"]
            .as_str()
            .is_some_and(|covers| covers.contains("cannot tell them apart"))
    );
    Ok(())
}

#[test]
fn a_meters_recording_is_brought_onto_an_earlier_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (run, csv) = (folder.path().join("run.json"), folder.path().join("meter.csv"));
    // Markers at 2 s and 40 s, idle from 10 s, work from 15 s to 30 s, idle to 35 s; the meter began 7 s earlier.
    let earlier = serde_json::json!({
        "plan": {
            "run": { "from_s": 15.0, "to_s": 30.0 },
            "idle_before": { "from_s": 10.0, "to_s": 14.9 },
            "idle_after": { "from_s": 30.1, "to_s": 35.0 },
        },
        "markers": [{ "from_s": 2.0, "to_s": 8.5 }, { "from_s": 40.0, "to_s": 46.5 }],
        "rails": [],
    });
    fs::write(&run, earlier.to_string())?;
    let mut text = String::from("time,volts,amps\n");
    for step in 0..5600 {
        let time = f64::from(step) * 0.01 - 7.0;
        let chip = |from: f64| {
            b"1111100110101".get(((time - from) / 0.5).floor() as usize) == Some(&b'1') && time >= from
        };
        let watts = if chip(2.0) || chip(40.0) || (15.0..30.0).contains(&time) { 6.0 } else { 2.0 };
        text += &format!("{:.2},5.0,{:.3}\n", time + 7.0, watts / 5.0);
    }
    fs::write(&csv, text)?;
    let output = narrows_pair::head()
        .args(["power", "--json", "--meter", path(&csv), "--run", path(&run)])
        .output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let total = &report["total"];
    let (gross, net) =
        (total["gross_joules"].as_f64().context("gross")?, total["net_joules"].as_f64().context("net")?);
    assert!((gross - 90.0).abs() < 0.9 && (net - 60.0).abs() < 0.6, "{report:#}");
    fs::write(&run, "{}")?;
    let output = narrows_pair::head().args(["power", "--meter", path(&csv), "--run", path(&run)]).output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("--run: ") && said(&output).contains("--marker --json"),
        "{}",
        said(&output)
    );
    Ok(())
}

#[test]
fn an_interrupted_measurement_prints_what_it_has() -> Result<()> {
    let sys = fixture("orin-nano");
    let mut command = narrows_pair::head();
    command.args(["power", "--json", "--idle", "0.2", "--seconds", "600", "--sys", path(&sys)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    sleep(Duration::from_millis(1500));
    narrows_pair::terminate(child.id())?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(143), "{:?} {}", output.status.signal(), said(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["interrupted"], &report["complete"]), (&Value::from(true), &Value::from(false)));
    assert!(report["total"]["gross_joules"].as_f64().is_some_and(|joules| joules > 1.0), "{report:#}");
    Ok(())
}

#[test]
fn an_unreadable_counter_comes_with_the_rule_that_opens_it() -> Result<()> {
    // A user without rights, whoever runs this test: a copy of the program and a tree with a closed counter.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let program = folder.path().join("narrows-head");
    fs::copy(narrows_pair::head().get_program(), &program)?;
    let zone = folder.path().join("sys/class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone)?;
    for (file, text) in
        [("name", "package-0\n"), ("energy_uj", "1\n"), ("max_energy_range_uj", "262143328850\n")]
    {
        fs::write(zone.join(file), text)?;
    }
    fs::set_permissions(zone.join("energy_uj"), fs::Permissions::from_mode(0o000))?;
    let mut command = Command::new(&program);
    command.args(["power", "--sys", path(&folder.path().join("sys"))]).current_dir("/");
    if fs::read(zone.join("energy_uj")).is_ok() {
        // Root reads everything; `nobody` does not.
        command.uid(65_534).gid(65_534);
    }
    let output = run(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["RAPL package-0", "may not be read by this user", "CVE-2020-8694", "udev", "chgrp power"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_pi_is_asked_through_its_own_program() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fixture = root().join("head/power/tests/fixtures/pi-5");
    for file in ["pmic_read_adc.txt", "throttled.txt", "vcgencmd"] {
        symlink(fixture.join(file), folder.path().join(file))?;
    }
    let places = std::env::var("PATH")?;
    let mut command = narrows_pair::head();
    command.args(["doctor", "--json", "--sys", path(&fixture.join("sys")), "--bundle"]).arg(bundle());
    let output = command.env("PATH", format!("{}:{places}", folder.path().display())).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    expect(checks, "processor", "ok", "Raspberry Pi 5")?;
    expect(checks, "power", "ok", "PMIC sum, board")?;
    expect(checks, "throttled", "warning", "since the start: the supply's voltage is too low")?;
    Ok(())
}

fn fixture(board: &str) -> PathBuf {
    root().join("head/power/tests/fixtures").join(board).join("sys")
}

/// Runs a program that was just written: for a moment another test's child may still hold it open for writing.
fn run(mut command: Command) -> Result<Output> {
    for _ in 0..50 {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                sleep(Duration::from_millis(20))
            }
            done => return Ok(done?),
        }
    }
    anyhow::bail!("the program stays busy")
}
