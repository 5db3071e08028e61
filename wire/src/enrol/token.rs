//! The token by which an operator lets one device in, once.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};

use crate::identity::Fingerprint;

/// What every token begins with.
const PREFIX: &str = "narrows1_";
/// Bytes of a token: its number, its secret, the fingerprint of the CA's key, and a checksum.
const LENGTH: usize = 8 + 16 + 32 + CHECK;
/// Bytes of the checksum, which finds what was typed or copied wrongly before it is sent anywhere.
const CHECK: usize = 4;
/// Characters of a token.
const CHARACTERS: usize = PREFIX.len() + LENGTH / 3 * 4;

/// A token: `narrows1_` and 80 characters of base64url.
///
/// It authenticates both sides. By the fingerprint of the CA's key the device knows the server that the token is from, before it
/// sends it anything. By the secret, of which the server keeps a digest, the server knows the device.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: TokenId,
    secret: [u8; 16],
    ca: Fingerprint,
}

/// The number of a token, which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFault {
    /// It begins with something else.
    #[error("it does not begin with narrows1_; `narrows-tail enrol token NAME` makes one")]
    Prefix,
    /// It is too long or too short.
    #[error("it has {0} characters in the place of {CHARACTERS}; copy all of it")]
    Length(usize),
    /// A character is another one.
    #[error("a character of it is wrong; copy it again")]
    Character,
}

impl Token {
    /// A token. The secret must be random.
    #[must_use]
    pub fn new(id: TokenId, secret: [u8; 16], ca: Fingerprint) -> Token {
        Token { id, secret, ca }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What only the operator, the device and nobody else knows.
    #[must_use]
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// The fingerprint of the key of the CA that has signed the server's certificate.
    #[must_use]
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }
}

impl TokenId {
    /// The digest of this token's secret: all that a server keeps of it.
    #[must_use]
    pub fn secret_digest(&self, secret: &[u8; 16]) -> [u8; 32] {
        sha256(&[b"narrows enrolment token", &self.0, secret])
    }
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// All of it, with the secret.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = [&self.id.0[..], &self.secret, &self.ca.0].concat();
        let check = &sha256(&[PREFIX.as_bytes(), &content])[..CHECK];
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode([&content, check].concat()))
    }
}

impl FromStr for Token {
    type Err = TokenFault;

    fn from_str(text: &str) -> Result<Token, TokenFault> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(TokenFault::Prefix)?;
        let count = text.chars().count();
        if count != CHARACTERS {
            return Err(TokenFault::Length(count));
        }
        let bytes = URL_SAFE_NO_PAD.decode(rest).map_err(|_| TokenFault::Character)?;
        let (content, check) = bytes.split_at_checked(LENGTH - CHECK).ok_or(TokenFault::Character)?;
        if sha256(&[PREFIX.as_bytes(), content])[..CHECK] != *check {
            return Err(TokenFault::Character);
        }
        let (id, rest) = content.split_first_chunk().ok_or(TokenFault::Character)?;
        let (secret, rest) = rest.split_first_chunk().ok_or(TokenFault::Character)?;
        let (ca, _) = rest.split_first_chunk().ok_or(TokenFault::Character)?;
        Ok(Token { id: TokenId(*id), secret: *secret, ca: Fingerprint(*ca) })
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new(TokenId([7; 8]), [9; 16], Fingerprint([5; 32]))
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let text = token().to_string();
        assert_eq!((text.len(), text.parse()), (CHARACTERS, Ok(token())));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn every_wrong_character_is_found_before_it_is_sent() {
        let text = token().to_string();
        for at in PREFIX.len()..text.len() {
            for other in ["A", "z", " ", "é"] {
                let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert!(wrong == text || wrong.parse::<Token>().is_err(), "{wrong}");
            }
        }
        assert_eq!(text[1..].parse::<Token>(), Err(TokenFault::Prefix));
        assert_eq!(text[..50].parse::<Token>(), Err(TokenFault::Length(50)));
        assert_eq!("".parse::<Token>(), Err(TokenFault::Prefix));
    }

    #[test]
    fn what_the_server_keeps_does_not_tell_the_secret() {
        let digest = token().id().secret_digest(token().secret());
        assert_ne!(digest, TokenId([8; 8]).secret_digest(token().secret()));
        assert!(!format!("{:?}", token()).contains("9, 9"));
    }
}
