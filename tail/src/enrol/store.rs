//! The files of tokens and requests.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, lchown},
    path::{Path, PathBuf},
};

use narrows_service::read_text;
use narrows_wire::{enrol::TokenId, identity::Fingerprint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::Error;
use crate::{
    certs::{self, create_folder, replace},
    files::folder_of,
};

/// A token as it is kept: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRecord {
    /// The name of the device that it is for, or a pattern of names.
    pub(super) names: String,
    /// The digest of its secret, in hexadecimal digits.
    pub(super) secret: String,
    /// When it was made, in seconds since 1970.
    pub(super) made: i64,
    /// Its last second.
    pub(super) ends: i64,
    /// By whom it was used.
    pub(super) used: Option<Use>,
}

/// The use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Use {
    pub(super) at: i64,
    /// The name that the device was given.
    pub(super) name: String,
    /// The fingerprint of its key, in hexadecimal digits.
    pub(super) key: String,
}

/// A device's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestRecord {
    pub(super) name: String,
    /// The number of its token.
    pub(super) token: String,
    pub(super) asked: i64,
    /// The address that it came from.
    pub(super) from: String,
    pub(super) state: State,
    /// When it was decided.
    pub(super) decided: Option<i64>,
    /// The signing request, in PEM.
    pub(super) request: String,
    /// The certificate that was issued, in PEM.
    pub(super) certificate: Option<String>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for the operator.
    Pending,
    /// It has its certificate.
    Issued,
    /// The operator has refused it.
    Rejected,
}

/// The files below the folder of a CA.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    /// The files below the folder `dir` of a CA, whose folders are made where they are missing.
    pub(super) fn open(dir: &Path) -> Result<Store, Error> {
        let store = Store { dir: dir.to_owned() };
        for folder in [store.folder(), store.tokens_folder(), store.requests_folder()] {
            if !folder.is_dir() {
                create_folder(&folder)?;
                store.give(&folder)?;
            }
        }
        Ok(store)
    }

    /// The folder of the CA.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until nobody else changes anything; others wait until this is dropped.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.folder().join("lock");
        let lock = File::options().create(true).append(true).mode(0o600).open(&path);
        let lock = lock.and_then(|file| file.lock().map(|()| file));
        let lock = lock.map_err(|source| Error::Read { file: path.clone(), source })?;
        self.give(&path)?;
        Ok(lock)
    }

    /// A token.
    pub(super) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, Error> {
        read(&self.token_file(&id.to_string()))
    }

    /// Every token with its number, oldest first.
    pub(super) fn tokens(&self) -> Result<Vec<(String, TokenRecord)>, Error> {
        let mut all: Vec<(String, TokenRecord)> = read_all(&self.tokens_folder())?;
        all.sort_by_key(|(id, token)| (token.made, id.clone()));
        Ok(all)
    }

    /// Writes a token.
    pub(super) fn put_token(&self, id: TokenId, token: &TokenRecord) -> Result<(), Error> {
        self.write(&self.token_file(&id.to_string()), token)
    }

    /// The request for a key.
    pub(super) fn request(&self, key: Fingerprint) -> Result<Option<RequestRecord>, Error> {
        read(&self.request_file(&key.digits()))
    }

    /// Every request with the fingerprint of its key in hexadecimal digits, oldest first.
    pub(super) fn requests(&self) -> Result<Vec<(String, RequestRecord)>, Error> {
        let mut all: Vec<(String, RequestRecord)> = read_all(&self.requests_folder())?;
        all.sort_by_key(|(key, request)| (request.asked, key.clone()));
        Ok(all)
    }

    /// Writes the request for a key.
    pub(super) fn put_request(&self, key: &str, request: &RequestRecord) -> Result<(), Error> {
        self.write(&self.request_file(key), request)
    }

    /// Removes tokens that ended before `before`, in seconds since 1970, with their requests, and no pending ones.
    pub(super) fn prune(&self, before: i64) -> Result<(), Error> {
        let old: Vec<_> = self.tokens()?.into_iter().filter(|(_, token)| token.ends < before).collect();
        for (id, token) in old {
            let mut request = token.used.map(|used| self.request_file(&used.key));
            if let Some(file) = &request {
                // The key may have used another token since, which has need of the file.
                match read::<RequestRecord>(file)?.filter(|known| known.token == id) {
                    Some(known) if known.state == State::Pending => continue,
                    Some(_) => {}
                    None => request = None,
                }
            }
            // The token first: one that is used and without a request is good for another certificate.
            for file in [self.token_file(&id)].into_iter().chain(request) {
                match fs::remove_file(&file) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(certs::Error::File { file, source }.into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("enrol")
    }

    fn tokens_folder(&self) -> PathBuf {
        self.folder().join("tokens")
    }

    fn requests_folder(&self) -> PathBuf {
        self.folder().join("requests")
    }

    fn token_file(&self, id: &str) -> PathBuf {
        self.tokens_folder().join(format!("{id}.toml"))
    }

    fn request_file(&self, key: &str) -> PathBuf {
        self.requests_folder().join(format!("{key}.toml"))
    }

    fn write(&self, file: &Path, record: &impl Serialize) -> Result<(), Error> {
        let unwritten = |source| Error::Unwritten { file: file.to_owned(), source: Box::new(source) };
        replace(file, &toml::to_string(record).map_err(unwritten)?, 0o600)?;
        self.give(file)
    }

    /// Gives a file that root has made to the user to whom its folder belongs, as the CA does, so that the service can read what an
    /// operator writes. No link is followed: whoever breaks into the service could lay one to a file of root's.
    fn give(&self, file: &Path) -> Result<(), Error> {
        let give = || {
            let (owner, made) = (fs::metadata(folder_of(file))?, fs::symlink_metadata(file)?);
            match owner.uid() == made.uid() || made.uid() != 0 {
                true => Ok(()),
                false => lchown(file, Some(owner.uid()), Some(owner.gid())),
            }
        };
        give().map_err(|source| certs::Error::File { file: file.to_owned(), source }.into())
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Error> {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { file: file.to_owned(), source }),
    };
    let damaged = |source| Error::Damaged { file: file.to_owned(), source: Box::new(source) };
    toml::from_str(&text).map(Some).map_err(damaged)
}

/// The records of a folder with the names of their files.
fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<(String, T)>, Error> {
    let unread = |source| Error::Read { file: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let is_record = path.extension().is_some_and(|extension| extension == "toml");
        // One that was just removed is none.
        if let Some(stem) = stem.filter(|_| is_record)
            && let Some(record) = read(&path)?
        {
            found.push((stem.to_owned(), record));
        }
    }
    Ok(found)
}
