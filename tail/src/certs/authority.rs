//! The CA: its certificate, its key, and what it signs.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use narrows_wire::identity::{CertificateInfo, IdentityError, certificates, read_private};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{
    date::{day, now},
    error::Error,
    files::{create, create_folder, refuse_existing},
    records,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The validity of the CA. A new CA has to be copied to every device, so it is longer than the life of the hardware.
const CA_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The validity of an identity: 825 days, the longest that common TLS libraries accept from the server of a private CA.
pub(super) const IDENTITY_VALID: Duration = Duration::from_secs(825 * 24 * 60 * 60);

/// A CA that can sign. While it exists no other process has the same one.
pub(crate) struct Authority {
    dir: PathBuf,
    certificate: CertificateDer<'static>,
    info: CertificateInfo,
    pem: String,
    key: KeyPair,
    // The lock ends when the file is closed.
    _lock: File,
}

/// What a certificate is to say.
pub(super) struct Request<'a> {
    pub(super) names: &'a [String],
    pub(super) subject: &'a str,
    pub(super) usage: ExtendedKeyUsagePurpose,
    /// For how long the certificate is valid.
    pub(super) valid: Duration,
}

impl Authority {
    /// Makes the CA of `dir`; `ca.pem` and `ca.key` must not exist.
    pub(super) fn create(dir: &Path) -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(Error::Make)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(Error::Make)?;
        // Every CA has a name of its own, so that the certificates and revocation lists of two can be told apart.
        let id: String = params.key_identifier(&key)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("narrows CA {id}"));
        date(&mut params, CA_VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).map_err(Error::Make)?;
        let files = files(dir);
        refuse_existing(&files)?;
        create_folder(dir)?;
        create(&files[1], &key.serialize_pem(), 0o600)?;
        create(&files[0], &ca.pem(), 0o644)?;
        Authority::open(dir)
    }

    /// Opens the CA of `dir` and waits until no other process signs with it.
    pub(crate) fn open(dir: &Path) -> Result<Authority, Error> {
        let [certificate_file, key_file] = files(dir);
        let certificate = certificates(&certificate_file)?.remove(0);
        let info = CertificateInfo::read(&certificate)
            .map_err(|reason| IdentityError::Dates { file: certificate_file.clone(), reason })?;
        let pem = String::from_utf8_lossy(&read(&certificate_file)?).into_owned();
        let text = String::from_utf8_lossy(&read_private(&key_file)?).into_owned();
        let key = KeyPair::from_pem(&text).map_err(|source| Error::Ca { file: key_file.clone(), source })?;
        if key.subject_public_key_info() != info.public_key {
            return Err(Error::OtherKey { file: key_file });
        }
        if info.until < now().unix_timestamp() {
            return Err(Error::Ended { file: certificate_file, on: day(info.until) });
        }
        let lock = File::open(&key_file).and_then(|file| file.lock().map(|()| file));
        let lock = lock.map_err(|source| Error::File { file: key_file, source })?;
        Ok(Authority { dir: dir.to_owned(), certificate, info, pem, key, _lock: lock })
    }

    /// The certificate of the CA, in PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate of the CA.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a certificate for a public key and records it.
    pub(super) fn sign(&self, request: &Request<'_>, key: &impl PublicKeyData) -> Result<Certificate, Error> {
        let mut params = CertificateParams::new(request.names).map_err(Error::Make)?;
        params.distinguished_name.push(DnType::CommonName, request.subject);
        date(&mut params, request.valid);
        // What the CA signs ends with it.
        let end = OffsetDateTime::from_unix_timestamp(self.info.until).unwrap_or(params.not_after);
        params.not_after = params.not_after.min(end);
        params.serial_number = Some(serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![request.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        let certificate: Certificate = params.signed_by(key, &self.issuer()?).map_err(Error::Make)?;
        // Recorded before it is handed out, so that whatever exists can be revoked.
        records::add(&self.dir, &certificate)?;
        Ok(certificate)
    }

    /// Signs a revocation list, in PEM. It is valid to the end of the CA, because a list that ends early would have to be
    /// signed again and again with a key that is to stay offline.
    pub(super) fn revoke(&self, number: u64, revoked: &[(Vec<u8>, i64)]) -> Result<String, Error> {
        let time = |at: i64| OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let revoked = revoked.iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: time(*at),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now(),
            next_update: time(self.info.until),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer()?).and_then(|list| list.pem());
        list.map_err(Error::Make)
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, Error> {
        let file = files(&self.dir)[0].clone();
        Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(|source| Error::Ca { file, source })
    }
}

/// Certificate and key of the CA of `dir`.
pub(super) fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join("ca.pem"), dir.join("ca.key")]
}

fn date(params: &mut CertificateParams, valid: Duration) {
    // One day in the past, because devices without a battery-backed clock start with an old time; less for a certificate of minutes,
    // which would seem old as soon as it was made.
    params.not_before = now() - DAY.min(valid);
    params.not_after = now() + valid;
}

/// A random serial number of 127 bits. It is not that of the key, since a renewed certificate has the same key.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.into()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|source| Error::File { file: file.to_owned(), source })
}
