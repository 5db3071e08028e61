//! A real tail among many devices: a greedy one beside quiet ones, quotas and rights, and their change under load.
#![expect(
    clippy::disallowed_methods,
    reason = "frames are sent at their time, and events are waited for within a bound"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{Client, TIMEOUT, bundle, runtime};
use narrows_wire::{Close, FrameReply, Payload, Query, Refusal, RefusalCode, Request, TaskRequest};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, sleep_until},
};

/// How often a quiet device sends a frame, and how long it waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    budget: Duration,
}

impl Pace {
    /// A pace that leaves this machine, whatever it can, time for others, and is far quicker than the queue of a greedy device.
    async fn measure(pair: &Pair, packet: &[u8]) -> Result<Pace> {
        let client = connect(pair, "device").await?;
        let mut longest = Duration::ZERO;
        for id in 0..8 {
            let began = Instant::now();
            ensure!(matches!(ask(&client, id, None, packet).await?, FrameReply::Answered(_)), "no answer");
            longest = longest.max(began.elapsed());
        }
        let interval = (longest * 5).max(Duration::from_millis(20));
        Ok(Pace { interval, budget: (longest * 100).max(Duration::from_secs(1)) })
    }
}

/// Starts a tail whose file of rights is `devices`, and makes an identity for each of `names`.
fn start(args: &[&str], names: &[&str]) -> Result<Pair> {
    let runtime = runtime().display().to_string();
    let pair = Pair::start(&bundle(), &[&["--device", "cpu", "--runtime", &runtime], args].concat())?;
    for name in names {
        pair.identity(name)?;
    }
    Ok(pair)
}

fn identity(pair: &Pair, name: &str) -> PathBuf {
    pair.certs().join("devices").join(name)
}

async fn connect(pair: &Pair, name: &str) -> Result<Arc<Client>> {
    Ok(Arc::new(Client::connect(pair.address(), &identity(pair, name)).await?))
}

/// Writes a file as an editor does: aside, and renamed.
fn write(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, path)?)
}

/// A packet of the shipped bundle.
fn packet() -> Result<Vec<u8>> {
    let bundle = Bundle::open(bundle(), Parts::All)?;
    let vector = bundle.vectors().iter().find(|vector| vector.geometry == 0);
    Ok(bundle.read(&vector.unwrap_or(&bundle.vectors()[0]).packet)?)
}

/// Sends a frame that asks for classes.
async fn ask(client: &Client, id: u64, budget: Option<Duration>, packet: &[u8]) -> Result<FrameReply> {
    let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 1 } }];
    let payload = Payload::Packet(packet.to_vec());
    let request = Request { id, bundle: 0, budget, task_requests, payload };
    Ok(FrameReply::parse(&client.exchange(&request.encode()?).await?)?)
}

/// The outcomes of a device's frames.
#[derive(Debug, Default)]
struct Count {
    answered: AtomicU64,
    refused: AtomicU64,
}

/// Keeps `in_flight` frames in flight on a connection until `stop`.
fn flood(
    client: Arc<Client>,
    in_flight: u64,
    packet: &Arc<Vec<u8>>,
    stop: &Arc<AtomicBool>,
    count: &Arc<Count>,
) -> Vec<JoinHandle<()>> {
    let one = |first: u64| {
        let (client, packet, stop, count) =
            (Arc::clone(&client), Arc::clone(packet), Arc::clone(stop), Arc::clone(count));
        tokio::spawn(async move {
            let mut id = first;
            while !stop.load(Relaxed) {
                match ask(&client, id, None, &packet).await {
                    Ok(FrameReply::Answered(_)) => count.answered.fetch_add(1, Relaxed),
                    Ok(FrameReply::Refused { .. }) => {
                        sleep(Duration::from_millis(5)).await;
                        count.refused.fetch_add(1, Relaxed)
                    }
                    Err(_) => return,
                };
                id += in_flight;
            }
        })
    };
    (0..in_flight).map(one).collect()
}

/// Sends frames at a pace until `stop`, and returns their number and the refusals.
async fn quiet(
    client: Arc<Client>,
    pace: Pace,
    packet: Arc<Vec<u8>>,
    stop: Arc<AtomicBool>,
) -> Result<(u64, Vec<Refusal>)> {
    let mut due = tokio::time::Instant::now();
    let (mut asked, mut frames) = (JoinSet::new(), 0);
    while !stop.load(Relaxed) {
        let (client, packet) = (Arc::clone(&client), Arc::clone(&packet));
        asked.spawn(async move { ask(&client, frames, Some(pace.budget), &packet).await });
        frames += 1;
        due += pace.interval;
        sleep_until(due).await;
    }
    let mut refusals = Vec::new();
    while let Some(reply) = asked.join_next().await {
        match reply?? {
            FrameReply::Answered(_) => {}
            FrameReply::Refused { refusal, .. } => refusals.push(refusal),
        }
    }
    Ok((frames, refusals))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_device_with_several_connections_keeps_no_quiet_one_from_its_answers() -> Result<()> {
    let pair = start(&["--in-flight", "256"], &["quiet-1", "quiet-2"])?;
    let (packet, stop, count) = (Arc::new(packet()?), Arc::<AtomicBool>::default(), Arc::<Count>::default());
    let pace = Pace::measure(&pair, &packet).await?;
    let mut floods = Vec::new();
    for _ in 0..3 {
        floods.extend(flood(connect(&pair, "device").await?, 250, &packet, &stop, &count));
    }
    // More frames wait than are run within the budget of the quiet ones.
    until(|| count.refused.load(Relaxed) > 0).await?;
    let devices = [connect(&pair, "quiet-1").await?, connect(&pair, "quiet-2").await?];
    let quiets =
        devices.map(|client| tokio::spawn(quiet(client, pace, Arc::clone(&packet), Arc::clone(&stop))));
    sleep(Duration::from_secs(4)).await;
    stop.store(true, Relaxed);
    for quiet in quiets {
        let (frames, refusals) = quiet.await??;
        assert!(frames > 1 && refusals.is_empty(), "{frames} frames, {pace:?}, {refusals:?}");
    }
    assert!(count.answered.load(Relaxed) > 0, "the greedy device has the rest: {count:?}");
    for flood in floods {
        flood.await?;
    }
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_rights_change_under_load_without_a_failed_frame_of_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("devices.toml");
    let other = "[[device]]\nname = \"other\"\npriority = \"high\"\n";
    let limited = |quota: u32| {
        format!("{other}[[device]]\nname = \"cam-*\"\nframes_per_second = {quota}\nburst_ms = 100\n")
    };
    write(&file, &limited(10))?;
    let pair = start(&["--devices", &file.display().to_string(), "--in-flight", "256"], &["cam-1", "other"])?;
    let (packet, stop, count) = (Arc::new(packet()?), Arc::<AtomicBool>::default(), Arc::<Count>::default());
    let pace = Pace::measure(&pair, &packet).await?;
    let camera = connect(&pair, "cam-1").await?;
    let floods = flood(Arc::clone(&camera), 2, &packet, &stop, &count);
    let other_stops = Arc::<AtomicBool>::default();
    let client = connect(&pair, "other").await?;
    let watched = tokio::spawn(quiet(client, pace, Arc::clone(&packet), Arc::clone(&other_stops)));
    let answered_in = async |time: Duration| {
        let (before, began) = (count.answered.load(Relaxed), Instant::now());
        sleep(time).await;
        (count.answered.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    };
    let rate = answered_in(Duration::from_secs(2)).await;
    assert!(rate <= 11.0, "{rate} frames a second with a quota of 10");
    assert!(count.refused.load(Relaxed) > 0, "{count:?}");

    // An impossible quota is told and changes nothing.
    write(&file, &limited(0))?;
    until(|| pair.log().contains("frames_per_second: 0 is impossible")).await?;
    assert!(pair.log().contains("devices.toml: line 6"), "{}", pair.log());
    write(&file, &limited(1))?;
    until(|| pair.log().contains("rights of devices were read again")).await?;
    sleep(Duration::from_millis(200)).await;
    let rate = answered_in(Duration::from_secs(2)).await;
    assert!(rate <= 2.0, "{rate} frames a second with a quota of 1");

    // Without the right to its bundle the camera is told to connect again, and then that it has no rights.
    write(&file, &format!("default = \"none\"\n{other}"))?;
    assert_eq!(camera.closed().await?, Some(Close::Draining));
    let Err(refused) = connect(&pair, "cam-1").await else { bail!("it is connected") };
    assert!(refused.to_string().contains("not permitted"), "{refused:#}");
    write(&file, &format!("{other}[[device]]\nname = \"cam-*\"\ntasks = [\"segment\"]\n"))?;
    let until_connected = Instant::now() + TIMEOUT;
    loop {
        match connect(&pair, "cam-1").await {
            // The client's hello asks for the task classify.
            Err(refused) if refused.to_string().contains("task") => break,
            _ if Instant::now() > until_connected => bail!("the new rights are not in force"),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    other_stops.store(true, Relaxed);
    let (frames, refusals) = watched.await??;
    assert!(frames > 1 && refusals.is_empty(), "{frames} frames of the other device, {refusals:?}");
    stop.store(true, Relaxed);
    for flood in floods {
        flood.await?;
    }
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn arrivals_are_recorded_and_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("arrivals.jsonl");
    let pair = start(&["--record-arrivals", &file.display().to_string()], &["other"])?;
    let packet = packet()?;
    let devices = [connect(&pair, "device").await?, connect(&pair, "other").await?];
    for (client, frames) in devices.iter().zip([20, 10]) {
        for id in 0..frames {
            let reply = ask(client, id, Some(Duration::from_secs(600)), &packet).await?;
            ensure!(matches!(reply, FrameReply::Answered(_)), "{reply:?}");
        }
    }
    pair.drain()?;
    let output = narrows_pair::bench().args(["schedule", "--json", "-", "--arrivals"]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["frames"], &report["in_time"]), (&30.into(), &30.into()), "{report}");
    assert_eq!(report["devices"].as_object().map(serde_json::Map::len), Some(2));
    fs::write(&file, "{\"at_us\":1}\n")?;
    let output = narrows_pair::bench().args(["schedule", "--arrivals"]).arg(&file).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("line 1"), "{said}");
    Ok(())
}

#[test]
fn a_bad_file_of_rights_keeps_the_tail_from_starting_and_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("devices.toml");
    for (text, words) in [
        (Some("[[device]]\nname = \"a\"\ncolour = 1\n"), ["devices.toml: line 3", "colour"]),
        (Some("[[device]]\nname = \"A\"\n"), ["devices.toml: line 2", "a-z"]),
        (None, ["devices.toml", "No such file"]),
    ] {
        match text {
            Some(text) => fs::write(&file, text)?,
            None => fs::remove_file(&file)?,
        }
        let Err(error) = start(&["--devices", &file.display().to_string()], &[]) else { bail!("it starts") };
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    Ok(())
}

/// Waits until something is true.
async fn until(is: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    while !is() {
        ensure!(Instant::now() < end, "it does not happen");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_a_quota_says_when_to_come_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("devices.toml");
    fs::write(&file, "[default]\ntail_ms_per_second = 0.1\nburst_ms = 1\n")?;
    let pair = start(&["--devices", &file.display().to_string()], &[])?;
    let (client, packet) = (connect(&pair, "device").await?, packet()?);
    assert!(matches!(ask(&client, 1, None, &packet).await?, FrameReply::Answered(_)));
    let FrameReply::Refused { refusal, .. } = ask(&client, 2, None, &packet).await? else {
        bail!("no quota")
    };
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.retry > Some(Duration::from_secs(1)) && refusal.text.contains("quota"), "{refusal:?}");
    pair.drain()
}
