//! An identity folder: `ca.pem` (whom this side trusts), `cert.pem` (who it is), `key.pem` (the proof).

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Certificates and key of one side, as read from its folder.
#[derive(Debug)]
pub struct Identity {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    folder: PathBuf,
}

/// What is wrong with an identity folder; every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{}: not a PEM file: {source}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no PEM section of the kind that belongs there.
    #[error("{}: holds no {wanted}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// What belongs there.
        wanted: &'static str,
    },
    /// The certificates do not make a TLS configuration, for example because key and certificate do not fit.
    #[error("{}: {source}", file.display())]
    Unusable {
        /// The file that is at fault.
        file: PathBuf,
        /// What TLS says.
        source: rustls::Error,
    },
    /// A certificate's dates cannot be read.
    #[error("{}: {reason}", file.display())]
    Dates {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validity {
    /// The file it stands in.
    pub file: &'static str,
    /// Its first moment.
    pub from: i64,
    /// Its last moment.
    pub until: i64,
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of a folder.
    pub fn load(folder: &Path) -> Result<Identity, IdentityError> {
        let key = folder.join("key.pem");
        Ok(Identity {
            ca: certificates(&folder.join("ca.pem"))?,
            chain: certificates(&folder.join("cert.pem"))?,
            key: match PrivateKeyDer::from_pem_slice(&read(&key)?) {
                Ok(key) => key,
                Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                    return Err(IdentityError::Empty { file: key, wanted: "private key" });
                }
                Err(source) => return Err(IdentityError::Pem { file: key, source }),
            },
            folder: folder.to_owned(),
        })
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// From when to when the certificates are valid: this side's own first, then those it trusts.
    ///
    /// # Errors
    /// [`IdentityError::Dates`] for a certificate that is no X.509.
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

/// The first DNS name of a certificate: how a device is called in logs. `None` if it has none.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_dns_names().next().map(str::to_owned)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(IdentityError::Empty { file: file.to_owned(), wanted: "certificate" })
        }
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(IdentityError::Pem { file: file.to_owned(), source }),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(file).map_err(|source| IdentityError::Read { file: file.to_owned(), source })
}
