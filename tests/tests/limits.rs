//! A head with few descriptors, little memory or few threads says so and ends.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::Result;
use narrows_tests::{bundle, ended, inputs, lines, said, skipped};

/// Exit code where the operating system refuses what every run needs.
const DEVICE: i32 = 7;
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a head that answers on its own, by a command that limits it.
fn limited(command: &[&str]) -> Result<Output> {
    let mut limited = Command::new(command[0]);
    limited.args(&command[1..]).arg(narrows_pair::head().get_program());
    limited.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    limited.arg("--source").arg(inputs().join("a-plain.jpg"));
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(limited.spawn()?, LIMIT)
}

/// Runs a head under a limit of the shell.
fn under(limit: &str) -> Result<Output> {
    limited(&["sh", "-c", &format!("ulimit {limit}; exec \"$@\""), "sh"])
}

/// Asserts that the head has answered, or has said what it lacks.
fn assert_told(output: &Output, what: &str, limit: &str) -> Result<()> {
    let text = said(output);
    assert!(!text.contains("panicked"), "{limit}: {text}");
    match output.status.code() {
        Some(0) => assert_eq!(lines(output)?.len(), 1, "{limit}: {text}"),
        Some(DEVICE) => assert!(text.contains("narrows-head: ") && text.contains(what), "{limit}: {text}"),
        code => panic!("{limit}: {code:?}: {text}"),
    }
    Ok(())
}

#[test]
fn few_descriptors_are_told_and_enough_are_enough() -> Result<()> {
    // With fewer than 5 the loader cannot open the shared libraries.
    for count in [5, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 64] {
        let output = under(&format!("-n {count}"))?;
        assert_told(&output, "ulimit -n", &format!("{count} descriptors"))?;
        assert!(count < 32 || output.status.code() == Some(0), "{count}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn doctor_and_power_tell_a_limit_too() -> Result<()> {
    for (command, flags) in [("doctor", &["--json"][..]), ("power", &["--seconds", "0.1", "--idle", "0"])] {
        for count in [6, 8, 12, 20] {
            let limit = format!("ulimit -n {count}; exec \"$@\"");
            let mut shell = Command::new("sh");
            shell.args(["-c", &limit, "sh"]).arg(narrows_pair::head().get_program()).arg(command).args(flags);
            shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            if command == "doctor" {
                shell.arg("--bundle").arg(bundle());
            }
            let output = ended(shell.spawn()?, LIMIT)?;
            let text = said(&output) + &String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("ulimit -n") && !text.contains("panicked"), "{command} {count}: {text}");
            assert!(
                matches!(output.status.code(), Some(1 | DEVICE)),
                "{command} {count}: {:?}",
                output.status
            );
        }
    }
    Ok(())
}

#[test]
fn little_memory_is_told() -> Result<()> {
    // In kilobytes; with much less the program itself does not fit.
    for size in [100_000, 150_000, 200_000, 250_000, 400_000] {
        assert_told(&under(&format!("-v {size}"))?, "ulimit -v", &format!("{size} kB"))?;
    }
    Ok(())
}

#[test]
fn few_threads_are_told_and_enough_are_enough() -> Result<()> {
    // The limit counts the processes of a user and does not bind root: so one that has none is taken.
    let user = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"];
    let mut trial = Command::new(user[0]);
    trial.args(&user[1..]).args(["prlimit", "--nproc=9:9"]).arg(narrows_pair::head().get_program());
    let output = trial.arg("--version").output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        skipped(
            "limits",
            "root, setpriv and prlimit (util-linux), and a folder that all may read, for few threads",
        );
        return Ok(());
    }
    for count in 1..=8 {
        let limit = format!("--nproc={count}:{count}");
        let output = limited(&[&user[..], &["prlimit", &limit]].concat())?;
        assert_told(&output, "ulimit -u", &format!("{count} threads"))?;
        assert!(count < 8 || output.status.code() == Some(0), "{count}: {}", said(&output));
    }
    Ok(())
}
