//! Arbitrary bytes as requests and replies. Every whole message has one encoding, so a message that is read is written again as the
//! same bytes. Class maps are unpacked, and requests are given to an open session.

#![expect(clippy::disallowed_methods, reason = "any instant will do")]

use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

use narrows_wire::{
    BundleId, FrameReply, Hello, Outcome, Payload, QueryKind, Request, Truncatable,
    session::{Catalog, CatalogBundle, CatalogTask, Server, Verdict},
    truncatable_wait,
};

const BUNDLE: BundleId = BundleId([7; 32]);

static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let task = |name: &str, kind, unsplit| CatalogTask { name: name.into(), kind, unsplit };
    let tasks = vec![task("classify", QueryKind::Classify, true), task("segment", QueryKind::Segment, false)];
    Arc::new(Catalog { bundles: vec![CatalogBundle { id: BUNDLE, tasks }], max_in_flight: 4 })
});

/// Reads the bytes as a request and as a reply.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let (request, reply) = (Request::parse(data), FrameReply::parse(data));
    if let Ok(request) = &request {
        match &request.payload {
            // The message may have ended early, even before the packet's first byte; it is not written so.
            Payload::Truncatable(Truncatable { packet, .. }) if packet.is_empty() => {
                request.encode().expect_err("an empty packet");
            }
            Payload::Truncatable(_) => {
                let whole = request.encode().expect("a request that was read");
                assert_eq!(Request::parse(&whole).as_ref(), Ok(request));
                assert!(truncatable_wait(data).is_some());
            }
            _ => assert_eq!(request.encode().expect("a request that was read"), data),
        }
        let now = Instant::now();
        let mut server = Server::new(Arc::clone(&CATALOG), now);
        let hello = Hello::new(vec![BUNDLE], Vec::new()).encode().expect("a hello made here");
        server.hello(&hello).expect("an open session");
        match server.request(now, data).expect("a request that was read") {
            Verdict::Accepted(accepted) => {
                assert!(accepted.task_requests.iter().all(|task_request| task_request.task < 2));
                let image = matches!(accepted.payload, Payload::Image(_));
                assert!(!image || accepted.task_requests.iter().all(|task_request| task_request.task == 0));
                server.request(now, data).expect_err("its number is in flight");
                assert!(server.finish(accepted.id));
            }
            Verdict::Refused { id, bytes, .. } => {
                assert_eq!(FrameReply::parse(&bytes).expect("our own refusal").id(), id);
            }
        }
        assert_eq!(server.in_flight(), 0);
    }
    if let Ok(reply) = &reply {
        assert_eq!(reply.encode().expect("a reply that was read"), data);
        let FrameReply::Answered(reply) = reply else { return true };
        for answer in &reply.answers {
            if let Outcome::Map(map) = &answer.outcome
                && let Ok(pixels) = map.unpack()
            {
                assert_eq!(pixels.len(), usize::from(map.width()) * usize::from(map.height()));
            }
        }
    }
    request.is_ok() || reply.is_ok()
}
