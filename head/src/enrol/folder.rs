//! The folder of an identity: the key is made in it, and what a server answers is checked before it is written there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use narrows_wire::{
    identity::{CertificateInfo, Identity, IdentityError, RENEWED, pem, read_private},
    quic::{ClientFault, client_fault},
};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, pem::PemObject};

use super::clock;
use crate::{
    Error,
    config::{Server, enrolment_server},
    name::Escaped,
};

/// The file with the address of the server at which this device renews its certificate.
const RENEW_AT: &str = "renew-at";
/// Where the certificates begin in [`RENEWED`], behind the key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// How often, and after which pauses, a folder that another process has locked is tried: for five seconds.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A folder in which an identity is to be.
pub(super) struct Folder(PathBuf);

/// A private key of this device.
pub(super) struct Key {
    pair: KeyPair,
    pem: String,
}

/// An identity that can be used, before it is written.
pub(super) struct NewIdentity {
    chain: Vec<CertificateDer<'static>>,
    ca_der: CertificateDer<'static>,
    /// What its certificate says.
    pub(super) info: CertificateInfo,
    /// What the CA's certificate says.
    pub(super) ca: CertificateInfo,
}

impl Key {
    /// A new key: on the curve P-256, as those of `narrows-tail certs`.
    pub(super) fn generate() -> Result<Key, Error> {
        let pair = KeyPair::generate().map_err(Error::Key)?;
        let pem = pair.serialize_pem();
        Ok(Key { pair, pem })
    }

    /// The public half, as a SubjectPublicKeyInfo in DER.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// A request for a certificate, signed by this key.
    pub(super) fn signing_request(
        &self,
        name: Option<&str>,
    ) -> Result<CertificateSigningRequestDer<'static>, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(Error::Key)?;
        params.distinguished_name.push(DnType::CommonName, name.unwrap_or("device"));
        Ok(params.serialize_request(&self.pair).map_err(Error::Key)?.der().clone())
    }
}

impl Folder {
    /// A folder without an identity, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Enrolled`] if it has a certificate.
    pub(super) fn begin(folder: &Path) -> Result<Folder, Error> {
        for file in ["cert.pem", RENEWED].map(|file| folder.join(file)) {
            if file.symlink_metadata().is_ok() {
                return Err(Error::Enrolled { folder: folder.to_owned(), file });
            }
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| unwritten(folder, source))?;
        Ok(Folder(folder.to_owned()))
    }

    /// The private key in the folder, which is made if there is none: an enrolment that was interrupted goes on with the same key.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let file = self.0.join("key.pem");
        if file.symlink_metadata().is_ok() {
            let text = String::from_utf8_lossy(&read_private(&file)?).into_owned();
            let pair = KeyPair::from_pem(&text).map_err(Error::Key)?;
            return Ok(Key { pair, pem: text });
        }
        let key = Key::generate()?;
        write(&file, &key.pem, 0o600)?;
        Ok(key)
    }

    /// Checks that what a server answered is an identity with this key. `now` is this device's time, `server_now` that of the server.
    ///
    /// # Errors
    /// [`Error::EnrolmentAnswer`] for a certificate that is not one of this key, not a device's, or not by this CA.
    pub(super) fn identity(
        &self,
        ca: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: &Key,
        server_now: i64,
        now: i64,
        server: &Server,
    ) -> Result<NewIdentity, Error> {
        check(&self.0, ca, chain, key, server_now, now, server)
    }

    /// Writes the identity beside its key. The certificate comes last: with it the folder is complete.
    pub(super) fn write(&self, identity: &NewIdentity, server: &Server) -> Result<(), Error> {
        write(&self.0.join("ca.pem"), &pem("CERTIFICATE", &identity.ca_der), 0o644)?;
        write(&self.0.join(RENEW_AT), &format!("{server}\n"), 0o644)?;
        write(&self.0.join("cert.pem"), &chain_text(&identity.chain), 0o644)
    }
}

/// Checks that certificates and a key make an identity that servers of this CA accept.
///
/// # Errors
/// [`Error::EnrolmentAnswer`].
pub(super) fn check(
    folder: &Path,
    ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: &Key,
    server_now: i64,
    now: i64,
    server: &Server,
) -> Result<NewIdentity, Error> {
    let wrong = |problem: String| Error::EnrolmentAnswer { server: server.to_string(), problem };
    let own = chain.first().ok_or_else(|| wrong("it holds no certificate".to_owned()))?;
    let read = |certificate| CertificateInfo::read(certificate).map_err(&wrong);
    let (info, ca_info) = (read(own)?, read(&ca)?);
    if info.public_key != key.public_key() {
        return Err(wrong("the certificate is for another key".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(key.pem.as_bytes());
    let private = private.map_err(|_| wrong("the private key cannot be read again".to_owned()))?;
    let identity = Identity::of(vec![ca.clone()], chain.clone(), private, folder);
    identity.require_device().map_err(|_| wrong("the certificate is not a device's".to_owned()))?;
    match client_fault(&identity)? {
        None => {}
        // By the server's clock it can be used; that of this device may be wrong and be set later.
        Some(ClientFault::Time)
            if (info.from..=info.until).contains(&server_now) && !(info.from..=info.until).contains(&now) => {
        }
        Some(fault) => return Err(wrong(fault.to_string())),
    }
    Ok(NewIdentity { chain, ca_der: ca, info, ca: ca_info })
}

/// Puts a renewed key and certificate in the place of those in a folder. Both are first in one file, so that whenever this is
/// interrupted, the folder holds a key and its certificate.
pub(super) fn replace(folder: &Path, identity: &NewIdentity, key: &Key) -> Result<(), Error> {
    let _lock = lock(folder)?;
    write(&folder.join(RENEWED), &format!("{}{}", key.pem, chain_text(&identity.chain)), 0o600)?;
    finish(folder)
}

/// Finishes a renewal that was interrupted, if one was.
///
/// # Errors
/// [`Error::Output`] where the folder cannot be written, [`Error::Identity`] where what is in it cannot be used.
pub(crate) fn settle(folder: &Path) -> Result<(), Error> {
    if folder.join(RENEWED).symlink_metadata().is_err() {
        return Ok(());
    }
    let _lock = lock(folder)?;
    finish(folder)
}

/// Waits until no other process changes the identity in a folder: the key of one renewal and the certificate of another would not fit.
/// Whoever may read the folder can lock it as well, so it is not waited for without end.
fn lock(folder: &Path) -> Result<File, Error> {
    let file = File::open(folder).map_err(|source| unwritten(folder, source))?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(unwritten(folder, source)),
        }
    }
    Err(unwritten(folder, io::ErrorKind::WouldBlock.into()))
}

/// Puts what a renewal has written in the place of key and certificate, with the folder locked.
fn finish(folder: &Path) -> Result<(), Error> {
    let renewed = folder.join(RENEWED);
    if renewed.symlink_metadata().is_err() {
        return Ok(());
    }
    client_fault(&Identity::load(folder)?)?;
    let text = String::from_utf8_lossy(&read_private(&renewed)?).into_owned();
    let (key, certificates) = text.split_at(text.find(CERTIFICATE).unwrap_or(text.len()));
    write(&folder.join("key.pem"), key, 0o600)?;
    write(&folder.join("cert.pem"), certificates, 0o644)?;
    fs::remove_file(&renewed).and_then(|()| sync(folder)).map_err(|source| unwritten(&renewed, source))
}

/// The server at which the device of a folder renews its certificate; `None` for a folder that was copied.
///
/// # Errors
/// The file cannot be read, or holds no address.
pub(super) fn renew_at(folder: &Path) -> Result<Option<Server>, Error> {
    let file = folder.join(RENEW_AT);
    let text = match narrows_service::read_text(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Read { file, source }.into()),
    };
    enrolment_server("--identity", text.trim()).map(Some)
}

/// Checks that files can be written into a folder, before a certificate is asked for that could not be kept.
pub(super) fn probe(folder: &Path) -> Result<(), Error> {
    let file = folder.join(".narrows-head-probe");
    // One that an interrupted attempt has left is removed. No link is followed that somebody else has put there.
    let left = match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let probed = left.and_then(|()| OpenOptions::new().write(true).create_new(true).open(&file));
    probed.and_then(|_| fs::remove_file(&file)).map_err(|source| unwritten(folder, source))
}

/// What tells two versions of the files of an identity apart.
pub(super) fn versions(folder: &Path) -> Vec<Option<(u64, u64, i64, i64)>> {
    let version = |file: &str| {
        let file = fs::metadata(folder.join(file)).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    ["ca.pem", "cert.pem", "key.pem", RENEWED].map(version).to_vec()
}

fn chain_text(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
}

/// Writes a file aside and renames it, so that all of it is there or none, also after a loss of power. What root writes belongs to the
/// owner of the folder.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = folder.join(format!(".{name}.new"));
    let written = || {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        new.write_all(text.as_bytes())?;
        let (owner, made) = (fs::metadata(folder)?, new.metadata()?);
        if made.uid() == 0 && owner.uid() != 0 {
            // Of the file that is open: the owner of the folder could have put a link in its place.
            fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
        }
        new.sync_all()?;
        fs::rename(&aside, file)?;
        sync(folder)
    };
    written().map_err(|source| unwritten(file, source))
}

/// Makes what was renamed or removed in a folder last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unwritten(file: &Path, source: io::Error) -> Error {
    Error::Output { place: Escaped(file).to_string(), source }
}

/// The share of its life after which a certificate is renewed: two thirds.
const SHARE: (i64, i64) = (2, 3);

/// When an identity is to be renewed, in seconds since 1970; its certificate's end as well.
pub(super) fn due(identity: &Identity) -> Option<(i64, i64)> {
    let own = identity.validity().ok()?.first().copied()?;
    let life = own.until.saturating_sub(own.from);
    Some((own.from.saturating_add(life / SHARE.1 * SHARE.0), own.until))
}

/// Whether the clock of this device cannot be right, because the certificate that it has used begins later.
pub(super) fn is_early(identity: &Identity) -> bool {
    identity.validity().ok().and_then(|all| all.first().copied()).is_some_and(|own| clock::now() < own.from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer};

    use super::*;

    struct Authority {
        key: KeyPair,
        params: CertificateParams,
        der: CertificateDer<'static>,
    }

    impl Authority {
        fn new() -> Authority {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let der = params.self_signed(&key).unwrap().into();
            Authority { key, params, der }
        }

        fn sign(&self, key: &Key, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(vec!["cam".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            params.signed_by(&key.pair, &Issuer::from_params(&self.params, &self.key)).unwrap().into()
        }
    }

    fn server() -> Server {
        Server::parse("tail.local:7463").unwrap()
    }

    fn identity(
        folder: &Path,
        ca: &Authority,
        key: &Key,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<NewIdentity, Error> {
        let now = clock::now();
        check(folder, ca.der.clone(), vec![ca.sign(key, usage)], key, now, now, &server())
    }

    #[test]
    fn what_a_server_answers_is_checked_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, other) = (Authority::new(), Authority::new());
        let (key, foreign) = (Key::generate().unwrap(), Key::generate().unwrap());
        let now = clock::now();
        let refused = |ca: &Authority, chain, word: &str| {
            let error = check(folder.path(), ca.der.clone(), chain, &key, now, now, &server()).err().unwrap();
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("tail.local:7463"), "{text}");
        };
        let device = || ExtendedKeyUsagePurpose::ClientAuth;
        refused(&ca, Vec::new(), "no certificate");
        refused(&ca, vec![ca.sign(&foreign, device())], "another key");
        refused(&ca, vec![ca.sign(&key, ExtendedKeyUsagePurpose::ServerAuth)], "not a device's");
        refused(&other, vec![ca.sign(&key, device())], "not signed by the CA");
        refused(&ca, vec![b"damaged".to_vec().into()], "tail.local");
        assert!(identity(folder.path(), &ca, &key, device()).is_ok());
    }

    #[test]
    fn a_renewal_that_is_interrupted_anywhere_leaves_a_key_with_its_certificate() {
        let root = tempfile::tempdir().unwrap();
        let (path, ca) = (root.path().join("identity"), Authority::new());
        let folder = Folder::begin(&path).unwrap();
        let key = folder.key().unwrap();
        assert_eq!(folder.key().unwrap().public_key(), key.public_key(), "the same key goes on");
        let mode = |file: &str| path.join(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("key.pem"), mode("")), (0o600, 0o700));
        let first = identity(&path, &ca, &key, ExtendedKeyUsagePurpose::ClientAuth).unwrap();
        folder.write(&first, &server()).unwrap();
        assert_eq!(renew_at(&path).unwrap(), Some(server()));
        assert!(matches!(Folder::begin(&path), Err(Error::Enrolled { .. })));
        let new = Key::generate().unwrap();
        let second = identity(&path, &ca, &new, ExtendedKeyUsagePurpose::ClientAuth).unwrap();
        let both = format!("{}{}", new.pem, chain_text(&second.chain));
        let in_use = || {
            let identity = Identity::load(&path).unwrap();
            assert_eq!(client_fault(&identity).unwrap(), None);
            CertificateInfo::read(&identity.chain()[0]).unwrap().public_key
        };
        for step in 0..3 {
            write(&path.join(RENEWED), &both, 0o600).unwrap();
            assert_eq!(in_use(), new.public_key());
            if step > 0 {
                write(&path.join("key.pem"), &new.pem, 0o600).unwrap();
                assert_eq!(in_use(), new.public_key());
            }
            if step > 1 {
                write(&path.join("cert.pem"), &chain_text(&second.chain), 0o644).unwrap();
            }
            settle(&path).unwrap();
            assert!(!path.join(RENEWED).exists() && in_use() == new.public_key());
            write(&path.join("key.pem"), &key.pem, 0o600).unwrap();
            write(&path.join("cert.pem"), &chain_text(&first.chain), 0o644).unwrap();
            assert_eq!(in_use(), key.public_key());
        }
        replace(&path, &second, &new).unwrap();
        assert_eq!((in_use(), mode("key.pem")), (new.public_key(), 0o600));
        settle(&path).unwrap();
    }

    #[test]
    fn two_thirds_of_its_life_a_certificate_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, key) = (Authority::new(), Key::generate().unwrap());
        let found = identity(folder.path(), &ca, &key, ExtendedKeyUsagePurpose::ClientAuth).unwrap();
        let private = PrivateKeyDer::from_pem_slice(key.pem.as_bytes()).unwrap();
        let identity = Identity::of(vec![ca.der.clone()], found.chain.clone(), private, folder.path());
        let (due, until) = due(&identity).unwrap();
        let (from, life) = (found.info.from, found.info.until - found.info.from);
        assert!(until == found.info.until && (due - from - life * 2 / 3).abs() <= 2);
        assert!(!is_early(&identity));
    }
}
