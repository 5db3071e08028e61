//! One question to a server that enrols devices.

use narrows_wire::{
    Close,
    enrol::{EnrolmentReply, EnrolmentRequest},
    limits::{ENROLMENT_TIMEOUT, MAX_ENROLMENT_REPLY},
    quic::{CertificateCheck, Tuning, close},
    stream::{StreamError, read_message, write_message},
};
use quinn::{ClientConfig, Connection};
use tokio::time::timeout;

use crate::{
    Error,
    config::Server,
    error::Unavailable,
    uplink::{ConnectError, Resolver, dial, ended},
};

/// Connects with these settings, asks, and returns the answer with the connection, which is closed.
///
/// # Errors
/// [`ConnectError`], as for servers of frames.
pub(super) async fn ask(
    server: &Server,
    config: &ClientConfig,
    check: &CertificateCheck,
    request: &EnrolmentRequest,
) -> Result<(EnrolmentReply, Connection), ConnectError> {
    let addresses = Resolver::default().resolve(server).await?;
    let settings = || Ok((config.clone(), check.clone()));
    let (endpoint, connection) = dial(server, addresses, &Tuning::default(), settings).await?;
    let answered = match timeout(ENROLMENT_TIMEOUT, exchange(server, &connection, request)).await {
        Ok(answered) => answered,
        Err(_) => Err(Unavailable::NoAnswer.into()),
    };
    close(&connection, Close::Done, "");
    endpoint.wait_idle().await;
    Ok((answered?, connection))
}

async fn exchange(
    server: &Server,
    connection: &Connection,
    request: &EnrolmentRequest,
) -> Result<EnrolmentReply, ConnectError> {
    let protocol = |source| ConnectError::Permanent(Error::Protocol { server: server.to_string(), source });
    let lost = |error| match error {
        StreamError::Connection(end) => ended(server, end.0),
        other => Unavailable::Hello(other).into(),
    };
    let message = request.encode().map_err(protocol)?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| ended(server, error))?;
    // The server may say no before it has read everything.
    let sent = write_message(&mut send, &message).await;
    let answer = read_message(&mut receive, MAX_ENROLMENT_REPLY).await.map_err(lost)?;
    sent.map_err(lost)?;
    EnrolmentReply::parse(&answer).map_err(protocol)
}
