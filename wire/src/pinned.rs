//! Verifies a server by the fingerprint of its CA's key, for a device that has no certificate of that CA yet.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    fault::{CertificateCheck, CertificateFault, fault},
    identity::{CertificateInfo, Fingerprint},
};

/// Accepts a server whose certificate is signed by the CA with a key of this fingerprint, which it must show as well.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) ca: Fingerprint,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) check: CertificateCheck,
}

/// The certificate of the CA with this fingerprint among those that a server has shown.
pub(crate) fn authority<'a>(
    chain: &'a [CertificateDer<'static>],
    ca: Fingerprint,
) -> Option<&'a CertificateDer<'static>> {
    chain.iter().skip(1).find(|one| is_of(one, ca))
}

fn is_of(certificate: &CertificateDer<'_>, ca: Fingerprint) -> bool {
    CertificateInfo::read(certificate).is_ok_and(|info| Fingerprint::of(&info.public_key) == ca)
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(root) = intermediates.iter().find(|one| is_of(one, self.ca)) else {
            self.check.note(CertificateFault::OtherAuthority { expected: self.ca });
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
        let verify = |now| verifier.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let mut result = verify(now);
        // A device without a battery-backed clock starts in the past. Its clock says nothing against a certificate of a CA that it
        // was told the key of.
        if let Err(Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) = &result
            && let Ok(info) = CertificateInfo::read(certificate)
            && let Ok(from) = u64::try_from(info.from)
        {
            result = verify(UnixTime::since_unix_epoch(Duration::from_secs(from)));
        }
        if let Err(error) = &result {
            self.check.note(fault(error, certificate, name, now));
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
