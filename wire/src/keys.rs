//! Keys of a server's endpoint that outlive its process, derived from the private key of its identity.

use std::sync::Arc;

use quinn::{EndpointConfig, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};

use crate::identity::Identity;

/// The salt of the derivation. Each key has a label of its own.
const SALT: &[u8] = b"narrows/1 endpoint keys";

/// The keys of a server's endpoint.
///
/// A server that was restarted does not know the connections of its predecessor. With the same keys it recognises their
/// connection IDs and answers with the stateless reset that the predecessor promised (RFC 9000 section 10.3), so clients
/// connect anew at once and do not wait for the idle timeout. The keys depend on nothing but the private key: a renewed
/// certificate for the same private key keeps them. Two servers that run at the same time must not share an identity,
/// because either could reset the other's connections (RFC 9000 section 21.11).
pub(crate) struct EndpointKeys {
    reset: hmac::Key,
    connection_ids: u64,
    tokens: hkdf::Prk,
}

impl EndpointKeys {
    /// Derives the keys with HKDF-SHA256 (RFC 5869).
    pub(crate) fn derive(identity: &Identity) -> EndpointKeys {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(identity.key.secret_der());
        let mut connection_ids = [0; 8];
        expand(&secret, b"connection ids", Bytes(8), |okm| okm.fill(&mut connection_ids))
            .expect("HKDF gives 8 bytes");
        EndpointKeys {
            reset: expand(&secret, b"stateless reset", hmac::HMAC_SHA256, |okm| okm.into()),
            connection_ids: u64::from_be_bytes(connection_ids),
            tokens: expand(&secret, b"address tokens", hkdf::HKDF_SHA256, |okm| okm.into()),
        }
    }

    /// The settings of the endpoint: how it resets connections and generates connection IDs.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(self.reset.clone()));
        let key = self.connection_ids;
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        config
    }

    /// Makes `config` accept the address tokens (QUIC Retry) that a predecessor gave out.
    pub(crate) fn accept_tokens(self, config: &mut ServerConfig) {
        config.token_key(Arc::new(self.tokens));
    }
}

/// A number of bytes to derive.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<L: hkdf::KeyType, T>(
    secret: &hkdf::Prk,
    label: &[u8],
    length: L,
    key: impl FnOnce(hkdf::Okm<'_, L>) -> T,
) -> T {
    key(secret.expand(&[label], length).expect("the key is shorter than HKDF's limit of 8160 bytes"))
}
