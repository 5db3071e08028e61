//! The end of a QUIC connection, in words.

use std::fmt;

use quinn::ConnectionError;
use rustls::AlertDescription;

use crate::{codes::Close, text::Quoted};

/// Why a connection ended. What the peer says is quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEnd(pub ConnectionError);

impl ConnectionEnd {
    /// The TLS alert that ended the handshake, if one did: sent by the peer, or raised on this side.
    #[must_use]
    pub fn alert(&self) -> Option<AlertDescription> {
        let code = match &self.0 {
            ConnectionError::TransportError(error) => error.code.into(),
            ConnectionError::ConnectionClosed(close) => close.error_code.into(),
            _ => return None,
        };
        alert(code)
    }
}

/// A TLS alert is a transport error code of 0x100 and up (RFC 9001, section 4.8).
fn alert(code: u64) -> Option<AlertDescription> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok()).map(AlertDescription::from)
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |f: &mut fmt::Formatter<'_>, reason: &[u8]| match reason {
            [] => Ok(()),
            reason => write!(f, ": {}", Quoted(reason)),
        };
        match &self.0 {
            ConnectionError::VersionMismatch => f.write_str("the peer speaks another version of QUIC"),
            ConnectionError::TransportError(error) => {
                match alert(error.code.into()) {
                    Some(alert) => write!(f, "TLS failed ({alert:?})")?,
                    None => write!(f, "QUIC failed ({})", error.code)?,
                }
                said(f, error.reason.as_bytes())
            }
            ConnectionError::ConnectionClosed(close) => {
                match alert(close.error_code.into()) {
                    Some(alert) => write!(f, "the peer refused the handshake ({alert:?})")?,
                    None => write!(f, "the peer closed the connection ({})", close.error_code)?,
                }
                said(f, &close.reason)
            }
            ConnectionError::ApplicationClosed(close) => {
                let code = u32::try_from(close.error_code.into_inner()).map(Close::from);
                match code {
                    Ok(code) => write!(f, "the peer closed the connection ({code})")?,
                    Err(_) => write!(f, "the peer closed the connection (code {})", close.error_code)?,
                }
                said(f, &close.reason)
            }
            ConnectionError::Reset => f.write_str("the peer does not know the connection any more"),
            ConnectionError::TimedOut => f.write_str("nothing was heard from the peer for the idle timeout"),
            ConnectionError::LocallyClosed => f.write_str("the connection was closed on this side"),
            ConnectionError::CidsExhausted => f.write_str("no connection ID is left"),
        }
    }
}

impl std::error::Error for ConnectionEnd {}

impl From<ConnectionError> for ConnectionEnd {
    fn from(error: ConnectionError) -> Self {
        ConnectionEnd(error)
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionClose};

    use super::*;

    const FORGED: &[u8] = b"x\n\x1b[2Jok";

    #[test]
    fn the_reason_of_a_close_is_quoted() {
        let close = ApplicationClose { error_code: 1u8.into(), reason: FORGED.into() };
        let text = ConnectionEnd(ConnectionError::ApplicationClosed(close)).to_string();
        assert_eq!(text, r#"the peer closed the connection (protocol violation): "x\n\u{1b}[2Jok""#);
        let close = ConnectionClose {
            error_code: quinn::TransportErrorCode::crypto(48),
            frame_type: None,
            reason: FORGED.into(),
        };
        let end = ConnectionEnd(ConnectionError::ConnectionClosed(close));
        assert_eq!(end.alert(), Some(AlertDescription::UnknownCA));
        assert_eq!(end.to_string(), r#"the peer refused the handshake (UnknownCA): "x\n\u{1b}[2Jok""#);
    }
}
