//! Arbitrary requests and replies. Accepted ones are written again as the same message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_wire::{FrameReply, Request};

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::parse(data) {
        let bytes = request.encode().expect("a request that was read");
        assert_eq!(Request::parse(&bytes).expect("our own request"), request);
    }
    if let Ok(reply) = FrameReply::parse(data) {
        let bytes = reply.encode().expect("a reply that was read");
        // By bytes: a probability may be NaN, which equals nothing.
        assert_eq!(FrameReply::parse(&bytes).expect("our own reply").encode().expect("the same"), bytes);
    }
});
