//! Live sources that ffmpeg makes, with the real head and tail: test patterns as MJPEG and Y4M, a video file, RTSP. Where a
//! program is missing, a test says so in one line.
//!
//! `make cameras` runs all of them and the long one: an hour's worth of frames, during which the camera is killed and stopped.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound, and the run is timed")]

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_tests::{
    LiveHead, TIMEOUT, bundle, check_order, ended, lines, live_command, processes_with, root, said, skipped,
    start,
};
use serde_json::Value;

/// Frames of an hour at 30 in a second.
const HOUR: u64 = 108_000;
/// Most memory in kB that the long run may gain after its first quarter.
const MOST_GROWTH: u64 = 8192;

/// Whether ffmpeg is there; if not, says that a test did not run.
fn has_ffmpeg(test: &str) -> bool {
    let probe = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = probe.is_ok_and(|status| status.success());
    if !has {
        skipped(test, "ffmpeg (apt install ffmpeg)");
    }
    has
}

/// A test pattern of so many seconds, told from others by its size.
fn pattern(width: u32, seconds: Option<u32>) -> String {
    let duration = seconds.map(|seconds| format!(":duration={seconds}")).unwrap_or_default();
    format!("-f lavfi -i testsrc2=size={width}x240:rate=30{duration}")
}

/// Sends a signal to the programs that have a text in their command lines.
fn signal(name: &str, text: &str) -> Result<()> {
    let found = processes_with(text)?;
    ensure!(!found.is_empty(), "no process with {text:?}");
    ensure!(Command::new("kill").arg(name).args(found).status()?.success(), "kill {name}");
    Ok(())
}

#[test]
fn a_test_pattern_is_read_as_y4m_and_as_mjpeg_to_its_end() -> Result<()> {
    if !has_ffmpeg("a_test_pattern_is_read_as_y4m_and_as_mjpeg_to_its_end") {
        return Ok(());
    }
    for format in ["", " -f mjpeg", " -c:v mjpeg -huffman 0 -f mjpeg", " -pix_fmt nv12 -f rawvideo"] {
        let raw = if format.contains("nv12") { "nv12:320x240:" } else { "" };
        let source = format!("{raw}ffmpeg:{}{format}", pattern(320, Some(1)));
        let output = ended(live_command(&["--source", &source, "--frames", "every"]).spawn()?, 2 * TIMEOUT)?;
        assert_eq!(output.status.code(), Some(0), "{source}: {}", said(&output));
        let lines = lines(&output)?;
        check_order(&lines, "ffmpeg")?;
        assert_eq!(lines.len(), 30, "{source}: {}", said(&output));
        assert!(lines.iter().all(|line| line["status"] == "answered"), "{source}");
    }
    Ok(())
}

#[test]
fn a_video_file_is_played_to_its_end_as_often_as_wanted() -> Result<()> {
    if !has_ffmpeg("a_video_file_is_played_to_its_end_as_often_as_wanted") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("video 1.avi");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-nostdin"]).args(pattern(322, Some(1)).split(' '));
    ensure!(ffmpeg.args(["-c:v", "mpeg4"]).arg(&file).status()?.success(), "no video");
    let source = format!("ffmpeg:{}", file.display());
    let arguments = ["--source", &source, "--frames", "every", "--repeat", "2"];
    let output = ended(live_command(&arguments).spawn()?, 2 * TIMEOUT)?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    check_order(&lines, "ffmpeg")?;
    assert_eq!(lines.len(), 60, "{}", said(&output));
    Ok(())
}

#[test]
fn a_pattern_that_is_killed_and_stopped_comes_back() -> Result<()> {
    if !has_ffmpeg("a_pattern_that_is_killed_and_stopped_comes_back") {
        return Ok(());
    }
    let source = format!("test=ffmpeg:{}", pattern(326, None));
    let head = LiveHead::start(&["--source", &source, "--stall", "1", "--fps", "10"])?;
    let mut seen = vec![head.line()?];
    signal("-KILL", "size=326x240")?;
    head.hears("camera test: ffmpeg ended (signal: 9 (SIGKILL))", 1)?;
    head.hears("camera test: frames again after ", 1)?;
    signal("-STOP", "size=326x240")?;
    head.hears("camera test: no frame for ", 1)?;
    head.hears("camera test: frames again after ", 2)?;
    let (rest, said) = head.interrupt()?;
    seen.extend(rest);
    check_order(&seen, "test")?;
    assert!(said.contains("lost 2 times"), "{said}");
    assert!(processes_with("size=326x240")?.is_empty(), "ffmpeg is left behind");
    Ok(())
}

/// What the RTSP server needs.
const RTSP: &str = "GStreamer's RTSP server with its Python binding (apt install gir1.2-gst-rtsp-server-1.0 python3-gi \
                    gstreamer1.0-plugins-good)";

/// An RTSP server that shows a test pattern.
struct Rtsp {
    python: &'static str,
    port: u16,
    server: Child,
}

impl Rtsp {
    /// Starts a server; `None` where what it needs is missing.
    fn start() -> Result<Option<Self>> {
        let can_serve = |python: &&str| {
            let script = "import gi; gi.require_version('GstRtspServer', '1.0')";
            let mut probe = Command::new(python);
            let probe = probe.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        };
        // The one of the system has its packages; another one may come first in PATH.
        let Some(python) = ["/usr/bin/python3", "python3"].into_iter().find(can_serve) else {
            return Ok(None);
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self::spawn(python, port)?;
        Ok(Some(Rtsp { python, port, server }))
    }

    fn spawn(python: &str, port: u16) -> Result<Child> {
        let mut server = Command::new(python);
        server.arg(root().join("tests/rtsp.py")).args([&port.to_string(), "330"]);
        server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("no RTSP server")
    }

    /// Kills the server.
    fn kill(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        Ok(())
    }

    /// Starts it again on the same port.
    fn restart(&mut self) -> Result<()> {
        self.server = Self::spawn(self.python, self.port)?;
        Ok(())
    }
}

impl Drop for Rtsp {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.kill();
    }
}

#[test]
fn an_rtsp_camera_is_read_and_its_return_is_told() -> Result<()> {
    if !has_ffmpeg("an_rtsp_camera_is_read_and_its_return_is_told") {
        return Ok(());
    }
    let Some(mut rtsp) = Rtsp::start()? else {
        skipped("an_rtsp_camera_is_read_and_its_return_is_told", RTSP);
        return Ok(());
    };
    let source = format!("yard=ffmpeg:rtsp://127.0.0.1:{}/test", rtsp.port);
    let head = LiveHead::start(&["--source", &source, "--stall", "2", "--fps", "10"])?;
    let mut seen = head.lines_until(|line| line["sequence"].as_u64() > Some(20))?;
    rtsp.kill()?;
    let lost = head.said().matches("camera yard: ").count();
    head.hears("camera yard: ", lost + 1)?;
    rtsp.restart()?;
    let back = head.said().matches("frames again after ").count();
    head.hears("camera yard: frames again after ", back + 1)?;
    seen.extend(head.waiting_lines());
    seen.push(head.line()?);
    check_order(&seen, "yard")?;
    assert!(seen.iter().all(|line| line["status"] == "answered"), "{seen:?}");
    head.interrupt()?;
    Ok(())
}

#[test]
fn a_pipeline_is_read_as_jpeg_y4m_and_raw_frames() -> Result<()> {
    let probe = Command::new("gst-launch-1.0").arg("--version").stdout(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        let missing = "gst-launch-1.0 (apt install gstreamer1.0-tools gstreamer1.0-plugins-good)";
        skipped("a_pipeline_is_read_as_jpeg_y4m_and_raw_frames", missing);
        return Ok(());
    }
    let pattern = |format: &str| {
        format!("videotestsrc is-live=true ! video/x-raw,width=320,height=240,format={format}")
    };
    let sources = [
        format!("jpeg=gst:{} ! jpegenc", pattern("I420")),
        format!("y4m=gst:{} ! y4menc", pattern("I420")),
        format!("raw=nv12:320x240:gst:{}", pattern("NV12")),
    ];
    let arguments: Vec<&str> = sources.iter().flat_map(|source| ["--source", source]).collect();
    let head = LiveHead::start(&[&arguments[..], &["--fps", "10"]].concat())?;
    let mut seen = Vec::new();
    for name in ["jpeg", "y4m", "raw"] {
        seen.extend(head.lines_until(|line| line["camera"] == name)?);
    }
    let (rest, _) = head.interrupt()?;
    seen.extend(rest);
    for name in ["jpeg", "y4m", "raw"] {
        check_order(&seen, name)?;
    }
    Ok(())
}

/// Resident memory of a process in kB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// An hour's worth of frames at full speed through head and tail; the camera is killed five times and stopped five times.
/// `FRAMES=3000` makes it shorter.
#[test]
#[ignore = "takes minutes; make cameras runs it"]
fn a_camera_runs_for_long_and_memory_stays_flat() -> Result<()> {
    if !has_ffmpeg("a_camera_runs_for_long_and_memory_stays_flat") {
        return Ok(());
    }
    let frames = env::var("FRAMES").map_or(Ok(HOUR), |frames| frames.parse()).context("FRAMES")?;
    ensure!(frames >= 1000, "FRAMES: fewer than 1000 show nothing");
    let pair = start()?;
    // Frames arrive much faster than 30 in a second.
    let source = format!("test=ffmpeg:-re {}", pattern(334, None).replace("rate=30", "rate=300"));
    let mut command = pair.head(&bundle());
    command.args(["--tasks", "classify", "--stall", "1", "--budget", "2000", "--source", &source]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let head = LiveHead::of(command)?;
    let (begin, mut curve, mut ages, mut kills) = (Instant::now(), Vec::new(), Vec::new(), 0);
    let (mut seen, mut answered) = (0u64, 0u64);
    // Lines come in the order of the answers; frames are numbered in that of capture.
    let (mut waiting, mut last) = (BTreeMap::new(), None::<Value>);
    while seen < frames {
        let line = head.line()?;
        answered += u64::from(line["status"] == "answered");
        ages.extend(line["ms"]["total"].as_f64());
        waiting.insert(line["frame"].as_u64().context("no number")?, line);
        let next =
            |last: &Option<Value>| last.as_ref().map_or(Some(0), |last| Some(last["frame"].as_u64()? + 1));
        while let Some(line) = next(&last).and_then(|next| waiting.remove(&next)) {
            let pair: Vec<Value> = last.into_iter().chain([line.clone()]).collect();
            check_order(&pair, "test")?;
            seen = line["sequence"].as_u64().context("no sequence")? + 1;
            last = Some(line);
        }
        if seen > frames * (kills + 1) / 11 && kills < 10 {
            kills += 1;
            let (name, words) = match kills % 2 {
                1 => ("-KILL", "camera test: ffmpeg ended (signal: 9 (SIGKILL))"),
                _ => ("-STOP", "camera test: no frame for "),
            };
            signal(name, "size=334x240")?;
            head.hears(words, (kills as usize).div_ceil(2))?;
            head.hears("camera test: frames again after ", kills as usize)?;
        }
        if seen > frames * (curve.len() as u64 + 1) / 20 {
            curve.push(resident(head.child.id())?);
        }
    }
    ages.sort_by(f64::total_cmp);
    let age = |share: f64| ages.get((ages.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{seen} frames in {:.0} s, {answered} answered; from capture to answer p50 {:.1} ms, p99 {:.1} ms; memory in kB {curve:?}",
        begin.elapsed().as_secs_f64(),
        age(0.5),
        age(0.99)
    );
    let growth = curve[curve.len() - 1].saturating_sub(curve[curve.len() / 4]);
    assert!(growth <= MOST_GROWTH, "{growth} kB more: {curve:?}");
    let (_, said) = head.interrupt()?;
    println!("{said}");
    assert!(said.contains("lost 10 times"), "{said}");
    if answered == 0 {
        bail!("no frame was answered");
    }
    thread::sleep(Duration::from_millis(100));
    assert!(processes_with("size=334x240")?.is_empty(), "ffmpeg is left behind");
    Ok(())
}
