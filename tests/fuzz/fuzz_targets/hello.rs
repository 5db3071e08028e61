//! Arbitrary bytes as hellos and their answers. Every message has one encoding, so a message that is read is written again
//! as the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_wire::{session::Client, BundleId, Hello, HelloReply};

fuzz_target!(|data: &[u8]| {
    if let Ok(hello) = Hello::parse(data) {
        assert_eq!(hello.encode().expect("a hello that was read"), data);
    }
    if let Ok(reply) = HelloReply::parse(data) {
        assert_eq!(reply.encode().expect("an answer that was read"), data);
    }
    let mut client = Client::new(Hello::new(vec![BundleId([7; 32])], Vec::new()));
    if client.welcome(data).is_ok() {
        assert!(client.room() > 0 && client.bundle(&BundleId([7; 32])) == Some(0));
    }
});
