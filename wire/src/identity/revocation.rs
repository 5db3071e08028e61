//! Certificate revocation lists (RFC 5280): the certificates that a CA has taken back.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::{parse_x509_certificate, parse_x509_crl, revocation_list::CertificateRevocationList};

use super::{IdentityError, certificate::significant, error::read};

/// The revocation lists of one or more CAs, read from a PEM file and checked against the CAs' keys.
#[derive(Debug, Clone)]
pub struct RevocationList {
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
    revoked: Vec<Revoked>,
    number: u64,
    until: Option<i64>,
    file: PathBuf,
}

/// A certificate that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revoked {
    /// The serial number, most significant byte first, without leading zeros.
    pub serial: Vec<u8>,
    /// When it was revoked, in seconds since 1970.
    pub at: i64,
}

impl RevocationList {
    /// Reads the lists in a PEM file. Each must be signed by one of the CAs in `ca`.
    ///
    /// # Errors
    /// [`IdentityError::Read`], [`IdentityError::Pem`], [`IdentityError::Empty`], or [`IdentityError::Revocation`] for a
    /// list that does not exist, is damaged or that none of the CAs has signed.
    pub fn load(file: &Path, ca: &[CertificateDer<'_>]) -> Result<RevocationList, IdentityError> {
        let unusable = |reason: String| IdentityError::Revocation { file: file.to_owned(), reason };
        let bytes = read(file).map_err(|error| match error {
            IdentityError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                unusable("there is no such file".into())
            }
            error => error,
        })?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let lists = lists.map_err(|source| IdentityError::Pem { file: file.to_owned(), source })?;
        if lists.is_empty() {
            return Err(IdentityError::Empty {
                file: file.to_owned(),
                expected: "revocation list (X509 CRL)",
            });
        }
        let mut all = RevocationList {
            lists: Vec::new(),
            revoked: Vec::new(),
            number: 0,
            until: None,
            file: file.to_owned(),
        };
        for list in lists {
            all.add(&list, ca).map_err(unusable)?;
            all.lists.push(list);
        }
        Ok(all)
    }

    fn add(&mut self, list: &[u8], ca: &[CertificateDer<'_>]) -> Result<(), String> {
        let (_, list) = parse_x509_crl(list).map_err(|error| format!("it is damaged: {error}"))?;
        if signer(&list, ca).is_none() {
            return Err("it is not signed by a CA of ca.pem: it is damaged or of another CA".to_owned());
        }
        self.number = self.number.max(number(&list));
        let until = list.next_update().map(|time| time.timestamp());
        self.until = [self.until, until].into_iter().flatten().min();
        self.revoked.extend(list.iter_revoked_certificates().map(|one| Revoked {
            serial: significant(one.raw_serial()).to_vec(),
            at: one.revocation_date.timestamp(),
        }));
        Ok(())
    }

    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The certificates that were revoked.
    #[must_use]
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }

    /// The highest number of the lists; a later list has a higher one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When the CA has promised the next list at the latest, in seconds since 1970: the earliest of several.
    #[must_use]
    pub fn until(&self) -> Option<i64> {
        self.until
    }

    /// Checks that these lists may take the place of `present`: that for every CA of `ca` which has signed a list of `present`
    /// there is one here that is not older. Of two lists of a CA the one with the lower number is older, or with equal numbers
    /// the one with the earlier date.
    ///
    /// # Errors
    /// [`IdentityError::Outdated`].
    pub fn check_replaces(
        &self,
        present: &RevocationList,
        ca: &[CertificateDer<'_>],
    ) -> Result<(), IdentityError> {
        let (issued, before) = (self.newest(ca), present.newest(ca));
        let older = |(now, then): (&Option<Issue>, &Option<Issue>)| now < then;
        match std::iter::zip(&issued, &before).find(|pair| older(*pair)) {
            Some((issued, present)) => Err(IdentityError::Outdated {
                file: self.file.clone(),
                number: issued.map(|issue| issue.number),
                present: present.map_or(0, |issue| issue.number),
            }),
            None => Ok(()),
        }
    }

    /// The newest list of each of these CAs.
    fn newest(&self, ca: &[CertificateDer<'_>]) -> Vec<Option<Issue>> {
        let mut newest = vec![None; ca.len()];
        for list in &self.lists {
            let Ok((_, list)) = parse_x509_crl(list) else { continue };
            if let Some(signer) = signer(&list, ca) {
                let issue = Issue { number: number(&list), date: list.last_update().timestamp() };
                newest[signer] = newest[signer].max(Some(issue));
            }
        }
        newest
    }
}

/// What orders the lists of one CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Issue {
    number: u64,
    date: i64,
}

/// The index of the CA that has signed a list.
fn signer(list: &CertificateRevocationList<'_>, ca: &[CertificateDer<'_>]) -> Option<usize> {
    ca.iter().position(|ca| {
        parse_x509_certificate(ca).is_ok_and(|(_, ca)| {
            ca.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(ca.public_key()).is_ok()
        })
    })
}

/// The number of a list, 0 if it has none. Numbers of more than 64 bits count as the largest of 64 bits.
fn number(list: &CertificateRevocationList<'_>) -> u64 {
    list.crl_number().map_or(0, |number| number.to_string().parse().unwrap_or(u64::MAX))
}
