//! The messages by which a device gets its certificate, and another one before that ends (PROTOCOL.md section 9).

mod token;

use std::{fmt, time::Duration};

use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

pub use self::token::{Token, TokenFault, TokenId};
use crate::{
    codes::{EnrolmentCode, EnrolmentType},
    cursor::{Reader, Writer},
    error::Error,
    limits::{MAX_CERTIFICATE, MAX_CHAIN, MAX_ENROLMENT, MAX_ENROLMENT_REPLY, MAX_SIGNING_REQUEST},
    text::Quoted,
};

/// The ALPN name of enrolment, which has a port of its own.
pub const ENROLMENT_ALPN: &[u8] = b"narrows-enrol/1";

/// The port on which servers enrol devices unless another one is given.
pub const ENROLMENT_PORT: u16 = 7463;

/// What a device asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum EnrolmentRequest {
    /// A first certificate, with a token.
    Enrol {
        /// The token's number.
        token: TokenId,
        /// The token's secret.
        secret: [u8; 16],
        /// The name that the device would like to have; `None` leaves it to the token.
        name: Option<String>,
        /// The certificate signing request (PKCS #10), by which the device shows that it has the private key.
        request: CertificateSigningRequestDer<'static>,
    },
    /// Another certificate for the device whose certificate authenticates the connection.
    Renew {
        /// The certificate signing request with the new key.
        request: CertificateSigningRequestDer<'static>,
    },
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrolmentReply {
    /// The certificate.
    Issued {
        /// The time of the server in seconds since 1970, for devices whose clock is wrong.
        now: u64,
        /// The device's certificate, and behind it those of the CAs between it and the one that devices know, 1 to
        /// [`MAX_CHAIN`].
        chain: Vec<CertificateDer<'static>>,
    },
    /// The operator has not decided yet. The device asks again with the same token and key.
    Pending {
        /// When to ask again.
        retry: Duration,
    },
    /// There will be no certificate.
    Refused {
        /// The reason, for programs.
        code: EnrolmentCode,
        /// The reason, for people.
        text: String,
    },
}

impl EnrolmentRequest {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let writer = match self {
            EnrolmentRequest::Enrol { token, secret, name, request } => {
                let mut writer = Writer::new(EnrolmentType::Enrol.into());
                writer.bytes(&token.0);
                writer.bytes(secret);
                writer.u8(name.is_some().into());
                if let Some(name) = name {
                    writer.name("name", name)?;
                }
                writer.block("request", request, MAX_SIGNING_REQUEST)?;
                writer
            }
            EnrolmentRequest::Renew { request } => {
                let mut writer = Writer::new(EnrolmentType::Renew.into());
                writer.block("request", request, MAX_SIGNING_REQUEST)?;
                writer
            }
        };
        writer.finish("enrolment", MAX_ENROLMENT)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that are none.
    pub fn parse(bytes: &[u8]) -> Result<EnrolmentRequest, Error> {
        let mut reader = Reader::bounded("enrolment", bytes, MAX_ENROLMENT)?;
        let parsed = match EnrolmentType::from(reader.u8("type")?) {
            EnrolmentType::Enrol => EnrolmentRequest::Enrol {
                token: TokenId(reader.array("token")?),
                secret: reader.array("secret")?,
                name: match reader.count("names", 1)? {
                    0 => None,
                    _ => Some(reader.name("name")?),
                },
                request: request(&mut reader)?,
            },
            EnrolmentType::Renew => EnrolmentRequest::Renew { request: request(&mut reader)? },
            _ => return Err(reader.invalid("type", "a device asks to enrol (1) or to renew (2)")),
        };
        reader.finish()?;
        Ok(parsed)
    }
}

fn request(reader: &mut Reader<'_>) -> Result<CertificateSigningRequestDer<'static>, Error> {
    Ok(reader.block("request", MAX_SIGNING_REQUEST)?.to_vec().into())
}

/// Without the secret.
impl fmt::Debug for EnrolmentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnrolmentRequest::Enrol { token, name, .. } => {
                f.debug_struct("Enrol").field("token", token).field("name", name).finish_non_exhaustive()
            }
            EnrolmentRequest::Renew { .. } => f.debug_struct("Renew").finish_non_exhaustive(),
        }
    }
}

impl EnrolmentReply {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let writer = match self {
            EnrolmentReply::Issued { now, chain } => {
                let mut writer = Writer::new(EnrolmentType::Issued.into());
                writer.u64(*now);
                if chain.is_empty() {
                    return Err(Error::Invalid { field: "chain", reason: NO_CERTIFICATE });
                }
                writer.count("chain", chain.len(), MAX_CHAIN)?;
                for certificate in chain {
                    writer.block("certificate", certificate, MAX_CERTIFICATE)?;
                }
                writer
            }
            EnrolmentReply::Pending { retry } => {
                let mut writer = Writer::new(EnrolmentType::Pending.into());
                writer.u32(u32::try_from(retry.as_millis()).unwrap_or(u32::MAX));
                writer
            }
            EnrolmentReply::Refused { code, text } => {
                let mut writer = Writer::new(EnrolmentType::Refused.into());
                writer.u16((*code).into());
                writer.text(text);
                writer
            }
        };
        writer.finish("answer to an enrolment", MAX_ENROLMENT_REPLY)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that are none.
    pub fn parse(bytes: &[u8]) -> Result<EnrolmentReply, Error> {
        let mut reader = Reader::bounded("answer to an enrolment", bytes, MAX_ENROLMENT_REPLY)?;
        let parsed = match EnrolmentType::from(reader.u8("type")?) {
            EnrolmentType::Issued => {
                let now = reader.u64("now")?;
                let count = reader.count("chain", MAX_CHAIN)?;
                if count == 0 {
                    return Err(reader.invalid("chain", NO_CERTIFICATE));
                }
                let certificate = |_| Ok(reader.block("certificate", MAX_CERTIFICATE)?.to_vec().into());
                let chain = (0..count).map(certificate).collect::<Result<Vec<_>, Error>>()?;
                EnrolmentReply::Issued { now, chain }
            }
            EnrolmentType::Pending => {
                EnrolmentReply::Pending { retry: Duration::from_millis(reader.u32("retry")?.into()) }
            }
            EnrolmentType::Refused => {
                let code = EnrolmentCode::from(reader.u16("code")?);
                EnrolmentReply::Refused { code, text: reader.text("text")? }
            }
            _ => return Err(reader.invalid("type", "a server issues (3), asks to wait (4) or refuses (5)")),
        };
        reader.finish()?;
        Ok(parsed)
    }
}

impl fmt::Display for EnrolmentReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnrolmentReply::Issued { .. } => f.write_str("issued"),
            EnrolmentReply::Pending { .. } => f.write_str("waits for approval"),
            EnrolmentReply::Refused { code, text } if text.is_empty() => write!(f, "{code}"),
            EnrolmentReply::Refused { code, text } => write!(f, "{code}: {}", Quoted(text)),
        }
    }
}

const NO_CERTIFICATE: &str = "a device's certificate is missing";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn enrol(name: Option<&str>) -> EnrolmentRequest {
        EnrolmentRequest::Enrol {
            token: TokenId([1; 8]),
            secret: [2; 16],
            name: name.map(str::to_owned),
            request: vec![3; 5].into(),
        }
    }

    #[test]
    fn requests_have_these_bytes() {
        let bytes = [&[1][..], &[1; 8], &[2; 16], &[1, 3], b"cam", &[5, 0, 0, 0], &[3; 5]].concat();
        assert_eq!(enrol(Some("cam")).encode().unwrap(), bytes);
        let bytes = [&[1][..], &[1; 8], &[2; 16], &[0, 5, 0, 0, 0], &[3; 5]].concat();
        assert_eq!(enrol(None).encode().unwrap(), bytes);
        let renew = EnrolmentRequest::Renew { request: vec![9].into() };
        assert_eq!(renew.encode().unwrap(), [2, 1, 0, 0, 0, 9]);
        for request in [enrol(Some("cam")), enrol(None), renew] {
            assert_eq!(EnrolmentRequest::parse(&request.encode().unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn answers_have_these_bytes() {
        let issued = EnrolmentReply::Issued { now: 7, chain: vec![vec![9].into(), vec![8].into()] };
        let bytes = [&[3, 7, 0, 0, 0, 0, 0, 0, 0, 2][..], &[1, 0, 0, 0, 9], &[1, 0, 0, 0, 8]].concat();
        assert_eq!(issued.encode().unwrap(), bytes);
        let pending = EnrolmentReply::Pending { retry: Duration::from_millis(3000) };
        assert_eq!(pending.encode().unwrap(), [4, 0xb8, 0x0b, 0, 0]);
        let refused = EnrolmentReply::Refused { code: EnrolmentCode::Used, text: "no".into() };
        assert_eq!(refused.encode().unwrap(), [5, 3, 0, 2, 0, b'n', b'o']);
        for reply in [issued, pending, refused] {
            assert_eq!(EnrolmentReply::parse(&reply.encode().unwrap()).unwrap(), reply);
        }
        let empty = EnrolmentReply::Issued { now: 0, chain: Vec::new() };
        assert!(empty.encode().is_err());
        assert!(EnrolmentReply::parse(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn what_is_too_long_or_goes_on_is_refused() {
        let long = EnrolmentRequest::Renew { request: vec![0; MAX_SIGNING_REQUEST + 1].into() };
        assert!(matches!(long.encode(), Err(Error::OverLimit { .. })));
        let mut bytes = enrol(None).encode().unwrap();
        bytes.push(0);
        assert!(EnrolmentRequest::parse(&bytes).is_err());
        assert!(EnrolmentRequest::parse(&vec![1; MAX_ENROLMENT + 1]).is_err());
    }

    #[test]
    fn no_secret_is_printed() {
        assert!(!format!("{:?}", enrol(Some("cam"))).contains("2, 2"));
    }

    proptest! {
        #[test]
        fn bytes_that_are_read_are_written_alike(bytes in prop::collection::vec(0u8..6, 0..64)) {
            if let Ok(request) = EnrolmentRequest::parse(&bytes) {
                prop_assert_eq!(request.encode().unwrap(), bytes.clone());
            }
            if let Ok(reply) = EnrolmentReply::parse(&bytes) {
                prop_assert_eq!(reply.encode().unwrap(), bytes);
            }
        }
    }
}
