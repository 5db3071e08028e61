//! Two tails of which one is killed or shut down: every frame is answered once, by the one or the other.
#![expect(clippy::disallowed_methods, reason = "lines are told apart by when they came")]

use std::{path::Path, time::Instant};

use anyhow::{Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{Fleet, SteadyHead, bundle, said};
use serde_json::Value;

/// Checks that only what the signal interrupted at the end has no answer.
fn check_all_answered(lines: &[Value]) {
    let interrupted = |line: &Value| line["error"].as_str().is_some_and(|why| why.contains("interrupted"));
    let failed: Vec<_> = lines.iter().filter(|line| line["status"] != "answered").collect();
    assert!(failed.iter().all(|line| interrupted(line)), "{failed:?}");
}

#[test]
fn when_one_of_two_tails_is_killed_the_other_answers_and_the_first_is_returned_to() -> Result<()> {
    let mut fleet = Fleet::start(false)?;
    let mut command = fleet.head(&[0, 1]);
    command.args(["--return-after", "1"]);
    let mut head = SteadyHead::start(command)?;
    for _ in 0..2 {
        head.wait_for(Instant::now(), fleet.answered(0))?;
        fleet.kill(0)?;
        let killed = Instant::now();
        head.wait_for(killed, fleet.answered(1))?;
        fleet.launch(0, None)?;
        head.wait_for(Instant::now(), fleet.answered(0))?;
    }
    check_all_answered(&head.finish()?);
    Ok(())
}

#[test]
fn when_a_tail_shuts_down_no_frame_is_lost_on_the_way_to_the_one_that_it_names() -> Result<()> {
    let mut fleet = Fleet::start(true)?;
    let mut head = SteadyHead::start(fleet.head(&[0]))?;
    head.wait_for(Instant::now(), fleet.answered(0))?;
    let tail = fleet.tails[0].as_mut().expect("it runs");
    terminate(tail.id())?;
    let leaving = Instant::now();
    head.wait_for(leaving, fleet.answered(1))?;
    ensure!(fleet.tails[0].as_mut().expect("it ran").wait()?.success(), "it did not drain");
    check_all_answered(&head.finish()?);
    Ok(())
}

#[test]
fn by_load_one_of_two_is_used_and_the_other_when_that_is_killed() -> Result<()> {
    let mut fleet = Fleet::start(false)?;
    let mut command = fleet.head(&[0, 1]);
    command.args(["--servers", "load"]);
    let mut head = SteadyHead::start(command)?;
    let (first, second) = (fleet.answered(0), fleet.answered(1));
    head.wait_for(Instant::now(), |line| first(line) || second(line))?;
    // Killing both in turn shows that either is left.
    for which in [0, 1] {
        fleet.kill(which)?;
        head.wait_for(Instant::now(), fleet.answered(1 - which))?;
        fleet.launch(which, None)?;
    }
    check_all_answered(&head.finish()?);
    Ok(())
}

#[test]
fn the_doctor_checks_every_server() -> Result<()> {
    let mut fleet = Fleet::start(false)?;
    fleet.kill(0)?;
    let mut doctor = narrows_pair::head();
    doctor.arg("doctor").arg("--bundle").arg(bundle()).arg("--identity").arg(fleet.device());
    doctor.args(["--server", &fleet.addresses[0], "--server", &fleet.addresses[1]]);
    let output = doctor.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = |server: &str| text.find(&format!("server       {server}")).or_else(|| text.find(server));
    let (first, second) = (at(&fleet.addresses[0]), at(&fleet.addresses[1]));
    assert!(first.is_some() && first < second && output.status.code() == Some(1), "{text}");
    let (dead, alive) = text.split_at(second.unwrap_or_default());
    assert!(
        dead.contains("failed   udp") && alive.contains("welcome") && !alive.contains("failed"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_server_that_stands_twice_is_a_wrong_flag() -> Result<()> {
    let twice = ["run", "--server", "a:1", "--server", "a:1", "--identity", "x", "--source", "x", "--bundle"];
    let output = narrows_pair::head().args(twice).arg(path(&bundle())).output()?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("--server: a:1 stands twice"), "{}", said(&output));
    Ok(())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of this project")
}
