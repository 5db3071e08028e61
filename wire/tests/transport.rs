//! Every setting of the transport (PROTOCOL.md section 1): who is refused in the handshake, and the limits and timers of a
//! connection, as the peer sees them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod parameters;
mod peers;
mod relay;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use narrows_wire::{
    ALPN,
    identity::Identity,
    limits::{MAX_NOTICES, MAX_REPLY, MAX_REQUEST},
    quic::{self, Tuning, path_state},
    stream::{read_message, write_message},
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::ring::default_provider,
    server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::time::timeout;

use self::{
    parameters::{Recorder, id, number},
    peers::{Ca, ca, client, identity, identity_with, server},
    relay::Relay,
};

/// The time in which everything here ends on the slowest machine.
const LONG: Duration = Duration::from_secs(20);

/// A CA, a server of it and a device of it.
struct Parties {
    ca: Ca,
    server: TempDir,
    device: TempDir,
}

impl Parties {
    fn new() -> Parties {
        let ca = ca();
        let names = ["localhost", "127.0.0.1"];
        let server = identity(&ca, &ca, &names, ExtendedKeyUsagePurpose::ServerAuth);
        let device = identity(&ca, &ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
        Parties { ca, server, device }
    }

    fn server_config(&self, tuning: &Tuning) -> ServerConfig {
        quic::server_config(&Identity::load(self.server.path()).unwrap(), tuning).unwrap()
    }

    /// A server with any settings.
    fn any_server(&self, config: ServerConfig) -> Endpoint {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let identity = Identity::load(self.server.path()).unwrap();
        quic::server_endpoint(address, config, &identity, &Tuning::default()).unwrap()
    }

    /// TLS settings of a client that breaks rules: `identity` may be none.
    fn rustls_client(&self, identity: Option<&Path>) -> rustls::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        let mut tls = match identity {
            Some(folder) => builder.with_client_auth_cert(chain(folder), key(folder)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls
    }

    fn rustls_server(&self) -> rustls::ServerConfig {
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain(self.server.path()), key(self.server.path()))
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        roots
    }
}

fn chain(folder: &Path) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()]
}

fn key(folder: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap()
}

fn quic_client(tls: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

fn any_client(config: ClientConfig) -> Endpoint {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut endpoint = Endpoint::client(address).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// Both ends of a connection to `address`, at which `server` is reached.
async fn meet(server: &Endpoint, client: &Endpoint, address: SocketAddr) -> (Connection, Connection) {
    let dial = client.connect(address, "localhost").unwrap();
    let (near, far) = tokio::join!(dial, async { server.accept().await.unwrap().await });
    (near.unwrap(), far.unwrap())
}

/// The same as [`meet`] after the hello, when the client may send requests.
async fn connect(
    server: &Endpoint,
    client: &Endpoint,
    address: SocketAddr,
    tuning: &Tuning,
) -> (Connection, Connection) {
    let (near, far) = meet(server, client, address).await;
    quic::allow_requests(&far, 4, tuning);
    let allowed = async {
        while near.stats().frame_rx.max_data == 0 || near.stats().frame_rx.max_streams_bidi == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, allowed).await.expect("the client learns its limits");
    (near, far)
}

/// Both ends' results of a handshake. A client of TLS 1.3 learns only afterwards that the server refused its certificate, so
/// its result is that of the first stream.
async fn handshake(
    server: &Endpoint,
    client: &Endpoint,
    name: &str,
) -> (Result<(), String>, Result<(), String>) {
    let dial = client.connect(server.local_addr().unwrap(), name).unwrap();
    let near = async {
        let connection = dial.await.map_err(|error| error.to_string())?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        write_message(&mut send, b"hello").await.map_err(|error| error.to_string())?;
        read_message(&mut receive, 10).await.map(drop).map_err(|error| error.to_string())
    };
    let far = async {
        let connection = server.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        let message = read_message(&mut receive, 10).await.map_err(|error| error.to_string())?;
        write_message(&mut send, &message).await.map_err(|error| error.to_string())?;
        connection.closed().await;
        Ok(())
    };
    let near = async {
        let result = near.await;
        client.close(VarInt::from_u32(0), b"");
        result
    };
    timeout(LONG, async { tokio::join!(near, far) }).await.expect("the handshake ends")
}

/// Checks that the handshake fails on both sides, with this text in one of the two errors.
async fn refused(server: &Endpoint, client: &Endpoint, name: &str, text: &str) {
    let (near, far) = handshake(server, client, name).await;
    let (near, far) = (near.unwrap_err(), far.unwrap_err());
    assert!(near.contains(text) || far.contains(text), "{text} is neither in {near} nor in {far}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let known = any_client(quic_client(parties.rustls_client(Some(parties.device.path()))));
    let (near, far) = handshake(&server, &known, "localhost").await;
    assert!(near.is_ok() && far.is_ok(), "{near:?} {far:?}");
    let anonymous = any_client(quic_client(parties.rustls_client(None)));
    refused(&server, &anonymous, "localhost", "no certificates").await;
}

#[tokio::test]
async fn certificates_of_another_ca_are_refused_by_both_sides() {
    let (parties, foreign) = (Parties::new(), ca());
    let ours = server(parties.server.path(), &Tuning::default());
    let address = ours.local_addr().unwrap();
    let stranger = identity(&foreign, &parties.ca, &["cam-1"], ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = client(stranger.path(), address, &Tuning::default());
    refused(&ours, &stranger, "localhost", "invalid peer certificate").await;
    let fake = identity(&foreign, &parties.ca, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
    let fake = server(fake.path(), &Tuning::default());
    let device = client(parties.device.path(), fake.local_addr().unwrap(), &Tuning::default());
    refused(&fake, &device, "localhost", "invalid peer certificate").await;
}

#[tokio::test]
async fn the_server_must_have_the_name_that_the_client_connects_to() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let device = || client(parties.device.path(), server.local_addr().unwrap(), &Tuning::default());
    for name in ["another.host", "127.0.0.2", "localhost.example"] {
        refused(&server, &device(), name, "not valid for name").await;
    }
    for name in ["localhost", "127.0.0.1"] {
        let (near, far) = handshake(&server, &device(), name).await;
        assert!(near.is_ok() && far.is_ok(), "{name}: {near:?} {far:?}");
    }
}

#[tokio::test]
async fn certificates_are_refused_before_and_after_their_time_and_for_another_use() {
    let parties = Parties::new();
    let past: fn(&mut CertificateParams) = |params| params.not_after = date_time_ymd(2020, 1, 1);
    let future: fn(&mut CertificateParams) = |params| params.not_before = date_time_ymd(2090, 1, 1);
    let other_use: fn(&mut CertificateParams) = |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    };
    for (change, text) in [(past, "expired"), (future, "not valid yet"), (other_use, "extended key usage")] {
        let ours = server(parties.server.path(), &Tuning::default());
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let device = identity_with(&parties.ca, &parties.ca, &["cam-1"], usage, change);
        let device = client(device.path(), ours.local_addr().unwrap(), &Tuning::default());
        refused(&ours, &device, "localhost", text).await;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let other = identity_with(&parties.ca, &parties.ca, &["localhost"], usage, change);
        let other = server(other.path(), &Tuning::default());
        let device = client(parties.device.path(), other.local_addr().unwrap(), &Tuning::default());
        refused(&other, &device, "localhost", text).await;
    }
}

#[tokio::test]
async fn both_sides_speak_the_protocol_by_its_name_or_not_at_all() {
    let parties = Parties::new();
    let ours = server(parties.server.path(), &Tuning::default());
    for protocols in [vec![], vec![b"h3".to_vec()], vec![b"narrows/2".to_vec()]] {
        let mut tls = parties.rustls_client(Some(parties.device.path()));
        tls.alpn_protocols = protocols;
        refused(&ours, &any_client(quic_client(tls)), "localhost", "protocol").await;
    }
    let mut tls = parties.rustls_server();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let other =
        parties.any_server(ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap())));
    let device = client(parties.device.path(), other.local_addr().unwrap(), &Tuning::default());
    refused(&other, &device, "localhost", "protocol").await;
}

/// Whether a client's second connection to a server may send data before the handshake.
async fn sends_early_data(server: Endpoint, client: ClientConfig) -> bool {
    let client = any_client(client);
    let address = server.local_addr().unwrap();
    let (near, far) = meet(&server, &client, address).await;
    // The ticket for the next connection comes before the answer.
    let serve = async {
        let (mut send, mut receive) = far.accept_bi().await.unwrap();
        let message = read_message(&mut receive, 10).await.unwrap();
        write_message(&mut send, &message).await.unwrap();
    };
    let ask = async {
        let (mut send, mut receive) = near.open_bi().await.unwrap();
        write_message(&mut send, b"hello").await.unwrap();
        read_message(&mut receive, 10).await.unwrap();
    };
    tokio::join!(serve, ask);
    near.close(VarInt::from_u32(0), b"");
    client.connect(address, "localhost").unwrap().into_0rtt().is_ok()
}

/// Counts the tickets that a client is given, and keeps none.
#[derive(Debug, Default)]
struct Tickets(AtomicUsize);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[tokio::test]
async fn a_server_gives_no_tickets_with_which_a_client_would_not_be_verified_again() {
    let parties = Parties::new();
    let tickets = Arc::new(Tickets::default());
    let count = async |server: Endpoint| {
        let mut tls = parties.rustls_client(Some(parties.device.path()));
        tls.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
        let (near, far) = handshake(&server, &any_client(quic_client(tls)), "localhost").await;
        assert!(near.is_ok() && far.is_ok(), "{near:?} {far:?}");
        tickets.0.load(Ordering::Relaxed)
    };
    assert_eq!(count(server(parties.server.path(), &Tuning::default())).await, 0);
    let other = QuicServerConfig::try_from(parties.rustls_server()).unwrap();
    assert!(
        count(parties.any_server(ServerConfig::with_crypto(Arc::new(other)))).await > 0,
        "the test can tell"
    );
}

#[tokio::test]
async fn neither_side_uses_data_before_the_handshake() {
    let parties = Parties::new();
    let early_server = || {
        let mut tls = parties.rustls_server();
        tls.max_early_data_size = u32::MAX;
        let tls = QuicServerConfig::try_from(tls).unwrap();
        parties.any_server(ServerConfig::with_crypto(Arc::new(tls)))
    };
    let early_client = || {
        let mut tls = parties.rustls_client(Some(parties.device.path()));
        tls.enable_early_data = true;
        quic_client(tls)
    };
    let tuning = Tuning::default();
    let device = quic::client_config(&Identity::load(parties.device.path()).unwrap(), &tuning).unwrap();
    assert!(sends_early_data(early_server(), early_client()).await, "the test can tell");
    assert!(!sends_early_data(parties.any_server(parties.server_config(&tuning)), early_client()).await);
    assert!(!sends_early_data(early_server(), device).await);
}

#[tokio::test]
async fn each_side_tells_the_other_its_limits() {
    let parties = Parties::new();
    let tuning = Tuning {
        idle_timeout: Duration::from_secs(7),
        keep_alive: Duration::from_secs(2),
        receive_window: 5 << 20,
        ..Tuning::default()
    };
    let mut config = parties.server_config(&tuning);
    let recorder = Recorder::watch(&mut config);
    let server = parties.any_server(config);
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &tuning);
    let (near, far) = connect(&server, &device, address, &tuning).await;
    let (server, client) = (recorder.server(), recorder.client());
    for side in [&server, &client] {
        assert_eq!(number(side, id::MAX_IDLE_TIMEOUT), 7000);
        assert!(!side.contains_key(&id::MAX_DATAGRAM_FRAME_SIZE), "no datagrams");
    }
    assert_eq!(number(&server, id::INITIAL_MAX_DATA), 64 << 10, "before the hello");
    assert_eq!(number(&client, id::INITIAL_MAX_DATA), 5 << 20);
    // A request, or a reply, is sent without waiting for credit.
    assert!(number(&server, id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE) >= MAX_REQUEST as u64);
    assert!(number(&client, id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL) >= MAX_REPLY as u64);
    assert_eq!(number(&client, id::INITIAL_MAX_STREAMS_BIDI), 0, "a server asks nothing");
    assert_eq!(number(&client, id::INITIAL_MAX_STREAMS_UNI), MAX_NOTICES.into());
    assert_eq!(number(&server, id::INITIAL_MAX_STREAMS_UNI), 0);
    assert_eq!(number(&server, id::INITIAL_MAX_STREAMS_BIDI), 1, "one for the hello");
    assert!(!server.contains_key(&id::DISABLE_ACTIVE_MIGRATION), "devices change networks");
    assert_eq!((near.max_datagram_size(), far.max_datagram_size()), (None, None));
}

#[tokio::test]
async fn a_server_that_does_not_read_holds_no_more_than_the_receive_window() {
    let parties = Parties::new();
    let tuning = Tuning { receive_window: 100_000, ..Tuning::default() };
    let server = server(parties.server.path(), &tuning);
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &Tuning::default());
    let (near, far) = connect(&server, &device, address, &tuning).await;
    let (mut first, _answer) = near.open_bi().await.unwrap();
    let (mut second, _other_answer) = near.open_bi().await.unwrap();
    first.write_all(&[1; 80_000]).await.unwrap();
    first.finish().unwrap();
    assert_eq!(second.write(&[2; 80_000]).await.unwrap(), 20_000, "the rest of the window");
    assert!(timeout(Duration::from_millis(300), second.write(&[2])).await.is_err(), "the window is full");
    let (_answer, mut read) = far.accept_bi().await.unwrap();
    assert_eq!(timeout(LONG, read_message(&mut read, 80_000)).await.unwrap().unwrap(), [1; 80_000]);
    timeout(LONG, second.write(&[2])).await.expect("what was read makes room").unwrap();
}

#[tokio::test]
async fn an_older_stream_is_sent_whole_before_a_newer_one() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let relay = Relay::start(server.local_addr().unwrap()).await;
    let tuning = Tuning { initial_window: 30_000, ..Tuning::default() };
    let device = client(parties.device.path(), relay.address(), &tuning);
    let (near, far) = connect(&server, &device, relay.address(), &tuning).await;
    // Without acknowledgements the client sends no more than its first window.
    relay.cut_answers();
    let (mut first, _answer) = near.open_bi().await.unwrap();
    let (mut second, _other_answer) = near.open_bi().await.unwrap();
    first.write_all(&[1; 100_000]).await.unwrap();
    second.write_all(&[2; 100_000]).await.unwrap();
    let (_answer, mut read) = timeout(LONG, far.accept_bi()).await.unwrap().unwrap();
    assert_eq!(timeout(LONG, read.read_chunk(1, true)).await.unwrap().unwrap().unwrap().bytes, [1][..]);
    assert!(timeout(Duration::from_millis(300), far.accept_bi()).await.is_err(), "the newer one waits");
}

#[tokio::test]
async fn a_sender_holds_no_more_than_the_send_window() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let relay = Relay::start(server.local_addr().unwrap()).await;
    let tuning = Tuning { send_window: 300_000, ..Tuning::default() };
    let device = client(parties.device.path(), relay.address(), &tuning);
    let (near, _far) = connect(&server, &device, relay.address(), &tuning).await;
    relay.cut();
    let (mut send, _receive) = near.open_bi().await.unwrap();
    let mut written = 0;
    while let Ok(part) = timeout(Duration::from_millis(300), send.write(&[0; 10_000])).await {
        written += part.unwrap();
    }
    assert_eq!(written, 300_000);
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_lost_after_the_idle_timeout() {
    let parties = Parties::new();
    let keep_alive = Duration::from_millis(100);
    let tuning = Tuning { keep_alive, idle_timeout: Duration::from_millis(1500), ..Tuning::default() };
    let server = server(parties.server.path(), &tuning);
    let relay = Relay::start(server.local_addr().unwrap()).await;
    let device = client(parties.device.path(), relay.address(), &tuning);
    let (near, far) = connect(&server, &device, relay.address(), &tuning).await;
    // Packets of the client alone keep an idle connection open for twice the timeout.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(near.close_reason().is_none() && far.close_reason().is_none(), "kept alive");
    assert!(near.stats().frame_tx.ping > 0, "{:?}", near.stats().frame_tx);
    relay.cut();
    for side in [near, far] {
        let reason = timeout(LONG, side.closed()).await.expect("the silence ends the connection");
        assert_eq!(reason, ConnectionError::TimedOut);
    }
}

#[tokio::test]
async fn only_the_client_keeps_a_connection_alive() {
    let parties = Parties::new();
    let tuning = Tuning { keep_alive: Duration::from_millis(50), ..Tuning::default() };
    let server = server(parties.server.path(), &tuning);
    let address = server.local_addr().unwrap();
    let tls = quic_client(parties.rustls_client(Some(parties.device.path())));
    let (near, far) = connect(&server, &any_client(tls), address, &tuning).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A search for the path's largest datagram pings too: once at most on this path.
    let (pings, probes) = (far.stats().frame_tx.ping, far.stats().path.sent_plpmtud_probes);
    assert!(pings <= probes, "{pings} pings, {probes} of them probes");
    drop(near);
}

#[tokio::test]
async fn the_first_window_holds_a_frame() {
    let parties = Parties::new();
    let tuning = Tuning { initial_window: 300_000, ..Tuning::default() };
    let server = server(parties.server.path(), &tuning);
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &tuning);
    let (near, far) = connect(&server, &device, address, &tuning).await;
    for side in [near, far] {
        let window = side.stats().path.cwnd;
        assert!((300_000..400_000).contains(&window), "{window}");
    }
}

#[tokio::test]
async fn a_lost_first_packet_is_sent_again_after_three_assumed_round_trips() {
    let parties = Parties::new();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    silent.set_nonblocking(true).unwrap();
    let silent = tokio::net::UdpSocket::from_std(silent).unwrap();
    let arrivals = async |initial_rtt, wait| {
        let tuning = Tuning { initial_rtt, ..Tuning::default() };
        let device = client(parties.device.path(), address, &tuning);
        let dial = device.connect(address, "localhost").unwrap();
        let (mut count, mut bytes) = (0, [0; 2000]);
        // The client waits 3, 6, 12 and 24 round trips.
        while count < 5 && timeout(wait, silent.recv_from(&mut bytes)).await.is_ok() {
            count += 1;
        }
        drop(dial);
        count
    };
    // With the 333 ms of RFC 9002 the fifth would take 15 s.
    assert_eq!(timeout(Duration::from_secs(10), arrivals(Duration::from_millis(10), LONG)).await.unwrap(), 5);
    let once = arrivals(Duration::from_secs(20), Duration::from_secs(2)).await;
    assert!(once < 5, "{once}");
}

#[tokio::test]
async fn one_probe_finds_the_largest_datagram_of_ethernet() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &Tuning::default());
    let (near, far) = connect(&server, &device, address, &Tuning::default()).await;
    for side in [&near, &far] {
        let found = async {
            while path_state(side).mtu < 1452 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, found).await.expect("the search ends");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(side.stats().path.sent_plpmtud_probes, 1);
    }
    let state = path_state(&near);
    let path = near.stats().path;
    assert_eq!((state.rtt, state.lost, state.sent), (path.rtt, path.lost_packets, path.sent_packets));
    assert!(state.sent > 0 && !state.rtt.is_zero(), "{state:?}");
}

#[tokio::test]
async fn a_device_that_changes_its_network_keeps_its_connection() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &Tuning::default());
    let (near, far) = connect(&server, &device, address, &Tuning::default()).await;
    let before = far.remote_address();
    device.rebind(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
    let serve = async {
        let (mut send, mut receive) = far.accept_bi().await.unwrap();
        let message = read_message(&mut receive, 10).await.unwrap();
        write_message(&mut send, &message).await.unwrap();
    };
    let ask = async {
        let (mut send, mut receive) = near.open_bi().await.unwrap();
        write_message(&mut send, b"moved").await.unwrap();
        read_message(&mut receive, 10).await.unwrap()
    };
    let ((), answer) = timeout(LONG, async { tokio::join!(serve, ask) }).await.expect("the answer arrives");
    assert_eq!(answer, b"moved");
    assert_ne!(far.remote_address(), before);
}

#[tokio::test]
async fn bursts_are_sent_packet_by_packet_where_the_kernel_must_not_divide_them() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let tuning = Tuning { segmentation_offload: false, ..Tuning::default() };
    let device = client(parties.device.path(), address, &tuning);
    let (near, far) = connect(&server, &device, address, &tuning).await;
    let (mut send, _receive) = near.open_bi().await.unwrap();
    let message = vec![7; 500_000];
    let serve = async {
        let (_send, mut receive) = far.accept_bi().await.unwrap();
        read_message(&mut receive, 500_000).await.unwrap()
    };
    let (_, received) = tokio::join!(write_message(&mut send, &message), serve);
    assert_eq!(received, message);
    let sent = near.stats().udp_tx;
    assert!(sent.datagrams > 300, "{sent:?}");
    assert_eq!(sent.ios, sent.datagrams);
}

#[tokio::test]
async fn handshakes_that_nobody_accepts_are_limited() {
    let parties = Parties::new();
    let server = server(parties.server.path(), &Tuning::default());
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &Tuning::default());
    let _dials: Vec<_> = (0..1100).map(|_| device.connect(address, "localhost").unwrap()).collect();
    let mut held = Vec::new();
    while held.len() < 1024 {
        held.push(timeout(LONG, server.accept()).await.expect("another handshake").unwrap());
    }
    // The other 76 try again all the time.
    assert!(timeout(Duration::from_millis(500), server.accept()).await.is_err());
    drop(held.pop());
    assert!(timeout(LONG, server.accept()).await.is_ok(), "one that ends makes room");
}

#[test]
fn packets_that_wait_for_a_decision_are_bounded() {
    let config = Parties::new().server_config(&Tuning::default());
    // No peer sees these two; with `max_incoming` they bound the memory of first packets.
    let text = format!("{config:?}");
    for setting in ["incoming_buffer_size: 16384", "incoming_buffer_size_total: 4194304"] {
        assert!(text.contains(setting), "{setting}: {text}");
    }
}

#[tokio::test]
async fn either_side_can_ask_the_other_for_a_sign_of_life() {
    let parties = Parties::new();
    let (keep_alive, idle_timeout) = (Duration::from_secs(60), Duration::from_secs(90));
    let tuning = Tuning { keep_alive, idle_timeout, ..Tuning::default() };
    let server = server(parties.server.path(), &tuning);
    let address = server.local_addr().unwrap();
    let device = client(parties.device.path(), address, &tuning);
    let (near, far) = connect(&server, &device, address, &tuning).await;
    // The packets of the beginning are over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        for (side, other) in [(&near, &far), (&far, &near)] {
            let (before, there) = (quic::path_state(side).received, quic::path_state(other).received);
            quic::request_acknowledgement(side, &tuning);
            let answered = async {
                while quic::path_state(side).received == before || quic::path_state(other).received == there {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LONG, answered).await.expect("a packet there and one back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
