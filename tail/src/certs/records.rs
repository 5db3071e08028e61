//! The record of the certificates that a CA has signed: `DIR/issued/SERIAL.pem`, one file each.

use std::{collections::BTreeMap, fs, io, path::Path};

use narrows_wire::identity::{CertificateInfo, IdentityError, certificates};
use rcgen::Certificate;

use super::{
    error::Error,
    files::{create, create_folder},
};

/// Records a certificate.
pub(super) fn add(dir: &Path, certificate: &Certificate) -> Result<(), Error> {
    let folder = dir.join("issued");
    create_folder(&folder)?;
    let info = CertificateInfo::read(certificate.der()).map_err(|reason| damaged(&folder, reason))?;
    create(&folder.join(format!("{}.pem", hex(&info.serial))), &certificate.pem(), 0o644)
}

/// The certificates that were recorded, and those in the folders of the server and of the devices, which may be older than
/// the record; oldest first.
pub(crate) fn all(dir: &Path) -> Result<Vec<CertificateInfo>, Error> {
    let mut found = BTreeMap::new();
    let recorded = entries(&dir.join("issued"))?;
    let devices = entries(&dir.join("devices"))?.into_iter().map(|folder| folder.join("cert.pem"));
    let server = dir.join("server").join("cert.pem");
    let pem = |file: &Path| file.extension().is_some_and(|extension| extension == "pem") && file.is_file();
    for file in recorded.into_iter().chain(devices).chain([server]).filter(|file| pem(file)) {
        for certificate in certificates(&file)? {
            let info = CertificateInfo::read(&certificate).map_err(|reason| damaged(&file, reason))?;
            found.insert(info.serial.clone(), info);
        }
    }
    let mut found: Vec<CertificateInfo> = found.into_values().collect();
    found.sort_by_key(|info| (info.from, info.until));
    Ok(found)
}

/// A serial number in hexadecimal digits.
pub(super) fn hex(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| Error::File { file: folder.to_owned(), source }),
    }
}

fn damaged(file: &Path, reason: String) -> Error {
    IdentityError::Dates { file: file.to_owned(), reason }.into()
}
