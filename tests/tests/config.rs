//! Configuration files of the real programs: every key is a flag, faults are told with their place, and `check` starts nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result};
use narrows_tests::{bundle, lines, photos, root, said};

/// Runs a program of the project and returns what it wrote.
fn output(program: fn() -> std::process::Command, arguments: &[&str]) -> Result<Output> {
    Ok(program().args(arguments).output()?)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with a configuration file.
fn configured(name: &str, text: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(name);
    fs::write(&file, text)?;
    Ok((folder, file))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[test]
fn the_samples_are_those_of_the_documents_and_have_every_flag() -> Result<()> {
    for (program, name, command) in [
        (narrows_pair::head as fn() -> _, "narrows-head", "run"),
        (narrows_pair::tail, "narrows-tail", "serve"),
    ] {
        let sample = printed(&output(program, &["config"])?);
        let file = format!("docs/{}.toml", &name[8..]);
        let documented = fs::read_to_string(root().join(&file))?;
        assert_eq!(sample, documented, "{file} is old; write it anew: {name} config > {file}");
        let help = printed(&output(program, &[command, "--help"])?);
        let in_help: Vec<&str> = help
            .lines()
            .filter(|line| line.starts_with("      --") || line.starts_with("  -"))
            .filter_map(|line| line.split_once("--")?.1.split([' ', '.', '\n']).next())
            .filter(|flag| !matches!(*flag, "help" | "config"))
            .collect();
        assert!(in_help.len() > 15, "{in_help:?}");
        let mut keys = Vec::new();
        let mut section = String::new();
        for line in sample.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
                && !key.contains(' ')
            {
                let is_own = matches!(
                    (section.as_str(), key),
                    ("mqtt" | "webhook", "url")
                        | ("page" | "status" | "enrol", "listen")
                        | ("spool", "folder")
                );
                keys.push(match section.is_empty() {
                    true => key.to_owned(),
                    false if (section.as_str(), key) == ("bundles", "folders") => "bundle".to_owned(),
                    false if is_own => section.clone(),
                    false => format!("{section}-{key}"),
                });
            }
        }
        let (mut keys, mut in_help) = (keys, in_help);
        keys.sort();
        in_help.sort();
        assert_eq!(keys, in_help, "{name}: the keys of the sample and the flags of {command} --help");
        // A file in which everything is a comment says nothing.
        let (_folder, file) = configured("empty.toml", &sample)?;
        let found = output(program, &[command, "--config", text(&file)])?;
        let key = if command == "serve" { "bundles.folders" } else { "bundle" };
        let missing = format!("give {key}, or --bundle: DIR: Folder of");
        assert!(found.status.code() == Some(2) && said(&found).contains(&missing), "{}", said(&found));
    }
    Ok(())
}

#[test]
fn a_run_is_the_same_from_a_file_and_flags_count_more() -> Result<()> {
    let photo = photos().join("orange.jpg");
    let (folder, file) = configured(
        "head.toml",
        &format!(
            "bundle = '{}'\npath = 'local'\nrepeat = 2\ndevice = 'gate'\n[[source]]\nname = 'yard'\nurl = 'photo.jpg'\n",
            bundle().display()
        ),
    )?;
    fs::copy(photo, folder.path().join("photo.jpg"))?;
    let found = output(narrows_pair::head, &["run", "--config", text(&file)])?;
    assert!(found.status.success(), "{}", said(&found));
    let found = lines(&found)?;
    assert_eq!((found.len(), &found[0]["device"], &found[0]["camera"]), (2, &"gate".into(), &"yard".into()));
    let found = lines(&output(narrows_pair::head, &["run", "--repeat", "1", "--config", text(&file)])?)?;
    assert_eq!(found.len(), 1);
    Ok(())
}

#[test]
fn faults_of_a_file_are_told_at_once_with_line_key_and_form() -> Result<()> {
    for (program, command) in [(narrows_pair::head as fn() -> _, "run"), (narrows_pair::tail, "serve")] {
        for command in [command, "check"] {
            let (_folder, file) =
                configured("bad.toml", "bundel = 'x'\nin-flight = 'many'\n[section]\nx = 1\n")?;
            let found = output(program, &[command, "--config", text(&file)])?;
            let error = said(&found);
            assert_eq!(found.status.code(), Some(2), "{error}");
            for part in [
                "bad.toml:1: there is no key \"bundel\"; is it bundle?",
                "bad.toml:2: in-flight = 'many' cannot be used",
                "bad.toml:3: there is no key \"section\"",
            ] {
                assert!(error.contains(part), "{part}: {error}");
            }
            let found = output(program, &[command, "--config", "/nowhere/x.toml"])?;
            assert_eq!(found.status.code(), Some(2));
            assert!(
                said(&found).contains("/nowhere/x.toml cannot be read: No such file"),
                "{}",
                said(&found)
            );
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_together_names_its_line_too() -> Result<()> {
    let bundle = bundle();
    for (rest, code, place) in [
        ("in-flight = 0\n", 2, "head.toml:4: in-flight = 0: 0 is out of range; give 1 to 256"),
        ("tasks = ['classfy']\n", 2, "head.toml:4: tasks = 'classfy': the bundle has no task"),
        ("[mqtt]\nurl = 'http://x'\n", 2, "head.toml:5: mqtt.url = …: the address begins with mqtt://"),
        ("[mqtt]\nuser = 'x'\n", 2, "head.toml:5: mqtt.user = 'x': it needs --mqtt"),
    ] {
        let text_of = format!("bundle = '{}'\npath = 'local'\nsource = 'none.jpg'\n{rest}", bundle.display());
        let (_folder, file) = configured("head.toml", &text_of)?;
        let found = output(narrows_pair::head, &["run", "--config", text(&file)])?;
        assert_eq!(found.status.code(), Some(code), "{}", said(&found));
        assert!(said(&found).contains(place), "{place}: {}", said(&found));
        let checked = output(narrows_pair::head, &["check", "--config", text(&file)])?;
        assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
        assert!(printed(&checked).contains(place), "{place}: {}", printed(&checked));
        // The source that does not exist is told in the same run.
        assert!(printed(&checked).contains("head.toml:3: source = …: files:"), "{}", printed(&checked));
    }
    Ok(())
}

#[test]
fn a_key_that_needs_another_one_is_named_with_its_line() -> Result<()> {
    let front = "bundle = 'x'\nsource = 'y'\n";
    for (rest, place) in [
        (
            "[mqtt]\ncert = 'c.pem'\n",
            "head.toml:4: mqtt.cert = 'c.pem' needs another key; give mqtt.key, or --mqtt-key: FILE: ",
        ),
        (
            "[spool]\nbytes = '1G'\n",
            "head.toml:4: spool.bytes = '1G' needs another key; give spool.folder, or --spool: DIR: ",
        ),
    ] {
        let (_folder, file) = configured("head.toml", &format!("{front}{rest}"))?;
        for command in ["run", "check"] {
            let found = output(narrows_pair::head, &[command, "--config", text(&file)])?;
            assert_eq!(found.status.code(), Some(2), "{}", said(&found));
            assert!(said(&found).contains(place), "{}", said(&found));
        }
    }
    Ok(())
}

#[test]
fn check_finds_what_is_wrong_with_certificates_and_bundles() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let certs = folder.path().join("certs");
    for arguments in
        [&["certs", "init", "--dir", text(&certs)][..], &["certs", "device", "pi", "--dir", text(&certs)]]
    {
        let made = output(narrows_pair::tail, arguments)?;
        assert!(made.status.success(), "{}", said(&made));
    }
    let bundle = bundle();
    let head = format!(
        "bundle = '{}'\nserver = 'localhost:7461'\nidentity = 'certs/devices/pi'\nsource = '{}'\n",
        bundle.display(),
        photos().join("orange.jpg").display()
    );
    let tail =
        format!("bundle = ['{}']\nlisten = '127.0.0.1:0'\nidentity = 'certs/server'\n", bundle.display());
    fs::write(folder.path().join("head.toml"), &head)?;
    fs::write(folder.path().join("tail.toml"), &tail)?;
    let check =
        |program: fn() -> std::process::Command, file: &str| -> Result<(Option<i32>, serde_json::Value)> {
            let path = folder.path().join(file);
            let found = output(program, &["check", "--json", "--config", text(&path)])?;
            Ok((found.status.code(), serde_json::from_slice(&found.stdout).with_context(|| said(&found))?))
        };
    let failed = |checks: &serde_json::Value| -> String {
        let failed =
            checks["checks"].as_array().into_iter().flatten().filter(|check| check["state"] == "failed");
        failed.map(|check| format!("{} ({})\n", check["found"], check["remedy"])).collect()
    };
    for (program, file) in [(narrows_pair::head as fn() -> _, "head.toml"), (narrows_pair::tail, "tail.toml")]
    {
        let (code, checks) = check(program, file)?;
        assert_eq!((code, failed(&checks).as_str()), (Some(0), ""), "{checks}");
    }
    // A key that others can read.
    for key in ["certs/devices/pi/key.pem", "certs/server/key.pem"] {
        fs::set_permissions(folder.path().join(key), fs::Permissions::from_mode(0o644))?;
    }
    for (program, file) in [(narrows_pair::head as fn() -> _, "head.toml"), (narrows_pair::tail, "tail.toml")]
    {
        let (code, checks) = check(program, file)?;
        assert!(code == Some(1) && failed(&checks).contains("chmod 600"), "{checks}");
    }
    for key in ["certs/devices/pi/key.pem", "certs/server/key.pem"] {
        fs::set_permissions(folder.path().join(key), fs::Permissions::from_mode(0o600))?;
    }
    // Certificates of the wrong kind, and no bundle.
    fs::write(folder.path().join("head.toml"), head.replace("devices/pi", "server"))?;
    fs::write(folder.path().join("tail.toml"), tail.replace("certs/server", "certs/devices/pi"))?;
    for (program, file) in [(narrows_pair::head as fn() -> _, "head.toml"), (narrows_pair::tail, "tail.toml")]
    {
        let (code, checks) = check(program, file)?;
        assert!(code == Some(1) && failed(&checks).contains("certs"), "{checks}");
    }
    fs::write(folder.path().join("devices.toml"), "[[device]]\nname = 'a'\nframes_per_second = 0\n")?;
    let bad = "devices = 'devices.toml'\nbundle = 'none'\nlisten = '192.0.2.1:7461'\nidentity = 'none'\nthreads = 256\nworkers = 64\n";
    fs::write(folder.path().join("tail.toml"), bad)?;
    let (code, checks) = check(narrows_pair::tail, "tail.toml")?;
    let failed = failed(&checks);
    assert_eq!(code, Some(1));
    for part in [
        "tail.toml:1: devices = 'devices.toml': ",
        "devices.toml: line 3: frames_per_second: 0 is impossible; give 0.001 to 1000000 frames a second",
        "tail.toml:2: bundle = 'none'",
        "tail.toml:3: listen = '192.0.2.1:7461'",
        "tail.toml:4: identity = 'none'",
        "tail.toml:5: threads = 256",
    ] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    Ok(())
}
