//! Few threads, few open files and little memory: the tail ends with a message and an exit code, or it serves.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound")]

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{bundle, root, runtime};

/// A user that owns no other process, so that a limit of its processes is the tail's own.
const USER: u32 = 4242;

/// The end of a tail: its exit code and its log.
struct End {
    code: Option<i32>,
    log: String,
}

/// The program, where every user finds it.
fn program() -> Result<PathBuf> {
    fs::canonicalize(narrows_pair::tail().get_program()).context("the program")
}

/// Starts a tail in a shell with `limit` before its command, and ends it once it listens.
fn tail(limit: &str, identity: &Path, scratch: &Path) -> Result<End> {
    let (log, port) = (scratch.join("log"), scratch.join("port"));
    let _ = fs::remove_file(&port);
    let serve = format!(
        "{} serve --bundle {} --listen 127.0.0.1:0 --identity {} --port-file {} --device cpu --runtime {}",
        program()?.display(),
        bundle().display(),
        identity.display(),
        port.display(),
        runtime().display()
    );
    let mut tail = Command::new("bash")
        .args(["-c", &format!("{limit} {serve}")])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = tail.try_wait()? {
            break status;
        }
        if port.is_file() {
            terminate(tail.id())?;
            break tail.wait()?;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            tail.kill()?;
            anyhow::bail!("{limit}: it hangs: {}", fs::read_to_string(&log)?);
        }
        sleep(Duration::from_millis(20));
    };
    Ok(End { code: status.code(), log: fs::read_to_string(&log)? })
}

fn identity(folder: &Path) -> Result<PathBuf> {
    let made = narrows_pair::tail().args(["certs", "init", "--dir"]).arg(folder.join("certs")).output()?;
    ensure!(made.status.success(), "{made:?}");
    Ok(folder.join("certs/server"))
}

/// Tails under ever larger limits: the small ones end with a message, none with a panic, and the largest serves.
fn check(limits: &[&str], user: Option<u32>, command: impl Fn(&str) -> String, words: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let identity = identity(folder.path())?;
    if user.is_some() {
        for path in [folder.path(), &identity.join("key.pem")] {
            chown(path, user, None)?;
        }
    }
    let mut served = false;
    for (at, limit) in limits.iter().enumerate() {
        let End { code, log } = tail(&command(limit), &identity, folder.path())?;
        let told = || log.lines().rfind(|line| line.starts_with("narrows-tail: ")).unwrap_or_default();
        assert!(!log.contains("panicked"), "{limit}: {log}");
        match code {
            Some(0) => served = true,
            Some(_) => assert!(!told().is_empty() && !served, "{limit}: {log}"),
            None => panic!("{limit}: ended by a signal: {log}"),
        }
        if at == 0 {
            assert!(told().contains(words), "{limit}: {log}");
        }
    }
    assert!(served, "not even the largest limit is enough");
    Ok(())
}

#[test]
fn few_open_files_end_in_a_message() -> Result<()> {
    check(&["8", "12", "20", "30", "64"], None, |limit| format!("ulimit -n {limit} && exec"), "open files")
}

#[test]
fn few_threads_end_in_a_message() -> Result<()> {
    let switch = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
    let reads = format!(
        "{switch} test -x {} -a -r {} -a -r {}",
        program()?.display(),
        bundle().join("manifest.toml").display(),
        runtime().display()
    );
    let can = Command::new("bash").args(["-c", &reads]).stderr(Stdio::null()).status()?.success();
    if !can {
        println!(
            "few threads: skipped; it takes root, setpriv (util-linux) and a folder that all users can read, since the \
             limit does not bind root"
        );
        return Ok(());
    }
    let command = |limit: &str| format!("ulimit -u {limit} && exec {switch}");
    check(&["2", "4", "6", "8", "200"], Some(USER), command, "threads")
}
