//! The memory that the worst authenticated clients make a real tail take, against what docs/operating.md states.
#![expect(clippy::disallowed_methods, reason = "waits for a real process")]

use std::{
    fs,
    io::Cursor,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use image::{ImageFormat as File, RgbImage};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{Client, bundle, runtime};
use narrows_wire::{
    FrameReply, Framing, Image, ImageFormat, Payload, Query, RefusalCode, Request, TaskRequest,
    limits::{MAX_REPLY, MAX_REQUEST},
    quic::Tuning,
    stream::read_message,
};
use tokio::{task::JoinSet, time::timeout};

/// What a connection may take besides its requests and replies, in MiB (docs/operating.md).
const CONNECTION: u64 = 16;
/// What decoding one image may take, in MiB.
const DECODER: u64 = 300;
/// What making one class map may take, in MiB, and the frames of a batch, whose maps are made at once.
const MAP: u64 = 6;
const BATCH: u64 = 8;
/// Decoded frames that wait for a network, per MiB.
const FRAMES: u64 = 2;
/// What the allocator keeps of freed memory, and the threads' stacks, in MiB.
const SLACK: u64 = 48;

fn start(args: &[&str]) -> Result<Pair> {
    let runtime = runtime().display().to_string();
    Pair::start(&bundle(), &[&["--device", "cpu", "--threads", "1", "--runtime", &runtime], args].concat())
}

/// A line of `/proc/PID/status` in MiB.
fn memory(pair: &Pair, line: &str) -> Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pair.tail_pid().to_string()).join("status"))?;
    let found = status.lines().find_map(|status| status.strip_prefix(line)?.strip_prefix(':'));
    let kib: u64 = found.context("no such line")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// Runs `attack` and checks that the tail's memory never grew by more than `bound` MiB.
async fn check(pair: &Pair, bound: u64, attack: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    // Later the peak counts; until now it is that of loading the networks.
    fs::write(Path::new("/proc").join(pair.tail_pid().to_string()).join("clear_refs"), "5")?;
    let before = memory(pair, "VmRSS")?;
    attack().await?;
    let peak = memory(pair, "VmHWM")?;
    println!("{before} MiB before, {peak} MiB at most, {bound} MiB allowed on top");
    assert!(peak <= before + bound + SLACK, "{before} MiB before, {peak} MiB at most: over {bound} MiB");
    Ok(())
}

fn packet() -> Result<Vec<u8>> {
    let bundle = Bundle::open(bundle(), Parts::All)?;
    Ok(bundle.read(&bundle.vectors().first().context("the bundle has vectors")?.packet)?)
}

fn image(file: Vec<u8>) -> Payload {
    Payload::Image(Image { geometry: 0, format: ImageFormat::Jpeg, framing: Framing::Original, file })
}

/// A request for the most classes there are.
fn request(id: u64, payload: Payload) -> Result<Vec<u8>> {
    let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 1000 } }];
    Ok(Request { id, bundle: 0, budget: None, task_requests, payload }.encode()?)
}

/// A request for the largest class map and the most classes.
fn largest_answer() -> Result<Vec<u8>> {
    let task_requests = vec![
        TaskRequest { task: 0, query: Query::Classify { top_k: 1000 } },
        TaskRequest { task: 1, query: Query::Segment { size: Some((2048, 1024)) } },
    ];
    Ok(Request { id: 0, bundle: 0, budget: None, task_requests, payload: Payload::Packet(packet()?) }
        .encode()?)
}

async fn clients(pair: &Pair, count: usize) -> Result<Vec<Arc<Client>>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Arc::new(Client::connect(pair.address(), &pair.certs().join("devices/device")).await?));
    }
    Ok(clients)
}

/// Has the networks run batches of every size, whose memory they keep. It is no matter of the clients.
async fn warm_up(pair: &Pair, request: &[u8]) -> Result<()> {
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    for _ in 0..3 {
        let mut frames = Vec::new();
        for id in 0..16u64 {
            let mut request = request.to_vec();
            request[1..9].copy_from_slice(&id.to_le_bytes());
            let (mut send, receive) = client.connection().open_bi().await?;
            send.write_all(&request).await?;
            send.finish()?;
            frames.push(receive);
        }
        for mut receive in frames {
            FrameReply::parse(&read_message(&mut receive, MAX_REPLY).await?)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_take_no_more_than_the_stated_memory_and_others_are_served() -> Result<()> {
    let pair = start(&["--request-memory", "64"])?;
    let made = narrows_pair::tail().args(["certs", "device", "other", "--dir"]).arg(pair.certs()).output()?;
    anyhow::ensure!(made.status.success());
    // A device may take a quarter of the memory for requests.
    check(&pair, 4 * CONNECTION + 64 / 4, async || {
        let clients = clients(&pair, 4).await?;
        let bytes = Arc::new(request(1, image(vec![7; 4 << 20]))?);
        assert!(bytes.len() <= MAX_REQUEST);
        let mut streams = JoinSet::new();
        for client in &clients {
            for _ in 0..32 {
                let (client, bytes) = (Arc::clone(client), Arc::clone(&bytes));
                streams.spawn(async move {
                    let (mut send, receive) = client.connection().open_bi().await.ok()?;
                    // All but the last byte, unless the tail refuses before.
                    let _ = timeout(Duration::from_secs(4), send.write_all(&bytes[..bytes.len() - 1])).await;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    Some((send, receive))
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let other = Client::connect(pair.address(), &pair.certs().join("devices/other")).await?;
        assert!(matches!(other.classify(1, &packet()?).await?, FrameReply::Answered(_)));
        while streams.join_next().await.is_some() {}
        Ok(())
    })
    .await?;
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_nobody_reads_take_no_more_than_the_stated_memory() -> Result<()> {
    let pair = start(&["--request-memory", "64", "--queue", "64"])?;
    let device = pair.certs().join("devices/device");
    let mut request = largest_answer()?;
    warm_up(&pair, &request).await?;
    check(&pair, 4 * CONNECTION + 64 / 4 + BATCH * MAP + 64 / FRAMES, async || {
        let mut clients = Vec::new();
        for _ in 0..4 {
            // The client takes the welcome and one reply, and then reads nothing.
            let tuning = Tuning { receive_window: 8192, ..Tuning::default() };
            clients.push(Client::connect_with(pair.address(), &device, &tuning).await?);
        }
        let end = Instant::now() + Duration::from_secs(4);
        let mut unread = Vec::new();
        let mut id = 0u64;
        while Instant::now() < end {
            for client in &clients {
                id += 1;
                let open = timeout(Duration::from_millis(50), client.connection().open_bi()).await;
                let Ok(Ok((mut send, receive))) = open else { continue };
                request[1..9].copy_from_slice(&id.to_le_bytes());
                send.write_all(&request).await?;
                send.finish()?;
                unread.push((send, receive));
            }
        }
        assert!(unread.len() >= 4 * 16, "{} requests", unread.len());
        Ok(())
    })
    .await?;
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_images_are_decoded_a_few_at_once_and_too_many_get_busy() -> Result<()> {
    let pair = start(&["--request-memory", "64", "--offload", "--decoders", "1", "--queue", "4"])?;
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_pixel(4096, 4096, image::Rgb([90, 120, 200])).write_to(&mut file, File::Jpeg)?;
    let bytes = request(1, image(file.into_inner()))?;
    warm_up(&pair, &bytes).await?;
    check(&pair, 4 * CONNECTION + 64 / 4 + DECODER, async || {
        let clients = clients(&pair, 3).await?;
        let mut frames = JoinSet::new();
        for client in &clients {
            for id in 0..16u64 {
                let (client, mut bytes) = (Arc::clone(client), bytes.clone());
                bytes[1..9].copy_from_slice(&id.to_le_bytes());
                frames.spawn(async move {
                    let (mut send, mut receive) = client.connection().open_bi().await?;
                    send.write_all(&bytes).await?;
                    send.finish()?;
                    anyhow::Ok(FrameReply::parse(&read_message(&mut receive, MAX_REPLY).await?)?)
                });
            }
        }
        let (mut answered, mut busy) = (0, 0);
        while let Some(reply) = frames.join_next().await {
            match reply?? {
                FrameReply::Answered(_) => answered += 1,
                FrameReply::Refused { refusal, .. } => {
                    assert_eq!(refusal.code, RefusalCode::Busy, "{refusal}");
                    assert!(refusal.retry.is_some(), "{refusal}");
                    busy += 1;
                }
            }
        }
        assert!(answered > 0 && busy > 0, "{answered} answered, {busy} busy");
        Ok(())
    })
    .await?;
    pair.drain()
}
