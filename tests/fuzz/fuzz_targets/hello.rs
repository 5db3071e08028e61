//! Arbitrary hellos and their answers. Accepted ones are written again as the same message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_wire::{Hello, HelloReply};

fuzz_target!(|data: &[u8]| {
    if let Ok(hello) = Hello::parse(data) {
        let bytes = hello.encode().expect("a hello that was read");
        assert_eq!(Hello::parse(&bytes).expect("our own hello"), hello);
    }
    if let Ok(reply) = HelloReply::parse(data) {
        let bytes = reply.encode().expect("an answer that was read");
        assert_eq!(HelloReply::parse(&bytes).expect("our own answer"), reply);
    }
});
