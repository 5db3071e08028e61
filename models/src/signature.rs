//! Signatures of bundles after the OpenSSF Model Signing specification 1.0: `model.sig` is a sigstore bundle with a DSSE envelope around
//! an in-toto statement, which lists every file of the folder with its SHA-256 (BUNDLE.md, section 11).
//!
//! The specification's own tool, `model_signing` of PyPI, verifies what is signed here, and the other way round.

mod fault;
mod key;
mod record;
mod statement;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use self::statement::{Envelope, Statement};
pub use self::{
    fault::SignatureFault,
    key::PublicKey,
    record::{NewestRecord, is_older},
    statement::SIGNATURE,
};
use crate::{Digest, Error, bundle::read_file};

/// Largest signature file in bytes: some thousand files.
const SIGNATURE_MAX: u64 = 1 << 20;
/// Largest signed file in bytes, as for parts.
const FILE_MAX: u64 = 1 << 31;
/// Most files of a bundle's folder.
const FILES_MAX: usize = 4096;

/// Verifies that one of `keys` has signed the manifest in the folder `dir`; returns the digest of the manifest, which is the bundle's
/// identity. No other file is read: their digests are in the manifest, and are compared when they are used.
///
/// # Errors
/// [`Error::Signature`], or the reason why a file cannot be read.
pub fn verify_manifest(dir: &Path, keys: &[PublicKey]) -> Result<Digest, Error> {
    let statement = verified(dir, keys)?;
    let found = Digest::of(&read_file(dir, "manifest.toml", 1 << 20)?);
    match statement.digest_of("manifest.toml") {
        Some(signed) if signed == found => Ok(found),
        Some(_) => Err(Error::signature(dir, SignatureFault::Changed { file: "manifest.toml".to_owned() })),
        None => Err(Error::signature(dir, SignatureFault::Added { file: "manifest.toml".to_owned() })),
    }
}

/// Verifies that one of `keys` has signed every file in the folder `dir`, and that none is missing; returns how many there are.
///
/// # Errors
/// [`Error::Signature`], or the reason why a file cannot be read.
pub fn verify_all(dir: &Path, keys: &[PublicKey]) -> Result<usize, Error> {
    let statement = verified(dir, keys)?;
    let (files, _) = files(dir, &statement.ignored())?;
    for (name, signed) in statement.resources() {
        if !files.contains(name) {
            return Err(Error::signature(dir, SignatureFault::Gone { file: name.to_owned() }));
        }
        if Digest::of(&read_file(dir, name, FILE_MAX)?) != signed {
            return Err(Error::signature(dir, SignatureFault::Changed { file: name.to_owned() }));
        }
    }
    if let Some(file) = files.iter().find(|file| statement.digest_of(file).is_none()) {
        return Err(Error::signature(dir, SignatureFault::Added { file: file.clone() }));
    }
    Ok(files.len())
}

/// Signs every file in the folder `dir` of a bundle, and returns the text of `model.sig`. `key` is the public half of the key by which
/// `sign` makes a signature (ECDSA in ASN.1) of bytes; `None` if it cannot.
///
/// # Errors
/// The reason why a file cannot be read; [`SignatureFault::Key`] where `sign` makes no signature that fits `key`.
pub fn sign(dir: &Path, key: &PublicKey, sign: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<String, Error> {
    let (files, has_links) = files(dir, &statement::IGNORED.map(PathBuf::from))?;
    let mut resources = Vec::new();
    for file in files {
        let digest = Digest::of(&read_file(dir, &file, FILE_MAX)?);
        resources.push((file, digest));
    }
    let name = fs::canonicalize(dir).ok();
    let name = name.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let payload = statement::write(&name.unwrap_or_default(), &resources, has_links);
    let signed = sign(&statement::pae(payload.as_bytes())).map(|bytes| Envelope::new(payload, bytes));
    match signed.filter(|envelope| envelope.fits(key)) {
        Some(envelope) => Ok(envelope.write(key)),
        None => Err(Error::signature(dir, SignatureFault::Key)),
    }
}

/// What one of `keys` has signed.
fn verified(dir: &Path, keys: &[PublicKey]) -> Result<Statement, Error> {
    let text = match read_file(dir, SIGNATURE, SIGNATURE_MAX) {
        Err(Error::Missing { .. }) if dir.join("manifest.toml").exists() => {
            return Err(Error::signature(dir, SignatureFault::Missing));
        }
        text => text?,
    };
    let malformed = |reason: String| Error::signature(dir, SignatureFault::Malformed(reason));
    let envelope = Envelope::parse(&text).map_err(malformed)?;
    let named = envelope.hint.as_deref();
    let candidates: Vec<&PublicKey> =
        keys.iter().filter(|key| named.is_none_or(|hint| hint == key.hint())).collect();
    if candidates.is_empty() {
        let by = named.unwrap_or("unknown").chars().take(64).filter(char::is_ascii_hexdigit).collect();
        let trusted = keys.iter().map(PublicKey::hint).collect::<Vec<_>>().join(", ");
        return Err(Error::signature(dir, SignatureFault::OtherKey { by, trusted }));
    }
    if !candidates.iter().any(|key| envelope.fits(key)) {
        return Err(Error::signature(dir, SignatureFault::Forged));
    }
    envelope.statement().map_err(malformed)
}

/// The files below a folder by their names relative to it, in order, without those that are ignored; and whether there are links.
fn files(dir: &Path, ignored: &[PathBuf]) -> Result<(BTreeSet<String>, bool), Error> {
    let (mut found, mut has_links) = (BTreeSet::new(), false);
    let mut folders = vec![PathBuf::new()];
    let failed = |path: &Path, source: io::Error| Error::Read { path: path.to_owned(), source };
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        for entry in fs::read_dir(&path).map_err(|source| failed(&path, source))? {
            let entry = entry.map_err(|source| failed(&path, source))?;
            let relative = folder.join(entry.file_name());
            if ignored.contains(&relative) {
                continue;
            }
            let kind = entry.file_type().map_err(|source| failed(&entry.path(), source))?;
            if kind.is_dir() {
                folders.push(relative);
                continue;
            }
            has_links |= kind.is_symlink();
            let name = relative.to_str().filter(|_| found.len() + folders.len() < FILES_MAX);
            let name = name.ok_or_else(|| {
                let reason = format!("the name is not UTF-8, or there are more than {FILES_MAX} files");
                failed(&entry.path(), io::Error::new(io::ErrorKind::InvalidData, reason))
            })?;
            found.insert(name.to_owned());
        }
    }
    Ok((found, has_links))
}

#[cfg(test)]
mod tests;
