//! The one door to quinn's settings: TLS 1.3 with mutual certificates, transport parameters with their reasons,
//! and sockets with room for bursts (PROTOCOL.md section 1).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    crypto::{
        CryptoProvider,
        ring::{cipher_suite, default_provider},
    },
    server::WebPkiClientVerifier,
};
use rustls_pki_types::CertificateDer;

use crate::{
    ALPN, Close,
    identity::{Identity, IdentityError, name_of},
    limits::MAX_REQUEST,
};

/// The transport's knobs. The defaults suit a LAN or Wi-Fi and work over cellular links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Round trip assumed before the first sample. QUIC's 333 ms makes a lost first packet cost a second; 100 ms
    /// is above LAN and Wi-Fi and near cellular. Worst case of a low value: handshake packets are sent twice.
    pub initial_rtt: Duration,
    /// How often an idle client says that it is there; must be below `idle_timeout` and below what NATs keep
    /// (30 s is common). Worst-case cost: one packet of about 40 bytes each interval.
    pub keep_alive: Duration,
    /// Silence after which the peer counts as gone. Short, since a head falls back when the tail is gone; long
    /// enough for a Wi-Fi handover.
    pub idle_timeout: Duration,
    /// Bytes in flight before the first acknowledgement. A head that sends one frame at a time never fills its window,
    /// so this one is never grown: the RFC's 14.7 kB would cost larger frames a round trip each. What a frame has
    /// beyond ten datagrams is paced at 1.25 windows a round trip, which over a satellite's 600 ms costs a 30 kB
    /// image 98 ms with 48 kB and 16 ms with 128 kB. A slow link's queue sees no more than a frame either way.
    pub initial_window: u64,
    /// Bytes a peer may have under way on one connection; worst-case memory held for a connection whose streams
    /// are not read.
    pub receive_window: u32,
    /// Bytes this side may have unacknowledged on one connection.
    pub send_window: u64,
    /// Let the kernel cut bursts into packets (GSO). Saves system calls from about 16 packets on; some drivers
    /// and cellular modems lose such bursts, so it can be turned off.
    pub segmentation_offload: bool,
    /// Size asked for the socket's send and receive buffers. The kernel's 208 kB overflow when several heads
    /// send at once; the kernel may grant less (`net.core.rmem_max`), which is logged.
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

/// Why QUIC could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The identity folder is at fault.
    #[error("identity {0}")]
    Identity(#[from] IdentityError),
    /// The socket could not be opened.
    #[error("cannot bind {address}: {source}")]
    Bind {
        /// The local address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A knob of [`Tuning`] is out of range.
    #[error("tuning: {0}")]
    Tuning(&'static str),
}

/// The client's TLS and transport settings. The server's certificate must come from the identity's CA and carry
/// the name that is dialled.
pub fn client_config(identity: &Identity, tuning: &Tuning) -> Result<ClientConfig, SetupError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| identity.unusable("key.pem", source))?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| identity.unusable("key.pem", source))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(|_| SetupError::Tuning("no cipher suite for QUIC"))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    let mut transport = transport(tuning)?;
    // A server never opens streams.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    // Only the client keeps the path open: it sits behind the NAT, and two would cost twice.
    transport.keep_alive_interval(Some(tuning.keep_alive));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The server's TLS and transport settings for `max_in_flight` frames per connection. A peer whose certificate
/// does not come from the identity's CA is turned away in the handshake.
pub fn server_config(
    identity: &Identity,
    max_in_flight: u16,
    tuning: &Tuning,
) -> Result<ServerConfig, SetupError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .build()
        .map_err(|error| identity.unusable("ca.pem", rustls::Error::General(error.to_string())))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| identity.unusable("key.pem", source))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| identity.unusable("key.pem", source))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicServerConfig::try_from(tls).map_err(|_| SetupError::Tuning("no cipher suite for QUIC"))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = transport(tuning)?;
    // One stream per frame; a stream's credit comes back only when its reply is acknowledged, so twice the frames
    // in flight keeps a busy client from waiting for credit. Frames over the limit are refused by the session.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(2 * u32::from(max_in_flight)));
    config.transport_config(Arc::new(transport));
    // Handshakes under way at once, and the bytes kept for them before they are looked at.
    config.max_incoming(256);
    config.incoming_buffer_size_total(16 << 20);
    Ok(config)
}

/// A client endpoint for dialling `remote`, bound to the wildcard address so that a changed network is noticed
/// by the next packet sent.
pub fn client_endpoint(remote: SocketAddr, tuning: &Tuning) -> Result<Endpoint, SetupError> {
    let wildcard: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    endpoint(SocketAddr::new(wildcard, 0), None, tuning)
}

/// A server endpoint that listens on `address`; port 0 lets the kernel choose.
pub fn server_endpoint(
    address: SocketAddr,
    config: ServerConfig,
    tuning: &Tuning,
) -> Result<Endpoint, SetupError> {
    endpoint(address, Some(config), tuning)
}

/// The name in the peer's certificate. Only connections with mutual TLS exist here, so it is known once the
/// handshake is over; a certificate without a DNS name gives `None`.
pub fn peer_name(connection: &Connection) -> Option<String> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    name_of(identity.first()?)
}

/// What QUIC knows of the way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathState {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Largest UDP payload that is known to pass, in bytes.
    pub mtu: u16,
    /// Packets lost so far, probes for a larger [`PathState::mtu`] apart.
    pub lost: u64,
    /// Packets sent so far.
    pub sent: u64,
}

/// The state of the way to the peer, as of now.
pub fn path_state(connection: &Connection) -> PathState {
    let path = connection.stats().path;
    PathState { rtt: path.rtt, mtu: path.current_mtu, lost: path.lost_packets, sent: path.sent_packets }
}

/// Closes a connection with a code of the protocol; the reason goes to the peer's log.
pub fn close(connection: &Connection, code: Close, reason: &str) {
    connection.close(VarInt::from_u32(code.into()), reason.as_bytes());
}

/// The protocol's code in a connection error, if the peer closed with one.
pub fn close_code(error: &quinn::ConnectionError) -> Option<Close> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            u32::try_from(close.error_code.into_inner()).ok().map(Close::from)
        }
        _ => None,
    }
}

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
        // A whole request fits: a sender never waits for credit in the middle of a frame.
        .stream_receive_window(VarInt::from_u32(MAX_REQUEST as u32))
        .receive_window(VarInt::from_u32(tuning.receive_window))
        .send_window(tuning.send_window)
        // Streams of one priority in turn of opening, not interleaved: the frame that was first is whole first.
        .send_fairness(false)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .mtu_discovery_config(Some(path_size()))
        // No datagrams in this protocol.
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(tuning.segmentation_offload);
    Ok(transport)
}

/// Looks for the path's largest datagram with one probe where the path is Ethernet's, and then once at half the gap.
/// QUIC's own search takes four of up to 1.5 kB, each of which a frame waits for: 0.3 s at 37.5 kbit/s.
fn path_size() -> MtuDiscoveryConfig {
    let mut search = MtuDiscoveryConfig::default();
    // Half of the 252 bytes between the least and the most, and one: with less the search begins at the middle.
    search.minimum_change(127);
    search
}

fn endpoint(
    address: SocketAddr,
    server: Option<ServerConfig>,
    tuning: &Tuning,
) -> Result<Endpoint, SetupError> {
    let bind = || -> io::Result<Endpoint> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        // Best effort: the kernel caps the size at net.core.{r,w}mem_max without an error.
        let _ = socket.set_recv_buffer_size(tuning.socket_buffer);
        let _ = socket.set_send_buffer_size(tuning.socket_buffer);
        let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
        if granted < tuning.socket_buffer {
            tracing::debug!(
                wanted = tuning.socket_buffer,
                granted,
                "the kernel grants smaller socket buffers; raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        socket.bind(&address.into())?;
        let runtime = Arc::new(quinn::TokioRuntime);
        Endpoint::new(EndpointConfig::default(), server, socket.into(), runtime)
    };
    bind().map_err(|source| SetupError::Bind { address, source })
}

fn roots(identity: &Identity) -> Result<rustls::RootCertStore, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &identity.ca {
        roots.add(certificate.clone()).map_err(|source| identity.unusable("ca.pem", source))?;
    }
    Ok(roots)
}

/// ring's algorithms, TLS 1.3 only. Without AES instructions (Raspberry Pi 4 and older) ChaCha20-Poly1305 comes
/// first: it is several times faster there, and servers follow the client's order.
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

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
