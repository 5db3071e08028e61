//! Arbitrary bytes as the messages of an enrolment, and as tokens. Every message has one encoding, so one that is read is written again
//! as the same bytes.

use narrows_wire::enrol::{EnrolmentReply, EnrolmentRequest, Token};

/// Reads the bytes as a device's message, as the answer to it, and as a token.
///
/// Returns whether one of them is accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let (request, reply) = (EnrolmentRequest::parse(data), EnrolmentReply::parse(data));
    if let Ok(request) = &request {
        assert_eq!(request.encode().expect("a message that was read"), data);
    }
    if let Ok(reply) = &reply {
        assert_eq!(reply.encode().expect("an answer that was read"), data);
    }
    let token = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Token>().ok());
    if let Some(token) = &token {
        assert_eq!(token.to_string().parse().as_ref(), Ok(token));
    }
    request.is_ok() || reply.is_ok() || token.is_some()
}
