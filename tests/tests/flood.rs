//! Peers that try to keep a real tail from serving others: floods of handshakes, connections without a hello, and a device
//! with too many connections.
#![expect(clippy::disallowed_methods, reason = "waits for events of real processes")]

use std::{
    collections::{HashSet, VecDeque},
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::Pair;
use narrows_tests::{Client, bundle, lines, photos, root, runtime, said};
use narrows_wire::{
    Close,
    identity::Identity,
    quic::{Tuning, client_config, close_code},
};
use rustls::{
    Side,
    crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{Keys, Version},
};
use tokio::task::{JoinHandle, JoinSet};

fn start(args: &[&str]) -> Result<Pair> {
    let runtime = runtime().display().to_string();
    Pair::start(&bundle(), &[&["--device", "cpu", "--runtime", &runtime], args].concat())
}

/// A head that sends one photo and looks for the tail for at most `seconds`.
fn head(pair: &Pair, identity: &Path, seconds: u32) -> Result<Output> {
    let mut command = narrows_pair::head();
    command
        .args(["run", "--server", pair.address(), "--retry-for", &seconds.to_string(), "--bundle"])
        .arg(bundle());
    command.arg("--identity").arg(identity).arg("--source").arg(photos().join("cat.png"));
    Ok(command.current_dir(root()).output()?)
}

/// Checks that the tail has answered, and not the head alone.
fn answered(output: &Output) -> Result<()> {
    let lines = lines(output)?;
    let by_the_tail = |line: &serde_json::Value| line["status"] == "answered" && line["path"] == "split";
    ensure!(
        output.status.success() && lines.iter().any(by_the_tail),
        "{}: {lines:?}\n{}",
        output.status,
        said(output)
    );
    Ok(())
}

/// Makes the identity of another device with the tail's CA.
fn another_device(pair: &Pair, name: &str) -> Result<std::path::PathBuf> {
    let made = narrows_pair::tail().args(["certs", "device", name, "--dir"]).arg(pair.certs()).output()?;
    ensure!(made.status.success(), "{}", said(&made));
    Ok(pair.certs().join("devices").join(name))
}

/// A QUIC Initial packet of 1,200 bytes that begins a connection and says nothing: one PING and padding (RFC 9000 section
/// 17.2.2, RFC 9001 section 5).
fn empty_initial(id: u64) -> Result<Vec<u8>> {
    const NUMBER: usize = 4;
    const TAG: usize = 16;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().context("a suite of TLS 1.3")?;
    let quic = suite.quic.context("a suite for QUIC")?;
    let id = id.to_be_bytes();
    let keys = Keys::initial(Version::V1, suite, quic, &id, Side::Client);
    let mut packet = vec![0xc0 | (NUMBER as u8 - 1), 0, 0, 0, 1, 8];
    packet.extend(id);
    // An empty source connection ID and no token.
    packet.extend([0, 0]);
    let length = 1200 - packet.len() - 2;
    packet.extend((0x4000 | length as u16).to_be_bytes());
    packet.extend([0; NUMBER]);
    let header = packet.len();
    packet.push(1);
    packet.resize(1200 - TAG, 0);
    let (head, payload) = packet.split_at_mut(header);
    let tag = keys.local.packet.encrypt_in_place(0, head, payload)?;
    packet.extend(tag.as_ref());
    // The sample for the header's protection begins four bytes after the beginning of the packet number.
    let (head, payload) = packet.split_at_mut(header);
    let (first, head) = head.split_first_mut().context("a header")?;
    let number = head.len() - NUMBER;
    let sample = &payload[..keys.local.header.sample_len()];
    keys.local.header.encrypt_in_place(sample, first, &mut head[number..])?;
    Ok(packet)
}

/// A flood that runs in a thread until this is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// Sends empty first packets from `sockets` ports in turn, one each `pause`, the first of all ports at once.
    fn start(server: SocketAddr, sockets: usize, pause: Duration) -> Result<Flood> {
        let sockets: Vec<UdpSocket> =
            (0..sockets).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let mut id = 0x0102_0304_0506_0708;
        for socket in &sockets {
            id += 1;
            socket.send_to(&empty_initial(id)?, server)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for socket in sockets.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                id += 1;
                // A full socket buffer is no reason to stop.
                let _ = empty_initial(id).map(|packet| socket.send_to(&packet, server));
                thread::sleep(pause);
            }
        });
        Ok(Flood { stop, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Begins a connection to `server` every 10 ms.
async fn dial_for_ever(server: SocketAddr, config: quinn::ClientConfig) -> Result<()> {
    let mut dials = JoinSet::new();
    loop {
        let (address, config) = (server.to_string(), config.clone());
        dials.spawn(async move {
            if let Ok(client) = Client::dial(&address, config).await {
                client.connection().closed().await;
            }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        while dials.try_join_next().is_some() {}
    }
}

/// A socket whose task forwards the first packet of each connection to `server`, each from a port of its own, and nothing
/// else in either direction.
async fn forward_first_packets(server: SocketAddr) -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let address = hole.local_addr()?;
    let forward = async move {
        let (mut sockets, mut seen) = (VecDeque::new(), HashSet::new());
        let mut packet = vec![0; 2048];
        loop {
            let length = hole.recv(&mut packet).await?;
            // The destination's connection ID: its length follows the flags and the version.
            let id = packet.get(6..6 + usize::from(packet[5])).context("a long header")?;
            if seen.insert(id.to_vec()) {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.send_to(&packet[..length], server)?;
                sockets.push_back(socket);
                if sockets.len() > 400 {
                    sockets.pop_front();
                }
            }
        }
    };
    Ok((address, tokio::spawn(forward)))
}

#[test]
fn a_flood_of_empty_first_packets_keeps_no_head_out_and_does_not_fill_the_log() -> Result<()> {
    let pair = start(&["--connections", "4"])?;
    let device = pair.certs().join("devices/device");
    let flood = Flood::start(pair.address().parse()?, 600, Duration::from_millis(1))?;
    for _ in 0..3 {
        answered(&head(&pair, &device, 3)?)?;
    }
    let failed = || pair.log().lines().filter(|line| line.contains("handshake failed")).count();
    let start = Instant::now();
    while failed() == 0 && start.elapsed() < narrows_tests::TIMEOUT {
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_millis(500));
    drop(flood);
    let failed = failed();
    assert!((1..100).contains(&failed), "{failed} lines of failed handshakes");
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_with_foreign_certificates_keep_no_head_out() -> Result<()> {
    let pair = start(&[])?;
    let foreign = tempfile::tempdir()?;
    for args in [&["init"][..], &["device", "thief"]] {
        let made = narrows_pair::tail().arg("certs").args(args).arg("--dir").arg(foreign.path()).output()?;
        ensure!(made.status.success(), "{}", said(&made));
    }
    // The thief trusts the tail, so that the tail has to refuse it.
    let thief = foreign.path().join("devices/thief");
    fs::copy(pair.certs().join("ca.pem"), thief.join("ca.pem"))?;
    let config = client_config(&Identity::load(&thief)?, &Tuning::default())?;
    let refused = tokio::spawn(dial_for_ever(pair.address().parse()?, config.clone()));
    // These are begun and never completed.
    let (hole, forwarded) = forward_first_packets(pair.address().parse()?).await?;
    let abandoned = tokio::spawn(dial_for_ever(hole, config));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let device = pair.certs().join("devices/device");
    for attempt in 0..10 {
        let client = Client::connect(pair.address(), &device).await;
        client.with_context(|| format!("attempt {attempt}\n{}", pair.log()))?;
    }
    assert!(!forwarded.is_finished());
    [refused, abandoned].iter().for_each(|flood| flood.abort());
    forwarded.abort();
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_hello_keep_no_place() -> Result<()> {
    let pair = start(&["--connections", "8"])?;
    let device = pair.certs().join("devices/device");
    let other = another_device(&pair, "other")?;
    let config = client_config(&Identity::load(&device)?, &Tuning::default())?;
    let mut mute = Vec::new();
    for _ in 0..200 {
        mute.push(Client::dial(pair.address(), config.clone()).await?);
    }
    for identity in [&device, &other] {
        for _ in 0..4 {
            mute.push(Client::connect(pair.address(), identity).await?);
        }
    }
    let open = mute[..200].iter().filter(|client| client.connection().close_reason().is_none()).count();
    assert!(open <= 8, "{open} connections without a hello are open");
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_few_connections_and_one_more_is_told_that_it_is_full() -> Result<()> {
    let pair = start(&[])?;
    let device = pair.certs().join("devices/device");
    let other = another_device(&pair, "other")?;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(Client::connect(pair.address(), &device).await?);
    }
    let refused = Client::connect(pair.address(), &device).await.err().context("a fifth connection")?;
    let text = format!("{refused:#}");
    assert!(text.contains("too many connections") && text.contains("full: 4 connections"), "{text}");
    // A real head says so too, and another device is not concerned.
    let output = head(&pair, &device, 1)?;
    assert!(said(&output).contains("full: 4 connections"), "{}", said(&output));
    answered(&head(&pair, &other, 3)?)?;
    assert!(open.iter().all(|client| client.connection().close_reason().is_none()));
    drop(open.pop());
    answered(&head(&pair, &device, 3)?)?;
    // What was refused is counted.
    Command::new("kill").args(["-TERM", &pair.tail_pid().to_string()]).status()?;
    let start = Instant::now();
    while !pair.log().contains(" drained") && start.elapsed() < narrows_tests::TIMEOUT {
        thread::sleep(Duration::from_millis(50));
    }
    let log = pair.log();
    let counters = log.lines().find(|line| line.contains("device_full=")).context("a line of counters")?;
    assert!(!counters.contains("device_full=0") && counters.contains("server_full=0"), "{counters}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_tells_a_head_that_it_is_full() -> Result<()> {
    let pair = start(&["--connections", "1"])?;
    let open = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let output = head(&pair, &another_device(&pair, "other")?, 1)?;
    assert!(said(&output).contains("full: 1 connections"), "{}", said(&output));
    drop(open);
    pair.drain()
}

#[test]
fn a_device_that_crashed_is_not_kept_out_by_its_dead_connections() -> Result<()> {
    let pair = start(&["--max-connections-per-device", "2"])?;
    let device = pair.certs().join("devices/device");
    let crashed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for _ in 0..2 {
        // The sockets are closed without a word to the tail.
        std::mem::forget(crashed.block_on(Client::connect(pair.address(), &device))?);
    }
    crashed.shutdown_background();
    let start = Instant::now();
    answered(&head(&pair, &device, 3)?)?;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_that_makes_room_is_told_why() -> Result<()> {
    let pair = start(&["--max-connections-per-device", "1"])?;
    let device = pair.certs().join("devices/device");
    let mut stopped = Command::new(narrows_pair::head().get_program());
    stopped
        .args(["run", "--server", pair.address(), "--bundle"])
        .arg(bundle())
        .arg("--identity")
        .arg(&device);
    let mut stopped = stopped
        .args(["--repeat", "0", "--source"])
        .arg(photos().join("cat.png"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let wait = Instant::now();
    while !pair.log().contains("connected") && wait.elapsed() < narrows_tests::TIMEOUT {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kill = |signal: &str| Command::new("kill").args([signal, &stopped.id().to_string()]).status();
    kill("-STOP")?;
    let client = Client::connect(pair.address(), &device).await;
    kill("-KILL")?;
    stopped.wait()?;
    let client = client?;
    assert!(client.connection().close_reason().is_none());
    // The newer one stays: it answers the probe.
    let refused = Client::connect(pair.address(), &device).await;
    assert!(refused.is_err());
    assert_ne!(client.connection().close_reason().as_ref().and_then(close_code), Some(Close::Replaced));
    pair.drain()
}
