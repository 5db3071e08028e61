//! QUIC over loopback: messages of peers with trusted certificates arrive, other peers are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peers;

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use narrows_wire::{
    Close, Reset,
    identity::{Identity, is_server_name},
    limits,
    quic::{self, CertificateFault, Tuning},
    stream::{StreamError, read_into, read_message, write_message},
};
use quinn::{Connection, Endpoint, VarInt};
use rcgen::ExtendedKeyUsagePurpose;

use self::peers::{ca, client, identity, identity_with, server};

/// The error and its sources, as a binary prints them.
fn chain(error: &(dyn Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |&error| error.source());
    errors.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

/// Answers every stream's message with the same bytes until the peer leaves.
async fn echo(connection: Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        match read_message(&mut receive, limits::MAX_REQUEST).await {
            Ok(bytes) => write_message(&mut send, &bytes).await.unwrap(),
            Err(StreamError::TooLarge { .. }) => {
                quic::close(&connection, Close::TooLarge, "request over its limit");
            }
            Err(_) => {}
        }
    }
}

async fn pair() -> (Endpoint, Connection, Connection) {
    let ca = ca();
    let server_folder = identity(&ca, &ca, &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let device = identity(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let server = server(server_folder.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let client = client(device.path(), address, &Tuning::default());
    let dial = client.connect(address, "127.0.0.1").unwrap();
    let (near, far) = tokio::join!(dial, async { server.accept().await.unwrap().await });
    let far = far.unwrap();
    quic::allow_requests(&far, 4, &Tuning::default());
    (server, near.unwrap(), far)
}

#[tokio::test]
async fn before_the_hello_a_client_has_one_stream_and_little_memory() {
    let ca = ca();
    let server_folder = identity(&ca, &ca, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
    let device = identity(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let server = server(server_folder.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let client = client(device.path(), address, &Tuning::default());
    let dial = client.connect(address, "localhost").unwrap();
    let (near, far) = tokio::join!(dial, async { server.accept().await.unwrap().await });
    let (near, far) = (near.unwrap(), far.unwrap());
    let (mut first, _) = near.open_bi().await.unwrap();
    let most = Duration::from_millis(300);
    let more = vec![0; 1 << 20];
    assert!(tokio::time::timeout(most, near.open_bi()).await.is_err(), "a second stream was allowed");
    assert!(tokio::time::timeout(most, first.write_all(&more)).await.is_err(), "1 MiB was taken");
    assert!(far.stats().udp_rx.bytes < 200_000, "{:?}", far.stats().udp_rx);
    quic::allow_requests(&far, 4, &Tuning::default());
    let streams = async {
        for _ in 0..7 {
            near.open_bi().await.unwrap().0.write_all(&[1]).await.unwrap();
        }
        first.write_all(&more).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(10), streams)
        .await
        .expect("the streams and their bytes are allowed");
    assert!(
        tokio::time::timeout(most, near.open_bi()).await.is_err(),
        "more than twice the frames in flight"
    );
}

#[tokio::test]
async fn a_probe_tells_a_live_peer_from_a_silent_one() {
    let (_server, near, far) = pair().await;
    let before = quic::path_state(&far).received;
    quic::request_acknowledgement(&far, &Tuning::default());
    let answered = async {
        while quic::path_state(&far).received == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), answered).await.expect("the peer acknowledges the probe");
    assert!(near.close_reason().is_none());
}

#[tokio::test]
async fn a_message_goes_there_and_back_and_the_peer_has_a_name() {
    let (_server, near, far) = pair().await;
    assert_eq!(quic::peer_name(&far).as_deref(), Some("cam-1"));
    assert_eq!(quic::peer_name(&near).as_deref(), Some("localhost"));
    tokio::spawn(echo(far));
    let (mut send, mut receive) = near.open_bi().await.unwrap();
    let message: Vec<u8> = (0..limits::MAX_REQUEST).map(|index| index as u8).collect();
    write_message(&mut send, &message).await.unwrap();
    assert_eq!(read_message(&mut receive, limits::MAX_REQUEST).await.unwrap(), message);
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_its_code() {
    let (_server, near, far) = pair().await;
    tokio::spawn(echo(far));
    let (mut send, mut receive) = near.open_bi().await.unwrap();
    // The reader may stop the stream before all is written.
    let _ = write_message(&mut send, &vec![0; limits::MAX_REQUEST + 1]).await;
    assert!(read_message(&mut receive, limits::MAX_REPLY).await.is_err());
    let closed = near.closed().await;
    assert_eq!(quic::close_code(&closed), Some(Close::TooLarge), "{closed}");
}

#[tokio::test]
async fn memory_for_a_message_is_asked_for_before_it_is_taken() {
    let (_server, near, far) = pair().await;
    let message: Vec<u8> = (0..100_000).map(|index| index as u8).collect();
    let sent = message.clone();
    let sender = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut send, _) = near.open_bi().await.unwrap();
            write_message(&mut send, &sent).await.unwrap();
        }
        let (mut send, _) = near.open_bi().await.unwrap();
        send.write_all(&sent).await.unwrap();
        (send.stopped().await.unwrap(), near)
    });
    // What the buffer has at first is filled without a question.
    let (_, mut receive) = far.accept_bi().await.unwrap();
    let (mut read, mut asked) = (Vec::with_capacity(9), Vec::new());
    let reserve = |capacity| {
        asked.push(capacity);
        true
    };
    read_into(&mut receive, &mut read, limits::MAX_REQUEST, reserve).await.unwrap();
    assert_eq!(read, message);
    assert!(read.capacity() <= 2 * message.len() && asked.last() == Some(&read.capacity()), "{asked:?}");
    assert!(asked.is_sorted() && asked.len() < 20, "{asked:?}");
    // A limit below the message's length: the capacity is never more.
    let (_, mut receive) = far.accept_bi().await.unwrap();
    let (mut read, mut most) = (Vec::with_capacity(9), 0);
    let reserve = |capacity| {
        most = capacity;
        true
    };
    let error = read_into(&mut receive, &mut read, 70_000, reserve).await.unwrap_err();
    assert!(matches!(error, StreamError::TooLarge { limit: 70_000 }), "{error}");
    assert!(most <= 70_000 && read.len() >= 9 && message.starts_with(&read), "{most}");
    // No memory: what is there is kept, and the peer is stopped.
    let (_, mut receive) = far.accept_bi().await.unwrap();
    let mut read = Vec::with_capacity(9);
    let error = read_into(&mut receive, &mut read, limits::MAX_REQUEST, |_| false).await.unwrap_err();
    assert!(matches!(error, StreamError::NoMemory), "{error}");
    assert_eq!((read.len(), read.capacity()), (9, 9));
    let (stopped, _near) = sender.await.unwrap();
    assert_eq!(stopped, Some(VarInt::from_u32(Reset::Refused.into())));
}

#[tokio::test]
async fn a_reset_stream_is_distinguished_from_a_lost_connection() {
    let (_server, near, far) = pair().await;
    let (mut send, _receive) = near.open_bi().await.unwrap();
    send.write_all(&[1, 2, 3]).await.unwrap();
    let (_, mut receive) = far.accept_bi().await.unwrap();
    send.reset(VarInt::from_u32(0)).unwrap();
    let error = read_message(&mut receive, 10).await.unwrap_err();
    assert_eq!(error.to_string(), "the peer gave the stream up: stale");
    let (mut send, _receive) = near.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let (_, mut receive) = far.accept_bi().await.unwrap();
    quic::close(&near, Close::Done, "");
    let error = read_message(&mut receive, 10).await.unwrap_err();
    assert!(matches!(error, StreamError::Connection(_)), "{error}");
}

#[tokio::test]
async fn the_server_opens_no_streams_and_takes_no_more_than_its_limit() {
    let (_server, near, far) = pair().await;
    let wait = Duration::from_millis(200);
    assert!(tokio::time::timeout(wait, far.open_bi()).await.is_err());
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(tokio::time::timeout(wait, near.open_bi()).await.unwrap().unwrap());
    }
    assert!(tokio::time::timeout(wait, near.open_bi()).await.is_err());
    assert!(tokio::time::timeout(wait, near.open_uni()).await.is_err());
}

/// Connects and uses a stream. With TLS 1.3 a client learns only after its own handshake that its certificate was refused.
async fn exchange(server: &Endpoint, folder: &Path, name: &str) -> Result<(), String> {
    let address = server.local_addr().unwrap();
    let serve = async {
        if let Some(incoming) = server.accept().await
            && let Ok(connection) = incoming.await
        {
            echo(connection).await;
        }
    };
    let dial = async {
        let client = client(folder, address, &Tuning::default());
        let connection = client.connect(address, name).unwrap().await.map_err(|error| error.to_string())?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        write_message(&mut send, &[1]).await.map_err(|error| error.to_string())?;
        read_message(&mut receive, 10).await.map(drop).map_err(|error| error.to_string())
    };
    tokio::select! {
        result = dial => result,
        () = serve => Err("the server refused the handshake".into()),
        () = tokio::time::sleep(Duration::from_secs(20)) => Err("timeout".into()),
    }
}

#[tokio::test]
async fn peers_without_a_trusted_certificate_are_refused() {
    let (ours, foreign) = (ca(), ca());
    let server_auth = ExtendedKeyUsagePurpose::ServerAuth;
    let client_auth = ExtendedKeyUsagePurpose::ClientAuth;
    let folder = identity(&ours, &ours, &["localhost", "127.0.0.1"], server_auth.clone());
    let server = server(folder.path(), &Tuning::default());
    let device = identity(&ours, &ours, &["cam-1"], client_auth.clone());
    exchange(&server, device.path(), "localhost").await.unwrap();
    let untrusted = identity(&foreign, &ours, &["cam-1"], client_auth.clone());
    exchange(&server, untrusted.path(), "localhost").await.unwrap_err();
    let wrong_use = identity(&ours, &ours, &["cam-1"], server_auth);
    exchange(&server, wrong_use.path(), "localhost").await.unwrap_err();
    let distrustful = identity(&ours, &foreign, &["cam-1"], client_auth);
    exchange(&server, distrustful.path(), "localhost").await.unwrap_err();
    exchange(&server, device.path(), "another.host").await.unwrap_err();
}

#[test]
fn a_broken_identity_names_its_file() {
    let ca = ca();
    let good = || identity(&ca, &ca, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
    let message = |folder: &Path| match Identity::load(folder) {
        Ok(identity) => chain(&quic::server_config(&identity, &Tuning::default()).unwrap_err()),
        Err(error) => chain(&error),
    };
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let folder = good();
        let path = folder.path().join(file);
        std::fs::remove_file(&path).unwrap();
        let text = message(folder.path());
        assert!(text.contains(&path.display().to_string()) && text.contains("No such file"), "{text}");
        std::fs::write(&path, "not PEM at all").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let text = message(folder.path());
        assert!(text.contains(&path.display().to_string()) && text.contains("holds no"), "{text}");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n").unwrap();
        let text = message(folder.path());
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
    let (folder, other) = (good(), good());
    std::fs::copy(other.path().join("key.pem"), folder.path().join("key.pem")).unwrap();
    let text = message(folder.path());
    assert!(text.contains("key.pem"), "{text}");
}

#[test]
fn a_keep_alive_above_the_idle_timeout_is_refused() {
    let ca = ca();
    let folder = identity(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let tuning = Tuning { keep_alive: Duration::from_secs(10), ..Tuning::default() };
    let error = quic::client_config(&Identity::load(folder.path()).unwrap(), &tuning).unwrap_err();
    assert!(error.to_string().contains("keep_alive"));
}

/// A server on `address` that runs until the runtime that is returned is shut down. Nothing is said to its clients then, as
/// after a crash.
fn crashing_server(folder: &Path, address: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let context = runtime.enter();
    let identity = Identity::load(folder).unwrap();
    let tuning = Tuning::default();
    let config = quic::server_config(&identity, &tuning).unwrap();
    let endpoint = quic::server_endpoint(address, config, &identity, &tuning).unwrap();
    drop(context);
    let address = endpoint.local_addr().unwrap();
    runtime.spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                quic::allow_requests(&connection, 4, &Tuning::default());
                echo(connection).await;
            });
        }
    });
    (runtime, address)
}

#[tokio::test]
async fn a_server_that_was_restarted_with_its_private_key_resets_the_connections_of_its_predecessor() {
    let ca = ca();
    let folder = identity(&ca, &ca, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
    let device = identity(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let (first, address) = crashing_server(folder.path(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let client = client(device.path(), address, &Tuning::default());
    let connection = client.connect(address, "localhost").unwrap().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    write_message(&mut send, &[1]).await.unwrap();
    assert_eq!(read_message(&mut receive, 10).await.unwrap(), [1]);
    first.shutdown_background();
    // The socket is closed once the driver's task is dropped.
    let second = loop {
        match std::net::UdpSocket::bind(address) {
            Ok(free) => {
                drop(free);
                break crashing_server(folder.path(), address);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    write_message(&mut send, &[2]).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
    assert_eq!(end.ok(), Some(quinn::ConnectionError::Reset), "half of the idle timeout has passed");
    second.0.shutdown_background();
}

#[tokio::test]
async fn the_fault_of_a_certificate_is_told_as_a_value() {
    let (ours, foreign) = (ca(), ca());
    let device = identity(&ours, &ours, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let fault = async |server_folder: &Path, name: &str| {
        let server = server(server_folder, &Tuning::default());
        let address = server.local_addr().unwrap();
        tokio::spawn(async move { server.accept().await.unwrap().await.err() });
        let tuning = Tuning::default();
        let (config, check) =
            quic::client_attempt(&Identity::load(device.path()).unwrap(), &tuning, None).unwrap();
        let endpoint = quic::client_endpoint(address, &tuning).unwrap();
        endpoint.connect_with(config, address, name).unwrap().await.unwrap_err();
        check.fault().unwrap().clone()
    };
    let dated = |from: (i32, u8, u8), until: (i32, u8, u8)| {
        identity_with(&ours, &ours, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        })
    };
    let future = dated((2150, 1, 1), (2151, 1, 1));
    let told = fault(future.path(), "localhost").await;
    assert!(matches!(told, CertificateFault::NotYetValid { from: 5_680_281_600, .. }), "{told:?}");
    let past = dated((1999, 1, 1), (2000, 1, 1));
    let told = fault(past.path(), "localhost").await;
    assert!(matches!(told, CertificateFault::Expired { until: 946_684_800, .. }), "{told:?}");
    let stranger = identity(&foreign, &foreign, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
    assert_eq!(fault(stranger.path(), "localhost").await, CertificateFault::UnknownIssuer);
    let named = identity(&ours, &ours, &["tail", "10.0.0.7"], ExtendedKeyUsagePurpose::ServerAuth);
    let wanted = CertificateFault::WrongName {
        expected: "localhost".into(),
        names: vec!["tail".into(), "10.0.0.7".into()],
    };
    assert_eq!(fault(named.path(), "localhost").await, wanted);
}

#[test]
fn an_identity_tells_the_periods_of_its_certificates_and_names_are_checked() {
    let ca = ca();
    let folder = identity_with(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    });
    let identity = Identity::load(folder.path()).unwrap();
    assert_eq!(identity.folder(), folder.path());
    let validity = identity.validity().unwrap();
    assert_eq!(validity.iter().map(|each| each.file).collect::<Vec<_>>(), ["cert.pem", "ca.pem"]);
    assert_eq!((validity[0].from, validity[0].until), (1_577_836_800, 1_893_456_000));
    for name in ["localhost", "tail.example", "10.0.0.7", "fe80::1"] {
        assert!(is_server_name(name), "{name}");
    }
    for name in ["", "two words", "a..b", "tail:7461", "10.0.0.7/8"] {
        assert!(!is_server_name(name), "{name}");
    }
}
