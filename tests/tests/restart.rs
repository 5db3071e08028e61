//! A tail that crashes, hangs and returns: heads find it again, and every frame ends once.
#![expect(clippy::disallowed_methods, reason = "how long a return takes is measured")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use narrows_pair::Pair;
use narrows_tests::{SteadyHead, TIMEOUT, bundle, photos, runtime};
use serde_json::Value;

/// Kills in one run; `ROUNDS=20` measures more and asserts what is asked of a machine without other work.
const ROUNDS: usize = 3;
/// Longest time from a tail's return to the next answer, without `ROUNDS`: half of the idle timeout.
const FOUND: Duration = Duration::from_secs(5);
/// The same, with `ROUNDS`.
const FOUND_ALONE: Duration = Duration::from_millis(1500);

/// A tail that can be killed and started again on its port.
struct Tail {
    pair: Pair,
    again: Option<Child>,
}

impl Tail {
    fn start() -> Result<Self> {
        Ok(Tail {
            pair: Pair::start(&bundle(), &["--device", "cpu", "--runtime", path(&runtime())])?,
            again: None,
        })
    }

    fn kill(&mut self) -> Result<()> {
        match &mut self.again {
            Some(child) => {
                child.kill()?;
                child.wait()?;
            }
            None => {
                self.pair.kill()?;
            }
        }
        Ok(())
    }

    /// Starts the tail again and waits until it listens.
    fn restart(&mut self) -> Result<Instant> {
        let folder = self.pair.certs();
        let (port, log) = (folder.join("port"), fs::File::create(folder.join("again.log"))?);
        let _ = fs::remove_file(&port);
        let mut command = narrows_pair::tail();
        command.args([
            "serve",
            "--listen",
            self.pair.address(),
            "--device",
            "cpu",
            "--runtime",
            path(&runtime()),
        ]);
        command.arg("--bundle").arg(bundle()).arg("--identity").arg(folder.join("server"));
        command.arg("--port-file").arg(&port).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.again = Some(command.spawn()?);
        let begin = Instant::now();
        while !port.exists() {
            ensure!(begin.elapsed() < TIMEOUT, "{}", fs::read_to_string(folder.join("again.log"))?);
            sleep(Duration::from_millis(5));
        }
        Ok(Instant::now())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(child) = &mut self.again {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of this project")
}

fn is_split(line: &Value) -> bool {
    line["status"] == "answered" && line["path"] == "split"
}

#[test]
fn a_tail_that_was_killed_is_found_at_once_when_it_is_back() -> Result<()> {
    let asked = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (rounds, limit) = asked.map_or((ROUNDS, FOUND), |rounds: usize| (rounds, FOUND_ALONE));
    let mut tail = Tail::start()?;
    let mut command = tail.pair.head(&bundle());
    command.args(["--tasks", "classify", "--repeat", "0", "--retry-for", "60", "--fallback", "never"]);
    command.args(["--source", path(&photos())]);
    let mut head = SteadyHead::start(command)?;
    let mut times = Vec::new();
    for round in 0..rounds {
        head.wait_for(Instant::now(), is_split)?;
        sleep(Duration::from_millis(300));
        tail.kill()?;
        // Outages of different lengths meet QUIC's repetitions at different places.
        sleep(Duration::from_millis(137 * (round as u64 % 16)));
        let back = tail.restart()?;
        times.push(head.wait_for(back, is_split)?.duration_since(back));
    }
    let lines = head.finish()?;
    times.sort_unstable();
    println!("from the tail's return to the next answer, {rounds} rounds: {times:?}");
    assert!(times.iter().all(|&time| time < limit), "{times:?}");
    let failed: Vec<_> = lines.iter().filter(|line| !is_split(line)).collect();
    // Only what the signal interrupted at the end.
    assert!(
        failed.iter().all(|line| line["error"].as_str().is_some_and(|why| why.contains("interrupted"))),
        "{failed:?}"
    );
    Ok(())
}

#[test]
fn a_tail_that_hangs_is_replaced_by_this_device_until_it_goes_on() -> Result<()> {
    let tail = Tail::start()?;
    let mut command = tail.pair.head(&bundle());
    command.args(["--tasks", "classify", "--repeat", "0", "--retry-for", "60", "--budget", "4000"]);
    command.args(["--idle-timeout", "3000", "--keep-alive", "1000", "--source", path(&photos())]);
    let mut head = SteadyHead::start(command)?;
    head.wait_for(Instant::now(), is_split)?;
    let pid = tail.pair.tail_pid().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status();
    assert!(signal("-STOP")?.success());
    let stopped = Instant::now();
    let local = |line: &Value| line["path"] == "local" && line["fallback"].is_string();
    let first = head.wait_for(stopped, local)?.duration_since(stopped);
    // It has waited for half of its budget.
    assert!(first < Duration::from_millis(3900), "{first:?}");
    sleep(Duration::from_secs(6).saturating_sub(stopped.elapsed()));
    assert!(signal("-CONT")?.success());
    let back = Instant::now();
    head.wait_for(back, is_split)?;
    let lines = head.finish()?;
    let failed: Vec<_> = lines.iter().filter(|line| line["status"] != "answered").collect();
    assert!(
        failed.iter().all(|line| line["error"].as_str().is_some_and(|why| why.contains("interrupted"))),
        "{failed:?}"
    );
    Ok(())
}

#[test]
fn frames_with_a_short_budget_are_answered_here_while_the_tail_is_away() -> Result<()> {
    let mut tail = Tail::start()?;
    let mut command = tail.pair.head(&bundle());
    command.args(["--tasks", "classify", "--repeat", "0", "--retry-for", "60", "--budget", "1500"]);
    command.args(["--source", path(&photos())]);
    let mut head = SteadyHead::start(command)?;
    head.wait_for(Instant::now(), is_split)?;
    tail.kill()?;
    let killed = Instant::now();
    let local = |line: &Value| line["path"] == "local" && line["fallback"].is_string();
    let first = head.wait_for(killed, local)?.duration_since(killed);
    // Long before the idle timeout.
    assert!(first < FOUND, "{first:?}");
    let back = tail.restart()?;
    head.wait_for(back, is_split)?;
    head.finish().map(drop)
}
