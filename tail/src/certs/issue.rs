//! New and renewed identities.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use narrows_wire::identity::{CertificateInfo, CertificateKind, IdentityError, certificates};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

use super::{
    authority::{self, Authority, IDENTITY_VALID, Request},
    error::Error,
    files::{create_folder, identity, refuse_existing, replace},
    name, records,
    revoke::{is_of, newest_of, present_list},
};

/// Names that every server identity carries, so that head and tail work on one machine without further names.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Whether a renewed certificate is for the key that the side has or for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The key stays. Only its public half is needed, from the certificate that is renewed.
    Keep,
    /// A new key is made. For a server this ends the stateless resets by which heads find a restarted server at once, until
    /// both have met again.
    New,
}

/// An identity that was made or renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether the private key is in the folder. If not, the certificate is for the key that is where the folder was copied
    /// to.
    pub has_key: bool,
}

/// Makes a CA (`ca.pem`, `ca.key`) and the server's identity (`server/`) in `dir`. `names` are the names and addresses by
/// which devices connect to the server; `localhost`, `127.0.0.1` and `::1` are always added.
///
/// # Errors
/// [`Error::Exists`] if any of the files exists, in which case nothing is written; [`Error::File`] if one cannot be
/// written; [`Error::Name`] for a name that is not a host name or address.
pub fn init(dir: &Path, names: &[String]) -> Result<Issued, Error> {
    let folder = dir.join("server");
    refuse_existing(authority::files(dir).iter().chain(&identity(&folder)))?;
    let names = with_local_names(names)?;
    let ca = Authority::create(dir)?;
    write(&ca, &folder, &server_request(&names), None)
}

/// Makes the identity of a device in `dir/devices/name`, signed by the CA in `dir`. The server's log calls the device by
/// `name`.
///
/// # Errors
/// [`Error::Identity`] or [`Error::Ca`] if the CA is missing or damaged, [`Error::Exists`] if the identity exists, and
/// [`Error::Name`] if the name is not 1 to 63 characters of `a-z 0-9 -` with dots between parts.
pub fn device(dir: &Path, name: &str) -> Result<Issued, Error> {
    name::check_device(name)?;
    let folder = dir.join("devices").join(name);
    refuse_existing(&identity(&folder))?;
    let ca = Authority::open(dir)?;
    write(&ca, &folder, &device_request(name, &[name.to_owned()]), None)
}

/// Renews the server's certificate in `dir/server`, with the names that it has and `names`. Where the CA has signed none for
/// a server yet, it is made.
///
/// # Errors
/// [`Error::Identity`] or [`Error::Ca`] if the CA or the certificate is missing or damaged, [`Error::Name`] for a name that
/// is not a host name or address, [`Error::File`] if a file cannot be written.
pub fn server(dir: &Path, names: &[String], key: Key) -> Result<Issued, Error> {
    let folder = dir.join("server");
    let added = with_local_names(names)?;
    let ca = Authority::open(dir)?;
    let present = match present(&folder)? {
        Some(info) => Some(info),
        None => records::all(dir)?.into_iter().rfind(|info| info.kind == CertificateKind::Server),
    };
    let mut all = present.as_ref().map_or_else(Vec::new, |info| info.names.clone());
    all.extend(added.into_iter().filter(|name| !all.contains(name)).collect::<Vec<_>>());
    write(&ca, &folder, &server_request(&all), present.filter(|_| key == Key::Keep))
}

/// Renews the certificate of a device in `dir/devices/name`.
///
/// # Errors
/// [`Error::Unknown`] if there is none, [`Error::Revoked`] if it is revoked; otherwise as [`server`].
pub fn renew(dir: &Path, name: &str, key: Key) -> Result<Issued, Error> {
    name::check_device(name)?;
    let folder = dir.join("devices").join(name);
    let ca = Authority::open(dir)?;
    // Certificates of the same second have no order, so the one in the folder comes before what was recorded.
    let newest = match present(&folder)?.filter(|info| is_of(info, name)) {
        Some(info) => info,
        None => newest_of(&records::all(dir)?, name)?,
    };
    let list = present_list(dir, ca.certificate())?;
    if list.is_some_and(|list| list.revoked().iter().any(|one| one.serial == newest.serial)) {
        return Err(Error::Revoked { name: name.to_owned(), folder });
    }
    let names = newest.names.clone();
    write(&ca, &folder, &device_request(name, &names), Some(newest).filter(|_| key == Key::Keep))
}

/// Signs a certificate for the key that a device has made, valid for this time, and records it.
///
/// # Errors
/// [`Error::Make`] or [`Error::File`].
pub(crate) fn for_device(
    ca: &Authority,
    names: &[String],
    key: &impl PublicKeyData,
    valid: Duration,
) -> Result<CertificateDer<'static>, Error> {
    let subject = names.first().map_or("", String::as_str);
    let request = Request { valid, ..device_request(subject, names) };
    Ok(ca.sign(&request, key)?.into())
}

/// Signs an identity for the key of `present`, or for a new one, and writes it.
fn write(
    ca: &Authority,
    folder: &Path,
    request: &Request<'_>,
    present: Option<CertificateInfo>,
) -> Result<Issued, Error> {
    let [ca_file, certificate_file, key_file] = identity(folder);
    let (certificate, key) = match present {
        Some(info) => {
            let key = SubjectPublicKeyInfo::from_der(&info.public_key).map_err(Error::Make)?;
            (ca.sign(request, &key)?.pem(), None)
        }
        None => {
            let key = KeyPair::generate().map_err(Error::Make)?;
            (ca.sign(request, &key)?.pem(), Some(key))
        }
    };
    create_folder(folder)?;
    // A running server reads them when they change. While only one of the two is new they do not fit, and it waits.
    if let Some(key) = key {
        replace(&key_file, &key.serialize_pem(), 0o600)?;
    }
    replace(&certificate_file, &certificate, 0o644)?;
    if !ca_file.exists() {
        replace(&ca_file, ca.pem(), 0o644)?;
    }
    Ok(Issued { folder: folder.to_owned(), has_key: key_file.exists() })
}

fn server_request(names: &[String]) -> Request<'_> {
    Request {
        names,
        subject: "narrows server",
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        valid: IDENTITY_VALID,
    }
}

fn device_request<'a>(name: &'a str, names: &'a [String]) -> Request<'a> {
    Request { names, subject: name, usage: ExtendedKeyUsagePurpose::ClientAuth, valid: IDENTITY_VALID }
}

/// The server's names in a certificate: the local ones and these.
fn with_local_names(names: &[String]) -> Result<Vec<String>, Error> {
    let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
    for name in names {
        let name = name::server(name)?;
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

/// The certificate in the folder of an identity.
fn present(folder: &Path) -> Result<Option<CertificateInfo>, Error> {
    let file = folder.join("cert.pem");
    if !file.exists() {
        return Ok(None);
    }
    let info = CertificateInfo::read(&certificates(&file)?[0]);
    Ok(Some(info.map_err(|reason| IdentityError::Dates { file, reason })?))
}
