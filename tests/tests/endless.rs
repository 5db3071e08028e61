//! Runs without an end, on photos that arrive through a FIFO: memory stays flat, and a signal ends them at any time.
//!
//! `FRAMES=100000 cargo test --release --test endless -- --nocapture`, which is `make soak`, is the long run.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound, and the run is timed")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Cursor},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use image::{ImageFormat, imageops::FilterType};
use narrows_tests::{bundle, photos, root, said};
use serde_json::Value;

/// Frames of the short run.
const FRAMES: usize = 300;
/// Most memory in kB that a run may gain after its warm-up, which is its first quarter. Over the 75,000 frames that are left
/// of 100,000, a leak of 56 bytes for each frame gains as much; over those of the short run, a leak of 18 kB does, and the
/// pixels of one photo are 150 kB.
const MOST_GROWTH: u64 = 4096;
/// Side in pixels of the photos in the FIFO.
const SIDE: u32 = 224;
/// Exit code of a run that SIGTERM ended.
const TERMINATED: i32 = 143;
/// How long a run may take to end after a signal.
const END: Duration = Duration::from_secs(20);

/// A FIFO and a thread that writes one photo after the other into it, opening it anew for each.
struct Feeder {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Feeder {
    fn start(photos: Vec<Vec<u8>>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let fifo = make_fifo(folder.path())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for photo in photos.iter().cycle() {
                // Opening waits for the reader. One that goes away while this writes breaks the pipe; so does the reader
                // that has just seen the end of the photo before.
                match fs::write(&fifo, photo) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return,
                    _ if stopped.load(Ordering::Relaxed) => return,
                    _ => {}
                }
                // The reader needs a moment to see the end of the photo before the FIFO is opened again.
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Feeder { folder, stop, thread })
    }

    fn fifo(&self) -> PathBuf {
        self.folder.path().join("photos.fifo")
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        // On Linux, opening for both directions never waits, and lets a thread that waits for a reader go on.
        let _reader = fs::OpenOptions::new().read(true).write(true).open(self.fifo())?;
        self.thread.join().ok().context("the thread that writes photos failed")
    }
}

fn make_fifo(folder: &Path) -> Result<PathBuf> {
    let fifo = folder.join("photos.fifo");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "no FIFO");
    Ok(fifo)
}

/// The demo's photos as small JPEG files.
fn small_photos() -> Result<Vec<Vec<u8>>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(photos())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "md"));
    paths.sort();
    let encode = |path: &PathBuf| {
        let photo = image::open(path)?.resize_to_fill(SIDE, SIDE, FilterType::Triangle);
        let mut file = Cursor::new(Vec::new());
        photo.into_rgb8().write_to(&mut file, ImageFormat::Jpeg)?;
        Ok(file.into_inner())
    };
    paths.iter().map(encode).collect()
}

/// A head that answers on its own, without end, what comes through a FIFO.
fn endless_head(fifo: &Path) -> Result<Child> {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--repeat", "0", "--bundle"]).arg(bundle());
    head.arg("--source").arg(fifo).current_dir(root());
    head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    head.spawn().context("narrows-head cannot be started")
}

/// Ends a head by SIGTERM and returns what it wrote to standard error.
fn terminate(head: Child) -> Result<String> {
    let begin = Instant::now();
    narrows_pair::terminate(head.id())?;
    let output = head.wait_with_output()?;
    assert_eq!(output.status.code(), Some(TERMINATED), "{}", said(&output));
    assert!(begin.elapsed() < END, "it took {:?} to end", begin.elapsed());
    Ok(said(&output))
}

/// Resident memory of a process in kB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn memory_stays_flat_over_an_endless_source() -> Result<()> {
    let frames = env::var("FRAMES").map_or(Ok(FRAMES), |frames| frames.parse()).context("FRAMES")?;
    ensure!(frames >= 100, "FRAMES: fewer than 100 show nothing");
    let feeder = Feeder::start(small_photos()?)?;
    let begin = Instant::now();
    let mut head = endless_head(&feeder.fifo())?;
    let mut lines = BufReader::new(head.stdout.take().context("the head has no output")?).lines();
    let (mut curve, mut labels) = (Vec::new(), std::collections::BTreeSet::new());
    for frame in 0..frames {
        let line: Value = serde_json::from_str(&lines.next().context("the head ended")??)?;
        assert_eq!((&line["frame"], &line["status"]), (&frame.into(), &"answered".into()), "{line}");
        labels.insert(line["classify"][0]["index"].as_u64());
        if (frame + 1) % (frames / 20) == 0 {
            let (kb, seconds) = (resident(head.id())?, begin.elapsed().as_secs_f64());
            println!("{:8} frames {seconds:8.1} s {kb:8} kB", frame + 1);
            curve.push(kb);
        }
    }
    assert!(labels.len() > 2, "the photos do not differ: {labels:?}");
    // Frames that are still in flight are answered and need a reader.
    let rest = thread::spawn(move || lines.map_while(Result::ok).count());
    let said = terminate(head)?;
    assert!(said.contains(" answered, 0 refused, 0 failed"), "{said}");
    rest.join().ok().context("the thread that reads lines failed")?;
    feeder.stop()?;
    let growth = curve[curve.len() - 1].saturating_sub(curve[curve.len() / 4]);
    assert!(growth <= MOST_GROWTH, "{growth} kB more after the warm-up: {curve:?}");
    Ok(())
}

#[test]
fn a_run_that_waits_for_a_photo_ends_on_a_signal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fifo = make_fifo(folder.path())?;
    let mut head = endless_head(&fifo)?;
    // The first line shows that the head is past its start; after that nobody writes.
    fs::write(&fifo, fs::read(photos().join("orange.jpg"))?)?;
    let mut lines = BufReader::new(head.stdout.take().context("the head has no output")?).lines();
    let line: Value = serde_json::from_str(&lines.next().context("the head ended")??)?;
    assert_eq!(line["status"], "answered", "{line}");
    assert!(terminate(head)?.contains("1 frame: 1 answered"));
    Ok(())
}
