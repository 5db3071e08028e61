//! Public keys by which bundles are signed.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};

use super::SignatureFault;
use crate::Digest;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// What stands before the point in the SubjectPublicKeyInfo of a key of P-256 and of P-384 (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// A public key of the curve P-256 or P-384, by which signatures are verified (ECDSA with SHA-256 or SHA-384).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    curve: Curve,
    point: Vec<u8>,
    /// The SHA-256 of the key in PEM, in hexadecimal digits.
    hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl PublicKey {
    /// The public keys in a PEM file, of which there is at least one.
    ///
    /// # Errors
    /// [`SignatureFault::Key`] for a file without one, and for a key of another kind.
    pub fn all_from_pem(text: &str) -> Result<Vec<PublicKey>, SignatureFault> {
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some((_, begun)) = rest.split_once(BEGIN) {
            let (body, after) = begun.split_once(END).ok_or(SignatureFault::Key)?;
            let digits: String = body.split_whitespace().collect();
            let der = STANDARD.decode(digits).map_err(|_| SignatureFault::Key)?;
            keys.push(PublicKey::from_der(&der)?);
            rest = after;
        }
        if keys.is_empty() { Err(SignatureFault::Key) } else { Ok(keys) }
    }

    /// The public key in a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`SignatureFault::Key`] for a key of another kind.
    pub fn from_der(der: &[u8]) -> Result<PublicKey, SignatureFault> {
        let point = |prefix: &[u8], length: usize| {
            der.strip_prefix(prefix)
                .filter(|point| point.len() == length && point[0] == 4)
                .map(<[u8]>::to_vec)
        };
        let found = point(&P256, 65).map(|point| (Curve::P256, point));
        let found = found.or_else(|| Some((Curve::P384, point(&P384, 97)?)));
        let (curve, point) = found.ok_or(SignatureFault::Key)?;
        let hint = Digest::of(PublicKey::pem_of(der).as_bytes()).to_string();
        Ok(PublicKey { curve, point, hint })
    }

    /// What tells this key from others: the SHA-256 of its PEM file in hexadecimal digits, as `sha256sum key.pub` prints it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The PEM file of a public key in DER.
    #[must_use]
    pub fn pem_of(der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines =
            text.as_bytes().chunks(64).map(|line| line.iter().map(|byte| char::from(*byte)).collect());
        format!("{BEGIN}\n{}\n{END}\n", lines.collect::<Vec<String>>().join("\n"))
    }

    /// Whether a signature of these bytes is by this key.
    pub(super) fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn ring::signature::VerificationAlgorithm = match self.curve {
            Curve::P256 => &ECDSA_P256_SHA256_ASN1,
            Curve::P384 => &ECDSA_P384_SHA384_ASN1,
        };
        UnparsedPublicKey::new(algorithm, &self.point).verify(bytes, signature).is_ok()
    }
}
