//! Why a server's certificate was not accepted, as a value.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::time::ASN1Time;

use crate::{
    identity::{Fingerprint, names_of},
    text::Quoted,
};

/// Why a client did not accept the certificate that a server showed. Times are seconds since 1970 (Unix time).
///
/// Whoever answers on the network may show any certificate, so a fault says nothing about the server itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The clock of this device shows a time before the certificate begins to be valid.
    NotYetValid {
        /// The time on this device.
        now: i64,
        /// The first second in which the certificate is valid.
        from: i64,
        /// The last second in which the certificate is valid.
        until: i64,
    },
    /// The clock of this device shows a time after the end of the certificate.
    Expired {
        /// The time on this device.
        now: i64,
        /// The first second in which the certificate is valid.
        from: i64,
        /// The last second in which the certificate is valid.
        until: i64,
    },
    /// The certificate is not signed by the CA that this side trusts.
    UnknownIssuer,
    /// None of the certificates that were shown is that of the CA whose key has this fingerprint.
    OtherAuthority {
        /// The fingerprint of the CA's key that was to be shown.
        expected: Fingerprint,
    },
    /// The certificate does not carry the name that the client connects to.
    WrongName {
        /// The name that the client connects to.
        expected: String,
        /// The names and addresses that the certificate carries.
        names: Vec<String>,
    },
    /// Another fault, in the words of the TLS library.
    Other(String),
}

impl CertificateFault {
    /// Whether the fault depends on the time of this device.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        matches!(self, CertificateFault::NotYetValid { .. } | CertificateFault::Expired { .. })
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateFault::NotYetValid { now, from, until } => write!(
                f,
                "this device's clock shows {}, which is before the server's certificate is valid, {} to {}; \
                 set the clock of this device",
                Date(*now),
                Date(*from),
                Date(*until)
            ),
            CertificateFault::Expired { now, from, until } => write!(
                f,
                "this device's clock shows {}, which is after the server's certificate was valid, {} to {}; \
                 renew the server's certificate, or set the clock of this device if it is wrong",
                Date(*now),
                Date(*from),
                Date(*until)
            ),
            CertificateFault::UnknownIssuer => {
                f.write_str("the server's certificate is not signed by the CA in this side's ca.pem")
            }
            CertificateFault::OtherAuthority { expected } => write!(
                f,
                "the server does not show the CA that the token names ({expected}): the token is of another server, or \
                 somebody stands between this device and the server"
            ),
            CertificateFault::WrongName { expected, names } => {
                write!(f, "the server's certificate is not for {}; it carries ", Quoted(expected))?;
                if names.is_empty() {
                    f.write_str("no name")?;
                }
                names.iter().enumerate().try_for_each(|(index, name)| {
                    write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted(name))
                })
            }
            CertificateFault::Other(reason) => {
                write!(f, "the server's certificate cannot be accepted: {}", Quoted(reason))
            }
        }
    }
}

/// Why a server would not accept a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientFault {
    /// It is not signed by the CA in the same folder.
    Issuer,
    /// It is not a client's certificate.
    Purpose,
    /// It is not valid at this device's time.
    Time,
    /// Another fault, in the words of the TLS library.
    Other(String),
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientFault::Issuer => f.write_str("cert.pem is not signed by the CA in ca.pem"),
            ClientFault::Purpose => {
                f.write_str("cert.pem is not a device's certificate, but a server's or another one")
            }
            ClientFault::Time => f.write_str("cert.pem is not valid now"),
            ClientFault::Other(reason) => write!(f, "cert.pem cannot be used: {}", Quoted(reason)),
        }
    }
}

impl From<Error> for ClientFault {
    fn from(error: Error) -> Self {
        use CertificateError as Fault;
        match error {
            Error::InvalidCertificate(Fault::UnknownIssuer | Fault::BadSignature) => ClientFault::Issuer,
            Error::InvalidCertificate(Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. }) => {
                ClientFault::Purpose
            }
            Error::InvalidCertificate(
                Fault::Expired
                | Fault::ExpiredContext { .. }
                | Fault::NotValidYet
                | Fault::NotValidYetContext { .. },
            ) => ClientFault::Time,
            other => ClientFault::Other(other.to_string()),
        }
    }
}

/// A time of day in UTC.
struct Date(i64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ASN1Time::from_timestamp(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} s since 1970", self.0),
        }
    }
}

/// The result of checking a server's certificate in one attempt to connect.
#[derive(Clone, Debug, Default)]
pub struct CertificateCheck(Arc<OnceLock<CertificateFault>>);

impl CertificateCheck {
    /// The fault that ended the attempt; `None` if no certificate came or it was accepted.
    #[must_use]
    pub fn fault(&self) -> Option<&CertificateFault> {
        self.0.get()
    }

    /// Keeps the fault that ends the attempt.
    pub(crate) fn note(&self, fault: CertificateFault) {
        // One configuration serves one attempt, so there is one fault.
        let _ = self.0.set(fault);
    }
}

/// Verifies as `inner` does and keeps the fault.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) inner: Arc<WebPkiServerVerifier>,
    pub(crate) check: CertificateCheck,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        if let Err(error) = &result {
            self.check.note(fault(error, certificate, name, now));
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Why a certificate was not accepted, as a value.
pub(crate) fn fault(
    error: &Error,
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> CertificateFault {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let period = || {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let dates = certificate.validity();
        Some((dates.not_before.timestamp(), dates.not_after.timestamp()))
    };
    match error {
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            let (from, until) = period().unwrap_or_default();
            CertificateFault::NotYetValid { now, from, until }
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            let (from, until) = period().unwrap_or_default();
            CertificateFault::Expired { now, from, until }
        }
        // A certificate of another CA of the same name fails at its signature.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            CertificateFault::UnknownIssuer
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            CertificateFault::WrongName { expected: name.to_str().into_owned(), names: names_of(certificate) }
        }
        other => CertificateFault::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_time_shows_the_clock_and_the_period() {
        let fault = CertificateFault::NotYetValid { now: 7, from: 1_790_000_000, until: 1_800_000_000 };
        let text = fault.to_string();
        for part in ["1970", "2026", "2027", "before", "clock"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(fault.is_of_time() && !CertificateFault::UnknownIssuer.is_of_time());
    }

    #[test]
    fn names_of_a_foreign_certificate_are_quoted() {
        let fault =
            CertificateFault::WrongName { expected: "tail".into(), names: vec!["a\nb".into(), "c".into()] };
        assert!(fault.to_string().ends_with(r#""tail"; it carries "a\nb", "c""#), "{fault}");
    }
}
