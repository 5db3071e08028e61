//! Sources as they are found in the field: files of cameras and webcams, odd names, odd files in folders.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_tests::{bundle, ended, inputs, lines, said};
use serde_json::Value;

/// How long a run over a few files may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a head that answers on its own.
fn run(source: &Path, flags: &[&str]) -> Result<Output> {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    head.arg("--source").arg(source).args(flags);
    head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(head.spawn()?, LIMIT)
}

/// The lines by the names of their files.
fn by_name(output: &Output) -> Result<BTreeMap<String, Value>> {
    let name = |line: &Value| Some(line["file"].as_str()?.rsplit('/').next()?.to_owned());
    lines(output)?
        .into_iter()
        .map(|line| Ok((name(&line).with_context(|| line.to_string())?, line)))
        .collect()
}

fn best(line: &Value) -> &str {
    line["classify"][0]["label"].as_str().unwrap_or("nothing")
}

#[test]
fn every_file_of_a_camera_is_answered_or_refused_by_name() -> Result<()> {
    let output = run(&inputs(), &[])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let lines = by_name(&output)?;
    for orange in [
        "a-plain.jpg",
        "b-cmyk-adobe-k.jpg",
        "c-mjpeg-nodht-avi1.jpg",
        "c-mjpeg-nodht-jfif.jpg",
        "c-mjpeg-nodht-none.jpg",
        "d-leading-crlf.jpg",
        "d-zero-padded.jpg",
        "f-photo.JPE",
        "f-photo.jfif",
    ] {
        let line = lines.get(orange).with_context(|| orange.to_owned())?;
        assert_eq!((&line["status"], best(line)), (&"answered".into(), "orange"), "{line}");
    }
    for other in ["e-exif6.jpg", "i-rgb16.png", "j-alpha-hidden-magenta.png", "m-411.jpg"] {
        assert_eq!(lines[other]["status"], "answered", "{}", lines[other]);
    }
    for (refused, reason) in [
        ("d-truncated-60pct.jpg", "truncated"),
        ("g-heic-named.jpg", "a HEIC image"),
        ("g-html-named.jpg", "an HTML page"),
        ("m-arithmetic.jpg", "arithmetic codes"),
    ] {
        let error = lines[refused]["error"].as_str().unwrap_or_default();
        assert!(lines[refused]["status"] == "failed" && error.contains(reason), "{}", lines[refused]);
    }
    // The other files are not images by their names, which is said once for each kind.
    assert_eq!(lines.len(), 17);
    for (kind, name) in
        [("1 .heic file is not read", "g-photo.heic"), ("1 .md file is not read", "README.md")]
    {
        let notes: Vec<_> =
            said(&output).lines().filter(|line| line.contains(kind)).map(str::to_owned).collect();
        assert!(notes.len() == 1 && notes[0].contains(name), "{kind}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn names_that_are_not_utf_8_are_answered_and_written_without_loss() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let names: [&[u8]; 4] = [b"a.jpg", b"caf\xe9.jpg", b"new\nline.jpg", b"back\\slash.jpg"];
    for name in names {
        fs::copy(inputs().join("a-plain.jpg"), folder.path().join(OsStr::from_bytes(name)))?;
    }
    let output = run(folder.path(), &["--out", &folder.path().join("out").display().to_string()])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = by_name(&output)?;
    let written: Vec<&str> = lines.keys().map(String::as_str).collect();
    assert_eq!(written, ["a.jpg", r"back\\slash.jpg", r"caf\xe9.jpg", r"new\x0aline.jpg"]);
    for (name, line) in &lines {
        assert_eq!(best(line), "orange", "{name}: {line}");
    }
    for source in ["caf\u{e9}.jpg", "caf*", "*.jpg"] {
        let source = source.replace('\u{e9}', "\u{0}").into_bytes();
        let source: Vec<u8> = source.into_iter().map(|byte| if byte == 0 { 0xe9 } else { byte }).collect();
        let output = run(&folder.path().join(OsStr::from_bytes(&source)), &[])?;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(by_name(&output)?.contains_key(r"caf\xe9.jpg"));
    }
    // A name cannot forge a line of the log.
    fs::write(folder.path().join("x\n WARN all is well.jpg.txt"), "")?;
    let said = said(&run(folder.path(), &[])?);
    assert!(!said.contains("\n WARN all is well"), "{said}");
    Ok(())
}

#[test]
fn odd_files_in_a_folder_fail_with_the_reason_and_hold_nobody_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::copy(inputs().join("a-plain.jpg"), at("a.jpg"))?;
    ensure!(Command::new("mkfifo").arg(at("b-fifo.jpg")).status()?.success(), "no FIFO");
    let _socket = UnixListener::bind(at("c-socket.jpg"))?;
    symlink("d-loop.jpg", at("d-loop.jpg"))?;
    symlink("gone", at("e-dangling.jpg"))?;
    symlink("/dev/null", at("f-null.jpg"))?;
    // A terminal at which nobody types.
    symlink("/dev/ptmx", at("g-terminal.jpg"))?;
    fs::create_dir(at("h-folder.jpg"))?;
    fs::copy(inputs().join("a-plain.jpg"), at("z.jpg"))?;
    let output = run(folder.path(), &["--budget", "1000"])?;
    let lines = by_name(&output)?;
    for (name, reason) in [
        ("b-fifo.jpg", "budget of 1000 ms"),
        ("c-socket.jpg", "No such device or address"),
        ("d-loop.jpg", "Too many levels of symbolic links"),
        ("e-dangling.jpg", "No such file or directory"),
        ("f-null.jpg", "the file is empty"),
        ("g-terminal.jpg", "budget of 1000 ms"),
    ] {
        let error = lines[name]["error"].as_str().unwrap_or_default();
        assert!(error.contains(reason), "{}", lines[name]);
    }
    assert!(said(&output).contains("1 folder in it is not searched"), "{}", said(&output));
    for good in ["a.jpg", "z.jpg"] {
        assert_eq!(best(&lines[good]), "orange", "{}", lines[good]);
    }
    assert_eq!((lines.len(), output.status.code()), (8, Some(1)));
    Ok(())
}

#[test]
fn a_folder_with_brackets_in_its_name_is_taken_literally() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shots = folder.path().join("shots [2024] *");
    fs::create_dir(&shots)?;
    fs::copy(inputs().join("a-plain.jpg"), shots.join("a[1].jpg"))?;
    for source in [shots.clone(), shots.join("a[1].jpg"), shots.join("*.jpg"), folder.path().join("**/*")] {
        let output = run(&source, &[])?;
        assert_eq!(output.status.code(), Some(0), "{}: {}", source.display(), said(&output));
        assert_eq!(lines(&output)?.len(), 1);
    }
    Ok(())
}

#[test]
fn a_source_that_cannot_be_read_gets_the_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    symlink("circle", folder.path().join("circle"))?;
    for (source, reason) in [
        ("circle", "Too many levels of symbolic links"),
        ("circle/*.jpg", "Too many levels of symbolic links"),
        ("circle/[1]/x.jpg", "Too many levels of symbolic links"),
        ("none/*.jpg", "No such file or directory"),
    ] {
        let output = run(&folder.path().join(source), &[])?;
        assert!(
            output.status.code() == Some(5) && said(&output).contains(reason),
            "{source}: {}",
            said(&output)
        );
    }
    Ok(())
}

#[test]
fn the_programs_own_pictures_are_no_input() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::copy(inputs().join("a-plain.jpg"), folder.path().join("a.jpg"))?;
    fs::copy(inputs().join("i-rgb16.png"), folder.path().join("somebodys.mask.png"))?;
    let out = folder.path().display().to_string();
    for _ in 0..2 {
        let output = run(folder.path(), &["--out", &out])?;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let lines = by_name(&output)?;
        let names: Vec<&str> = lines.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.jpg", "somebodys.mask.png"]);
    }
    let output = run(&folder.path().join("*"), &[])?;
    assert_eq!(lines(&output)?.len(), 2);
    assert!(said(&output).contains("2 files that narrows-head wrote are not read"), "{}", said(&output));
    Ok(())
}

#[test]
fn a_level_of_logging_that_is_not_understood_is_said() -> Result<()> {
    let mut head = narrows_pair::head();
    head.args(["run", "--bundle", "/nowhere", "--source", "x", "--path", "local"]);
    let mut tail = narrows_pair::tail();
    tail.args(["serve", "--listen", "127.0.0.1:0", "--bundle", "/nowhere", "--identity", "/nowhere"]);
    for mut program in [head, tail] {
        let output = program.env("RUST_LOG", "loud=very=much").output()?;
        assert!(said(&output).contains("RUST_LOG=\"loud=very=much\""), "{}", said(&output));
        assert_eq!(said(&output).matches("RUST_LOG").count(), 1);
    }
    Ok(())
}
