//! Every message: golden bytes, round trips, truncation at every length, and hostile values.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;

use std::time::Duration;

use narrows_wire::{
    BundleId, BundleNotice, Class, ClassMap, Error, ErrorKind, FrameReply, Framing, Groups, Hello,
    HelloRefusal, HelloReply, Image, ImageFormat, Outcome, Path, Payload, Problem, Provider, Query,
    REQUEST_PREFIX, Refusal, RefusalCode, Reply, Request, Standing, TaskAnswer, TaskRequest, Timings,
    Truncatable, Welcome, WelcomeBundle, limits, request_id, truncatable_wait,
};
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        oldest: 1,
        newest: 2,
        bundles: vec![BundleId([0x11; 32]), BundleId([0x22; 32])],
        tasks: vec!["classify".into(), "segment".into()],
    }
}

fn welcome() -> HelloReply {
    let tasks = vec!["classify".into(), "segment".into()];
    let bundles = vec![WelcomeBundle { id: BundleId([0x11; 32]), tasks }];
    HelloReply::Welcome(Welcome { version: 1, max_in_flight: 16, bundles, standing: None })
}

fn welcome_2() -> HelloReply {
    let HelloReply::Welcome(welcome) = welcome() else { panic!("it is a welcome") };
    let (wait, next) = (Duration::from_micros(1500), "tail-b.local:7461".to_owned());
    let standing = Some(Standing { wait, connections: 12, next });
    HelloReply::Welcome(Welcome { version: 2, standing, ..welcome })
}

fn bundle_notice() -> BundleNotice {
    BundleNotice { bundle: 1, served: BundleId([0x33; 32]), is_leaving: true, version: "0.2.0".into() }
}

fn hello_refusal() -> HelloReply {
    HelloReply::Refused(HelloRefusal {
        refusal: Refusal::new(RefusalCode::Bundle, "none in common"),
        oldest: 1,
        newest: 1,
        serves: vec![BundleId([0x33; 32])],
    })
}

fn request() -> Request {
    Request {
        id: 0x0102_0304_0506_0708,
        bundle: 0,
        budget: Some(Duration::from_millis(250)),
        task_requests: vec![
            TaskRequest { task: 0, query: Query::Classify { top_k: 5 } },
            TaskRequest { task: 1, query: Query::Segment { size: Some((480, 360)) } },
        ],
        payload: Payload::Packet(vec![0xaa, 0xbb, 0xcc]),
    }
}

fn image() -> Image {
    let file = vec![0xff, 0xd8, 0xff, 0xd9];
    Image { geometry: 1, format: ImageFormat::Jpeg, framing: Framing::Original, file }
}

fn image_request() -> Request {
    Request {
        id: 9,
        bundle: 0,
        budget: None,
        task_requests: vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }],
        payload: Payload::Image(image()),
    }
}

fn truncatable() -> Truncatable {
    Truncatable { wait: Duration::from_millis(120), packet: vec![0xaa, 0xbb, 0xcc] }
}

fn truncatable_request() -> Request {
    Request { payload: Payload::Truncatable(truncatable()), ..image_request() }
}

fn groups_reply() -> FrameReply {
    let FrameReply::Answered(reply) = reply() else { panic!("it is an answer") };
    FrameReply::Answered(Reply { groups: Some(Groups { used: 2, total: 6 }), ..reply })
}

fn reply() -> FrameReply {
    FrameReply::Answered(Reply {
        id: 7,
        path: Path::Split,
        provider: Provider::Cpu,
        groups: None,
        timings: Timings {
            decode: Duration::from_micros(300),
            queue: Duration::from_micros(40),
            infer: Duration::from_micros(21_000),
            answer: Duration::from_micros(500),
        },
        answers: vec![
            TaskAnswer {
                task: 0,
                batch: 2,
                outcome: Outcome::Classes(vec![
                    Class { index: 281, probability: 0.5 },
                    Class { index: 282, probability: 0.25 },
                ]),
            },
            TaskAnswer {
                task: 1,
                batch: 0,
                outcome: Outcome::Refused(Refusal::new(RefusalCode::Expired, "late")),
            },
        ],
    })
}

fn refusal() -> FrameReply {
    let refusal = Refusal::new(RefusalCode::Busy, "64 wait").retry_after(Duration::from_millis(20));
    FrameReply::Refused { id: 7, refusal }
}

#[test]
fn the_beginning_of_a_request_holds_the_number_of_its_frame() {
    let bytes = request().encode().unwrap();
    assert_eq!(request_id(&bytes), Some(0x0102_0304_0506_0708));
    assert_eq!(request_id(&bytes[..REQUEST_PREFIX]), Some(0x0102_0304_0506_0708));
    assert_eq!(request_id(&bytes[..REQUEST_PREFIX - 1]), None);
    assert_eq!(request_id(&[]), None);
    assert_eq!(request_id(&welcome().encode().unwrap()), None);
}

#[test]
fn messages_are_the_golden_bytes() {
    golden::check("hello", &hello().encode().unwrap());
    golden::check("welcome", &welcome().encode().unwrap());
    golden::check("welcome-2", &welcome_2().encode().unwrap());
    golden::check("bundle-notice", &bundle_notice().encode().unwrap());
    golden::check("hello-refusal", &hello_refusal().encode().unwrap());
    golden::check("request", &request().encode().unwrap());
    golden::check("image", &image_request().encode().unwrap());
    golden::check("truncatable", &truncatable_request().encode().unwrap());
    golden::check("reply", &reply().encode().unwrap());
    golden::check("groups-reply", &groups_reply().encode().unwrap());
    golden::check("refusal", &refusal().encode().unwrap());
}

#[test]
fn golden_bytes_parse_to_the_messages() {
    assert_eq!(Hello::parse(&golden::read("hello")).unwrap(), hello());
    assert_eq!(HelloReply::parse(&golden::read("welcome")).unwrap(), welcome());
    assert_eq!(HelloReply::parse(&golden::read("welcome-2")).unwrap(), welcome_2());
    assert_eq!(HelloReply::parse(&golden::read("hello-refusal")).unwrap(), hello_refusal());
    assert_eq!(Request::parse(&golden::read("request")).unwrap(), request());
    assert_eq!(Request::parse(&golden::read("image")).unwrap(), image_request());
    assert_eq!(FrameReply::parse(&golden::read("reply")).unwrap(), reply());
    assert_eq!(FrameReply::parse(&golden::read("refusal")).unwrap(), refusal());
    let map = FrameReply::parse(&golden::read("map")).unwrap();
    let FrameReply::Answered(Reply { answers, .. }) = map else { panic!("not a reply") };
    let Outcome::Map(map) = &answers[0].outcome else { panic!("not a map") };
    assert_eq!((map.width(), map.height()), (4, 2));
    assert_eq!(map.unpack().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3]);
}

#[test]
fn notices_are_read_as_they_were_written_and_those_of_later_versions_are_ignored() {
    let bytes = bundle_notice().encode().unwrap();
    assert_eq!(BundleNotice::parse(&bytes), Ok(Some(bundle_notice())));
    for length in 0..bytes.len() {
        let error = BundleNotice::parse(&bytes[..length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Peer, "{length} bytes: {error}");
    }
    let forged = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        BundleNotice::parse(&bytes)
    };
    assert!(forged(34, 2).unwrap_err().to_string().contains("leaving"));
    assert!(forged(0, 1).unwrap_err().to_string().contains("notice"));
    assert_eq!(forged(0, 200), Ok(None));
    let long = [vec![200], vec![0; limits::MAX_NOTICE]].concat();
    assert!(BundleNotice::parse(&long).is_err());
    assert!(BundleNotice::parse(&[bytes.clone(), vec![0]].concat()).unwrap_err().to_string().contains("end"));
}

#[test]
fn only_welcomes_from_version_2_on_state_the_servers_standing() {
    let HelloReply::Welcome(welcome) = welcome_2() else { panic!("it is a welcome") };
    let without = Welcome { standing: None, ..welcome.clone() };
    let early = Welcome { version: 1, ..welcome.clone() };
    let long = Standing { next: "x".repeat(513), ..Standing::default() };
    let long = Welcome { standing: Some(long), ..welcome };
    for (welcome, field) in [(without, "standing"), (early, "standing"), (long, "next")] {
        let error = HelloReply::Welcome(welcome).encode().unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

type Parse = fn(&[u8]) -> Result<(), Error>;

const PARSERS: [(&str, Parse); 9] = [
    ("hello", |bytes| Hello::parse(bytes).map(drop)),
    ("welcome", |bytes| HelloReply::parse(bytes).map(drop)),
    ("hello-refusal", |bytes| HelloReply::parse(bytes).map(drop)),
    ("request", |bytes| Request::parse(bytes).map(drop)),
    ("reply", |bytes| FrameReply::parse(bytes).map(drop)),
    ("refusal", |bytes| FrameReply::parse(bytes).map(drop)),
    ("map", |bytes| FrameReply::parse(bytes).map(drop)),
    ("image", |bytes| Request::parse(bytes).map(drop)),
    ("welcome-2", |bytes| HelloReply::parse(bytes).map(drop)),
];

#[test]
fn a_message_cut_at_any_length_is_the_peers_error() {
    for (name, parse) in PARSERS {
        let bytes = golden::read(name);
        for length in 0..bytes.len() {
            let error = parse(&bytes[..length]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Peer, "{name} cut at {length}: {error}");
        }
    }
}

#[test]
fn a_byte_after_the_end_is_the_peers_error() {
    for (name, parse) in PARSERS {
        let mut bytes = golden::read(name);
        bytes.push(0);
        let error = parse(&bytes).expect_err(name);
        let trailing =
            matches!(error, Error::Malformed { field: "end", problem: Problem::Trailing { extra: 1 }, .. });
        assert!(trailing, "{name}: {error}");
    }
}

#[test]
fn any_single_bit_flip_parses_or_is_the_peers_error() {
    for (name, parse) in PARSERS {
        let bytes = golden::read(name);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = parse(&flipped) {
                assert_eq!(error.kind(), ErrorKind::Peer, "{name} bit {bit}: {error}");
            }
        }
    }
}

#[test]
fn a_payload_has_a_size_and_a_path() {
    let packet = Payload::Packet(vec![7; 5]);
    assert_eq!((packet.size(), packet.path()), (5, Some(Path::Split)));
    let image = Payload::Image(image());
    assert_eq!((image.size(), image.path()), (4, Some(Path::Image)));
    let truncatable = Payload::Truncatable(truncatable());
    assert_eq!((truncatable.size(), truncatable.path()), (3, Some(Path::Split)));
    let unknown = Payload::Unknown { kind: 9, body: vec![1, 2] };
    assert_eq!((unknown.size(), unknown.path()), (2, None));
}

#[test]
fn the_largest_queries_are_sent_and_read() {
    let sides = [(4096, 512), (512, 4096), (4096, 1), (1, 4096), (1, 1)];
    let segments = sides.map(|size| Query::Segment { size: Some(size) });
    let queries = segments.into_iter().chain([1, 1000].map(|top_k| Query::Classify { top_k }));
    for query in queries {
        let request = Request { task_requests: vec![TaskRequest { task: 0, query }], ..request() };
        assert_eq!(Request::parse(&request.encode().unwrap()).unwrap(), request);
    }
}

#[test]
fn refusals_are_told_in_words() {
    let busy = Refusal::new(RefusalCode::Busy, "64 wait").retry_after(Duration::from_millis(20));
    assert_eq!(busy.to_string(), "busy: \"64 wait\" (try again in 20 ms)");
    assert_eq!(Refusal::new(RefusalCode::Draining, "").to_string(), "draining");
    let hello = |code, serves| HelloRefusal { refusal: Refusal::new(code, ""), oldest: 3, newest: 4, serves };
    let text = hello(RefusalCode::Version, Vec::new()).to_string();
    assert!(text.ends_with("; it speaks versions 3 to 4"), "{text}");
    let (first, second) = (BundleId([1; 32]), BundleId([2; 32]));
    let text = hello(RefusalCode::Bundle, vec![first, second]).to_string();
    assert!(text.ends_with(&format!("bundle not served; it serves {first}, {second}")), "{text}");
    let text = hello(RefusalCode::Task, vec![first]).to_string();
    assert!(!text.contains("versions") && !text.contains("serves"), "{text}");
}

#[test]
fn the_oldest_version_of_a_hello_is_not_above_the_newest() {
    let versions = |oldest, newest| Hello { oldest, newest, ..hello() };
    for (oldest, newest) in [(1, 1), (0, 0), (1, 2), (0, u16::MAX)] {
        let hello = versions(oldest, newest);
        assert_eq!(Hello::parse(&hello.encode().unwrap()).unwrap(), hello);
    }
    for (oldest, newest) in [(2, 1), (u16::MAX, 0)] {
        assert_eq!(versions(oldest, newest).encode().unwrap_err().kind(), ErrorKind::Caller);
        let mut bytes = versions(1, 1).encode().unwrap();
        bytes[1..3].copy_from_slice(&oldest.to_le_bytes());
        bytes[3..5].copy_from_slice(&newest.to_le_bytes());
        assert_eq!(Hello::parse(&bytes).unwrap_err().kind(), ErrorKind::Peer);
    }
}

#[test]
fn a_bundle_s_identity_is_printed_as_hexadecimal_digits() {
    let id = BundleId(std::array::from_fn(|place| place as u8 * 8 + 1));
    let digits = "0109111921293139414951596169717981899199a1a9b1b9c1c9d1d9e1e9f1f9";
    assert_eq!((id.to_string(), format!("{id:?}")), (digits.to_owned(), format!("BundleId({digits})")));
}

#[test]
fn a_message_of_another_type_is_named() {
    let error = Request::parse(&golden::read("hello")).unwrap_err();
    assert_eq!(error.to_string(), "unexpected hello, expected request");
    let error = FrameReply::parse(&[200]).unwrap_err();
    assert_eq!(error.to_string(), "unexpected unknown code 200, expected reply or refusal");
}

#[test]
fn messages_over_their_limit_are_refused_before_they_are_read() {
    for (parse, limit) in [
        (PARSERS[0].1, limits::MAX_HELLO),
        (PARSERS[3].1, limits::MAX_REQUEST),
        (PARSERS[4].1, limits::MAX_REPLY),
    ] {
        let error = parse(&vec![0; limit + 1]).unwrap_err();
        let expected = Problem::OverLimit { limit, got: limit + 1 };
        assert!(matches!(error, Error::Malformed { field: "length", problem, .. } if problem == expected));
    }
}

#[test]
fn the_caller_cannot_encode_what_the_peer_would_refuse() {
    let refused = |request: Request, text: &str| {
        let error = request.encode().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Caller);
        assert!(error.to_string().contains(text), "{error}");
    };
    let packet = |packet| Request { payload: Payload::Packet(packet), ..request() };
    refused(packet(vec![0; limits::MAX_PACKET + 1]), "payload is 1048577");
    refused(packet(Vec::new()), "packet is empty");
    let file = |file| Request { payload: Payload::Image(Image { file, ..image() }), ..request() };
    refused(file(vec![0; limits::MAX_IMAGE + 1]), "image is 4194305");
    refused(file(Vec::new()), "image is empty");
    let truncatable = |packet| Request {
        payload: Payload::Truncatable(Truncatable { packet, ..truncatable() }),
        ..request()
    };
    refused(truncatable(vec![0; limits::MAX_PACKET + 1]), "packet is 1048577");
    refused(truncatable(Vec::new()), "packet is empty");
    for kind in [1, 2, 3] {
        let payload = Payload::Unknown { kind, body: vec![0] };
        refused(Request { payload, ..request() }, "known kind");
    }
    refused(Request { task_requests: Vec::new(), ..request() }, "at least one");
    let twice = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }; 2];
    refused(Request { task_requests: twice, ..request() }, "twice");
    for top_k in [0, 1001] {
        let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k } }];
        refused(Request { task_requests, ..request() }, "1 to 1000");
    }
    for size in [(0, 5), (5, 0), (4097, 1), (4096, 4096)] {
        let task_requests = vec![TaskRequest { task: 0, query: Query::Segment { size: Some(size) } }];
        refused(Request { task_requests, ..request() }, "map size");
    }
    let task_requests = vec![TaskRequest { task: 0, query: Query::Unknown { kind: 1, body: Vec::new() } }];
    refused(Request { task_requests, ..request() }, "known kind");
}

#[test]
fn a_truncatable_packet_may_end_anywhere_after_its_time_to_wait() {
    let whole = truncatable_request().encode().unwrap();
    let header = whole.len() - truncatable().packet.len();
    for length in 0..=whole.len() {
        let bytes = &whole[..length];
        match length.checked_sub(header) {
            Some(packet) => {
                let Payload::Truncatable(arrived) = Request::parse(bytes).unwrap().payload else {
                    panic!("{length}")
                };
                assert_eq!(arrived.packet, truncatable().packet[..packet]);
                assert_eq!(truncatable_wait(bytes), Some(truncatable().wait));
            }
            None => {
                assert_eq!(Request::parse(bytes).unwrap_err().kind(), ErrorKind::Peer);
                assert_eq!(truncatable_wait(bytes), None);
            }
        }
    }
    // More than the stated length is not part of the packet.
    assert!(Request::parse(&[whole.as_slice(), &[0]].concat()).is_err());
    assert_eq!(truncatable_wait(&request().encode().unwrap()), None);
    let place = header - 8;
    for (length, wrong) in [(4u32, true), (0, true), (limits::MAX_PACKET as u32 + 5, true), (5, false)] {
        let mut bytes = whole[..header + 1].to_vec();
        bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Request::parse(&bytes).is_err(), wrong, "{length}");
    }
}

#[test]
fn the_groups_of_a_reply_are_at_least_one_and_at_most_all() {
    for (used, total) in [(0, 6), (7, 6), (0, 0)] {
        let FrameReply::Answered(reply) = reply() else { panic!("it is an answer") };
        let reply = FrameReply::Answered(Reply { groups: Some(Groups { used, total }), ..reply });
        assert_eq!(reply.encode().unwrap_err().kind(), ErrorKind::Caller);
        let mut bytes = groups_reply().encode().unwrap();
        bytes[11..13].copy_from_slice(&[used, total]);
        assert_eq!(FrameReply::parse(&bytes).unwrap_err().kind(), ErrorKind::Peer);
    }
}

#[test]
fn unknown_kinds_and_codes_survive_a_round_trip() {
    let task_requests =
        vec![TaskRequest { task: 3, query: Query::Unknown { kind: 77, body: vec![1, 2, 3] } }];
    let unknown = Request { task_requests, ..request() };
    assert_eq!(Request::parse(&unknown.encode().unwrap()).unwrap(), unknown);
    for body in [Vec::new(), vec![1, 2, 3]] {
        let unknown = Request { payload: Payload::Unknown { kind: 77, body }, ..request() };
        assert_eq!(Request::parse(&unknown.encode().unwrap()).unwrap(), unknown);
    }
    let strange = Image { format: ImageFormat::Unknown(9), framing: Framing::Unknown(8), ..image() };
    let strange = Request { payload: Payload::Image(strange), ..request() };
    assert_eq!(Request::parse(&strange.encode().unwrap()).unwrap(), strange);
    let reply = FrameReply::Answered(Reply {
        id: 1,
        path: Path::Unknown(9),
        provider: Provider::Unknown(8),
        groups: None,
        timings: Timings::default(),
        answers: vec![TaskAnswer { task: 0, batch: 1, outcome: Outcome::Unknown { kind: 7, body: vec![5] } }],
    });
    assert_eq!(FrameReply::parse(&reply.encode().unwrap()).unwrap(), reply);
    let refusal = FrameReply::Refused { id: 1, refusal: Refusal::new(RefusalCode::Unknown(999), "new") };
    assert_eq!(FrameReply::parse(&refusal.encode().unwrap()).unwrap(), refusal);
}

/// The largest packet and the largest image pass, and one byte more of either is the peer's error.
#[test]
fn packets_and_images_have_limits_of_their_own() {
    let largest = |payload| Request { payload, ..request() }.encode().unwrap();
    let packet = largest(Payload::Packet(vec![7; limits::MAX_PACKET]));
    let image = largest(Payload::Image(Image { file: vec![7; limits::MAX_IMAGE], ..image() }));
    for (mut bytes, length) in [(packet, limits::MAX_PACKET), (image, limits::MAX_IMAGE + 3)] {
        assert!(Request::parse(&bytes).is_ok());
        bytes.push(7);
        let place = bytes.len() - length - 5;
        bytes[place..place + 4].copy_from_slice(&(length as u32 + 1).to_le_bytes());
        let error = Request::parse(&bytes).unwrap_err();
        let over = Problem::OverLimit { limit: length, got: length + 1 };
        assert!(
            matches!(&error, Error::Malformed { field: "payload", problem, .. } if *problem == over),
            "{error}"
        );
    }
}

#[test]
fn budgets_beyond_the_field_are_shortened_and_none_stays_none() {
    let long = Request { budget: Some(Duration::from_secs(100_000)), ..request() };
    let back = Request::parse(&long.encode().unwrap()).unwrap();
    assert_eq!(back.budget, Some(Duration::from_micros(u64::from(u32::MAX) - 1)));
    let none = Request { budget: None, ..request() };
    assert_eq!(Request::parse(&none.encode().unwrap()).unwrap().budget, None);
}

/// Found by the fuzz target `frame`.
#[test]
fn the_longest_stage_time_is_written_as_it_was_read() {
    let mut bytes = golden::read("reply");
    bytes[11..15].fill(0xff);
    let reply = FrameReply::parse(&bytes).unwrap();
    assert_eq!(reply.encode().unwrap(), bytes);
}

#[test]
fn a_probability_that_is_not_one_is_refused() {
    for wrong in [f32::NAN, -0.1, 1.5, f32::INFINITY] {
        let outcome = Outcome::Classes(vec![Class { index: 0, probability: 0.5 }]);
        let reply = FrameReply::Answered(Reply {
            id: 1,
            path: Path::Split,
            provider: Provider::Cpu,
            groups: None,
            timings: Timings::default(),
            answers: vec![TaskAnswer { task: 0, batch: 1, outcome }],
        });
        let mut bytes = reply.encode().unwrap();
        let place = bytes.len() - 4;
        bytes[place..].copy_from_slice(&wrong.to_le_bytes());
        assert!(FrameReply::parse(&bytes).unwrap_err().to_string().contains("probability"));
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(b"abcxyz0189._-".to_vec()), 1..=64)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(name(), 0..=limits::MAX_TASKS).prop_map(|set| set.into_iter().collect())
}

fn bundles(least: usize) -> impl Strategy<Value = Vec<BundleId>> {
    prop::collection::btree_set(any::<[u8; 32]>(), least..=limits::MAX_BUNDLES)
        .prop_map(|set| set.into_iter().map(BundleId).collect())
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    (any::<u16>(), prop::option::of(1..=u32::MAX), "\\PC{0,120}").prop_map(|(code, retry, text)| Refusal {
        code: code.into(),
        retry: retry.map(|millis| Duration::from_millis(millis.into())),
        text,
    })
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        (1..=limits::MAX_TOP_K).prop_map(|top_k| Query::Classify { top_k }),
        Just(Query::Segment { size: None }),
        (1u16..=1448, 1u16..=1448).prop_map(|size| Query::Segment { size: Some(size) }),
        (3u8..=255, prop::collection::vec(any::<u8>(), 0..=255))
            .prop_map(|(kind, body)| Query::Unknown { kind, body }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        prop::collection::vec((any::<u16>(), 0.0f32..=1.0), 0..=20).prop_map(|classes| {
            let class = |(index, probability)| Class { index, probability };
            Outcome::Classes(classes.into_iter().map(class).collect())
        }),
        (1u16..=40, 1u16..=40, any::<u8>()).prop_map(|(width, height, seed)| {
            let pixels: Vec<u8> = (0..width * height).map(|place| (place as u8).wrapping_mul(seed)).collect();
            Outcome::Map(ClassMap::pack(width, height, &pixels).unwrap())
        }),
        any_refusal().prop_map(Outcome::Refused),
        (3u8..=254, prop::collection::vec(any::<u8>(), 0..=300))
            .prop_map(|(kind, body)| Outcome::Unknown { kind, body }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let bytes = |least| prop::collection::vec(any::<u8>(), least..2000);
    prop_oneof![
        bytes(1).prop_map(Payload::Packet),
        (any::<u8>(), any::<u8>(), any::<u8>(), bytes(1)).prop_map(|(geometry, format, framing, file)| {
            Payload::Image(Image { geometry, format: format.into(), framing: framing.into(), file })
        }),
        (any::<u32>(), bytes(1)).prop_map(|(micros, packet)| {
            Payload::Truncatable(Truncatable { wait: Duration::from_micros(micros.into()), packet })
        }),
        (4u8..=255, bytes(0)).prop_map(|(kind, body)| Payload::Unknown { kind, body }),
    ]
}

fn tasks_of<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<(u8, T)>> {
    prop::collection::vec(item, 1..=limits::MAX_TASKS)
        .prop_map(|items| items.into_iter().enumerate().map(|(task, item)| (task as u8, item)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn hello_round_trips(versions in (any::<u16>(), any::<u16>()), bundles in bundles(1), tasks in names()) {
        let (oldest, newest) = (versions.0.min(versions.1), versions.0.max(versions.1));
        let hello = Hello { oldest, newest, bundles, tasks };
        prop_assert_eq!(Hello::parse(&hello.encode().unwrap()).unwrap(), hello);
    }

    #[test]
    fn welcome_round_trips(max_in_flight in 1..=limits::MAX_IN_FLIGHT, ids in bundles(1), tasks in names()) {
        let bundles = ids.into_iter().map(|id| WelcomeBundle { id, tasks: tasks.clone() }).collect();
        let reply = HelloReply::Welcome(Welcome { version: 1, max_in_flight, bundles, standing: None });
        prop_assert_eq!(HelloReply::parse(&reply.encode().unwrap()).unwrap(), reply);
    }

    #[test]
    fn hello_refusal_round_trips(refusal in any_refusal(), serves in bundles(0)) {
        let reply = HelloReply::Refused(HelloRefusal { refusal, oldest: 1, newest: 3, serves });
        prop_assert_eq!(HelloReply::parse(&reply.encode().unwrap()).unwrap(), reply);
    }

    #[test]
    fn request_round_trips(
        id in any::<u64>(),
        bundle in any::<u8>(),
        budget in prop::option::of(0..u32::MAX),
        queries in tasks_of(query()),
        payload in payload(),
    ) {
        let budget = budget.map(|micros| Duration::from_micros(micros.into()));
        let task_requests = queries.into_iter().map(|(task, query)| TaskRequest { task, query }).collect();
        let request = Request { id, bundle, budget, task_requests, payload };
        prop_assert_eq!(Request::parse(&request.encode().unwrap()).unwrap(), request);
    }

    #[test]
    fn reply_round_trips(
        id in any::<u64>(),
        times in any::<[u32; 4]>(),
        outcomes in tasks_of(outcome()),
        groups in prop::option::of((1u8..=20, 20u8..=32)),
    ) {
        let [decode, queue, infer, answer] = times.map(|micros| Duration::from_micros((micros / 2).into()));
        let answers = outcomes.into_iter().map(|(task, outcome)| TaskAnswer { task, batch: 3, outcome });
        let reply = FrameReply::Answered(Reply {
            id,
            path: Path::Split,
            provider: Provider::Cuda,
            groups: groups.map(|(used, total)| Groups { used, total }),
            timings: Timings { decode, queue, infer, answer },
            answers: answers.collect(),
        });
        prop_assert_eq!(FrameReply::parse(&reply.encode().unwrap()).unwrap(), reply);
    }

    #[test]
    fn any_bytes_parse_or_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..6) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = [1, 2, 3, 16, 17, 18][kind];
        }
        for (_, parse) in PARSERS {
            let _ = parse(&bytes);
        }
    }
}
