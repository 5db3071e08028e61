//! A tail as a service: settings and rights that are read again while it serves, and messages to the service manager.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{ServiceTail as Tail, TIMEOUT, bundle, output_within, photos, said};

#[test]
fn settings_and_rights_take_effect_while_it_serves_and_bad_ones_do_not() -> Result<()> {
    let rights = "[devices]\ndefault = 'none'\n[[devices.device]]\nname = 'cam-*'\n";
    let tail = Tail::start(rights)?;
    tail.accepts("cam-1", &bundle())?;
    tail.refuses("door", &bundle(), "not permitted")?;
    tail.hears("WATCHDOG=1")?;

    // Rights, by a change of the file and by SIGHUP.
    tail.write("[[devices.device]]\nname = 'door'\n[devices.default]\nconnections = 2\n")?;
    tail.logs("settings were read again")?;
    tail.accepts("door", &bundle())?;
    tail.accepts("cam-1", &bundle())?;
    tail.write(rights)?;
    tail.hang_up()?;
    tail.refuses("door", &bundle(), "not permitted")?;

    // A file of their own in place of the section, which is then watched.
    fs::write(tail.file("rights.toml"), "default = 'none'\n[[device]]\nname = 'door'\n")?;
    tail.write("devices = 'rights.toml'\n")?;
    tail.hang_up()?;
    tail.accepts("door", &bundle())?;
    tail.refuses("cam-1", &bundle(), "not permitted")?;
    fs::write(tail.file("rights.toml"), "default = 'none'\n[[device]]\nname = 'cam-?'\n")?;
    tail.logs("rights of devices were read again")?;
    tail.accepts("cam-1", &bundle())?;

    // What is wrong names file, line, key and form, and changes nothing.
    let line = tail.base.lines().count() + 1;
    for (rest, told) in [
        ("conections = 1\n", format!("tail.toml:{line}: there is no key \"conections\"; is it connections?")),
        (
            "drain-timeout = 'soon'\n",
            format!(
                "tail.toml:{line}: drain-timeout = 'soon' cannot be used: must be 0 to 3600000 milliseconds; give MS: "
            ),
        ),
        (
            "threads = 256\nworkers = 64\n",
            format!("tail.toml:{line}: threads = 256: --threads 256 with --workers 64 makes"),
        ),
        ("devices = 'missing.toml'\n", format!("tail.toml:{line}: devices = 'missing.toml': cannot read ")),
        (
            "[[devices.device]]\nname = 'door'\nframes_per_second = -1\n",
            format!(
                "tail.toml: line {}: frames_per_second: -1 is impossible; give 0.001 to 1000000 frames a second",
                line + 2
            ),
        ),
        ("[devices]\ndefalt = 'none'\n", format!("tail.toml: line {}: ", line + 1)),
        ("[status]\nlisten = 7462\n", format!("tail.toml:{}: status.listen = 7462 cannot be used", line + 1)),
        (
            "next = 'nowhere'\n",
            format!("tail.toml:{line}: next = 'nowhere' cannot be used: must be HOST:PORT"),
        ),
    ] {
        let before = tail.log().matches("not used; the settings stay as they were").count();
        tail.write(rest)?;
        tail.hang_up()?;
        let log = tail.log();
        ensure!(log.contains(&told), "{told}: {log}");
        ensure!(log.matches("not used; the settings stay as they were").count() > before, "{log}");
        // `check` says the same of it.
        let mut check = narrows_pair::tail();
        check.args(["check", "--config"]).arg(tail.file("tail.toml"));
        let checked = output_within(&mut check, 2 * TIMEOUT)?;
        let text = String::from_utf8_lossy(&checked.stdout).into_owned() + &said(&checked);
        ensure!(!checked.status.success() && text.contains(&told), "{told}: {text}");
    }
    tail.accepts("cam-1", &bundle())?;
    tail.refuses("door", &bundle(), "not permitted")?;

    // Rights in a file that cannot be used otherwise are not used either, whoever looks at it.
    tail.write(rights)?;
    tail.hang_up()?;
    tail.write("conections = 1\n[[devices.device]]\nname = 'door'\n")?;
    let told = || tail.log().matches("is it connections?").count();
    let (before, begin) = (told(), Instant::now());
    while told() == before {
        ensure!(begin.elapsed() < TIMEOUT, "{}", tail.log());
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_secs(1));
    tail.refuses("door", &bundle(), "not permitted")?;

    // What only a new start changes is named; the rest takes effect.
    tail.write("batch = 4\noffload = true\nconnections = 1\n")?;
    tail.hang_up()?;
    tail.logs("tail.toml: changes with the next start alone: batch, offload")?;
    tail.accepts("door", &bundle())?;
    Ok(())
}

#[test]
fn a_running_head_keeps_its_connection_while_settings_and_certificates_are_read_again() -> Result<()> {
    let mut tail = Tail::start("")?;
    let mut head = narrows_pair::head();
    head.args(["run", "--tasks", "classify", "--repeat", "0", "--fps", "20", "--bundle"])
        .arg(bundle())
        .args(["--server", &tail.address, "--source"])
        .arg(photos().join("orange.jpg"))
        .arg("--identity")
        .arg(tail.file("certs/devices/cam-1"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(fs::File::create(tail.file("lines"))?);
    let head = head.spawn()?;
    let count = || fs::read_to_string(tail.file("lines")).unwrap_or_default().lines().count();
    let grows = |by: usize| -> Result<()> {
        let (begin, wanted) = (Instant::now(), count() + by);
        while count() < wanted {
            ensure!(begin.elapsed() < TIMEOUT, "no line: {}", tail.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    grows(5)?;
    for rest in [
        "connections = 8\n",
        "[[devices.device]]\nname = 'door'\nconnections = 1\n",
        "drain-timeout = 'x'\n",
        "",
    ] {
        tail.write(rest)?;
        tail.hang_up()?;
        grows(5)?;
    }
    // Another server certificate.
    let mut renew = narrows_pair::tail();
    renew.args(["certs", "server", "--dir"]).arg(tail.file("certs"));
    ensure!(renew.output()?.status.success());
    tail.hang_up()?;
    grows(5)?;
    terminate(head.id())?;
    let output = narrows_tests::ended(head, TIMEOUT)?;
    let text = fs::read_to_string(tail.file("lines"))?;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let error = line["error"].as_str().unwrap_or_default();
        ensure!(line["status"] == "answered" || error.contains("interrupted"), "{line}");
    }
    ensure!(!said(&output).contains("lost the server"), "{}", said(&output));

    terminate(tail.child.id())?;
    tail.hears("STOPPING=1")?;
    let begin = Instant::now();
    while tail.child.try_wait()?.is_none() {
        ensure!(begin.elapsed() < TIMEOUT, "{}", tail.log());
        sleep(Duration::from_millis(20));
    }
    ensure!(tail.child.wait()?.success(), "{}", tail.log());
    Ok(())
}
