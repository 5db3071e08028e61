//! The certificates of one side, read from a folder: `ca.pem` (the CA whose certificates it accepts), `cert.pem` (its own
//! certificate) and `key.pem` (the private key of that certificate).

mod certificate;
mod error;
mod fingerprint;
mod revocation;

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use self::error::read;
pub use self::{
    certificate::{CertificateInfo, CertificateKind},
    error::{IdentityError, read_private},
    fingerprint::{Fingerprint, NoFingerprint},
    revocation::{RevocationList, Revoked},
};

/// The file of a renewed identity that is being put in the place of `cert.pem` and `key.pem`: both of them in one file, which can be
/// written at once.
pub const RENEWED: &str = "renewed.pem";

/// Days before its end from which on a certificate should be renewed.
pub const RENEW_DAYS: i64 = 30;

const DAY: i64 = 86_400;

/// The certificates and the private key of one side.
#[derive(Debug)]
pub struct Identity {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) revoked: Option<RevocationList>,
    folder: PathBuf,
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

impl Validity {
    /// Says when the certificate ends, if that is within [`RENEW_DAYS`] of `now`, in seconds since 1970.
    #[must_use]
    pub fn ending(&self, now: i64) -> Option<String> {
        let days = (self.until - now).div_euclid(DAY);
        let plural = |days: i64| if days == 1 { "day" } else { "days" };
        match days {
            days if days >= RENEW_DAYS => None,
            days if days < 0 => Some(format!("{} ended {} {} ago", self.file, -days, plural(-days))),
            days => Some(format!("{} ends in {days} {}", self.file, plural(days))),
        }
    }
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of a folder; where there is a [`RENEWED`], it counts in the place of the latter two.
    /// The private key must be readable by its owner alone.
    ///
    /// # Errors
    /// [`IdentityError::Read`], [`IdentityError::Pem`], [`IdentityError::Empty`], [`IdentityError::Exposed`] or
    /// [`IdentityError::Owner`].
    pub fn load(folder: &Path) -> Result<Identity, IdentityError> {
        let renewed = folder.join(RENEWED);
        let [certificate_file, key_file] = match renewed.symlink_metadata().is_ok() {
            true => [renewed.clone(), renewed],
            false => [folder.join("cert.pem"), folder.join("key.pem")],
        };
        Ok(Identity {
            ca: certificates(&folder.join("ca.pem"))?,
            chain: certificates(&certificate_file)?,
            key: match PrivateKeyDer::from_pem_slice(&read_private(&key_file)?) {
                Ok(key) => key,
                Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                    return Err(IdentityError::Empty { file: key_file, expected: "private key" });
                }
                Err(source) => return Err(IdentityError::Pem { file: key_file, source }),
            },
            revoked: None,
            folder: folder.to_owned(),
        })
    }

    /// An identity that is not in files yet. `folder` is where they will be, for messages.
    #[must_use]
    pub fn of(
        ca: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        folder: &Path,
    ) -> Identity {
        Identity { ca, chain, key, revoked: None, folder: folder.to_owned() }
    }

    /// Its own certificate, and those behind it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The same identity, which refuses the certificates that are on a revocation list.
    #[must_use]
    pub fn with_revoked(&self, revoked: Option<RevocationList>) -> Identity {
        Identity {
            ca: self.ca.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            revoked,
            folder: self.folder.clone(),
        }
    }

    /// The revocation list whose certificates it refuses.
    #[must_use]
    pub fn revoked(&self) -> Option<&RevocationList> {
        self.revoked.as_ref()
    }

    /// The folder that it was read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name in its own certificate, as [`name_of`] reads it.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.chain.first().and_then(name_of)
    }

    /// Whether a CA has signed its own certificate.
    #[must_use]
    pub fn is_issued_by(&self, ca: &CertificateDer<'_>) -> bool {
        self.chain.first().is_some_and(|own| certificate::is_issued_by(own, ca))
    }

    /// The certificate of the CA that has signed its own, if that is one that it accepts.
    #[must_use]
    pub fn issuer(&self) -> Option<&CertificateDer<'static>> {
        self.ca.iter().find(|ca| self.is_issued_by(ca))
    }

    /// The certificates of the CAs that it accepts.
    #[must_use]
    pub fn ca(&self) -> &[CertificateDer<'static>] {
        &self.ca
    }

    /// The periods in which the certificates are valid: this side's own first, then those of the CA.
    ///
    /// # Errors
    /// [`IdentityError::Dates`] for a certificate that is not X.509.
    pub fn validity(&self) -> Result<Vec<Validity>, IdentityError> {
        let files = [("cert.pem", &self.chain), ("ca.pem", &self.ca)];
        let each = files.into_iter().flat_map(|(file, chain)| chain.iter().map(move |one| (file, one)));
        let read = |(file, certificate): (&'static str, &CertificateDer<'_>)| {
            let CertificateInfo { from, until, .. } = self.info(file, certificate)?;
            Ok(Validity { file, from, until })
        };
        each.map(read).collect()
    }

    /// Checks that the certificate is one that a server can show.
    ///
    /// # Errors
    /// [`IdentityError::Kind`] for that of a device or a CA, [`IdentityError::Dates`] for one that is not X.509.
    pub fn require_server(&self) -> Result<(), IdentityError> {
        self.require(CertificateKind::Server, CertificateKind::serves)
    }

    /// Checks that the certificate is one that a device can show.
    ///
    /// # Errors
    /// [`IdentityError::Kind`] for that of a server or a CA, [`IdentityError::Dates`] for one that is not X.509.
    pub fn require_device(&self) -> Result<(), IdentityError> {
        self.require(CertificateKind::Device, CertificateKind::connects)
    }

    fn require(
        &self,
        needed: CertificateKind,
        fits: fn(CertificateKind) -> bool,
    ) -> Result<(), IdentityError> {
        let Some(own) = self.chain.first() else { return Ok(()) };
        let found = self.info("cert.pem", own)?.kind;
        match fits(found) {
            true => Ok(()),
            false => Err(IdentityError::Kind { file: self.folder.join("cert.pem"), found, needed }),
        }
    }

    fn info(&self, file: &str, certificate: &CertificateDer<'_>) -> Result<CertificateInfo, IdentityError> {
        let dates = |reason| IdentityError::Dates { file: self.folder.join(file), reason };
        CertificateInfo::read(certificate).map_err(dates)
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

/// The DNS names and IP addresses of a certificate, DNS names first; none if it cannot be read. The texts are the peer's.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    CertificateInfo::read(certificate).map_or_else(|_| Vec::new(), |info| info.names)
}

/// What stands in a PEM file (RFC 7468) for DER with this label.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// [`IdentityError::Read`], [`IdentityError::Pem`], or [`IdentityError::Empty`] if there is none in it.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
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

#[cfg(test)]
mod tests;
