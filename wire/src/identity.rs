//! The certificates of one side, read from a folder: `ca.pem` (the CA whose certificates it accepts), `cert.pem` (its own
//! certificate) and `key.pem` (the private key of that certificate).

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use x509_parser::extensions::GeneralName;

/// The certificates and the private key of one side.
#[derive(Debug)]
pub struct Identity {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    folder: PathBuf,
}

/// An error of an identity folder. Every variant names the file at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{} is not a PEM file", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The error of the PEM parser.
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no PEM section of the kind that is expected in it.
    #[error("{} holds no {expected}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// The kind that is expected.
        expected: &'static str,
    },
    /// The certificates cannot be used for TLS, for example because the key is not that of the certificate.
    #[error("{} cannot be used", file.display())]
    Unusable {
        /// The file at fault.
        file: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// The dates of a certificate cannot be read.
    #[error("{}: {reason}", file.display())]
    Dates {
        /// The file.
        file: PathBuf,
        /// The error of the certificate parser.
        reason: String,
    },
}

/// The period in which a certificate is valid, in seconds since 1970 (Unix time).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validity {
    /// The file of the certificate.
    pub file: &'static str,
    /// The first second of the period.
    pub from: i64,
    /// The last second of the period.
    pub until: i64,
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of a folder.
    ///
    /// # Errors
    /// [`IdentityError::Read`], [`IdentityError::Pem`] or [`IdentityError::Empty`].
    pub fn load(folder: &Path) -> Result<Identity, IdentityError> {
        let key = folder.join("key.pem");
        Ok(Identity {
            ca: certificates(&folder.join("ca.pem"))?,
            chain: certificates(&folder.join("cert.pem"))?,
            key: match PrivateKeyDer::from_pem_slice(&read(&key)?) {
                Ok(key) => key,
                Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                    return Err(IdentityError::Empty { file: key, expected: "private key" });
                }
                Err(source) => return Err(IdentityError::Pem { file: key, source }),
            },
            folder: folder.to_owned(),
        })
    }

    /// The folder that it was read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The periods in which the certificates are valid: this side's own first, then those of the CA.
    ///
    /// # Errors
    /// [`IdentityError::Dates`] for a certificate that is not X.509.
    pub fn validity(&self) -> Result<Vec<Validity>, IdentityError> {
        let files = [("cert.pem", &self.chain), ("ca.pem", &self.ca)];
        let each = files.into_iter().flat_map(|(file, chain)| chain.iter().map(move |one| (file, one)));
        let read = |(file, certificate): (&'static str, &CertificateDer<'_>)| {
            let (_, certificate) = x509_parser::parse_x509_certificate(certificate).map_err(|error| {
                IdentityError::Dates { file: self.folder.join(file), reason: error.to_string() }
            })?;
            let dates = certificate.validity();
            Ok(Validity { file, from: dates.not_before.timestamp(), until: dates.not_after.timestamp() })
        };
        each.map(read).collect()
    }

    pub(crate) fn unusable(&self, file: &str, source: rustls::Error) -> IdentityError {
        IdentityError::Unusable { file: self.folder.join(file), source }
    }
}

/// The first DNS name of a certificate, by which logs call a device. `None` if it has none.
#[must_use]
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_dns_names().next().map(str::to_owned)
}

/// Whether a certificate can carry this host name or IP address.
#[must_use]
pub fn is_server_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// The DNS names and IP addresses of a certificate, in its order; none if it cannot be read. The texts are the peer's.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(IdentityError::Empty { file: file.to_owned(), expected: "certificate" })
        }
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(IdentityError::Pem { file: file.to_owned(), source }),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(file).map_err(|source| IdentityError::Read { file: file.to_owned(), source })
}
