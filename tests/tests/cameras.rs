//! Live sources with the real head: shell commands that write shipped photos stand for cameras that are killed, stall, die and
//! come back.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_tests::{
    LiveHead, TIMEOUT, bundle, check_order, ended, lines, live_command, photos, processes_with, said,
};
use serde_json::Value;

/// Two shipped photos, small, as JPEG files.
fn small_photos(folder: &Path) -> Result<[PathBuf; 2]> {
    let small = |name: &str| {
        let path = folder.join(name);
        let photo = image::open(photos().join(name))?.resize_to_fill(224, 224, image::imageops::Triangle);
        photo.into_rgb8().save(&path)?;
        anyhow::Ok(path)
    };
    Ok([small("orange.jpg")?, small("squirrel.jpg")?])
}

/// A shell loop that writes both photos without end, `pause` seconds apart.
fn loop_of(photos: &[PathBuf; 2], pause: &str) -> String {
    let [one, two] = photos.each_ref().map(|path| path.display().to_string());
    format!("while :; do cat {one}; sleep {pause}; cat {two}; sleep {pause}; done")
}

#[test]
fn standard_input_is_read_to_its_end_and_the_lines_say_where_frames_come_from() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let mut head = live_command(&["--source", "door=-", "--frames", "every", "--device", "pi-7"]);
    let mut child = head.stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let [one, two] = [fs::read(&photos[0])?, fs::read(&photos[1])?];
    thread::spawn(move || {
        let header = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n";
        for picture in [&one, &two, &one] {
            input.write_all(header).and_then(|()| input.write_all(picture)).expect("the head reads");
        }
        // The last one is cut.
        input.write_all(&two[..two.len() / 2]).expect("the head reads");
    });
    let output = ended(child, TIMEOUT)?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    check_order(&lines, "door")?;
    let labels: Vec<&str> = lines.iter().filter_map(|line| line["classify"][0]["label"].as_str()).collect();
    assert_eq!(labels, ["orange", "fox squirrel", "orange"]);
    for line in &lines {
        assert_eq!((&line["device"], &line["camera"]), (&"pi-7".into(), &"door".into()));
        assert_eq!(line["bundle"].as_str().map(str::len), Some(12), "{line}");
    }
    let words = "camera door: 3 frames arrived, 3 taken, 0 replaced by newer ones, 1 damaged";
    assert!(said(&output).contains(words), "{}", said(&output));
    Ok(())
}

#[test]
fn something_that_is_no_stream_of_pictures_is_named() -> Result<()> {
    for (bytes, words) in [
        (&b"\0\0\0\x01\x67\x42\0\x1f"[..], "H.264"),
        (b"<html>no camera</html>", "a text that begins"),
        (b"YUV4MPEG2 W64 H48 F25:1 It C420jpeg\n", "interlaced"),
    ] {
        let mut child = live_command(&["--source", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input")?.write_all(bytes)?;
        let output = ended(child, TIMEOUT)?;
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        assert!(
            said(&output).contains("--source: stdin: ") && said(&output).contains(words),
            "{}",
            said(&output)
        );
    }
    Ok(())
}

#[test]
fn raw_frames_with_padded_rows_are_seen_as_the_photo_that_they_are() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photo = image::open(photos().join("orange.jpg"))?;
    let photo = photo.resize_to_fill(222, 222, image::imageops::Triangle).into_rgb8();
    let (side, stride) = (222usize, 256usize);
    // BT.601 in the full range, by its definition.
    let mut frame = vec![0u8; stride * side];
    let mut colours = [vec![0u8; stride / 2 * side / 2], vec![0u8; stride / 2 * side / 2]];
    for (x, y, pixel) in photo.enumerate_pixels() {
        let [r, g, b] = pixel.0.map(f64::from);
        frame[y as usize * stride + x as usize] = (0.299 * r + 0.587 * g + 0.114 * b).round() as u8;
        let place = y as usize / 2 * (stride / 2) + x as usize / 2;
        colours[0][place] = (128.0 - 0.168_736 * r - 0.331_264 * g + 0.5 * b).round() as u8;
        colours[1][place] = (128.0 + 0.5 * r - 0.418_688 * g - 0.081_312 * b).round() as u8;
    }
    frame.extend(colours.concat());
    let path = folder.path().join("frames.yuv");
    fs::write(&path, frame.repeat(2))?;
    let source = format!("i420:222x222+256,full:pipe:{}", path.display());
    let output = ended(live_command(&["--source", &source, "--frames", "every"]).spawn()?, TIMEOUT)?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    check_order(&lines, "pipe")?;
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line["classify"][0]["label"] == "orange"),
        "{lines:?}"
    );
    Ok(())
}

#[test]
fn the_newest_frame_wins_and_the_others_are_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let source = format!("yard=command:{}", loop_of(&photos, "0.01"));
    let head = LiveHead::start(&["--source", &source, "--fps", "5"])?;
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(head.line()?);
    }
    let (rest, said) = head.interrupt()?;
    seen.extend(rest);
    check_order(&seen, "yard")?;
    let replaced: u64 = seen.iter().map(|line| line["replaced"].as_u64().unwrap_or(0)).sum();
    assert!(replaced > 0, "{seen:?}");
    assert!(said.contains("camera yard: "), "{said}");
    // A frame waits for the next moment at which one is wanted, and never behind another.
    assert!(seen.iter().all(|line| line["status"] == "answered"), "{seen:?}");
    assert!(processes_with(&photos[0].display().to_string())?.is_empty(), "its command is left behind");
    Ok(())
}

#[test]
fn a_camera_that_is_killed_dies_or_stalls_is_named_and_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    // A camera program that says why it ends; each start does another thing.
    let count = folder.path().join("starts");
    let script = folder.path().join("camera.sh");
    fs::write(
        &script,
        format!(
            "echo x >> {count}\ncase $(wc -l < {count}) in\n1) echo 'no camera here' >&2; exit 3;;\n2) cat {one}; sleep 0.1; \
         echo 'sensor timed out' >&2; sleep 100;;\n3) cat {one}; cat {two}; kill -9 $$;;\n4) cat {one}; exit 0;;\n*) {forever};;\nesac\n",
            count = count.display(),
            one = photos[0].display(),
            two = photos[1].display(),
            forever = loop_of(&photos, "0.05"),
        ),
    )?;
    let source = format!("gate=command:exec sh {}", script.display());
    let head = LiveHead::start(&["--source", &source, "--stall", "1"])?;
    head.hears("camera gate: sh ended (exit status: 3): no camera here; it is opened again in 1 s", 1)?;
    head.hears("camera gate: no frame for ", 1)?;
    head.hears("sensor timed out", 1)?;
    head.hears("camera gate: sh ended (signal: 9 (SIGKILL))", 1)?;
    head.hears("camera gate: sh ended (exit status: 0)", 1)?;
    head.hears("camera gate: frames again after ", 4)?;
    let mut seen = head.lines_until(|line| line["sequence"].as_u64() > Some(6))?;
    let (rest, said) = head.interrupt()?;
    seen.extend(rest);
    check_order(&seen, "gate")?;
    assert!(said.contains("lost 4 times"), "{said}");
    assert!(processes_with(&script.display().to_string())?.is_empty(), "its command is left behind");
    Ok(())
}

#[test]
fn a_program_that_is_not_installed_is_named_and_does_not_end_the_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let steady = format!("steady=command:{}", loop_of(&photos, "0.05"));
    let mut command = live_command(&[
        "--source",
        &steady,
        "--source",
        "front=rpicam:",
        "--source",
        "gst:videotestsrc ! jpegenc",
    ]);
    command.args(["--source", "bench/photos/orange.jpg", "--repeat", "0"]);
    // Programs of the system, without those of cameras.
    let tools = folder.path().join("bin");
    fs::create_dir(&tools)?;
    for tool in ["sh", "cat", "sleep"] {
        std::os::unix::fs::symlink(format!("/bin/{tool}"), tools.join(tool))?;
    }
    let head = LiveHead::of({
        command.env("PATH", &tools);
        command
    })?;
    head.hears("camera front: neither rpicam-vid nor libcamera-vid is installed; install rpicam-apps", 1)?;
    head.hears("camera gst: gst-launch-1.0 is not installed; install it", 1)?;
    let mut seen = Vec::new();
    for _ in 0..30 {
        seen.push(head.line()?);
    }
    let files = seen.iter().filter(|line| line["file"].is_string()).count();
    check_order(&seen, "steady")?;
    assert!(files > 0 && files < 30, "{seen:?}");
    head.interrupt()?;
    Ok(())
}

#[test]
fn a_fifo_without_a_writer_is_waited_for_and_ends_with_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let fifo = folder.path().join("camera.fifo");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "no FIFO");
    let source = format!("pipe:{}", fifo.display());
    let mut head = LiveHead::start(&["--source", &source, "--stall", "0.2", "--frames", "every"])?;
    head.hears("camera pipe: no frame for ", 1)?;
    fs::write(&fifo, [fs::read(&photos[0])?, fs::read(&photos[1])?].concat())?;
    head.hears("camera pipe: frames again after ", 1)?;
    check_order(&[head.line()?, head.line()?], "pipe")?;
    let begin = Instant::now();
    while head.child.try_wait()?.is_none() {
        ensure!(begin.elapsed() < TIMEOUT, "it does not end with its writer");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(head.child.wait()?.code(), Some(0), "{}", head.said());
    Ok(())
}

#[test]
fn files_of_a_watched_folder_are_taken_when_they_are_complete() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let watched = folder.path().join("in");
    fs::create_dir(&watched)?;
    let [one, two] = [fs::read(&photos[0])?, fs::read(&photos[1])?];
    let source = format!("ftp=watch:{}", watched.display());
    let head = LiveHead::start(&["--source", &source])?;
    // Written slowly: half of it lies there for a while.
    let (first, second) = one.split_at(one.len() / 2);
    let mut file = fs::File::create(watched.join("slow.jpg"))?;
    file.write_all(first)?;
    thread::sleep(Duration::from_millis(300));
    file.write_all(second)?;
    drop(file);
    let line = head.line()?;
    assert_eq!((&line["camera"], &line["status"]), (&"ftp".into(), &"answered".into()), "{line}");
    assert!(line["file"].as_str().is_some_and(|file| file.ends_with("in/slow.jpg")), "{line}");
    // Renamed into the folder, and something that is no image.
    fs::write(watched.join("upload.part"), &two)?;
    fs::rename(watched.join("upload.part"), watched.join("upload.jpg"))?;
    assert_eq!(head.line()?["classify"][0]["label"], "fox squirrel");
    fs::write(watched.join("broken.png"), "no image")?;
    let line = head.line()?;
    assert!(
        line["status"] == "failed"
            && line["error"].as_str().is_some_and(|error| error.contains("broken.png: this is a text")),
        "{line}"
    );
    // Overwritten in place again and again, in pieces.
    let writer = thread::spawn({
        let path = watched.join("live.jpg");
        move || {
            for step in 0..60 {
                let picture = if step % 2 == 0 { &one } else { &two };
                let mut file = fs::File::create(&path).expect("a folder");
                for piece in picture.chunks(4096) {
                    file.write_all(piece).expect("a disk");
                    thread::sleep(Duration::from_millis(1));
                }
                drop(file);
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    writer.join().ok().context("the writer failed")?;
    thread::sleep(Duration::from_millis(300));
    let (rest, said) = head.interrupt()?;
    assert!(rest.len() > 5 && rest.iter().all(|line| line["status"] == "answered"), "{rest:?} {said}");
    Ok(())
}

#[test]
fn a_watched_folder_that_comes_back_delivers_no_file_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [one, two] = small_photos(folder.path())?;
    let (watched, away) = (folder.path().join("in"), folder.path().join("away"));
    let source = format!("ftp=watch:{}", watched.display());
    let head = LiveHead::start(&["--source", &source, "--frames", "every"])?;
    head.hears("camera ftp: ", 1)?;
    fs::create_dir(&watched)?;
    fs::copy(one, watched.join("one.jpg"))?;
    let mut seen = vec![head.line()?];
    fs::rename(&watched, &away)?;
    head.hears("No such file or directory", 2)?;
    fs::rename(&away, &watched)?;
    fs::copy(two, watched.join("two.jpg"))?;
    seen.push(head.line()?);
    let (rest, _) = head.interrupt()?;
    seen.extend(rest);
    let names: Vec<&str> = seen.iter().filter_map(|line| line["file"].as_str()?.rsplit('/').next()).collect();
    assert_eq!(names, ["one.jpg", "two.jpg"], "{seen:?}");
    Ok(())
}

/// A command that fails on an address with a password, as programs do that name what they cannot open.
#[test]
fn the_password_of_a_camera_is_in_no_message() -> Result<()> {
    let source = "yard=command:echo 'rtsp://user:secret@10.0.0.7/live?token=secret: refused' >&2; exit 1";
    let head = LiveHead::start(&["--source", source])?;
    head.hears("camera yard: sh ended (exit status: 1): rtsp://***@10.0.0.7/live?***", 1)?;
    let (_, message) = head.interrupt()?;
    assert!(!message.contains("secret"), "{message}");
    let output = ended(live_command(&["--source", "rtsp://user:secret@10.0.0.7/live"]).spawn()?, TIMEOUT)?;
    let message = said(&output);
    assert!(message.contains("ffmpeg:rtsp://***@10.0.0.7/live") && !message.contains("secret"), "{message}");
    Ok(())
}

#[test]
fn what_is_wrong_with_a_source_is_said_before_anything_begins() -> Result<()> {
    for (sources, code, words) in [
        (&["a=command:x", "a=command:y"][..], 5, "\"a\" stands twice"),
        (&["-", "-"], 5, "\"-\" stands twice"),
        (&["ffmpeg:"], 5, "an address, a file, or options of ffmpeg is missing"),
        (&["i420:64x48:photos"], 5, "raw frames come from -, pipe: or a command"),
        (&["nv12:64:-"], 5, "has no size"),
        (&["none.jpg", "-"], 5, "none.jpg: no such file or folder"),
        (&["rtsp://camera/1"], 5, "ffmpeg:rtsp://camera/1"),
    ] {
        let arguments: Vec<&str> = sources.iter().flat_map(|source| ["--source", source]).collect();
        let output = ended(live_command(&arguments).spawn()?, TIMEOUT)?;
        assert_eq!(output.status.code(), Some(code), "{sources:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{sources:?}: {}", said(&output));
    }
    for (flags, words) in [(["--fps", "0"], "--fps: 0 is out of range"), (["--stall", "nan"], "--stall: NaN")]
    {
        let output = ended(live_command(&["--source", "-"]).args(flags).spawn()?, TIMEOUT)?;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    Ok(())
}

/// Ctrl-C ends a run within two seconds in every state of a camera.
#[test]
fn an_interrupt_ends_a_run_in_every_state() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("camera.fifo");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "no FIFO");
    let pipe = format!("pipe:{}", fifo.display());
    for (source, words) in [
        // Waiting to be opened again; deaf to SIGTERM; without a writer; in a folder that does not exist.
        ("command:exit 1", "sh ended"),
        ("command:trap '' TERM; echo started >&2; while :; do sleep 1; done", ""),
        (pipe.as_str(), ""),
        ("watch:/nowhere", "/nowhere: No such file or directory"),
    ] {
        let head = LiveHead::start(&["--source", source])?;
        match words {
            "" => thread::sleep(Duration::from_secs(1)),
            words => head.hears(words, 1)?,
        }
        let (rest, _) = head.interrupt()?;
        assert!(rest.is_empty(), "{source}: {rest:?}");
    }
    Ok(())
}

#[test]
fn cameras_reach_a_server_and_the_device_answers_while_it_is_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let photos = small_photos(folder.path())?;
    let pair = narrows_tests::start()?;
    let (one, two) = (
        format!("one=command:{}", loop_of(&photos, "0.1")),
        format!("two=command:{}", loop_of(&photos, "0.1")),
    );
    let mut command = pair.head(&bundle());
    command.args([
        "--tasks",
        "classify",
        "--retry-for",
        "1",
        "--fps",
        "5",
        "--source",
        &one,
        "--source",
        &two,
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let head = LiveHead::of(command)?;
    let mut seen = Vec::new();
    while !["one", "two"].iter().all(|name| {
        seen.iter().any(|line: &Value| {
            line["camera"] == *name && line["path"] == "split" && line["status"] == "answered"
        })
    }) {
        seen.push(head.line()?);
    }
    drop(pair);
    seen.extend(head.lines_until(|line| line["path"] == "local" && line["status"] == "answered")?);
    let (_, said) = head.interrupt()?;
    assert!(said.contains("camera one: ") && said.contains("camera two: "), "{said}");
    assert!(seen.iter().all(|line| line["device"] == seen[0]["device"]), "{seen:?}");
    Ok(())
}
