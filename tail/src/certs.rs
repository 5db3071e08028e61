//! `narrows-tail certs`: a private CA, the server's identity and one identity per device.
#![expect(clippy::disallowed_methods, reason = "certificates begin to be valid now")]

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The validity of the CA. A new CA has to be copied to every device, so it is longer than the life of the hardware.
const CA_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The validity of an identity: 825 days, the longest that common TLS libraries accept from the server of a private CA.
const IDENTITY_VALID: Duration = Duration::from_secs(825 * 24 * 60 * 60);

/// Names that every server identity carries, so that head and tail work on one machine without further names.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The reason why certificates could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file exists; files are never overwritten.
    #[error("{} exists; nothing was written (remove it, or choose another --dir)", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The name cannot be part of a certificate.
    #[error("{name}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The CA's certificate or key is damaged.
    #[error("{} is damaged", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: rcgen::Error,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
}

/// Makes a CA (`ca.pem`, `ca.key`) and the server's identity (`server/`) in `dir`, and returns the identity's folder.
/// `names` are the names and addresses by which devices connect to the server; `localhost`, `127.0.0.1` and `::1` are
/// always added.
///
/// # Errors
/// [`Error::Exists`] if any of the files exists, in which case nothing is written; [`Error::File`] if one cannot be
/// written; [`Error::Name`] for a name that is not a host name or address.
pub fn init(dir: &Path, names: &[String]) -> Result<PathBuf, Error> {
    let server = dir.join("server");
    let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    refuse_existing([&certificate, &key].into_iter().chain(&files(&server)))?;
    let ca_key = KeyPair::generate().map_err(Error::Make)?;
    let mut params = params(&[], "narrows CA", CA_VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&ca_key).map_err(Error::Make)?;
    let issuer = Issuer::new(params, &ca_key);
    let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
    let names = names.iter().map(|name| without_zone(name));
    all.extend(names.filter(|name| !LOCAL_NAMES.contains(name)).map(str::to_owned));
    let identity = Identity::make(&issuer, &all, "narrows server", ExtendedKeyUsagePurpose::ServerAuth)?;
    create_folder(dir)?;
    write(&certificate, &ca.pem(), 0o644)?;
    write(&key, &ca_key.serialize_pem(), 0o600)?;
    identity.write(&server, &ca.pem())?;
    Ok(server)
}

/// Makes the identity of a device in `dir/devices/name`, signed by the CA in `dir`, and returns the identity's folder. The
/// server's log calls the device by `name`.
///
/// # Errors
/// [`Error::File`] or [`Error::Ca`] if the CA is missing or damaged, [`Error::Exists`] if the identity exists, and
/// [`Error::Name`] if the name is not 1 to 63 characters of `a-z 0-9 -` with dots between parts.
pub fn device(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    check_device(name)?;
    let folder = dir.join("devices").join(name);
    refuse_existing(&files(&folder))?;
    let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let ca = read(&certificate)?;
    let ca_key = KeyPair::from_pem(&read(&key)?).map_err(|source| Error::Ca { file: key, source })?;
    let issuer =
        Issuer::from_ca_cert_pem(&ca, &ca_key).map_err(|source| Error::Ca { file: certificate, source })?;
    let identity = Identity::make(&issuer, &[name.to_owned()], name, ExtendedKeyUsagePurpose::ClientAuth)?;
    identity.write(&folder, &ca)?;
    Ok(folder)
}

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    fn make(
        issuer: &Issuer<'_, &KeyPair>,
        names: &[String],
        subject: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, Error> {
        let key = KeyPair::generate().map_err(Error::Make)?;
        let mut params = params(names, subject, IDENTITY_VALID)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, issuer).map_err(Error::Make)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn write(&self, folder: &Path, ca: &str) -> Result<(), Error> {
        create_folder(folder)?;
        let [ca_file, certificate, key] = files(folder);
        write(&ca_file, ca, 0o644)?;
        write(&certificate, &self.certificate, 0o644)?;
        write(&key, &self.key, 0o600)
    }
}

fn params(names: &[String], subject: &str, valid: Duration) -> Result<CertificateParams, Error> {
    for name in names {
        check_host(name)?;
    }
    let mut params = CertificateParams::new(names).map_err(Error::Make)?;
    params.distinguished_name.push(DnType::CommonName, subject);
    // One day in the past, because devices without a battery-backed clock start with an old time.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + valid).into();
    Ok(params)
}

/// A host without the zone of a link-local address (`fe80::1%eth0`), which means something on one machine only.
fn without_zone(name: &str) -> &str {
    match name.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.parse::<std::net::Ipv6Addr>().is_ok() => address,
        _ => name,
    }
}

fn check_host(name: &str) -> Result<(), Error> {
    use rustls_pki_types::ServerName;
    match ServerName::try_from(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Name { name: name.to_owned(), reason: "is no host name or IP address".into() }),
    }
}

fn check_device(name: &str) -> Result<(), Error> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    // A name in the form of an address would become an address in the certificate.
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if (1..=63).contains(&name.len()) && name.split('.').all(part) && !numeric {
        return Ok(());
    }
    let reason = "a device's name is 1 to 63 characters of a-z 0-9 -, with dots between parts, and no number";
    Err(Error::Name { name: name.to_owned(), reason: reason.into() })
}

fn files(folder: &Path) -> [PathBuf; 3] {
    ["ca.pem", "cert.pem", "key.pem"].map(|file| folder.join(file))
}

fn refuse_existing<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Error> {
    match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(Error::Exists { file: file.clone() }),
        None => Ok(()),
    }
}

fn create_folder(folder: &Path) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).create(folder);
    created.map_err(|source| Error::File { file: folder.to_owned(), source })
}

/// Writes a new file that has these permissions from its creation on.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(file).and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { file: file.to_owned() },
        _ => Error::File { file: file.to_owned(), source },
    })
}

fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|source| Error::File { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use narrows_wire::{
        identity::{Identity, name_of},
        quic::{Tuning, client_config, server_config},
    };
    use rustls_pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    fn name_in(folder: &Path) -> String {
        name_of(&CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap()
    }

    #[test]
    fn quic_accepts_the_ca_the_server_and_the_devices() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("certs");
        let server = init(&dir, &["tail.example".into(), "10.0.0.7".into()]).unwrap();
        assert_eq!(server, dir.join("server"));
        assert_eq!(name_in(&server), "localhost");
        let camera = device(&dir, "cam-1.yard").unwrap();
        assert_eq!(camera, dir.join("devices/cam-1.yard"));
        assert_eq!(name_in(&camera), "cam-1.yard");
        server_config(&Identity::load(&server).unwrap(), &Tuning::default()).unwrap();
        client_config(&Identity::load(&camera).unwrap(), &Tuning::default()).unwrap();
        for key in ["ca.key", "server/key.pem", "devices/cam-1.yard/key.pem"] {
            let mode = dir.join(key).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn the_zone_of_an_address_is_not_part_of_the_certificate() {
        assert_eq!(without_zone("fe80::1%eth0"), "fe80::1");
        for name in ["fe80::1", "fe80::1%", "tail%eth0", "10.0.0.7%1"] {
            assert_eq!(without_zone(name), name);
        }
        let folder = tempfile::tempdir().unwrap();
        init(&folder.path().join("a"), &["fe80::1%eth0".into(), "fe80::2%3".into()]).unwrap();
        assert!(init(&folder.path().join("b"), &["fe80::1%".into()]).is_err());
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        init(dir, &[]).unwrap();
        let before = read(&dir.join("ca.pem")).unwrap();
        let error = init(dir, &[]).unwrap_err();
        assert!(error.to_string().contains("ca.pem exists; nothing was written"), "{error}");
        assert_eq!(read(&dir.join("ca.pem")).unwrap(), before);
        device(dir, "cam").unwrap();
        assert!(matches!(device(dir, "cam"), Err(Error::Exists { .. })));
        std::fs::remove_file(dir.join("ca.pem")).unwrap();
        std::fs::remove_file(dir.join("ca.key")).unwrap();
        assert!(matches!(init(dir, &[]), Err(Error::Exists { .. })), "a server identity is kept too");
        assert!(!dir.join("ca.pem").exists(), "and no half of a new CA is left");
    }

    #[test]
    fn a_device_cannot_be_made_without_the_ca() {
        let folder = tempfile::tempdir().unwrap();
        let error = device(folder.path(), "cam").unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
        init(folder.path(), &[]).unwrap();
        std::fs::write(folder.path().join("ca.key"), "no key").unwrap();
        let error = device(folder.path(), "cam").unwrap_err();
        assert!(error.to_string().contains("ca.key"), "{error}");
        assert!(!folder.path().join("devices").exists());
    }

    #[test]
    fn names_that_would_leave_the_folder_or_the_certificate_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &[]).unwrap();
        for name in
            ["", ".", "..", "../x", "a/b", "A", "a b", "-a", "a-", "a..b", "1.2.3.4", "7", &"a".repeat(64)]
        {
            assert!(matches!(device(folder.path(), name), Err(Error::Name { .. })), "{name}");
        }
        let error = init(&folder.path().join("new"), &["not a host".into()]).unwrap_err();
        assert!(error.to_string().contains("not a host"), "{error}");
        assert!(!folder.path().join("new").exists());
    }
}
