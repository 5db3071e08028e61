//! TLS as a client: whom a sink trusts and which certificate it shows.

use std::{path::Path, sync::Arc};

use narrows_wire::identity::{certificates, read_private};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{Error, name::Escaped};

/// The cryptography that every connection uses.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates that are trusted: those of the file, or the system's.
///
/// # Errors
/// [`Error::Usage`] for `flag` if there is none.
pub(super) fn roots(flag: &'static str, file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    match file {
        Some(file) => {
            let found =
                certificates(file).map_err(|error| Error::usage(flag, crate::Chain(&error).to_string()))?;
            let mut store = RootCertStore::empty();
            for certificate in &found {
                store.add(certificate.clone()).map_err(|error| {
                    Error::usage(
                        flag,
                        format!("{} holds a certificate that is no CA's: {error}", Escaped(file)),
                    )
                })?;
            }
            Ok(found)
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let reason = "this system has no CA certificates; install ca-certificates, or give the file of your own CA";
                return Err(Error::usage(flag, reason));
            }
            Ok(found.certs)
        }
    }
}

/// Settings of TLS that trust `roots` and, where there is one, show the certificate of `identity`: its file and its key's.
///
/// # Errors
/// [`Error::Usage`] for a file that cannot be used.
pub(super) fn config(
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(&Path, &Path)>,
) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(store);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)
        .map_err(|error| Error::usage("--mqtt-cert", crate::Chain(&error).to_string()))?;
    let key = private_key(key)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| Error::usage("--mqtt-cert", format!("it cannot be used with --mqtt-key: {error}")))
}

/// Reads a private key, which must be readable by its owner alone.
fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let wrong = |reason: String| Error::usage("--mqtt-key", reason);
    let bytes = read_private(file).map_err(|error| wrong(crate::Chain(&error).to_string()))?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| wrong(format!("{} holds no private key in PEM: {error}", Escaped(file))))
}
