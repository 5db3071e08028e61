//! One attempt to connect to the server: name resolution, QUIC handshake and hello, each within a bounded time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use narrows_wire::{
    BundleId, Close, Error as WireError, Hello, RefusalCode,
    identity::Identity,
    limits::{HELLO_TIMEOUT, MAX_HELLO},
    quic::{
        CertificateCheck, ConnectionEnd, SetupError, Tuning, client_attempt, client_endpoint, close,
        rebind_client, request_acknowledgement,
    },
    session::Client,
    stream::{StreamError, read_message, write_message},
};
use quinn::{
    ClientConfig, ConnectError as QuinnConnectError, Connection, ConnectionError, Endpoint,
    rustls::AlertDescription,
};
use tokio::{task::JoinSet, time::timeout};

use super::{congestion::PlannedFrames, notices, resolve::Resolver};
use crate::{
    Error,
    config::Server,
    error::{Chain, Unavailable},
    obstacle::Obstacle,
};

/// Longest duration of each step of an attempt: enough for a lost first packet and its repetitions on a slow link.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Head start of each address of a host over the next one (RFC 8305, section 5).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);
/// Longest wait for the last packet of a connection that is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// What is needed to connect to any server.
#[derive(Debug)]
pub(crate) struct Access {
    identity: Mutex<Arc<Identity>>,
    tuning: Tuning,
    bundle: BundleId,
    tasks: Vec<String>,
    /// Whether connections report what they deliver, for frames that are planned.
    planned: bool,
}

/// Everything that is needed to connect to one server, repeatedly.
#[derive(Debug)]
pub(crate) struct Connector {
    server: Server,
    access: Arc<Access>,
    resolver: Resolver,
}

/// A connection on which the hello has been answered.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) client: Client,
    /// Index of the bundle in the server's welcome.
    pub(crate) bundle: u8,
    /// The way to its server.
    pub(crate) connector: Arc<Connector>,
    /// How long frames wait at the server.
    pub(super) wait: Arc<Wait>,
    endpoint: Endpoint,
    /// This device's address on the way to the server, as it was last seen.
    address: Option<IpAddr>,
}

/// The mean time that a server's replies say frames waited in its queue.
#[derive(Debug, Default)]
pub(crate) struct Wait(Mutex<Duration>);

impl Wait {
    /// Takes the waiting of one frame into the mean.
    pub(super) fn observe(&self, waited: Duration) {
        let mut mean = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *mean = (*mean * 7 + waited) / 8;
    }

    /// The mean.
    pub(super) fn mean(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an attempt to connect failed, by what that says about the next one (docs/operating.md has the table).
///
/// Only what an authenticated server says can be believed to last. Everything before that may come from anybody: a
/// certificate, a TLS alert, a closed connection, a report of the network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Another attempt may succeed.
    #[error(transparent)]
    Transient(Unavailable),
    /// It will last until somebody mends it, unless it is not the server who answers.
    #[error(transparent)]
    Unproven(Error),
    /// The authenticated server says that every other attempt will fail as well.
    #[error(transparent)]
    Permanent(Error),
}

impl Access {
    /// Access to servers with a hello that names `bundle` and `tasks`.
    ///
    /// # Errors
    /// [`Error::Identity`] if the certificates cannot be used for TLS.
    pub(crate) fn new(
        identity: Identity,
        tuning: Tuning,
        bundle: BundleId,
        tasks: Vec<String>,
    ) -> Result<Self, Error> {
        client_attempt(&identity, &tuning, None)?;
        let identity = Mutex::new(Arc::new(identity));
        Ok(Access { identity, tuning, bundle, tasks, planned: false })
    }

    /// The identity that connections are made with.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes connections from now on with another identity. Those that are open go on with the one before.
    ///
    /// # Errors
    /// [`Error::Identity`] if the certificates cannot be used for TLS; then nothing has changed.
    pub(crate) fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        client_attempt(&identity, &self.tuning, None)?;
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        Ok(())
    }

    /// Makes connections report what they deliver, if planned frames need it.
    pub(crate) fn planned(self, planned: bool) -> Self {
        Access { planned, ..self }
    }
}

impl Connector {
    /// A way to one server.
    pub(crate) fn new(server: Server, access: &Arc<Access>) -> Self {
        Connector { server, access: Arc::clone(access), resolver: Resolver::default() }
    }

    /// Address of the server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Attempts to connect once.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Session, ConnectError> {
        let addresses = self.resolve().await?;
        let (endpoint, connection) = self.connect_any(addresses).await?;
        match timeout(HELLO_TIMEOUT, self.exchange_hello(&connection)).await {
            Ok(Ok((client, bundle))) => {
                let (connector, wait) = (Arc::clone(self), Arc::default());
                let address = route_address(connection.remote_address());
                // It ends with the connection.
                tokio::spawn(notices::listen(connection.clone(), self.server.clone()));
                Ok(Session { connection, client, bundle, connector, wait, endpoint, address })
            }
            Ok(Err(error)) => {
                if let ConnectError::Permanent(Error::Protocol { source, .. }) = &error {
                    close(&connection, Close::Violation, &Chain(source).to_string());
                }
                connection.close(0u8.into(), b"");
                let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
                Err(error)
            }
            Err(_) => {
                close(&connection, Close::HelloTimeout, "no welcome");
                Err(Unavailable::NoWelcome.into())
            }
        }
    }

    /// Resolves the server's name to at least one address.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Unavailable> {
        self.resolver.resolve(&self.server).await
    }

    /// Connects to the first address that completes the handshake. Dropping the other attempts closes them.
    pub(crate) async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<(Endpoint, Connection), ConnectError> {
        let (tuning, identity) = (&self.access.tuning, self.access.identity());
        let settings = || {
            let congestion = self.access.planned.then(|| Arc::new(PlannedFrames) as Arc<_>);
            client_attempt(&identity, tuning, congestion)
        };
        dial(&self.server, addresses, tuning, settings).await
    }

    /// Sends the hello and reads the welcome; returns the session and the bundle's index in it.
    pub(crate) async fn exchange_hello(&self, connection: &Connection) -> Result<(Client, u8), ConnectError> {
        let mut client = Client::new(Hello::new(vec![self.access.bundle], self.access.tasks.clone()));
        let hello = client.hello().map_err(|source| self.hello_failed(source))?;
        let lost = |error| match error {
            StreamError::Connection(end) => self.ended(end.0),
            other => Unavailable::Hello(other).into(),
        };
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| self.ended(error))?;
        write_message(&mut send, &hello).await.map_err(lost)?;
        let welcome = read_message(&mut receive, MAX_HELLO).await.map_err(lost)?;
        client.welcome(&welcome).map_err(|source| self.hello_failed(source))?;
        match client.bundle(&self.access.bundle) {
            Some(bundle) => Ok((client, bundle)),
            None => Err(ConnectError::Permanent(Error::Mismatch {
                server: self.server.to_string(),
                ours: self.access.bundle,
                theirs: Vec::new(),
            })),
        }
    }

    /// What the end of a connection says whose handshake was complete, so that the server is authenticated.
    pub(crate) fn ended(&self, error: ConnectionError) -> ConnectError {
        ended(&self.server, error)
    }

    fn hello_failed(&self, error: WireError) -> ConnectError {
        let server = self.server.to_string();
        match error {
            WireError::Refused(refusal) => match refusal.refusal.code {
                RefusalCode::Draining
                | RefusalCode::Connections
                | RefusalCode::Busy
                | RefusalCode::Internal => Unavailable::Busy(refusal.refusal).into(),
                RefusalCode::Bundle => ConnectError::Permanent(Error::Mismatch {
                    server,
                    ours: self.access.bundle,
                    theirs: refusal.serves,
                }),
                _ => ConnectError::Permanent(Error::Refused { server, refusal }),
            },
            source => ConnectError::Permanent(Error::Protocol { server, source }),
        }
    }
}

impl From<Unavailable> for ConnectError {
    fn from(error: Unavailable) -> Self {
        ConnectError::Transient(error)
    }
}

impl ConnectError {
    /// The error of a caller that tries once.
    pub(crate) fn into_error(self, server: &Server) -> Error {
        match self {
            ConnectError::Transient(source) => Error::Unreachable {
                server: server.to_string(),
                waited: CONNECT_TIMEOUT,
                source: Box::new(source),
            },
            ConnectError::Unproven(error) | ConnectError::Permanent(error) => error,
        }
    }
}

impl From<ConnectError> for Unavailable {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Transient(error) => error,
            ConnectError::Unproven(error) | ConnectError::Permanent(error) => {
                Unavailable::Rejected(Box::new(error))
            }
        }
    }
}

/// Connects to the first of a server's addresses that completes the handshake, each with settings of its own. Dropping the other
/// attempts closes them.
pub(crate) async fn dial(
    server: &Server,
    addresses: Vec<SocketAddr>,
    tuning: &Tuning,
    settings: impl Fn() -> Result<(ClientConfig, CertificateCheck), SetupError>,
) -> Result<(Endpoint, Connection), ConnectError> {
    let mut attempts = JoinSet::new();
    let mut failure = None;
    for (position, address) in addresses.into_iter().enumerate() {
        let (server, tuning) = (server.clone(), tuning.clone());
        let (config, check) = settings().map_err(|error| ConnectError::Permanent(error.into()))?;
        attempts.spawn(async move {
            tokio::time::sleep(ADDRESS_DELAY * position as u32).await;
            let endpoint = client_endpoint(address, &tuning).map_err(|error| no_socket(address, error))?;
            let connecting = endpoint.connect_with(config, address, server.name()).map_err(not_begun)?;
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => Ok((endpoint, connection)),
                Ok(Err(error)) => Err(handshake_failed(&server, error, &check)),
                Err(_) => Err(Unavailable::NoAnswer.into()),
            }
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => failure = Some(graver(failure, error)),
            Err(error) => failure = Some(graver(failure, Unavailable::Task(error).into())),
        }
    }
    Err(failure.unwrap_or(Unavailable::NoAddress.into()))
}

/// What the end of a connection to a server says whose handshake was complete, so that the server is authenticated.
pub(crate) fn ended(server: &Server, error: ConnectionError) -> ConnectError {
    let end = ConnectionEnd(error);
    // A client completes its handshake before the server has checked the client's certificate.
    match (&end.0, end.alert()) {
        (ConnectionError::ConnectionClosed(_), Some(alert)) => {
            use AlertDescription as Alert;
            let server = server.to_string();
            match alert {
                // One of the two clocks may be wrong and be set soon.
                Alert::CertificateExpired => ConnectError::Unproven(Error::Trust { server, reason: end }),
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError => ConnectError::Permanent(Error::Trust { server, reason: end }),
                _ => Unavailable::Lost(end).into(),
            }
        }
        (ConnectionError::TimedOut, _) => Unavailable::NoAnswer.into(),
        _ => Unavailable::Lost(end).into(),
    }
}

/// This device's address on the way to `remote`, without sending anything; `None` where there is no way.
fn route_address(remote: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// What the end of a handshake says. Nobody is authenticated yet.
fn handshake_failed(server: &Server, error: ConnectionError, check: &CertificateCheck) -> ConnectError {
    if let Some(fault) = check.fault() {
        let (server, fault) = (server.to_string(), fault.clone());
        return ConnectError::Unproven(Error::Certificate { server, fault });
    }
    match error {
        ConnectionError::VersionMismatch => Unavailable::QuicVersion.into(),
        ConnectionError::TimedOut => Unavailable::NoAnswer.into(),
        other => Unavailable::Lost(other.into()).into(),
    }
}

/// Of the failures at two addresses, the one that says more about the server; of equals the second, which was found later.
fn graver(first: Option<ConnectError>, second: ConnectError) -> ConnectError {
    let rank = |error: &ConnectError| match error {
        ConnectError::Transient(Unavailable::Blocked(_)) => 0,
        ConnectError::Transient(_) => 1,
        ConnectError::Unproven(_) => 2,
        ConnectError::Permanent(_) => 3,
    };
    match first {
        Some(first) if rank(&first) > rank(&second) => first,
        _ => second,
    }
}

/// Without a socket for one address another one may still be reached.
fn no_socket(address: SocketAddr, error: SetupError) -> ConnectError {
    match &error {
        SetupError::Bind { source, .. } => match Obstacle::new(address, source) {
            Obstacle::NoHandle => ConnectError::Unproven(Error::Quic(error)),
            obstacle => Unavailable::Blocked(obstacle).into(),
        },
        _ => ConnectError::Permanent(error.into()),
    }
}

fn not_begun(error: QuinnConnectError) -> ConnectError {
    match error {
        QuinnConnectError::InvalidServerName(name) => {
            let reason = format!("{name:?} is no name that a certificate can carry");
            ConnectError::Permanent(Error::usage("--server", reason))
        }
        error => Unavailable::Connect(error).into(),
    }
}

impl Session {
    /// Address of the server.
    pub(crate) fn server(&self) -> &Server {
        self.connector.server()
    }

    /// Asks the server for an acknowledgement, to learn whether it is there.
    pub(super) fn ask(&self) {
        request_acknowledgement(&self.connection, &self.connector.access.tuning);
    }

    /// Moves the connection to this device's present address, where that has changed; returns the new one.
    pub(super) fn roam(&mut self) -> Option<IpAddr> {
        let remote = self.connection.remote_address();
        let address = route_address(remote)?;
        let before = self.address.replace(address)?;
        if before == address {
            return None;
        }
        if let Err(error) = rebind_client(&self.endpoint, remote, &self.connector.access.tuning) {
            // Packets leave from the new address all the same.
            tracing::debug!("no new socket: {}", Chain(&error));
        }
        Some(address)
    }

    /// Closes the connection and waits a moment until the server has heard of it.
    pub(crate) async fn close(self) {
        close(&self.connection, Close::Done, "");
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

#[cfg(test)]
mod tests {
    use narrows_wire::quic::CertificateFault;
    use quinn::{ConnectionClose, TransportErrorCode};

    use super::*;

    fn closed(code: TransportErrorCode) -> ConnectionError {
        let close = ConnectionClose { error_code: code, frame_type: None, reason: (&b"go away"[..]).into() };
        ConnectionError::ConnectionClosed(close)
    }

    #[test]
    fn nothing_before_the_servers_authentication_is_believed_to_last() {
        let server = Server::parse("tail:1").unwrap();
        let unchecked = CertificateCheck::default();
        let alerts = (0..=255).map(|alert| closed(TransportErrorCode::crypto(alert)));
        let others = [
            closed(TransportErrorCode::CONNECTION_REFUSED),
            closed(TransportErrorCode::PROTOCOL_VIOLATION),
            ConnectionError::VersionMismatch,
            ConnectionError::Reset,
            ConnectionError::TimedOut,
        ];
        for error in alerts.chain(others) {
            let failed = handshake_failed(&server, error, &unchecked);
            assert!(matches!(failed, ConnectError::Transient(_)), "{failed:?}");
        }
    }

    #[test]
    fn a_failure_at_one_address_does_not_hide_a_graver_one_at_another() {
        let certificate = || {
            let (server, fault) = ("tail:1".to_owned(), CertificateFault::UnknownIssuer);
            ConnectError::Unproven(Error::Certificate { server, fault })
        };
        let blocked = || {
            no_socket(
                "[::1]:1".parse().unwrap(),
                SetupError::Bind {
                    address: "[::]:0".parse().unwrap(),
                    source: std::io::Error::from_raw_os_error(97),
                },
            )
        };
        assert!(matches!(graver(Some(blocked()), certificate()), ConnectError::Unproven(_)));
        assert!(matches!(graver(Some(certificate()), blocked()), ConnectError::Unproven(_)));
        let silent = || ConnectError::from(Unavailable::NoAnswer);
        assert!(matches!(graver(Some(silent()), blocked()), ConnectError::Transient(Unavailable::NoAnswer)));
    }
}
