//! Reaching the server: names, handshake and hello, each within a bounded time.

use std::{io, net::SocketAddr, time::Duration};

use narrows_wire::{
    BundleId, Close, Error as WireError, Hello, RefusalCode,
    identity::Identity,
    limits::{HELLO_TIMEOUT, MAX_HELLO},
    quic::{Tuning, client_config, client_endpoint, close, close_code},
    session::Client,
    stream::{StreamError, read_message, write_message},
};
use quinn::{ClientConfig, ConnectError as QuinnConnectError, Connection, ConnectionError, Endpoint};
use tokio::{task::JoinSet, time::timeout};

use crate::{Error, config::Server};

/// How long one try at reaching the server may take: a lost first packet and its repeats on a slow link.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When a host has several addresses, the next is tried along when the one before has not answered by then
/// (RFC 8305, section 5).
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// All that is needed to reach the server, again and again.
#[derive(Debug)]
pub(crate) struct Connector {
    server: Server,
    config: ClientConfig,
    tuning: Tuning,
    bundle: BundleId,
    tasks: Vec<String>,
}

/// A connection whose hello is over.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) client: Client,
    /// Index of the bundle in the welcome.
    pub(crate) bundle: u8,
    endpoint: Endpoint,
}

/// Why a try did not reach the server.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Another try may succeed.
    Transient(String),
    /// No try will.
    Permanent(Error),
}

impl Connector {
    /// A dialer that will introduce itself with `bundle` and `tasks`.
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

    /// Where the server is looked for.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Tries once, for at most `limit` and never longer than [`CONNECT_TIMEOUT`].
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Session, ConnectError> {
        let transient = |reason: &str| ConnectError::Transient(reason.to_owned());
        let limit = limit.min(CONNECT_TIMEOUT);
        let addresses = timeout(limit, self.resolve())
            .await
            .map_err(|_| transient("the name server does not answer"))??;
        let (endpoint, connection) = timeout(limit, self.connect_any(addresses))
            .await
            .map_err(|_| transient("it does not answer"))??;
        match timeout(HELLO_TIMEOUT, self.exchange_hello(&connection)).await {
            Ok(Ok((client, bundle))) => Ok(Session { connection, client, bundle, endpoint }),
            Ok(Err(failure)) => {
                if let ConnectError::Permanent(Error::Protocol { source, .. }) = &failure {
                    close(&connection, Close::Violation, &source.to_string());
                }
                connection.close(0u8.into(), b"");
                endpoint.wait_idle().await;
                Err(failure)
            }
            Err(_) => {
                close(&connection, Close::HelloTimeout, "no welcome");
                Err(transient("it took the connection and did not answer the hello"))
            }
        }
    }

    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let addresses = tokio::net::lookup_host((self.server.host.as_str(), self.server.port)).await;
        let addresses: Vec<SocketAddr> = addresses
            .map_err(|e: io::Error| ConnectError::Transient(format!("the name cannot be resolved: {e}")))?
            .collect();
        match addresses.is_empty() {
            true => Err(ConnectError::Transient("the name has no address".to_owned())),
            false => Ok(addresses),
        }
    }

    /// Races the addresses, each with a head start over the next. Dropping the losers closes them.
    pub(crate) async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<(Endpoint, Connection), ConnectError> {
        let mut race = JoinSet::new();
        for (place, address) in addresses.into_iter().enumerate() {
            let endpoint =
                client_endpoint(address, &self.tuning).map_err(|e| ConnectError::Permanent(e.into()))?;
            let (config, server) = (self.config.clone(), self.server.clone());
            race.spawn(async move {
                tokio::time::sleep(ADDRESS_DELAY * place as u32).await;
                let connecting = endpoint.connect_with(config, address, &server.host).map_err(unusable)?;
                let connection = connecting.await.map_err(|error| classify(&server, &error))?;
                Ok((endpoint, connection))
            });
        }
        let mut failure = ConnectError::Transient("it does not answer".to_owned());
        while let Some(attempt) = race.join_next().await {
            match (attempt.unwrap_or_else(|error| Err(ConnectError::Transient(error.to_string()))), &failure)
            {
                (Ok(reached), _) => return Ok(reached),
                (Err(other), ConnectError::Transient(_)) => failure = other,
                (Err(_), ConnectError::Permanent(_)) => {}
            }
        }
        Err(failure)
    }

    pub(crate) async fn exchange_hello(&self, connection: &Connection) -> Result<(Client, u8), ConnectError> {
        let mut client = Client::new(Hello::new(vec![self.bundle], self.tasks.clone()));
        let hello = client.hello().map_err(|source| self.protocol(source))?;
        let lost = |error| match error {
            StreamError::Connection(error) => self.classify(&error),
            other => ConnectError::Transient(format!("during the hello: {other}")),
        };
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| self.classify(&error))?;
        write_message(&mut send, &hello).await.map_err(lost)?;
        let welcome = read_message(&mut receive, MAX_HELLO).await.map_err(lost)?;
        client.welcome(&welcome).map_err(|source| self.protocol(source))?;
        match client.bundle(&self.bundle) {
            Some(bundle) => Ok((client, bundle)),
            None => Err(ConnectError::Permanent(Error::Mismatch {
                server: self.server.to_string(),
                ours: self.bundle,
                theirs: Vec::new(),
            })),
        }
    }

    fn protocol(&self, error: WireError) -> ConnectError {
        let server = self.server.to_string();
        match error {
            WireError::Refused(refusal) => match refusal.refusal.code {
                RefusalCode::Draining | RefusalCode::Connections | RefusalCode::Busy => {
                    ConnectError::Transient(refusal.refusal.to_string())
                }
                RefusalCode::Bundle => ConnectError::Permanent(Error::Mismatch {
                    server,
                    ours: self.bundle,
                    theirs: refusal.serves.clone(),
                }),
                _ => ConnectError::Permanent(Error::Refused { server, refusal }),
            },
            source => ConnectError::Permanent(Error::Protocol { server, source }),
        }
    }

    /// Whether another try may help after this end of a connection.
    pub(crate) fn classify(&self, error: &ConnectionError) -> ConnectError {
        classify(&self.server, error)
    }
}

fn classify(server: &Server, error: &ConnectionError) -> ConnectError {
    // The TLS alert travels as a transport error code of 0x100 and up (RFC 9001, section 4.8).
    let is_tls = |code: u64| (0x100..0x200).contains(&code);
    let trust = |reason: String| ConnectError::Permanent(Error::Trust { server: server.to_string(), reason });
    match error {
        ConnectionError::TransportError(error) if is_tls(error.code.into()) => trust(error.reason.clone()),
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code.into()) => {
            trust(format!("the server says: {close}"))
        }
        ConnectionError::VersionMismatch => {
            ConnectError::Transient("it speaks another version of QUIC".to_owned())
        }
        ConnectionError::TimedOut => ConnectError::Transient("it does not answer".to_owned()),
        other => ConnectError::Transient(match close_code(other) {
            Some(code) => format!("it closed the connection: {code}"),
            None => other.to_string(),
        }),
    }
}

fn unusable(error: QuinnConnectError) -> ConnectError {
    match error {
        QuinnConnectError::InvalidServerName(name) => {
            let reason = format!("{name:?} is no name that a certificate can carry");
            ConnectError::Permanent(Error::usage("--server", reason))
        }
        error => ConnectError::Transient(error.to_string()),
    }
}

impl Session {
    /// Says goodbye and waits, bounded, until the server has heard it.
    pub(crate) async fn close(self) {
        close(&self.connection, Close::Done, "");
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectError::Transient(reason) => f.write_str(reason),
            ConnectError::Permanent(error) => error.fmt(f),
        }
    }
}
