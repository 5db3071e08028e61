//! Pictures of answers are whole or absent, whatever the disk, the names and earlier runs are like.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_pair::Pair;
use narrows_tests::{bundle, ended, inputs, lines, runtime, said, skipped};

/// Exit code where a result could not be written.
const DEVICE: i32 = 7;
const LIMIT: Duration = Duration::from_secs(60);

/// The flags of a head that answers on its own and draws.
fn flags(source: &Path, out: &Path) -> Vec<String> {
    let bundle = bundle().display().to_string();
    let words = ["run", "--path", "local", "--tasks", "classify", "--bundle", &bundle];
    let places =
        ["--source", &source.display().to_string(), "--out", &out.display().to_string()].map(str::to_owned);
    words.map(str::to_owned).into_iter().chain(places).collect()
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = fs::read_dir(folder)?.map(name).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Runs a shell script with a head's path and flags as `"$@"`.
fn shell(script: &str, flags: &[String]) -> Result<Output> {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(narrows_pair::head().get_program()).args(flags);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(shell.spawn()?, LIMIT)
}

#[test]
fn a_picture_that_does_not_fit_leaves_nothing_and_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    // Files of at most four blocks of 512 bytes.
    let output = shell("ulimit -f 4; exec \"$@\"", &flags(&inputs().join("a-plain.jpg"), &out))?;
    assert_eq!(output.status.code(), Some(DEVICE), "{}", said(&output));
    let lines = lines(&output)?;
    let error = lines[0]["error"].as_str().context("no error")?;
    assert!(error.contains("a-plain.overlay.png: File too large"), "{error}");
    assert_eq!((&lines[0]["status"], &lines[0]["overlay"]), (&"answered".into(), &serde_json::Value::Null));
    assert!(names(&out)?.is_empty(), "{:?}", names(&out)?);
    Ok(())
}

#[test]
fn a_full_disk_leaves_no_part_of_a_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("disk");
    fs::create_dir(&out)?;
    // A file system with room for one picture and a half, in a name space of its own.
    let script = r#"mount -t tmpfs -o size=768k none "$DISK" || exit 99
        "$@"; code=$?; ls -la "$DISK" >&2; exit $code"#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).env("DISK", &out);
    let shots = folder.path().join("shots");
    fs::create_dir(&shots)?;
    for name in ["a.jpg", "b.jpg"] {
        fs::copy(inputs().join("a-plain.jpg"), shots.join(name))?;
    }
    unshare.arg(narrows_pair::head().get_program()).args(flags(&shots, &out));
    unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match unshare.spawn() {
        Ok(child) => ended(child, LIMIT)?,
        Err(error) => {
            skipped("outputs", &format!("unshare (util-linux), for a small disk: {error}"));
            return Ok(());
        }
    };
    if matches!(output.status.code(), Some(99)) || said(&output).contains("unshare failed") {
        skipped("outputs", &format!("user namespaces, for a small disk: {}", said(&output).trim()));
        return Ok(());
    }
    assert_eq!(output.status.code(), Some(DEVICE), "{}", said(&output));
    let lines = lines(&output)?;
    assert!(lines[0]["overlay"].is_string() && lines[1]["overlay"].is_null(), "{lines:?}");
    assert!(lines[1]["error"].as_str().is_some_and(|error| error.contains("No space left on device")));
    assert!(said(&output).contains("a.overlay.png"), "{}", said(&output));
    let listing = said(&output);
    assert!(
        !listing.lines().any(|line| line.ends_with(".part") || line.ends_with(" b.overlay.png")),
        "{listing}"
    );
    Ok(())
}

#[test]
fn long_names_are_shortened_and_stay_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shots = folder.path().join("shots");
    fs::create_dir(&shots)?;
    for end in ["a", "b"] {
        fs::copy(inputs().join("a-plain.jpg"), shots.join("x".repeat(250) + end + ".jpg"))?;
    }
    let out = folder.path().join("out");
    let output = shell("exec \"$@\"", &flags(&shots, &out))?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(names(&out)?.len(), 2);
    for line in lines(&output)? {
        assert!(Path::new(line["overlay"].as_str().context("no overlay")?).is_file(), "{line}");
    }
    Ok(())
}

#[test]
fn a_mask_of_an_earlier_run_does_not_stay_beside_a_new_overlay() -> Result<()> {
    let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])?;
    let out = tempfile::tempdir()?;
    for (tasks, pictures) in [
        ("segment", &["a-plain.mask.png", "a-plain.overlay.png"][..]),
        ("classify", &["a-plain.overlay.png"]),
    ] {
        let mut head = pair.head(&bundle());
        head.args(["--tasks", tasks, "--source"])
            .arg(inputs().join("a-plain.jpg"))
            .arg("--out")
            .arg(out.path());
        let output = head.output()?;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(names(out.path())?, pictures);
    }
    pair.drain()
}
