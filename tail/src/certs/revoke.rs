//! The revocation of devices.

use std::path::{Path, PathBuf};

use narrows_wire::identity::{CertificateInfo, IdentityError, RevocationList, certificates};
use rustls_pki_types::CertificateDer;

use super::{
    authority::{self, Authority},
    date::now,
    error::Error,
    files::replace,
    name, records,
};

/// Most names of devices in an error.
const KNOWN_MAX: usize = 20;

/// A revocation that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// The files of the revocation list.
    pub files: Vec<PathBuf>,
    /// Number of the device's certificates that the list names: the present one and those that it was renewed from.
    pub certificates: usize,
}

/// Revokes every certificate of a device: writes a new revocation list, `dir/crl.pem`, and a copy into the server's identity
/// if that is in `dir`. A server that reads it refuses the device and closes its connections.
///
/// # Errors
/// [`Error::Unknown`] if no certificate was issued to a device of this name; [`Error::Identity`] or [`Error::Ca`] if the CA
/// is missing or damaged, or the present list is; [`Error::File`] if the list cannot be written.
pub fn revoke(dir: &Path, device: &str) -> Result<Revocation, Error> {
    name::check_device(device)?;
    let ca = Authority::open(dir)?;
    let records = records::all(dir)?;
    newest_of(&records, device)?;
    let present = present_list(dir, ca.certificate())?;
    let mut revoked: Vec<(Vec<u8>, i64)> =
        present.iter().flat_map(|list| list.revoked()).map(|one| (one.serial.clone(), one.at)).collect();
    let mut certificates = 0;
    for info in records.iter().filter(|info| is_of(info, device)) {
        certificates += 1;
        if revoked.iter().all(|(serial, _)| *serial != info.serial) {
            revoked.push((info.serial.clone(), now().unix_timestamp()));
        }
    }
    let number = present.map_or(0, |list| list.number()).saturating_add(1);
    let text = ca.revoke(number, &revoked)?;
    let mut files = vec![dir.join("crl.pem")];
    let server = dir.join("server");
    if server.is_dir() {
        files.push(server.join("crl.pem"));
    }
    for file in &files {
        replace(file, &text, 0o644)?;
    }
    Ok(Revocation { files, certificates })
}

/// The present revocation list of the CA in `dir`: that beside the CA, or where that is missing the server's.
pub(crate) fn present_list(dir: &Path, ca: &CertificateDer<'_>) -> Result<Option<RevocationList>, Error> {
    let files = [dir.join("crl.pem"), dir.join("server").join("crl.pem")];
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Ok(Some(RevocationList::load(file, std::slice::from_ref(ca))?)),
        None => Ok(None),
    }
}

/// The revocation list of the CA in `dir`, whose key is not needed.
pub(super) fn list_of(dir: &Path) -> Result<(CertificateInfo, Option<RevocationList>), Error> {
    let file = authority::files(dir)[0].clone();
    let certificate = certificates(&file)?.remove(0);
    let info = CertificateInfo::read(&certificate).map_err(|reason| IdentityError::Dates { file, reason })?;
    Ok((info, present_list(dir, &certificate)?))
}

/// The newest certificate of a device.
pub(super) fn newest_of(records: &[CertificateInfo], device: &str) -> Result<CertificateInfo, Error> {
    let newest = records.iter().rfind(|info| is_of(info, device));
    newest.cloned().ok_or_else(|| {
        let mut names: Vec<&str> = records
            .iter()
            .filter(|info| info.kind.connects())
            .filter_map(|info| info.names.first().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        let more = if names.len() > KNOWN_MAX { ", …" } else { "" };
        names.truncate(KNOWN_MAX);
        let known = match names.is_empty() {
            true => "none was issued to any device (narrows-tail certs device NAME makes one)".to_owned(),
            false => format!("there are {}{more} (narrows-tail certs list)", names.join(", ")),
        };
        Error::Unknown { name: device.to_owned(), known }
    })
}

/// Whether a certificate is one of this device.
pub(crate) fn is_of(info: &CertificateInfo, device: &str) -> bool {
    info.kind.connects() && info.names.first().is_some_and(|name| name == device)
}
