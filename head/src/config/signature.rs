//! The flags of signatures, and the bundle that they admit.

use std::path::{Path, PathBuf};

use narrows_models::{
    Bundle, Error as BundleError, ErrorKind, Parts,
    signature::{NewestRecord, PublicKey, verify_manifest},
};

use crate::{Chain, Error, name::Escaped};

/// Which bundles a device takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Signatures")]
pub struct SignatureFlags {
    /// PEM file of public keys, one of which must have signed the bundle (`narrows-tail bundle sign`); may be given several times
    /// [default: signatures are not looked at; digests are always]
    #[arg(long, value_name = "FILE")]
    pub bundle_keys: Vec<PathBuf>,

    /// With --bundle-keys: take a bundle that has no signature all the same, and say so. One with a wrong signature is never taken
    #[arg(long, requires = "bundle_keys")]
    pub allow_unsigned: bool,

    /// With --bundle-keys: file in which the newest version of each bundle is kept that was used; an older one is refused
    #[arg(long, value_name = "FILE", requires = "bundle_keys")]
    pub bundle_record: Option<PathBuf>,

    /// With --bundle-record: take an older version, which counts as the newest from then on
    #[arg(long, requires = "bundle_record")]
    pub allow_older: bool,
}

impl SignatureFlags {
    /// Opens the parts of a bundle that a device uses, if its signature and version are such as these flags ask for. The signature is
    /// verified before any part is looked at.
    ///
    /// # Errors
    /// [`Error::Bundle`] for a bundle that is not to be used, [`Error::Usage`] for keys that cannot be read.
    pub fn open(&self, folder: &Path) -> Result<Bundle, Error> {
        let keys = self.keys()?;
        let signed = match keys.is_empty() {
            true => None,
            false => match verify_manifest(folder, &keys) {
                Ok(digest) => Some(digest),
                Err(error) if self.allow_unsigned && error.kind() == ErrorKind::Unsigned => {
                    tracing::warn!("{}: it is used all the same (--allow-unsigned)", Chain(&error));
                    None
                }
                Err(error) => return Err(error.into()),
            },
        };
        let bundle = Bundle::open(folder, Parts::Head)?;
        if let Some(expected) = signed.filter(|signed| *signed != bundle.digest()) {
            let (part, found) = ("manifest.toml".to_owned(), bundle.digest());
            return Err(BundleError::Tampered { part, expected, found }.into());
        }
        if let Some(record) = self.record()
            && !self.allow_older
        {
            record.check(&bundle)?;
        }
        Ok(bundle)
    }

    /// Takes note that a bundle is used, so that no older one is from then on.
    ///
    /// # Errors
    /// [`Error::Bundle`] where the record cannot be written.
    pub(crate) fn note(&self, bundle: &Bundle) -> Result<(), Error> {
        match self.record() {
            Some(record) => Ok(record.note(bundle)?),
            None => Ok(()),
        }
    }

    fn record(&self) -> Option<NewestRecord> {
        self.bundle_record.as_deref().map(NewestRecord::new)
    }

    fn keys(&self) -> Result<Vec<PublicKey>, Error> {
        let mut keys = Vec::new();
        for file in &self.bundle_keys {
            let unusable =
                |reason: String| Error::usage("--bundle-keys", format!("{}: {reason}", Escaped(file)));
            let text = narrows_service::read_text(file).map_err(|error| unusable(error.to_string()))?;
            keys.extend(PublicKey::all_from_pem(&text).map_err(|fault| unusable(fault.to_string()))?);
        }
        Ok(keys)
    }
}
