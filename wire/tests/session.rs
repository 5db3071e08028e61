//! A simulated pair: both state machines, a lossy link and virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_wire::{
    BundleId, Class, ClassMap, Error, ErrorKind, FrameReply, Framing, Groups, Hello, HelloReply, Image,
    ImageFormat, Outcome, Payload, Provider, Query, QueryKind, Refusal, RefusalCode, Reply, Request,
    Standing, TaskAnswer, TaskRequest, Timings, Truncatable, Welcome, WelcomeBundle,
    session::{Accepted, Catalog, CatalogBundle, CatalogTask, Client, HelloOutcome, Server, Verdict},
};

const BUNDLE: BundleId = BundleId([7; 32]);
const OTHER: BundleId = BundleId([8; 32]);

#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

fn catalog(max_in_flight: u16) -> Arc<Catalog> {
    let task = |name: &str, kind, unsplit| CatalogTask { name: name.into(), kind, unsplit };
    let tasks = vec![task("classify", QueryKind::Classify, true), task("segment", QueryKind::Segment, false)];
    let other = CatalogBundle { id: OTHER, tasks: vec![task("classify", QueryKind::Classify, false)] };
    Arc::new(Catalog { bundles: vec![other, CatalogBundle { id: BUNDLE, tasks }], max_in_flight })
}

fn open(now: Instant, max_in_flight: u16) -> (Client, Server) {
    let mut client = Client::new(Hello::new(vec![BUNDLE], vec!["classify".into(), "segment".into()]));
    let mut server = Server::new(catalog(max_in_flight), now);
    let HelloOutcome::Open(bytes) = server.hello(&client.hello().unwrap()).unwrap() else {
        panic!("refused")
    };
    client.welcome(&bytes).unwrap();
    (client, server)
}

fn classify() -> Vec<TaskRequest> {
    vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }]
}

fn packet() -> Payload {
    Payload::Packet(vec![1])
}

fn image() -> Image {
    Image { geometry: 0, format: ImageFormat::WebP, framing: Framing::Fitted, file: vec![1] }
}

fn answer(accepted: &Accepted) -> Vec<u8> {
    let answers = accepted.task_requests.iter().map(|task_request| TaskAnswer {
        task: task_request.task,
        batch: 1,
        outcome: match task_request.query {
            Query::Segment { .. } => Outcome::Map(ClassMap::pack(2, 2, &[0; 4]).unwrap()),
            _ => Outcome::Classes(vec![Class { index: 1, probability: 1.0 }]),
        },
    });
    let reply = Reply {
        id: accepted.id,
        path: accepted.payload.path().unwrap(),
        provider: Provider::Cpu,
        groups: match accepted.payload {
            Payload::Truncatable(_) => Some(Groups { used: 1, total: 2 }),
            _ => None,
        },
        timings: Timings::default(),
        answers: answers.collect(),
    };
    FrameReply::Answered(reply).encode().unwrap()
}

fn accept(server: &mut Server, now: Instant, bytes: &[u8]) -> Accepted {
    match server.request(now, bytes).unwrap() {
        Verdict::Accepted(accepted) => accepted,
        Verdict::Refused { refusal, .. } => panic!("{refusal}"),
    }
}

fn refuse(server: &mut Server, now: Instant, bytes: &[u8]) -> (Vec<u8>, Refusal) {
    match server.request(now, bytes).unwrap() {
        Verdict::Refused { bytes, refusal, .. } => (bytes, refusal),
        Verdict::Accepted(accepted) => panic!("{accepted:?}"),
    }
}

#[test]
fn a_frame_goes_there_and_back_and_its_budget_counts_from_arrival() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let bundle = client.bundle(&BUNDLE).unwrap();
    let due = now + Duration::from_millis(100);
    let sent = now + Duration::from_millis(30);
    let (id, bytes) = client.request(sent, bundle, Some(due), classify(), packet()).unwrap();
    let arrived = now + Duration::from_millis(45);
    let accepted = accept(&mut server, arrived, &bytes);
    assert_eq!(accepted.bundle, 1, "the index is the catalog's, not the welcome's");
    assert_eq!(accepted.deadline, Some(arrived + Duration::from_millis(70)));
    let answered = client.reply(now + Duration::from_millis(60), id, &answer(&accepted)).unwrap();
    assert!(server.finish(id));
    assert_eq!(answered.round_trip, Duration::from_millis(30));
    assert_eq!((client.in_flight(), server.in_flight()), (0, 0));
}

#[test]
fn groups_are_stated_in_answers_to_truncatable_packets_and_in_no_others() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let bundle = client.bundle(&BUNDLE).unwrap();
    let truncatable =
        || Payload::Truncatable(Truncatable { wait: Duration::from_millis(5), packet: vec![1, 2, 3] });
    for payload in [truncatable(), packet()] {
        let other = if payload == packet() { truncatable() } else { packet() };
        let mut send = |client: &mut Client| {
            let (id, bytes) = client.request(now, bundle, None, classify(), payload.clone()).unwrap();
            // A truncatable packet ends early.
            let accepted = accept(&mut server, now, &bytes[..bytes.len() - usize::from(payload != packet())]);
            server.finish(id);
            (id, accepted)
        };
        let (id, accepted) = send(&mut client);
        client.reply(now, id, &answer(&accepted)).unwrap();
        let (id, accepted) = send(&mut client);
        let wrong = answer(&Accepted { payload: other, ..accepted });
        assert_eq!(client.reply(now, id, &wrong).unwrap_err().kind(), ErrorKind::Peer);
    }
}

#[test]
fn a_server_without_room_refuses_a_hello_that_it_would_accept_and_takes_no_request_then() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let bundle = client.bundle(&BUNDLE).unwrap();
    let (_, request) = client.request(now, bundle, None, classify(), packet()).unwrap();
    let full = Refusal::new(RefusalCode::Connections, "full").retry_after(Duration::from_secs(5));
    let HelloOutcome::Refused { bytes, refusal } = server.refuse(full.clone()).unwrap() else {
        panic!("open")
    };
    assert_eq!(refusal, full);
    let mut late = Client::new(Hello::new(vec![BUNDLE], Vec::new()));
    let Error::Refused(told) = late.welcome(&bytes).unwrap_err() else { panic!("another error") };
    assert_eq!((told.refusal, told.serves), (full, vec![OTHER, BUNDLE]));
    assert!(matches!(server.request(now, &request), Err(Error::Unexpected { .. })));
}

#[test]
fn a_hello_without_a_common_version_bundle_or_task_is_refused_with_the_reason() {
    let refused = |hello: Hello| {
        let mut server = Server::new(catalog(4), epoch());
        let mut client = Client::new(hello);
        let HelloOutcome::Refused { bytes, .. } = server.hello(&client.hello().unwrap()).unwrap() else {
            panic!("open")
        };
        let error = client.welcome(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        error.to_string()
    };
    let text = refused(Hello::new(vec![BundleId([1; 32])], Vec::new()));
    assert!(text.contains("bundle not served") && text.contains(&BUNDLE.to_string()), "{text}");
    assert!(text.contains(&BundleId([1; 32]).to_string()), "{text}");
    let text = refused(Hello { oldest: 4, newest: 9, ..Hello::new(vec![BUNDLE], Vec::new()) });
    assert!(text.contains("versions 4 to 9") && text.contains("versions 1 to 3"), "{text}");
    let text = refused(Hello::new(vec![BUNDLE], vec!["depth".into()]));
    assert!(text.contains("task not available") && text.contains("depth"), "{text}");
}

#[test]
fn the_newest_common_version_is_chosen_or_the_hello_is_refused() {
    let answer = |oldest, newest| {
        let mut server = Server::new(catalog(4), epoch());
        let hello = Hello { oldest, newest, ..Hello::new(vec![BUNDLE], Vec::new()) };
        match server.hello(&hello.encode().unwrap()).unwrap() {
            HelloOutcome::Open(bytes) => match HelloReply::parse(&bytes).unwrap() {
                HelloReply::Welcome(welcome) => Ok(welcome.version),
                refused => panic!("{refused:?}"),
            },
            HelloOutcome::Refused { refusal, .. } => Err(refusal.code),
        }
    };
    for (oldest, newest, version) in [(1, 1, 1), (0, 1, 1), (1, 2, 2), (1, 9, 3), (0, 65535, 3), (3, 3, 3)] {
        assert_eq!(answer(oldest, newest), Ok(version), "{oldest} to {newest}");
    }
    for (oldest, newest) in [(0, 0), (4, 4), (4, 65535)] {
        assert_eq!(answer(oldest, newest), Err(RefusalCode::Version), "{oldest} to {newest}");
    }
}

#[test]
fn a_welcome_that_does_not_fit_the_hello_is_a_violation() {
    let welcome = |version, bundles: &[BundleId]| {
        let mut client = Client::new(Hello { oldest: 2, newest: 4, ..Hello::new(vec![BUNDLE], Vec::new()) });
        let bundles = bundles.iter().map(|&id| WelcomeBundle { id, tasks: vec!["classify".into()] });
        let bytes = HelloReply::Welcome(Welcome {
            version,
            max_in_flight: 4,
            bundles: bundles.collect(),
            standing: (version >= 2).then(Standing::default),
        });
        let result = client.welcome(&bytes.encode().unwrap()).map(drop);
        assert_eq!(client.bundle(&BUNDLE), result.is_ok().then_some(0), "a wrong welcome is not kept");
        result.map_err(|error| (error.kind(), error.to_string()))
    };
    for version in [2, 3, 4] {
        assert_eq!(welcome(version, &[BUNDLE]), Ok(()));
    }
    for version in [0, 1, 5] {
        let (kind, text) = welcome(version, &[BUNDLE]).unwrap_err();
        assert!(kind == ErrorKind::Peer && text.contains("a version the hello did not offer"), "{text}");
    }
    for bundles in [&[OTHER][..], &[BUNDLE, OTHER]] {
        let (kind, text) = welcome(3, bundles).unwrap_err();
        assert!(kind == ErrorKind::Peer && text.contains("a bundle the hello did not name"), "{text}");
    }
}

#[test]
fn the_welcome_lists_the_common_bundles_and_requests_name_them_by_its_indices() {
    let now = epoch();
    let mut server = Server::new(catalog(4), now);
    let standing = Standing { connections: 3, next: "b:1".into(), ..Standing::default() };
    server.stand(standing.clone());
    let mut client = Client::new(Hello::new(vec![BundleId([1; 32]), BUNDLE, OTHER], vec!["classify".into()]));
    let HelloOutcome::Open(bytes) = server.hello(&client.hello().unwrap()).unwrap() else {
        panic!("refused")
    };
    let welcome = client.welcome(&bytes).unwrap();
    let tasks: Vec<_> = welcome.bundles.iter().map(|bundle| (bundle.id, bundle.tasks.len())).collect();
    assert_eq!((welcome.max_in_flight, tasks), (4, vec![(OTHER, 1), (BUNDLE, 2)]));
    assert_eq!(client.standing(), Some(&standing));
    assert_eq!(client.bundle(&BUNDLE), Some(1));
    assert_eq!(client.bundle(&BundleId([1; 32])), None);
    let (_, bytes) = client.request(now, 1, None, classify(), packet()).unwrap();
    assert_eq!(accept(&mut server, now, &bytes).bundle, 1);
    let (_, bytes) = client.request(now, 0, None, classify(), packet()).unwrap();
    assert_eq!(accept(&mut server, now, &bytes).bundle, 0);
}

#[test]
fn a_hello_has_five_seconds() {
    let now = epoch();
    assert_eq!(Server::new(catalog(4), now).hello_due(), now + Duration::from_secs(5));
}

#[test]
fn a_draining_server_refuses_the_hello() {
    let mut server = Server::new(catalog(4), epoch());
    server.drain();
    let mut client = Client::new(Hello::new(vec![BUNDLE], Vec::new()));
    let HelloOutcome::Refused { bytes, refusal } = server.hello(&client.hello().unwrap()).unwrap() else {
        panic!("open")
    };
    assert_eq!(refusal.code, RefusalCode::Draining);
    assert_eq!(client.welcome(&bytes).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!((client.room(), client.bundle(&BUNDLE)), (0, None));
}

#[test]
fn a_client_sends_nothing_before_the_welcome_and_nothing_that_is_not_in_it() {
    let now = epoch();
    let mut client = Client::new(Hello::new(vec![BUNDLE], Vec::new()));
    let early = client.request(now, 0, None, classify(), packet()).unwrap_err();
    assert_eq!((early.clone(), early.kind()), (Error::NotOpen, ErrorKind::Caller));
    let (mut client, _) = open(now, 4);
    let segment = |task| vec![TaskRequest { task, query: Query::Segment { size: None } }];
    for (bundle, task, field) in [(1, 0, "bundle"), (255, 0, "bundle"), (0, 2, "task"), (0, 255, "task")] {
        let error = client.request(now, bundle, None, segment(task), packet()).unwrap_err();
        assert_eq!(error, Error::Invalid { field, reason: "not in the welcome" });
    }
    assert_eq!(client.in_flight(), 0, "what was not sent is not in flight");
    assert!(client.request(now, 0, None, segment(1), packet()).is_ok());
    assert_eq!((client.in_flight(), client.room()), (1, 3));
}

#[test]
fn an_answer_to_no_frame_is_the_callers_error() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let (id, bytes) = client.request(now, 0, None, classify(), packet()).unwrap();
    let reply = answer(&accept(&mut server, now, &bytes));
    assert_eq!(client.reply(now, id + 1, &reply).unwrap_err(), Error::NoSuchFrame { id: id + 1 });
    assert!(client.reply(now, id, &reply).is_ok());
    let again = client.reply(now, id, &reply).unwrap_err();
    assert_eq!((again.clone(), again.kind()), (Error::NoSuchFrame { id }, ErrorKind::Caller));
}

#[test]
fn a_number_may_be_used_again_once_its_frame_is_finished() {
    let now = epoch();
    let (_, mut server) = open(now, 2);
    let request = |id| {
        let task_requests = classify();
        Request { id, bundle: 0, budget: None, task_requests, payload: packet() }.encode().unwrap()
    };
    accept(&mut server, now, &request(7));
    accept(&mut server, now, &request(8));
    let twice = server.request(now, &request(7)).unwrap_err();
    assert_eq!(twice, Error::Mismatch { id: 7, reason: "a frame of this number is in flight" });
    assert_eq!(server.in_flight(), 2);
    let (_, full) = refuse(&mut server, now, &request(9));
    assert_eq!(full.code, RefusalCode::TooManyInFlight);
    assert!(server.finish(7) && !server.finish(7) && !server.finish(9));
    assert_eq!(accept(&mut server, now, &request(7)).id, 7);
}

#[test]
fn a_query_without_a_size_takes_any_map_and_every_query_takes_a_refusal() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let task_requests = vec![
        TaskRequest { task: 1, query: Query::Segment { size: None } },
        TaskRequest { task: 0, query: Query::Classify { top_k: 2 } },
    ];
    let mut reply = |outcomes: [Outcome; 2]| {
        let (id, bytes) = client.request(now, 0, None, task_requests.clone(), packet()).unwrap();
        let Ok(FrameReply::Answered(mut reply)) =
            FrameReply::parse(&answer(&accept(&mut server, now, &bytes)))
        else {
            panic!()
        };
        for (answer, outcome) in reply.answers.iter_mut().zip(outcomes) {
            answer.outcome = outcome;
        }
        server.finish(id);
        client.reply(now, id, &FrameReply::Answered(reply).encode().unwrap()).map(drop)
    };
    let map = Outcome::Map(ClassMap::pack(3, 1, &[0; 3]).unwrap());
    let classes = |count| Outcome::Classes(vec![Class { index: 0, probability: 0.5 }; count]);
    let refused = Outcome::Refused(Refusal::new(RefusalCode::Internal, ""));
    reply([map.clone(), classes(2)]).unwrap();
    reply([map.clone(), classes(0)]).unwrap();
    reply([map.clone(), refused.clone()]).unwrap();
    reply([refused, classes(1)]).unwrap();
    assert!(reply([classes(1), classes(1)]).unwrap_err().to_string().contains("another kind"));
    assert!(reply([map.clone(), map]).unwrap_err().to_string().contains("another kind"));
}

#[test]
fn a_request_before_the_hello_is_a_violation() {
    let now = epoch();
    let (mut client, _) = open(now, 4);
    let (_, bytes) = client.request(now, 0, None, classify(), packet()).unwrap();
    let error = Server::new(catalog(4), now).request(now, &bytes).unwrap_err();
    assert_eq!(error.to_string(), "unexpected request, expected hello");
    assert_eq!(error.kind(), ErrorKind::Peer);
}

#[test]
fn what_the_catalog_does_not_hold_is_refused_with_its_own_code() {
    let now = epoch();
    let (_, mut server) = open(now, 4);
    let base = Request { id: 1, bundle: 0, budget: None, task_requests: classify(), payload: packet() };
    let mut code = |request: Request| refuse(&mut server, now, &request.encode().unwrap()).1.code;
    assert_eq!(code(Request { bundle: 1, ..base.clone() }), RefusalCode::NoSuchBundle);
    let task_request = |task, query| vec![TaskRequest { task, query }];
    let task_requests = task_request(2, Query::Classify { top_k: 1 });
    assert_eq!(code(Request { task_requests, ..base.clone() }), RefusalCode::NoSuchTask);
    let task_requests = task_request(1, Query::Classify { top_k: 1 });
    assert_eq!(code(Request { task_requests, ..base.clone() }), RefusalCode::WrongKind);
    let task_requests = task_request(1, Query::Unknown { kind: 9, body: Vec::new() });
    assert_eq!(code(Request { task_requests, ..base.clone() }), RefusalCode::Unsupported);
    let image = |image: Image| Request { payload: Payload::Image(image), ..base.clone() };
    let segment = task_request(1, Query::Segment { size: None });
    assert_eq!(
        code(Request { task_requests: segment, ..image(self::image()) }),
        RefusalCode::UnsplitNotServed
    );
    let strange = Image { format: ImageFormat::Unknown(9), ..self::image() };
    assert_eq!(code(image(strange)), RefusalCode::Unsupported);
    let strange = Image { framing: Framing::Unknown(9), ..self::image() };
    assert_eq!(code(image(strange)), RefusalCode::Unsupported);
    let payload = Payload::Unknown { kind: 9, body: Vec::new() };
    assert_eq!(code(Request { payload, ..base.clone() }), RefusalCode::Unsupported);
    assert_eq!(code(Request { budget: Some(Duration::ZERO), ..base }), RefusalCode::Expired);
}

#[test]
fn the_answer_to_an_image_must_be_of_the_image_path() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let (id, bytes) = client.request(now, 0, None, classify(), Payload::Image(image())).unwrap();
    let accepted = accept(&mut server, now, &bytes);
    assert_eq!(accepted.payload, Payload::Image(image()));
    assert!(client.reply(now, id, &answer(&accepted)).is_ok());
    let (id, _) = client.request(now, 0, None, classify(), packet()).unwrap();
    let error = client.reply(now, id, &answer(&Accepted { id, ..accepted })).unwrap_err();
    assert!(error.kind() == ErrorKind::Peer && error.to_string().contains("another path"), "{error}");
}

#[test]
fn frames_in_flight_are_bounded_on_both_sides() {
    let now = epoch();
    let (mut client, mut server) = open(now, 2);
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(client.request(now, 0, None, classify(), packet()).unwrap());
    }
    assert_eq!(client.room(), 0);
    let full = client.request(now, 0, None, classify(), packet()).unwrap_err();
    assert_eq!(full, Error::Full { limit: 2 });
    for (_, bytes) in &sent {
        accept(&mut server, now, bytes);
    }
    let error = server.request(now, &sent[0].1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Peer, "a number in flight used again: {error}");
    let third = Request { id: 99, bundle: 0, budget: None, task_requests: classify(), payload: packet() };
    let (_, refusal) = refuse(&mut server, now, &third.encode().unwrap());
    assert_eq!(refusal.code, RefusalCode::TooManyInFlight);
    assert!(client.abandon(sent[0].0) && !client.abandon(sent[0].0));
    assert_eq!(client.room(), 1);
}

#[test]
fn a_draining_server_refuses_new_frames_and_answers_accepted_ones() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let (old, bytes) = client.request(now, 0, None, classify(), packet()).unwrap();
    let accepted = accept(&mut server, now, &bytes);
    server.drain();
    let (new, bytes) = client.request(now, 0, None, classify(), packet()).unwrap();
    let (bytes, refusal) = refuse(&mut server, now, &bytes);
    assert_eq!(refusal.code, RefusalCode::Draining);
    assert!(matches!(client.reply(now, new, &bytes).unwrap().reply, FrameReply::Refused { .. }));
    assert!(matches!(client.reply(now, old, &answer(&accepted)).unwrap().reply, FrameReply::Answered(_)));
}

#[test]
fn an_answer_that_does_not_fit_the_query_is_a_violation() {
    let now = epoch();
    let (mut client, mut server) = open(now, 4);
    let task_requests = vec![
        TaskRequest { task: 0, query: Query::Classify { top_k: 1 } },
        TaskRequest { task: 1, query: Query::Segment { size: Some((4, 4)) } },
    ];
    let mut wrong = |spoil: fn(&mut Reply), reason: &str| {
        let (id, bytes) = client.request(now, 0, None, task_requests.clone(), packet()).unwrap();
        let accepted = accept(&mut server, now, &bytes);
        let Ok(FrameReply::Answered(mut reply)) = FrameReply::parse(&answer(&accepted)) else { panic!() };
        reply.answers[1].outcome = Outcome::Map(ClassMap::pack(4, 4, &[0; 16]).unwrap());
        spoil(&mut reply);
        let error = client.reply(now, id, &FrameReply::Answered(reply).encode().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Peer);
        assert!(error.to_string().contains(reason), "{error}");
        server.finish(id);
    };
    wrong(|reply| reply.id += 1, "another frame");
    wrong(|reply| drop(reply.answers.pop()), "not one answer per task");
    wrong(|reply| reply.answers[1].task = 5, "did not answer");
    wrong(
        |reply| reply.answers[1].outcome = Outcome::Map(ClassMap::pack(2, 2, &[0; 4]).unwrap()),
        "another size",
    );
    wrong(|reply| reply.answers[1].outcome = Outcome::Classes(Vec::new()), "another kind");
    let two = |reply: &mut Reply| {
        reply.answers[0].outcome = Outcome::Classes(vec![Class { index: 0, probability: 0.5 }; 2]);
    };
    wrong(two, "more classes");
    let unknown = |reply: &mut Reply| {
        reply.answers[0].outcome = Outcome::Unknown { kind: 9, body: Vec::new() };
    };
    wrong(unknown, "unknown kind");
}

/// A hundred frames over a link that delays and loses them, with a server that takes its time: every frame ends
/// answered, refused or abandoned, and neither side keeps one.
#[test]
fn no_frame_is_forgotten_on_a_lossy_link() {
    for seed in 1..=20u64 {
        let start = epoch();
        let (mut client, mut server) = open(start, 8);
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = move |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        enum Event {
            Capture,
            Arrive(u64, Vec<u8>),
            Done(Accepted),
            Back(u64, Vec<u8>),
            GiveUp(u64),
        }
        let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
        let mut order = 0..;
        let mut plan = |events: &mut BTreeMap<_, _>, at: u64, event| {
            events.insert((at, order.next().unwrap()), event);
        };
        (0..100).for_each(|frame| plan(&mut events, frame * 10, Event::Capture));
        let (mut answered, mut refused, mut lost, mut skipped) = (0, 0, 0, 0);
        while let Some(((at, _), event)) = events.pop_first() {
            let now = start + Duration::from_millis(at);
            match event {
                Event::Capture if client.room() == 0 => skipped += 1,
                Event::Capture => {
                    let due = now + Duration::from_millis(60);
                    let (id, bytes) = client.request(now, 0, Some(due), classify(), packet()).unwrap();
                    plan(&mut events, at + 200, Event::GiveUp(id));
                    if roll(10) > 0 {
                        plan(&mut events, at + 2 + roll(40), Event::Arrive(id, bytes));
                    }
                }
                Event::Arrive(id, bytes) => match server.request(now, &bytes).unwrap() {
                    Verdict::Accepted(accepted) => plan(&mut events, at + roll(80), Event::Done(accepted)),
                    Verdict::Refused { bytes, .. } => plan(&mut events, at + 2, Event::Back(id, bytes)),
                },
                Event::Done(accepted) => {
                    let late = accepted.deadline.is_some_and(|deadline| deadline < now);
                    let refusal = Refusal::new(RefusalCode::Expired, "");
                    let refusal = FrameReply::Refused { id: accepted.id, refusal }.encode().unwrap();
                    let bytes = if late { refusal } else { answer(&accepted) };
                    server.finish(accepted.id);
                    if roll(10) > 0 {
                        plan(&mut events, at + 2 + roll(40), Event::Back(accepted.id, bytes));
                    }
                }
                Event::Back(id, bytes) => match client.reply(now, id, &bytes).map(|answer| answer.reply) {
                    Ok(FrameReply::Answered(_)) => answered += 1,
                    Ok(FrameReply::Refused { .. }) => refused += 1,
                    Err(error) => assert_eq!(error, Error::NoSuchFrame { id }),
                },
                Event::GiveUp(id) => lost += i32::from(client.abandon(id)),
            }
        }
        assert_eq!(answered + refused + lost + skipped, 100, "seed {seed}");
        assert_eq!((client.in_flight(), server.in_flight()), (0, 0), "seed {seed}");
        assert!(answered > 20 && refused > 0 && lost > 0, "seed {seed}: {answered} {refused} {lost}");
    }
}
