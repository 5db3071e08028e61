//! `narrows-tail bundle`: keys, signatures and their verification (models/BUNDLE.md, section 11).

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use narrows_models::{
    Bundle, Parts,
    signature::{self, PublicKey, SignatureFault},
};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use crate::files::aside;

/// The reason why a bundle cannot be signed or is not what was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle, or its signature.
    #[error(transparent)]
    Bundle(#[from] narrows_models::Error),
    /// A file of a key cannot be used.
    #[error("{}: no private key that can sign: it must be of P-256 or P-384, in PEM as PKCS #8 (openssl pkcs8 -topk8 -nocrypt)", file.display())]
    PrivateKey {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A file of public keys cannot be used.
    #[error("{}", file.display())]
    PublicKey {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: SignatureFault,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The private key can be read by others.
    #[error(transparent)]
    Identity(#[from] narrows_wire::identity::IdentityError),
}

/// Makes a key: the private half in `file`, which must not exist and which this user alone can read, the public half beside it with
/// `.pub` behind its name. Returns the file of the public half and its hint.
///
/// # Errors
/// [`Error::File`] or [`Error::PrivateKey`].
pub fn key(file: &Path) -> Result<(PathBuf, String), Error> {
    let pair = KeyPair::generate().map_err(|source| Error::PrivateKey { file: file.to_owned(), source })?;
    let der = pair.subject_public_key_info();
    let public = file.with_added_extension("pub");
    write(file, &pair.serialize_pem(), 0o600, false)?;
    write(&public, &PublicKey::pem_of(&der), 0o644, false)?;
    let key =
        PublicKey::from_der(&der).map_err(|source| Error::PublicKey { file: public.clone(), source })?;
    Ok((public, key.hint().to_owned()))
}

/// Signs the bundle in a folder with a private key and writes `model.sig` into it; returns the hint of the key. The bundle is opened
/// first, so that nothing is signed that no head or tail would take.
///
/// # Errors
/// [`Error`].
pub fn sign(dir: &Path, key: &Path) -> Result<String, Error> {
    let text = String::from_utf8_lossy(&narrows_wire::identity::read_private(key)?).into_owned();
    let unusable = |source| Error::PrivateKey { file: key.to_owned(), source };
    let pair = KeyPair::from_pem(&text).map_err(unusable)?;
    let public = PublicKey::from_der(&pair.subject_public_key_info())
        .map_err(|source| Error::PublicKey { file: key.to_owned(), source })?;
    Bundle::open(dir, Parts::All)?;
    let signed = signature::sign(dir, &public, |bytes| pair.sign(bytes).ok())?;
    write(&dir.join(signature::SIGNATURE), &signed, 0o644, true)?;
    Ok(public.hint().to_owned())
}

/// Verifies that one of the public keys in these files has signed every file in the folder of a bundle; returns their number.
///
/// # Errors
/// [`Error`].
pub fn verify(dir: &Path, keys: &[PathBuf]) -> Result<usize, Error> {
    let mut all = Vec::new();
    for file in keys {
        let text = narrows_service::read_text(file);
        let text = text.map_err(|source| Error::File { file: file.clone(), source })?;
        let found = PublicKey::all_from_pem(&text);
        all.extend(found.map_err(|source| Error::PublicKey { file: file.clone(), source })?);
    }
    Ok(signature::verify_all(dir, &all)?)
}

/// Writes a file aside and renames it.
fn write(file: &Path, text: &str, mode: u32, replace: bool) -> Result<(), Error> {
    let written = || {
        let mut aside = aside(file, mode)?;
        aside.write_all(text.as_bytes())?;
        aside.as_file().sync_all()?;
        match replace {
            true => aside.persist(file),
            false => aside.persist_noclobber(file),
        }
        .map_err(|error| error.error)?;
        fs::File::open(crate::files::folder_of(file))?.sync_all()
    };
    written().map_err(|source| Error::File { file: file.to_owned(), source })
}
