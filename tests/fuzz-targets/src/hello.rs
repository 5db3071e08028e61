//! Arbitrary bytes as hellos, their answers, and notices. Every message has one encoding, so a message that is read is written again
//! as the same bytes.

use narrows_wire::{BundleId, BundleNotice, Hello, HelloReply, session::Client};

/// Reads the bytes as a hello, as its answer, and as a notice.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let (hello, reply) = (Hello::parse(data), HelloReply::parse(data));
    if let Ok(hello) = &hello {
        assert_eq!(hello.encode().expect("a hello that was read"), data);
    }
    if let Ok(reply) = &reply {
        assert_eq!(reply.encode().expect("an answer that was read"), data);
    }
    let notice = BundleNotice::parse(data);
    if let Ok(Some(notice)) = &notice {
        assert_eq!(notice.encode().expect("a notice that was read"), data);
    }
    let mut client = Client::new(Hello::new(vec![BundleId([7; 32])], Vec::new()));
    if client.welcome(data).is_ok() {
        assert!(client.room() > 0 && client.bundle(&BundleId([7; 32])) == Some(0));
    }
    hello.is_ok() || reply.is_ok() || matches!(notice, Ok(Some(_)))
}
