//! What a certificate says: its names, its kind and its dates.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
};

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The subject's common name; empty if it has none.
    pub subject: String,
    /// The DNS names and addresses that it is for, DNS names first.
    pub names: Vec<String>,
    /// What it may be used for.
    pub kind: CertificateKind,
    /// The serial number, most significant byte first, without leading zeros.
    pub serial: Vec<u8>,
    /// The public key, as a SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// The first second in which it is valid, in seconds since 1970.
    pub from: i64,
    /// The last second in which it is valid, in seconds since 1970.
    pub until: i64,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateKind {
    /// A certificate authority, which signs certificates.
    Authority,
    /// A server (extended key usage serverAuth alone).
    Server,
    /// A device (extended key usage clientAuth alone).
    Device,
    /// A server or a device: it lists both usages or none.
    Any,
    /// Neither: it lists other usages alone.
    Other,
}

impl CertificateInfo {
    /// Reads a certificate; its signature is not checked.
    ///
    /// # Errors
    /// The parser's reason for bytes that are not an X.509 certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<CertificateInfo, String> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
        let common = certificate.subject().iter_common_name().next();
        let dates = certificate.validity();
        Ok(CertificateInfo {
            subject: common.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
            names: names(&certificate),
            kind: kind(&certificate)?,
            serial: significant(certificate.raw_serial()).to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
            from: dates.not_before.timestamp(),
            until: dates.not_after.timestamp(),
        })
    }
}

impl CertificateKind {
    /// Whether a server can show it.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, CertificateKind::Server | CertificateKind::Any)
    }

    /// Whether a device can show it.
    #[must_use]
    pub fn connects(self) -> bool {
        matches!(self, CertificateKind::Device | CertificateKind::Any)
    }
}

impl std::fmt::Display for CertificateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CertificateKind::Authority => "ca",
            CertificateKind::Server => "server",
            CertificateKind::Device => "device",
            CertificateKind::Any => "any",
            CertificateKind::Other => "other",
        })
    }
}

/// Whether a CA has signed a certificate; neither's dates are looked at.
pub(super) fn is_issued_by(certificate: &CertificateDer<'_>, ca: &CertificateDer<'_>) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate).ok();
    let ca = x509_parser::parse_x509_certificate(ca).ok();
    parsed.zip(ca).is_some_and(|((_, certificate), (_, ca))| {
        certificate.issuer().as_raw() == ca.subject().as_raw()
            && certificate.verify_signature(Some(ca.public_key())).is_ok()
    })
}

/// A serial number without leading zeros: an encoding has one where the first bit is set.
pub(super) fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|&&byte| byte == 0).count();
    &serial[zeros..]
}

fn kind(certificate: &X509Certificate<'_>) -> Result<CertificateKind, String> {
    if certificate.is_ca() {
        return Ok(CertificateKind::Authority);
    }
    let usage = certificate.extended_key_usage().map_err(|error| error.to_string())?;
    let usage = usage.map(|usage| (usage.value.server_auth, usage.value.client_auth));
    Ok(match usage {
        None | Some((true, true)) => CertificateKind::Any,
        Some((true, false)) => CertificateKind::Server,
        Some((false, true)) => CertificateKind::Device,
        Some((false, false)) => CertificateKind::Other,
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for extension in certificate.iter_extensions() {
        let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() else { continue };
        for name in &found.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes).map(|one| one.to_string())),
                _ => {}
            }
        }
    }
    names.extend(addresses);
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
