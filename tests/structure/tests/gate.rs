//! What the gate runs beyond Rust's tests says in one line what is missing, and the audit fails where it cannot check.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn make(arguments: &[&str]) -> Output {
    // The variables of a make that runs these tests are not this make's.
    let mut command = Command::new("make");
    command.env_remove("MAKEFLAGS").env_remove("MAKEOVERRIDES").env_remove("MFLAGS");
    command.arg("--no-print-directory").arg("-C").arg(root()).args(arguments).output().expect("make")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A program in place of cargo-deny, of which the command `failing` fails.
fn deny(folder: &Path, failing: &str) -> String {
    let program = folder.join(format!("deny-{failing}"));
    let script = format!("#!/bin/sh\necho \"deny $*\"\ncase \"$*\" in *{failing}*) exit 1;; esac\n");
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    format!("DENY={}", program.display())
}

#[test]
fn the_gate_runs_fuzz_targets_python_packages_and_arm() {
    let planned = words(&make(&["--dry-run", "test"]));
    for script in ["tests/fuzz/run.sh 10", "tests/python.sh", "tests/arm.sh"] {
        assert!(planned.contains(script), "{script}: {planned}");
    }
}

#[test]
fn what_is_skipped_is_said_in_one_line_with_the_way_to_get_it() {
    for (script, argument, variable, way) in [
        ("tests/fuzz/run.sh", "1", "CARGO", "cargo install --locked cargo-fuzz"),
        ("tests/python.sh", "", "PYTHON", "apt install python3-venv"),
        ("tests/arm.sh", "", "ARM_RUN", "apt install qemu-user-static"),
    ] {
        let mut command = Command::new(root().join(script));
        let output = command.arg(argument).env(variable, "/nowhere/program").output().expect(script);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(77), "{script}: {said}");
        assert!(said.lines().count() == 1 && said.contains("skipped; missing: "), "{script}: {said}");
        assert!(said.contains(way), "{script}: {said}");
    }
}

#[test]
fn the_audit_fails_without_its_tool() {
    let output = make(&["audit", "DENY=/nowhere/cargo-deny"]);
    assert!(!output.status.success() && words(&output).contains("cargo install --locked cargo-deny"));
}

#[test]
fn the_audit_fails_without_the_advisory_database_and_says_what_it_did_not_check() {
    let folder = std::env::temp_dir().join(format!("narrows-gate-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let offline = deny(&folder, "fetch");
    let output = make(&["audit", &offline]);
    let said = words(&output);
    assert!(!output.status.success() && said.contains("advisories are not checked"), "{said}");
    assert!(said.contains("check licenses bans sources") && said.contains("make audit-offline"), "{said}");
    assert!(make(&["audit-offline", &offline]).status.success());

    let output = make(&["audit", &deny(&folder, "advisories")]);
    assert!(!output.status.success(), "an advisory is a failure: {}", words(&output));
    let output = make(&["audit", &deny(&folder, "nothing-at-all")]);
    assert!(output.status.success() && words(&output).contains("check advisories"), "{}", words(&output));
    fs::remove_dir_all(&folder).expect("the folder");
}
