//! The frame gate: an answer is kept while the features hardly move, for each source and for a bounded time.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use image::{Rgb, RgbImage};
use narrows_pair::Pair;
use narrows_tests::{bundle, lines_of, photos, root, said, start};
use serde_json::Value;

const BAD_FLAG: i32 = 2;

/// The pictures of a camera that looks at one scene: twice with little noise, then with something in its corner, then that again.
fn film(folder: &Path) -> Result<()> {
    let cat = image::open(photos().join("cat.png"))?.into_rgb8();
    let noisy = |picture: &RgbImage, by: u8| {
        let mut picture = picture.clone();
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            if (x * 7 + y * 13) % 3 == 0 {
                pixel.0 = pixel.0.map(|value| value.saturating_add(by));
            }
        }
        picture
    };
    let mut visited = cat.clone();
    let (width, height) = (cat.width(), cat.height());
    for (x, y) in (0..width / 3).flat_map(|x| (0..height / 3).map(move |y| (x, y))) {
        visited.put_pixel(width / 3 + x, height / 3 + y, Rgb([(x * 3 % 256) as u8, 30, (y * 5 % 256) as u8]));
    }
    for (number, picture) in [&cat, &noisy(&cat, 2), &visited, &noisy(&visited, 2)].into_iter().enumerate() {
        picture.save(folder.join(format!("{number}.png")))?;
    }
    Ok(())
}

/// A head that gives each frame its answer before the next one begins.
fn head(tail: &Pair, source: &Path, args: &[&str]) -> Command {
    let mut command = tail.head(&bundle());
    command.args(["--in-flight", "1", "--source"]).arg(source).args(args);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

fn paths(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["path"].as_str()).collect()
}

#[test]
fn a_frame_that_hardly_moved_keeps_the_answer_and_a_changed_one_gets_its_own() -> Result<()> {
    let (tail, folder) = (start()?, tempfile::tempdir()?);
    film(folder.path())?;
    // The gate compares at one level, whatever level is sent.
    for args in [&["--gate", "auto"][..], &["--gate", "0.3", "--level", "4"]] {
        let out = tempfile::tempdir()?;
        let found = lines_of(head(&tail, folder.path(), args).arg("--out").arg(out.path()))?;
        assert_eq!(paths(&found), ["split", "kept", "split", "kept"], "{found:?}");
        assert!(found[0]["gate"].is_null(), "{}", found[0]);
        for (kept, of) in [(1, 0), (3, 2)] {
            let (line, earlier) = (&found[kept], &found[of]);
            assert_eq!(line["status"], "answered", "{line}");
            assert_eq!(line["gate"]["since"], of, "{line}");
            let distance = line["gate"]["distance"].as_f64().context("a distance")?;
            assert!(distance < 0.3 && line["gate"]["threshold"] == 0.3, "{line}");
            assert!(line["bytes"].is_null() && line["level"].is_null() && line["coding"].is_null(), "{line}");
            assert_eq!(line["classify"], earlier["classify"], "{line}");
            assert_eq!(line["segment"]["classes"], earlier["segment"]["classes"], "{line}");
            assert!(Path::new(line["segment"]["overlay"].as_str().context("a picture")?).is_file(), "{line}");
            assert!(line["ms"]["head"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        }
        let changed = &found[2]["gate"];
        assert_eq!(changed["since"], 0);
        assert!(changed["distance"].as_f64().is_some_and(|distance| distance >= 0.3), "{changed}");
    }
    let output = head(&tail, folder.path(), &["--gate", "auto"]).output()?;
    assert!(said(&output).contains("2 kept from an earlier frame"), "{}", said(&output));
    let found = lines_of(&mut head(&tail, folder.path(), &[]))?;
    assert!(found.iter().all(|line| line["path"] == "split" && line["gate"].is_null()), "{found:?}");
    let found = lines_of(&mut head(&tail, folder.path(), &["--gate", "0"]))?;
    assert!(found.iter().all(|line| line["path"] == "split"), "a distance of 0 keeps nothing: {found:?}");
    Ok(())
}

#[test]
fn a_device_that_answers_alone_keeps_its_answers_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    film(folder.path())?;
    let mut command = narrows_pair::head();
    command
        .args(["run", "--path", "local", "--tasks", "classify", "--gate", "auto", "--bundle"])
        .arg(bundle());
    command.args(["--in-flight", "1", "--source"]).arg(folder.path()).current_dir(root());
    let found = lines_of(&mut command)?;
    assert_eq!(paths(&found), ["local", "kept", "local", "kept"], "{found:?}");
    assert!(found.iter().all(|line| line["geometry"] == "local"), "{found:?}");
    // The same with an early exit that keeps every photo here.
    let tail = start()?;
    let args = ["--tasks", "classify", "--gate", "auto", "--exit", "0"];
    let exits = lines_of(&mut head(&tail, folder.path(), &args))?;
    assert_eq!(paths(&exits), paths(&found), "{exits:?}");
    assert!(exits[1]["exit"].is_null() && exits[2]["exit"].is_object(), "{exits:?}");
    Ok(())
}

#[test]
fn each_source_keeps_its_own_answer() -> Result<()> {
    let (tail, folder) = (start()?, tempfile::tempdir()?);
    let mut command = tail.head(&bundle());
    command.args(["--in-flight", "1", "--gate", "auto", "--tasks", "classify"]).current_dir(root());
    for (name, photo) in [("door", "cat.png"), ("yard", "orange.jpg")] {
        let scene = folder.path().join(name);
        fs::create_dir(&scene)?;
        for number in 0..3 {
            fs::copy(photos().join(photo), scene.join(format!("{number}-{photo}")))?;
        }
        command.arg("--source").arg(format!("{name}={}", scene.display()));
    }
    let found = lines_of(&mut command)?;
    for name in ["door", "yard"] {
        let of_one: Vec<Value> = found.iter().filter(|line| line["camera"] == name).cloned().collect();
        assert_eq!(paths(&of_one), ["split", "kept", "kept"], "{found:?}");
        assert!(of_one[1..].iter().all(|line| line["gate"]["since"] == of_one[0]["frame"]), "{of_one:?}");
    }
    Ok(())
}

#[test]
fn an_answer_is_kept_no_longer_than_its_age() -> Result<()> {
    let (tail, folder) = (start()?, tempfile::tempdir()?);
    fs::copy(photos().join("orange.jpg"), folder.path().join("orange.jpg"))?;
    let args = ["--gate", "auto", "--gate-max-age", "1", "--tasks", "classify", "--repeat", "4"];
    let found = lines_of(&mut head(&tail, folder.path(), &args))?;
    assert_eq!(paths(&found), ["split"; 4], "{found:?}");
    assert!(found[1..].iter().all(|line| line["gate"]["distance"] == 0.0), "{found:?}");
    let found = lines_of(&mut head(
        &tail,
        folder.path(),
        &["--gate", "auto", "--repeat", "4", "--gate-max-age", "60000"],
    ))?;
    assert_eq!(paths(&found), ["split", "kept", "kept", "kept"], "{found:?}");
    assert!(found[1..].iter().all(|line| line["gate"]["since"] == 0), "{found:?}");
    Ok(())
}

#[test]
fn a_wrong_distance_or_age_is_named() -> Result<()> {
    for (flag, wrong, way) in [
        ("--gate", "on", "off, auto or a number from 0 to 255"),
        ("--gate", "nan", "off, auto or a number from 0 to 255"),
        ("--gate", "256", "off, auto or a number from 0 to 255"),
        ("--gate-max-age", "0", "give 1 to 3600000"),
        ("--gate-max-age", "500", "only --gate keeps answers"),
    ] {
        let mut command = narrows_pair::head();
        command.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
        command.arg("--source").arg(photos()).args([flag, wrong]);
        if wrong == "0" {
            command.args(["--gate", "auto"]);
        }
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(BAD_FLAG), "{}", said(&output));
        assert!(said(&output).contains(flag) && said(&output).contains(way), "{}", said(&output));
    }
    Ok(())
}
