//! The errors of an identity folder, and the reading of its files.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::certificate::CertificateKind;

/// Most bytes of a file of certificates; a revocation list of 10,000 devices has half of one MiB.
const FILE_MAX: u64 = 16 << 20;

/// An error of an identity folder. Every variant names the file at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read {}{}", file.display(), remedy(file, source))]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{} is not a PEM file", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The error of the PEM parser.
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no PEM section of the kind that is expected in it.
    #[error("{} holds no {expected}", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// The kind that is expected.
        expected: &'static str,
    },
    /// The certificates cannot be used for TLS, for example because the key is not that of the certificate.
    #[error("{} cannot be used", file.display())]
    Unusable {
        /// The file at fault.
        file: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// A certificate cannot be read.
    #[error("{}: {reason}", file.display())]
    Dates {
        /// The file.
        file: PathBuf,
        /// The error of the certificate parser.
        reason: String,
    },
    /// The certificate is not for this side.
    #[error("{} is {}, not {}; {}", file.display(), is(*found), is(*needed), make(*needed))]
    Kind {
        /// The file.
        file: PathBuf,
        /// The kind of certificate that it holds.
        found: CertificateKind,
        /// The kind that is needed.
        needed: CertificateKind,
    },
    /// Others than the owner of the private key can read or write it.
    #[error(
        "the private key {0} can be read or changed by other users (mode {mode:04o}); run: chmod 600 {0}",
        file.display()
    )]
    Exposed {
        /// The file of the key.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The private key belongs to a user that is neither the one that runs this program nor root.
    #[error(
        "the private key {0} belongs to user {owner}, and this program runs as user {user}; run: chown {user} {0}",
        file.display()
    )]
    Owner {
        /// The file of the key.
        file: PathBuf,
        /// The user to whom it belongs.
        owner: u32,
        /// The user that runs this program.
        user: u32,
    },
    /// A certificate revocation list is damaged or of another CA.
    #[error("{}: {reason}; write it again with `narrows-tail certs revoke`", file.display())]
    Revocation {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate revocation list is older than the one that is in force.
    #[error(
        "{} is older than the revocation list in force: {}, and number {present} is in force; \
         copy the newest list of the CA there",
        file.display(),
        number.map_or_else(|| "it lacks the list of a CA".to_owned(), |number| format!("it has number {number}"))
    )]
    Outdated {
        /// The file.
        file: PathBuf,
        /// The number of the list in the file; `None` if it has no list of this CA.
        number: Option<u64>,
        /// The number of the list that is in force.
        present: u64,
    },
}

/// Which command makes a file that is not there.
fn remedy(file: &Path, error: &io::Error) -> &'static str {
    match (error.kind(), file.file_name().and_then(|name| name.to_str())) {
        (io::ErrorKind::NotFound, Some("ca.pem" | "cert.pem" | "key.pem")) => {
            "; an identity is a folder with ca.pem, cert.pem and key.pem: `narrows-tail certs init --dir certs` makes \
             the server's, certs/server, and `narrows-tail certs device NAME --dir certs` a device's, certs/devices/NAME"
        }
        (io::ErrorKind::NotFound, Some("ca.key")) => {
            "; `narrows-tail certs init --dir DIR` makes it, and the commands that sign need it: bring it back from \
             where it is kept"
        }
        _ => "",
    }
}

fn is(kind: CertificateKind) -> &'static str {
    match kind {
        CertificateKind::Authority => "the certificate of a CA",
        CertificateKind::Server => "a server's certificate",
        CertificateKind::Device => "a device's certificate",
        CertificateKind::Any | CertificateKind::Other => "a certificate for another use",
    }
}

fn make(kind: CertificateKind) -> &'static str {
    match kind {
        CertificateKind::Server => {
            "give the folder that `narrows-tail certs init` made for the server, certs/server"
        }
        _ => "give a folder that `narrows-tail certs device NAME` made for a device, certs/devices/NAME",
    }
}

/// Reads a file of certificates.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, IdentityError> {
    let open = || -> io::Result<Vec<u8>> {
        // Before it is opened, because opening a FIFO waits for a writer.
        regular(&std::fs::metadata(file)?)?;
        bounded(&File::open(file)?)
    };
    open().map_err(|source| IdentityError::Read { file: file.to_owned(), source })
}

/// Reads a private key. The owner must be the user that runs this program or root, and nobody else may read it, except for the
/// group of a key that belongs to root: so packages and the secrets of Kubernetes give a key to a program that is not root. The
/// same rule as PostgreSQL's (`ssl_key_file`).
///
/// The permissions are those of the file that is read, not of another one that has its name a moment later.
///
/// # Errors
/// [`IdentityError::Read`], [`IdentityError::Exposed`] or [`IdentityError::Owner`].
pub fn read_private(file: &Path) -> Result<Vec<u8>, IdentityError> {
    let fail = |source| IdentityError::Read { file: file.to_owned(), source };
    std::fs::metadata(file).and_then(|meta| regular(&meta)).map_err(fail)?;
    let open = File::open(file).map_err(fail)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta = open.metadata().map_err(fail)?;
        let (mode, owner, user) = (meta.mode() & 0o7777, meta.uid(), rustix::process::geteuid().as_raw());
        let others = if owner == 0 { 0o037 } else { 0o077 };
        if mode & others != 0 {
            return Err(IdentityError::Exposed { file: file.to_owned(), mode });
        }
        if owner != user && owner != 0 {
            return Err(IdentityError::Owner { file: file.to_owned(), owner, user });
        }
    }
    bounded(&open).map_err(fail)
}

fn regular(meta: &std::fs::Metadata) -> io::Result<()> {
    match meta.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

fn bounded(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= FILE_MAX {
        true => Ok(bytes),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than 16 MiB")),
    }
}
