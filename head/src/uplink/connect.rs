//! Connecting to the server: name resolution, QUIC handshake and hello, each within a bounded time.
#![expect(clippy::disallowed_methods, reason = "attempts are made within a given time")]

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::{Duration, Instant},
};

use narrows_wire::{
    BundleId, Close, Error as WireError, Hello, RefusalCode,
    identity::Identity,
    limits::{HELLO_TIMEOUT, MAX_HELLO},
    quic::{ConnectionEnd, Tuning, client_config, client_endpoint, close, close_code},
    session::Client,
    stream::{StreamError, read_message, write_message},
};
use quinn::{ClientConfig, ConnectError as QuinnConnectError, Connection, ConnectionError, Endpoint};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    Error,
    config::Server,
    error::{Chain, Unavailable},
    policy::Backoff,
};

/// Longest duration of one attempt: enough for a lost first packet and its repetitions on a slow link.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest duration that an attempt is given, however little patience is left.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Head start of each address of a host over the next one (RFC 8305, section 5).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Everything that is needed to connect to the server, repeatedly.
#[derive(Debug)]
pub(crate) struct Connector {
    server: Server,
    config: ClientConfig,
    tuning: Tuning,
    bundle: BundleId,
    tasks: Vec<String>,
}

/// A connection on which the hello has been answered.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) client: Client,
    /// Index of the bundle in the server's welcome.
    pub(crate) bundle: u8,
    endpoint: Endpoint,
}

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Another attempt may succeed.
    #[error(transparent)]
    Transient(Unavailable),
    /// Every other attempt will fail as well.
    #[error(transparent)]
    Permanent(Error),
}

impl Connector {
    /// A connector whose hello names `bundle` and `tasks`.
    ///
    /// # Errors
    /// [`Error::Identity`] if the certificates cannot be used for TLS.
    pub(crate) fn new(
        server: Server,
        identity: &Identity,
        bundle: BundleId,
        tasks: Vec<String>,
    ) -> Result<Self, Error> {
        let tuning = Tuning::default();
        let config = client_config(identity, &tuning)?;
        Ok(Connector { server, config, tuning, bundle, tasks })
    }

    /// Address of the server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Attempts to connect until it succeeds or `patience` has passed.
    ///
    /// # Errors
    /// [`Error::Unreachable`] after `patience`; at once any error that another attempt would not change.
    pub(crate) async fn connect_with_retry(&self, patience: Duration) -> Result<Session, Error> {
        let started = Instant::now();
        let mut backoff = Backoff::new(started, patience);
        let mut left = patience.max(MIN_CONNECT_TIMEOUT);
        let mut last_reason = String::new();
        loop {
            let source = match self.connect(left).await {
                Ok(session) => return Ok(session),
                Err(ConnectError::Permanent(error)) => return Err(error),
                Err(ConnectError::Transient(source)) => source,
            };
            let now = Instant::now();
            let Some(pause) = backoff.next(now, jitter()) else {
                return Err(self.unreachable(started.elapsed(), source));
            };
            left = backoff.deadline().saturating_duration_since(now);
            // A reason is reported once, not after every attempt.
            let reason = Chain(&source).to_string();
            if last_reason != reason {
                let server = &self.server;
                let seconds = left.as_secs_f64();
                tracing::warn!("no server at {server} yet: {reason}; trying for {seconds:.1} s more");
                last_reason = reason;
            }
            tokio::time::sleep(pause).await;
            left = left.saturating_sub(pause);
        }
    }

    /// Attempts to connect once, for at most `limit`, but at least [`MIN_CONNECT_TIMEOUT`] and at most
    /// [`CONNECT_TIMEOUT`] in each step.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Session, ConnectError> {
        let limit = limit.clamp(MIN_CONNECT_TIMEOUT, CONNECT_TIMEOUT);
        let addresses = timeout(limit, self.resolve()).await.map_err(|_| Unavailable::NameServer)??;
        let (endpoint, connection) =
            timeout(limit, self.connect_any(addresses)).await.map_err(|_| Unavailable::NoAnswer)??;
        match timeout(HELLO_TIMEOUT, self.exchange_hello(&connection)).await {
            Ok(Ok((client, bundle))) => Ok(Session { connection, client, bundle, endpoint }),
            Ok(Err(error)) => {
                if let ConnectError::Permanent(Error::Protocol { source, .. }) = &error {
                    close(&connection, Close::Violation, &Chain(source).to_string());
                }
                connection.close(0u8.into(), b"");
                endpoint.wait_idle().await;
                Err(error)
            }
            Err(_) => {
                close(&connection, Close::HelloTimeout, "no welcome");
                Err(Unavailable::NoWelcome.into())
            }
        }
    }

    /// Resolves the server's name to at least one address.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let addresses = tokio::net::lookup_host((self.server.host.as_str(), self.server.port)).await;
        let addresses: Vec<SocketAddr> = addresses.map_err(Unavailable::Name)?.collect();
        match addresses.is_empty() {
            true => Err(Unavailable::NoAddress.into()),
            false => Ok(addresses),
        }
    }

    /// Connects to the first address that completes the handshake. Dropping the other attempts closes them.
    pub(crate) async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<(Endpoint, Connection), ConnectError> {
        let mut attempts = JoinSet::new();
        for (position, address) in addresses.into_iter().enumerate() {
            let endpoint =
                client_endpoint(address, &self.tuning).map_err(|e| ConnectError::Permanent(e.into()))?;
            let (config, server) = (self.config.clone(), self.server.clone());
            attempts.spawn(async move {
                tokio::time::sleep(ADDRESS_DELAY * position as u32).await;
                let connecting = endpoint.connect_with(config, address, &server.host).map_err(not_begun)?;
                let connection = connecting.await.map_err(|error| classify(&server, error))?;
                Ok((endpoint, connection))
            });
        }
        let mut failure = ConnectError::Transient(Unavailable::NoAnswer);
        while let Some(attempt) = attempts.join_next().await {
            let attempt = attempt.unwrap_or_else(|error| Err(Unavailable::Task(error).into()));
            match (attempt, &failure) {
                (Ok(connected), _) => return Ok(connected),
                (Err(error), ConnectError::Transient(_)) => failure = error,
                (Err(_), ConnectError::Permanent(_)) => {}
            }
        }
        Err(failure)
    }

    /// Sends the hello and reads the welcome; returns the session and the bundle's index in it.
    pub(crate) async fn exchange_hello(&self, connection: &Connection) -> Result<(Client, u8), ConnectError> {
        let mut client = Client::new(Hello::new(vec![self.bundle], self.tasks.clone()));
        let hello = client.hello().map_err(|source| self.hello_failed(source))?;
        let lost = |error| match error {
            StreamError::Connection(end) => self.classify(end.0),
            other => Unavailable::Hello(other).into(),
        };
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| self.classify(error))?;
        write_message(&mut send, &hello).await.map_err(lost)?;
        let welcome = read_message(&mut receive, MAX_HELLO).await.map_err(lost)?;
        client.welcome(&welcome).map_err(|source| self.hello_failed(source))?;
        match client.bundle(&self.bundle) {
            Some(bundle) => Ok((client, bundle)),
            None => Err(ConnectError::Permanent(Error::Mismatch {
                server: self.server.to_string(),
                ours: self.bundle,
                theirs: Vec::new(),
            })),
        }
    }

    /// Whether another attempt may help after this end of a connection.
    pub(crate) fn classify(&self, error: ConnectionError) -> ConnectError {
        classify(&self.server, error)
    }

    pub(crate) fn unreachable(&self, waited: Duration, source: Unavailable) -> Error {
        Error::Unreachable { server: self.server.to_string(), waited, source: Box::new(source) }
    }

    fn hello_failed(&self, error: WireError) -> ConnectError {
        let server = self.server.to_string();
        match error {
            WireError::Refused(refusal) => match refusal.refusal.code {
                RefusalCode::Draining | RefusalCode::Connections | RefusalCode::Busy => {
                    Unavailable::Busy(refusal.refusal).into()
                }
                RefusalCode::Bundle => ConnectError::Permanent(Error::Mismatch {
                    server,
                    ours: self.bundle,
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

impl From<ConnectError> for Unavailable {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Transient(error) => error,
            ConnectError::Permanent(error) => Unavailable::Rejected(Box::new(error)),
        }
    }
}

fn classify(server: &Server, error: ConnectionError) -> ConnectError {
    // A TLS alert arrives as a transport error code of 0x100 and up (RFC 9001, section 4.8).
    let is_tls = |code: u64| (0x100..0x200).contains(&code);
    let trust = |reason: String| ConnectError::Permanent(Error::Trust { server: server.to_string(), reason });
    match error {
        ConnectionError::TransportError(error) if is_tls(error.code.into()) => trust(error.reason),
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code.into()) => {
            trust(ConnectionEnd(ConnectionError::ConnectionClosed(close)).to_string())
        }
        ConnectionError::VersionMismatch => Unavailable::QuicVersion.into(),
        ConnectionError::TimedOut => Unavailable::NoAnswer.into(),
        other => match close_code(&other) {
            Some(code) => Unavailable::Closed(code).into(),
            None => Unavailable::Lost(other.into()).into(),
        },
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

/// A random number from 0 to 1 for [`Backoff::next`], which needs no quality beyond that.
pub(super) fn jitter() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

impl Session {
    /// Closes the connection and waits up to a second until the server has heard of it.
    pub(crate) async fn close(self) {
        close(&self.connection, Close::Done, "");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}
