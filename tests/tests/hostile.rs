//! Hostile peers against the real tail.
#![expect(clippy::disallowed_methods, reason = "waits for events of real processes")]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use narrows_codec::{Choice, Decoder, Encoder, Packet, Shape, Tables, prefixes};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{Client, TIMEOUT, bundle, changed_bundle, photos, root, runtime, said, start};
use narrows_wire::{
    ALPN, FrameReply, RefusalCode, Reset,
    identity::Identity,
    limits::{MAX_REPLY, MAX_REQUEST},
    quic::{Tuning, client_config},
    stream::{self, StreamError},
};

/// A packet that the split networks of the shipped bundle answer.
fn packet() -> Result<Vec<u8>> {
    let bundle = Bundle::open(bundle(), Parts::All)?;
    Ok(bundle.read(&bundle.vectors().first().context("the bundle has vectors")?.packet)?)
}

fn refused(reply: &FrameReply, code: RefusalCode) -> bool {
    matches!(reply, FrameReply::Refused { refusal, .. } if refusal.code == code)
}

#[tokio::test]
async fn truncated_and_flipped_packets_are_refused_and_the_connection_stays_open() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let packet = packet()?;
    let mut id = 0;
    let mut classify = async |packet: &[u8]| {
        id += 1;
        client.classify(id, packet).await
    };
    assert!(matches!(classify(&packet).await?, FrameReply::Answered(_)));
    for length in (1..packet.len()).step_by(1 + packet.len() / 50) {
        let reply = classify(&packet[..length]).await?;
        assert!(refused(&reply, RefusalCode::BadPacket), "{length} bytes: {reply:?}");
    }
    for bit in (0..8 * packet.len()).step_by(1 + 8 * packet.len() / 200) {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reply = classify(&flipped).await?;
        assert!(refused(&reply, RefusalCode::BadPacket), "bit {bit}: {reply:?}");
    }
    let mut longer = packet.clone();
    longer.push(0);
    assert!(refused(&classify(&longer).await?, RefusalCode::BadPacket));
    assert!(matches!(classify(&packet).await?, FrameReply::Answered(_)));
    pair.drain()
}

#[tokio::test]
async fn a_peer_that_sends_too_much_or_garbage_is_disconnected_and_the_next_is_served() -> Result<()> {
    let pair = start()?;
    let identity = pair.certs().join("devices/device");
    let mut messages = vec![vec![16; MAX_REQUEST + 1], vec![0xff; 40], vec![], vec![16]];
    messages.push((0..=255).collect());
    for bytes in messages {
        let client = Client::connect(pair.address(), &identity).await?;
        let answer = client.exchange(&bytes).await;
        let refused = answer.as_ref().ok().and_then(|bytes| FrameReply::parse(bytes).ok());
        assert!(
            answer.is_err() || matches!(refused, Some(FrameReply::Refused { .. })),
            "{} bytes were answered: {answer:?}",
            bytes.len()
        );
        let next = Client::connect(pair.address(), &identity).await?;
        assert!(matches!(next.classify(1, &packet()?).await?, FrameReply::Answered(_)));
    }
    pair.drain()
}

#[tokio::test]
async fn a_packet_cut_after_a_channel_group_is_refused_with_the_number_of_its_groups() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let opened = Bundle::open(bundle(), Parts::All)?;
    let tables = Tables::parse(&opened.read(opened.tables())?)?;
    let shape = |geometry: &narrows_models::Geometry| {
        let (height, width) = geometry.latent(opened.head().stride);
        Shape::new(opened.head().channels, height, width)
    };
    let shapes = opened.geometries().iter().map(shape).collect::<Result<Vec<_>, _>>()?;
    let Packet { geometry, level, mode, feature, .. } =
        Decoder::new().decode(&tables, &shapes, &packet()?)?;
    let mut whole = Vec::new();
    let mut encoder = Encoder::new().truncatable(true);
    encoder.encode(&tables, geometry, level, Choice::Only(mode), &feature, &mut whole)?;
    let mut lengths: Vec<usize> = prefixes(&whole)?.collect();
    assert_eq!(lengths.pop(), Some(whole.len()));
    let groups = lengths.len() + 1;
    assert!(groups > 1, "the bundle has one group");
    assert!(matches!(client.classify(1, &whole).await?, FrameReply::Answered(_)));
    for (index, length) in lengths.into_iter().enumerate() {
        let reply = client.classify(2 + index as u64, &whole[..length]).await?;
        let FrameReply::Refused { refusal, .. } = reply else { panic!("answered") };
        assert_eq!(refusal.code, RefusalCode::BadPacket);
        let count = format!("{} of its {groups} channel groups", index + 1);
        assert!(refusal.text.contains(&count), "{count} is not in: {refusal}");
    }
    pair.drain()
}

#[tokio::test]
async fn a_request_over_its_limit_fails_alone() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let mut long = vec![16; MAX_REQUEST + 1];
    long[1..9].copy_from_slice(&77u64.to_le_bytes());
    for _ in 0..2 {
        let (mut send, mut receive) = client.connection().open_bi().await?;
        // The tail stops the stream before its end.
        let _ = stream::write_message(&mut send, &long).await;
        let answer = FrameReply::parse(&stream::read_message(&mut receive, MAX_REPLY).await?)?;
        assert_eq!(answer.id(), 77);
        assert!(refused(&answer, RefusalCode::TooLarge), "{answer:?}");
        assert!(matches!(client.classify(1, &packet()?).await?, FrameReply::Answered(_)));
    }
    pair.drain()
}

#[tokio::test]
async fn a_frame_over_the_number_in_flight_is_refused_after_its_first_bytes() -> Result<()> {
    let runtime = runtime().display().to_string();
    let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime, "--in-flight", "2"])?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let (mut send, receive) = client.connection().open_bi().await?;
        send.write_all(&[16; 100]).await?;
        unfinished.push((send, receive));
    }
    // The tail reads streams in any order.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Neither of the two is complete, and a third one is not read beyond the number of its frame.
    let reply = client.classify(5, &packet()?).await?;
    assert!(refused(&reply, RefusalCode::TooManyInFlight), "{reply:?}");
    let (send, _) = &mut unfinished[0];
    send.reset(0u8.into())?;
    assert!(matches!(client.classify(6, &packet()?).await?, FrameReply::Answered(_)));
    // A dropped stream would end, and so would the request in it.
    for (mut send, _) in unfinished {
        let _ = send.reset(0u8.into());
    }
    pair.drain()
}

#[tokio::test]
async fn a_request_that_is_given_up_before_its_end_is_reset_and_has_no_empty_answer() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    for length in [0, 1, 100] {
        let (mut send, mut receive) = client.connection().open_bi().await?;
        send.write_all(&vec![16; length]).await?;
        send.reset(0u8.into())?;
        let answer = tokio::time::timeout(TIMEOUT, stream::read_message(&mut receive, MAX_REPLY)).await?;
        assert!(matches!(answer, Err(StreamError::Reset(Reset::Stale))), "{length}: {answer:?}");
    }
    assert!(matches!(client.classify(1, &packet()?).await?, FrameReply::Answered(_)));
    pair.drain()
}

#[tokio::test]
async fn what_a_peer_says_cannot_forge_a_line_of_the_log() -> Result<()> {
    let pair = start()?;
    let device = pair.certs().join("devices/device");
    let said = "bye\n2026-01-01T00:00:00Z  INFO drained \x1b[31m\u{202e}\r\0";
    // Once before the hello and once after it.
    let config = client_config(&Identity::load(&device)?, &Tuning::default())?;
    let silent = Client::dial(pair.address(), config).await?;
    // The tail completes the handshake after the client.
    tokio::time::sleep(Duration::from_millis(500)).await;
    silent.connection().close(0u8.into(), said.as_bytes());
    let open = Client::connect(pair.address(), &device).await?;
    open.connection().close(0u8.into(), said.as_bytes());
    let start = Instant::now();
    let quoted =
        |log: &str| log.matches(r"bye\n2026-01-01T00:00:00Z  INFO drained \u{1b}[31m\u{202e}\r\0").count();
    while quoted(&pair.log()) < 2 && start.elapsed() < TIMEOUT {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = pair.log();
    assert_eq!(quoted(&log), 2, "{log}");
    let harmless = |character: char| character == '\n' || !character.is_control() && character != '\u{202e}';
    assert!(log.chars().all(harmless), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
    pair.drain()
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() -> Result<()> {
    let pair = start()?;
    let mut roots = rustls::RootCertStore::empty();
    let ca = fs::read(pair.certs().join("ca.pem"))?;
    roots.add(
        rustls_pki_types::pem::PemObject::from_pem_slice(&ca).ok().context("ca.pem holds a certificate")?,
    )?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls)?));
    // With TLS 1.3 the client's handshake ends before the server has checked the client's certificate.
    let answer = match Client::dial(pair.address(), config).await {
        Ok(client) => client.exchange(b"anything").await,
        Err(error) => Err(error),
    };
    let error = format!("{:#}", answer.expect_err("a client without a certificate was answered"));
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    pair.drain()
}

#[test]
fn a_client_with_a_certificate_of_another_ca_is_refused() -> Result<()> {
    let pair = start()?;
    let foreign = tempfile::tempdir()?;
    let certs = |args: &[&str]| {
        narrows_pair::tail().arg("certs").args(args).arg("--dir").arg(foreign.path()).status()
    };
    assert!(certs(&["init"])?.success());
    assert!(certs(&["device", "thief"])?.success());
    // The thief has its own key and the tail's CA certificate, so it trusts the tail, and only the tail can refuse it.
    let thief = foreign.path().join("devices/thief");
    fs::copy(pair.certs().join("ca.pem"), thief.join("ca.pem"))?;
    let output = head(&pair, &bundle(), &thief).output()?;
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("certificate"), "{}", said(&output));
    assert!(output.stdout.is_empty() || !String::from_utf8_lossy(&output.stdout).contains("answered"));
    // A head that does not trust the tail.
    let output = head(&pair, &bundle(), &foreign.path().join("server")).output()?;
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("certificate"), "{}", said(&output));
    pair.drain()
}

#[test]
fn a_head_with_another_bundle_is_refused_with_both_digests() -> Result<()> {
    let pair = start()?;
    let other = changed_bundle("CARD.md", true, |card| card.extend(b"\nAnother line.\n"))?;
    let output = head(&pair, other.path(), &pair.certs().join("devices/device")).output()?;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    for folder in [bundle().as_path(), other.path()] {
        let digest = Bundle::open(folder, Parts::Head)?.digest();
        assert!(said(&output).contains(&digest.short()), "{} is not in: {}", digest.short(), said(&output));
    }
    pair.drain()
}

/// The command of a head that sends one photo.
fn head(pair: &Pair, bundle: &Path, identity: &Path) -> Command {
    let mut command = narrows_pair::head();
    command
        .args(["run", "--server", pair.address(), "--retry-for", "2", "--fallback", "never", "--bundle"])
        .arg(bundle);
    command.arg("--identity").arg(identity).arg("--source").arg(photos().join("cat.png"));
    command.current_dir(root());
    command
}
