//! Certificates of a CA made for one test, and endpoints that use them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use narrows_wire::{
    identity::Identity,
    quic::{self, Tuning},
};
use quinn::Endpoint;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

/// A certificate authority with its private key.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

/// A new certificate authority.
pub(crate) fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A folder with a certificate for `names` that `ca` signed, its key, and the CA that its holder trusts.
pub(crate) fn identity(ca: &Ca, trusts: &Ca, names: &[&str], usage: ExtendedKeyUsagePurpose) -> TempDir {
    identity_with(ca, trusts, names, usage, |_| {})
}

/// The same as [`identity`] with a certificate that `change` has changed.
pub(crate) fn identity_with(
    ca: &Ca,
    trusts: &Ca,
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
    change: impl FnOnce(&mut CertificateParams),
) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![usage];
    change(&mut params);
    let certificate = params.signed_by(&key, ca).unwrap();
    std::fs::write(folder.path().join("ca.pem"), trusts.pem()).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    let key_file = folder.path().join("key.pem");
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(key_file, PermissionsExt::from_mode(0o600)).unwrap();
    folder
}

/// A server on a free port of loopback.
pub(crate) fn server(folder: &Path, tuning: &Tuning) -> Endpoint {
    let identity = Identity::load(folder).unwrap();
    let config = quic::server_config(&identity, tuning).unwrap();
    quic::server_endpoint(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), config, &identity, tuning).unwrap()
}

/// A client of the server at `remote`.
pub(crate) fn client(folder: &Path, remote: SocketAddr, tuning: &Tuning) -> Endpoint {
    let mut endpoint = quic::client_endpoint(remote, tuning).unwrap();
    endpoint
        .set_default_client_config(quic::client_config(&Identity::load(folder).unwrap(), tuning).unwrap());
    endpoint
}
