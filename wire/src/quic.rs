//! The settings of QUIC (PROTOCOL.md section 1): TLS 1.3 with certificates on both sides, transport parameters, and the
//! socket buffers. This module is the only one that configures quinn.

mod enrol;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    Runtime, ServerConfig, TransportConfig, VarInt,
    congestion::{ControllerFactory, CubicConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    client::WebPkiServerVerifier,
    crypto::{
        CryptoProvider,
        ring::{cipher_suite, default_provider},
    },
    server::{
        ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

pub use self::enrol::{Enrolling, enrolment_client, enrolment_endpoint, enrolment_server, renewal_client};
use crate::{
    ALPN, Close,
    fault::Verifier,
    identity::{Identity, IdentityError, name_of},
    keys::EndpointKeys,
    limits::{MAX_NOTICES, MAX_REQUEST},
    socket::Separating,
};
pub use crate::{
    end::ConnectionEnd,
    fault::{CertificateCheck, CertificateFault, ClientFault},
};

/// Settings of the transport. The defaults suit a LAN or Wi-Fi and work over cellular links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The round-trip time assumed before the first measurement. With the 333 ms of RFC 9002 a lost first packet costs a
    /// second; 100 ms is above LAN and Wi-Fi and near cellular. Worst case of a low value: handshake packets are sent twice.
    pub initial_rtt: Duration,
    /// The interval at which an idle client sends a keep-alive packet. It must be below `idle_timeout` and below the time
    /// after which NATs drop a mapping (often 30 s). Worst-case cost: one packet of about 40 bytes per interval.
    pub keep_alive: Duration,
    /// The silence after which the peer counts as lost; the shorter one of both sides counts. It is short, because a head
    /// falls back to another path when the tail is lost, and long enough for a Wi-Fi handover. Worst-case cost: the memory
    /// of a lost peer's connection is held that long.
    pub idle_timeout: Duration,
    /// Bytes in flight before the first acknowledgement. A head that sends one frame at a time never fills its window, so the
    /// window never grows: with the 14.7 kB of RFC 9002 every larger frame would take another round trip. Bytes beyond ten
    /// datagrams are paced at 1.25 windows per round trip; over a satellite link of 600 ms this costs a 30 kB image 98 ms
    /// with a window of 48 kB and 16 ms with 128 kB. The queue of a slow link holds no more than a frame either way.
    pub initial_window: u64,
    /// Bytes that a peer may have in flight on one connection. This is the worst-case memory of a connection whose streams
    /// are not read.
    pub receive_window: u32,
    /// Bytes that this side may have unacknowledged on one connection.
    pub send_window: u64,
    /// Whether the kernel divides bursts into packets (GSO). This saves system calls from about 16 packets on. Some drivers
    /// and cellular modems lose such bursts, so it can be turned off.
    pub segmentation_offload: bool,
    /// The size requested for the socket's send and receive buffers, in bytes. The kernel's default of 208 kB overflows when
    /// several heads send at once. The kernel may grant less (`net.core.rmem_max`), which is logged.
    pub socket_buffer: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            initial_rtt: Duration::from_millis(100),
            keep_alive: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            initial_window: 128 * 1024,
            receive_window: 8 << 20,
            send_window: 8 << 20,
            segmentation_offload: true,
            socket_buffer: 2 << 20,
        }
    }
}

/// The reason why QUIC could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket could not be opened.
    #[error("cannot bind {address}")]
    Bind {
        /// The local address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A setting of [`Tuning`] is out of range.
    #[error("tuning: {0}")]
    Tuning(&'static str),
}

/// The client's TLS and transport settings. The server's certificate must be signed by the identity's CA and carry the name
/// that the client connects to.
///
/// # Errors
/// [`SetupError::Identity`] or [`SetupError::Tuning`].
pub fn client_config(identity: &Identity, tuning: &Tuning) -> Result<ClientConfig, SetupError> {
    Ok(client_attempt(identity, tuning, None)?.0)
}

/// The same as [`client_config`], for one attempt to connect, and the result of checking the server's certificate in it.
///
/// Where `congestion` makes the congestion controller, in the place of CUBIC, the server is asked to acknowledge every packet at
/// once (draft-ietf-quic-ack-frequency), so that the controller hears of each delivery when it happens.
///
/// # Errors
/// [`SetupError::Identity`] or [`SetupError::Tuning`].
pub fn client_attempt(
    identity: &Identity,
    tuning: &Tuning,
    congestion: Option<Arc<dyn ControllerFactory + Send + Sync>>,
) -> Result<(ClientConfig, CertificateCheck), SetupError> {
    let (tls, check) = client_tls(identity, ALPN)?;
    Ok((client_settings(tls, tuning, congestion)?, check))
}

/// TLS of a client that shows its identity's certificate and accepts those of its identity's CA.
fn client_tls(
    identity: &Identity,
    protocol: &[u8],
) -> Result<(rustls::ClientConfig, CertificateCheck), SetupError> {
    let check = CertificateCheck::default();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .build()
        .map_err(|error| identity.unusable("ca.pem", rustls::Error::General(error.to_string())))?;
    let verifier = Verifier { inner: verifier, check: check.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| identity.unusable("key.pem", source))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| identity.unusable("key.pem", source))?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    Ok((tls, check))
}

/// The settings of a client with this TLS.
fn client_settings(
    tls: rustls::ClientConfig,
    tuning: &Tuning,
    congestion: Option<Arc<dyn ControllerFactory + Send + Sync>>,
) -> Result<ClientConfig, SetupError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|_| SetupError::Tuning("no cipher suite for QUIC"))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    let mut transport = transport(tuning)?;
    // A server opens streams for notices alone.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(MAX_NOTICES.into()));
    // Only the client sends keep-alive packets: it is the side behind a NAT, and packets of both would cost twice as much.
    transport.keep_alive_interval(Some(tuning.keep_alive));
    if let Some(congestion) = congestion {
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements
            .ack_eliciting_threshold(VarInt::from_u32(0))
            .max_ack_delay(Some(Duration::from_millis(1)));
        transport.congestion_controller_factory(congestion).ack_frequency_config(Some(acknowledgements));
    }
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Why a server with the identity's CA would not accept the identity as that of a client, at the present time of this device.
/// Such a server says so only after the handshake; this asks no server.
///
/// # Errors
/// [`SetupError::Identity`] if the files cannot be used at all, for example because the key is not that of the certificate.
pub fn client_fault(identity: &Identity) -> Result<Option<ClientFault>, SetupError> {
    client_attempt(identity, &Tuning::default(), None)?;
    Ok(ClientVerifier::new(identity)?.verify(&identity.chain).err().map(ClientFault::from))
}

/// Verifies the certificates of clients as a server with an identity does in the handshake: they must be signed by the
/// identity's CA, be a client's, be valid at the present time, and not be on the identity's revocation list.
#[derive(Clone, Debug)]
pub struct ClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientVerifier {
    /// The verifier of a server with this identity.
    ///
    /// # Errors
    /// [`SetupError::Identity`] if the CA's certificate or the revocation list cannot be used.
    pub fn new(identity: &Identity) -> Result<ClientVerifier, SetupError> {
        ClientVerifier::with(identity, |verifier| verifier)
    }

    /// The verifier of a server that also lets clients in which show no certificate.
    fn optional(identity: &Identity) -> Result<ClientVerifier, SetupError> {
        ClientVerifier::with(identity, ClientCertVerifierBuilder::allow_unauthenticated)
    }

    fn with(
        identity: &Identity,
        set: impl Fn(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
    ) -> Result<ClientVerifier, SetupError> {
        let mut verifier =
            set(WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider()));
        if let Some(revoked) = &identity.revoked {
            // A CA without a list has revoked nothing, and a list that has ended still holds: its certificates stay revoked.
            verifier = verifier
                .with_crls(revoked.lists.iter().cloned())
                .only_check_end_entity_revocation()
                .allow_unknown_revocation_status();
        }
        let verifier = verifier
            .build()
            .map_err(|error| identity.unusable("ca.pem", rustls::Error::General(error.to_string())))?;
        Ok(ClientVerifier(verifier))
    }

    /// Verifies a client's chain of certificates, its own first, at the present time.
    ///
    /// # Errors
    /// The reason why a server would refuse it.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (own, issuers) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.0.verify_client_cert(own, issuers, UnixTime::now()).map(drop)
    }
}

/// The server's TLS and transport settings. A peer whose certificate is not signed by the identity's CA, or is on its
/// revocation list, is refused in the handshake.
///
/// # Errors
/// [`SetupError::Identity`] or [`SetupError::Tuning`].
pub fn server_config(identity: &Identity, tuning: &Tuning) -> Result<ServerConfig, SetupError> {
    let verifier = ClientVerifier::new(identity)?;
    let mut config = server_tls(identity, verifier, identity.chain.clone(), ALPN)?;
    let mut transport = transport(tuning)?;
    // Before its hello is accepted a peer has one stream and little memory. See `allow_requests`.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    transport.receive_window(VarInt::from_u32(HELLO_WINDOW.min(tuning.receive_window)));
    config.transport_config(Arc::new(transport));
    // First packets that wait to be accepted or refused, and the bytes of packets that follow them. A client hello takes
    // one or two packets.
    config.max_incoming(1024);
    config.incoming_buffer_size(16 << 10);
    config.incoming_buffer_size_total(4 << 20);
    EndpointKeys::derive(identity).accept_tokens(&mut config);
    Ok(config)
}

/// The settings of a server that shows this chain, with TLS alone set.
fn server_tls(
    identity: &Identity,
    verifier: ClientVerifier,
    chain: Vec<CertificateDer<'static>>,
    protocol: &[u8],
) -> Result<ServerConfig, SetupError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| identity.unusable("key.pem", source))?
        .with_client_cert_verifier(verifier.0)
        .with_single_cert(chain, identity.key.clone_key())
        .map_err(|source| identity.unusable("key.pem", source))?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    // No connection continues an earlier TLS session: in such a handshake the client's certificate would not be verified
    // again, and the tickets cost every connection bytes that matter on a slow link.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let tls = QuicServerConfig::try_from(tls).map_err(|_| SetupError::Tuning("no cipher suite for QUIC"))?;
    Ok(ServerConfig::with_crypto(Arc::new(tls)))
}

/// Allows a client to send requests, of which `max_in_flight` may be in flight. A server calls it when it has accepted the
/// hello; until then a client has one stream and may have 64 KiB in flight.
pub fn allow_requests(connection: &Connection, max_in_flight: u16, tuning: &Tuning) {
    // There is one stream per frame, and a stream's credit is returned only when its reply is acknowledged. Twice the frames
    // in flight keep a busy client from waiting for credit.
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(2 * u32::from(max_in_flight)));
    connection.set_receive_window(VarInt::from_u32(tuning.receive_window));
}

/// Sends a packet that the peer of a connection with [`allow_requests`] must acknowledge. [`PathState::received`] grows
/// when it has.
pub fn request_acknowledgement(connection: &Connection, tuning: &Tuning) {
    // quinn has no ping. A larger window is announced at once, in a frame that elicits an acknowledgement; making it smaller
    // first keeps its size.
    connection.set_receive_window(VarInt::from_u32(tuning.receive_window - 1));
    connection.set_receive_window(VarInt::from_u32(tuning.receive_window));
}

/// A client endpoint for connections to `remote`. It is bound to the wildcard address, so that the next packet that is sent
/// takes the route of a changed network.
///
/// # Errors
/// [`SetupError::Bind`].
pub fn client_endpoint(remote: SocketAddr, tuning: &Tuning) -> Result<Endpoint, SetupError> {
    endpoint(wildcard(remote), EndpointConfig::default(), None, tuning)
}

/// Moves a client's endpoint to a new socket, because this device's address has changed. Its connections go on from there
/// (RFC 9000 section 9.2): each sends a packet at once, so that the server learns of the new address before it has something to
/// send.
///
/// # Errors
/// [`SetupError::Bind`]; then the endpoint keeps its socket.
pub fn rebind_client(endpoint: &Endpoint, remote: SocketAddr, tuning: &Tuning) -> Result<(), SetupError> {
    let address = wildcard(remote);
    let rebind = || endpoint.rebind_abstract(socket(address, tuning, &quinn::TokioRuntime)?);
    rebind().map_err(|source| SetupError::Bind { address, source })
}

fn wildcard(remote: SocketAddr) -> SocketAddr {
    let wildcard: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(wildcard, 0)
}

/// A server endpoint that listens on `address`; port 0 lets the kernel choose a port. Its stateless resets and connection
/// IDs are those of every endpoint with the private key of `identity`, so a restarted server is recognised at once
/// (PROTOCOL.md section 1).
///
/// # Errors
/// [`SetupError::Bind`].
pub fn server_endpoint(
    address: SocketAddr,
    config: ServerConfig,
    identity: &Identity,
    tuning: &Tuning,
) -> Result<Endpoint, SetupError> {
    endpoint(address, EndpointKeys::derive(identity).endpoint(), Some(config), tuning)
}

/// The first DNS name in the peer's certificate, or `None` if it has none. Both sides show a certificate, so it is known
/// after the handshake.
#[must_use]
pub fn peer_name(connection: &Connection) -> Option<String> {
    name_of(peer_chain(connection)?.first()?)
}

/// The certificates that the peer has shown, its own first. Both sides show one, so they are known after the handshake.
#[must_use]
pub fn peer_chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

/// QUIC's measurements of the network path to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathState {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Size of the largest UDP payload that is known to arrive, in bytes.
    pub mtu: u16,
    /// Packets lost so far, without the probes for a larger [`PathState::mtu`].
    pub lost: u64,
    /// Packets sent so far.
    pub sent: u64,
    /// Datagrams received so far.
    pub received: u64,
}

/// The current measurements of the network path to the peer.
#[must_use]
pub fn path_state(connection: &Connection) -> PathState {
    let stats = connection.stats();
    let (path, received) = (stats.path, stats.udp_rx.datagrams);
    PathState {
        rtt: path.rtt,
        mtu: path.current_mtu,
        lost: path.lost_packets,
        sent: path.sent_packets,
        received,
    }
}

/// Closes a connection with a code of the protocol. The reason is a text for the peer's log.
pub fn close(connection: &Connection, code: Close, reason: &str) {
    connection.close(VarInt::from_u32(code.into()), reason.as_bytes());
}

/// The protocol's code in a connection error, if the peer closed the connection with one.
#[must_use]
pub fn close_code(error: &quinn::ConnectionError) -> Option<Close> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            u32::try_from(close.error_code.into_inner()).ok().map(Close::from)
        }
        _ => None,
    }
}

/// Bytes that a client may have in flight before its hello is accepted: a hello of the largest size, and room to spare.
const HELLO_WINDOW: u32 = 64 * 1024;

fn transport(tuning: &Tuning) -> Result<TransportConfig, SetupError> {
    if tuning.keep_alive >= tuning.idle_timeout {
        return Err(SetupError::Tuning("keep_alive must be below idle_timeout"));
    }
    let idle = IdleTimeout::try_from(tuning.idle_timeout);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(tuning.initial_window);
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(tuning.initial_rtt)
        .max_idle_timeout(Some(idle.map_err(|_| SetupError::Tuning("idle_timeout is out of range"))?))
        .congestion_controller_factory(Arc::new(congestion))
        // A whole request fits, so a sender never waits for credit in the middle of a frame.
        .stream_receive_window(VarInt::from_u32(MAX_REQUEST as u32))
        .receive_window(VarInt::from_u32(tuning.receive_window))
        .send_window(tuning.send_window)
        // Streams of one priority are sent in the order of their opening and not interleaved, so that the first frame is
        // complete first.
        .send_fairness(false)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .mtu_discovery_config(Some(mtu_discovery()))
        // The protocol uses no datagrams.
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(tuning.segmentation_offload);
    Ok(transport)
}

/// A search for the path's largest datagram that takes one probe on Ethernet, and one more at half of the range elsewhere.
/// QUIC's default search takes four probes of up to 1.5 kB, and frames wait behind each: 0.3 s at 37.5 kbit/s.
fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut search = MtuDiscoveryConfig::default();
    // Half of the 252 bytes between the least and the largest size, and one. With less the search begins in the middle.
    search.minimum_change(127);
    search
}

fn endpoint(
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<ServerConfig>,
    tuning: &Tuning,
) -> Result<Endpoint, SetupError> {
    let bind = || -> io::Result<Endpoint> {
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = socket(address, tuning, &*runtime)?;
        Endpoint::new_with_abstract_socket(config, server, socket, runtime)
    };
    bind().map_err(|source| SetupError::Bind { address, source })
}

/// A bound socket with the buffers that are asked for, as far as the kernel grants them.
fn socket(address: SocketAddr, tuning: &Tuning, runtime: &dyn Runtime) -> io::Result<Arc<Separating>> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    // The kernel limits the size to net.core.{r,w}mem_max without an error.
    let _ = socket.set_recv_buffer_size(tuning.socket_buffer);
    let _ = socket.set_send_buffer_size(tuning.socket_buffer);
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if granted < tuning.socket_buffer {
        tracing::debug!(
            requested = tuning.socket_buffer,
            granted,
            "the kernel grants smaller socket buffers; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&address.into())?;
    Ok(Arc::new(Separating::new(runtime.wrap_udp_socket(socket.into())?)))
}

fn roots(identity: &Identity) -> Result<rustls::RootCertStore, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &identity.ca {
        roots.add(certificate.clone()).map_err(|source| identity.unusable("ca.pem", source))?;
    }
    Ok(roots)
}

/// The algorithms of ring for TLS 1.3. On processors without AES instructions (Raspberry Pi 4 and older) ChaCha20-Poly1305
/// comes first, because it is several times faster there; servers follow the client's order.
fn provider() -> Arc<CryptoProvider> {
    let mut suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    if !has_aes() {
        suites.swap(0, 1);
    }
    Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() })
}

/// Whether the processor has AES instructions.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_that_the_processor_computes_fastest_comes_first() {
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let aes = processor.split_whitespace().any(|word| word == "aes");
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        let fastest = if aes { suites[0] } else { suites[1] };
        assert_eq!(fastest, cipher_suite::TLS13_AES_128_GCM_SHA256.suite());
        assert_eq!(suites.len(), 3, "{suites:?}");
    }
}
