//! The settings of QUIC for enrolment (PROTOCOL.md section 9), which has an endpoint of its own: strangers take no place, no memory
//! and no packet of the one that serves frames.

use std::{net::SocketAddr, sync::Arc};

use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, VarInt};
use rustls_pki_types::CertificateDer;

use super::{
    CertificateCheck, ClientVerifier, SetupError, Tuning, client_settings, client_tls, endpoint, peer_chain,
    provider, server_tls, transport,
};
use crate::{
    enrol::ENROLMENT_ALPN,
    identity::{Fingerprint, Identity},
    limits::{ENROLMENT_TIMEOUT, MAX_ENROLMENT_REPLY},
    pinned::{Pinned, authority},
};

/// Bytes that a client of an enrolment may have in flight: its message, and room to spare.
const WINDOW: u32 = 16 * 1024;

/// One attempt of a device without a certificate to connect: what was found out about the server.
#[derive(Clone, Debug)]
pub struct Enrolling {
    ca: Fingerprint,
    check: CertificateCheck,
}

impl Enrolling {
    /// The result of checking the server's certificate.
    #[must_use]
    pub fn check(&self) -> &CertificateCheck {
        &self.check
    }

    /// The certificate of the CA that the token names, as the server has shown it.
    #[must_use]
    pub fn authority(&self, connection: &Connection) -> Option<CertificateDer<'static>> {
        authority(&peer_chain(connection)?, self.ca).cloned()
    }
}

/// The settings of a device that has no certificate yet: the server must show one that is signed by the CA with a key of this
/// fingerprint, and carry the name that the device connects to.
///
/// # Errors
/// [`SetupError::Tuning`].
pub fn enrolment_client(ca: Fingerprint, tuning: &Tuning) -> Result<(ClientConfig, Enrolling), SetupError> {
    let check = CertificateCheck::default();
    let verifier = Pinned { ca, provider: provider(), check: check.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| SetupError::Tuning("no TLS 1.3"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ENROLMENT_ALPN.to_vec()];
    Ok((client_settings(tls, tuning, None)?, Enrolling { ca, check }))
}

/// The settings of a device that renews its certificate, by which it authenticates itself.
///
/// # Errors
/// [`SetupError::Identity`] or [`SetupError::Tuning`].
pub fn renewal_client(
    identity: &Identity,
    tuning: &Tuning,
) -> Result<(ClientConfig, CertificateCheck), SetupError> {
    let (tls, check) = client_tls(identity, ENROLMENT_ALPN)?;
    Ok((client_settings(tls, tuning, None)?, check))
}

/// The settings of a server that enrols devices. It shows its CA's certificate as well, so that devices which have none of that CA
/// can compare its fingerprint. A client may show a certificate; one that is revoked, has ended or is of another CA is refused.
///
/// # Errors
/// [`SetupError::Identity`] or [`SetupError::Tuning`].
pub fn enrolment_server(identity: &Identity) -> Result<ServerConfig, SetupError> {
    let mut chain = identity.chain.clone();
    let shown: Vec<_> = identity.ca.iter().filter(|ca| !chain.contains(ca)).cloned().collect();
    chain.extend(shown);
    let mut config = server_tls(identity, ClientVerifier::optional(identity)?, chain, ENROLMENT_ALPN)?;
    let tuning = Tuning {
        idle_timeout: ENROLMENT_TIMEOUT,
        receive_window: WINDOW,
        send_window: 2 * MAX_ENROLMENT_REPLY as u64,
        ..Tuning::default()
    };
    let mut transport = transport(&tuning)?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW));
    config.transport_config(Arc::new(transport));
    config.max_incoming(64).incoming_buffer_size(8 << 10).incoming_buffer_size_total(256 << 10);
    Ok(config)
}

/// The endpoint of a server that enrols devices.
///
/// # Errors
/// [`SetupError::Bind`].
pub fn enrolment_endpoint(address: SocketAddr, config: ServerConfig) -> Result<Endpoint, SetupError> {
    // Its packets are few.
    let tuning = Tuning { socket_buffer: 64 * 1024, ..Tuning::default() };
    endpoint(address, EndpointConfig::default(), Some(config), &tuning)
}
