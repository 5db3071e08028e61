//! The uplink against a server in this process that follows a script.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use narrows_wire::{
    BundleId, Class, FrameReply, Hello, HelloRefusal, Outcome as TaskOutcome, Path, Payload, Provider, Query,
    Refusal, RefusalCode, Reply, Request, Reset, Standing, TaskAnswer, TaskRequest, Welcome, WelcomeBundle,
    identity::Identity,
    limits::{MAX_HELLO, MAX_REQUEST},
    quic::{self, Tuning},
    stream::{read_message, write_message},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::{
    config::{Server, ServerChoice},
    frame::{
        Capture, EncodeStats, Encoded, Finished, Frame, FrameId, FramePath, FramePlan, Load, Origin, Outcome,
        Timings,
    },
    picture::Picture,
};

const BUNDLE: BundleId = BundleId([7; 32]);
const LONG: Duration = Duration::from_secs(100);

/// What the server does with one request; a request without an entry is answered.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Refuse(RefusalCode),
    Ignore,
    Reset,
    Garbage,
    Close,
    /// Hears and says nothing for this time, as a stopped process.
    Hang(Duration),
}

/// A frame with an age and a budget.
pub(super) fn frame(id: u64, captured_at: Instant, budget: Duration) -> Frame<Encoded> {
    let plan = FramePlan {
        path: FramePath::Local,
        tasks: [TaskRequest { task: 0, query: Query::Classify { top_k: 1 } }].into(),
        deadline: captured_at + budget,
        draw: false,
        keep_picture: false,
    };
    let capture = Capture {
        origin: Origin::File { file: "x.jpg".into(), source: None },
        picture_name: None,
        captured_at,
        captured_on: SystemTime::UNIX_EPOCH,
        decode: Duration::ZERO,
        picture: Ok(Picture::Image(image::RgbImage::new(1, 1))),
        can_reload: true,
    };
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let stats = EncodeStats {
        packet_bytes: 0,
        level: None,
        coding: None,
        timings: Timings::default(),
        encoded_at: captured_at,
    };
    let payload = Payload::Packet(vec![1, 2, 3]);
    Frame::begin(FrameId(id), capture, plan, permit).0.with(Encoded {
        load: Load::Payload(payload),
        stats,
        picture: None,
    })
}

/// Servers and the certificates of both sides.
struct Scene {
    server: TempDir,
    device: TempDir,
    addresses: Vec<SocketAddr>,
    choice: ServerChoice,
}

impl Scene {
    fn new(hello: Option<RefusalCode>, acts: &[Act]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let identity = |usage| {
            let (folder, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
            std::fs::write(folder.path().join("cert.pem"), params.signed_by(&key, &ca).unwrap().pem())
                .unwrap();
            let file = folder.path().join("key.pem");
            std::fs::write(&file, key.serialize_pem()).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            folder
        };
        let (server, device) =
            (identity(ExtendedKeyUsagePurpose::ServerAuth), identity(ExtendedKeyUsagePurpose::ClientAuth));
        let address = serve(&server, hello, Standing::default(), acts);
        Scene { server, device, addresses: vec![address], choice: ServerChoice::Order }
    }

    /// Adds a server that answers and stands like this.
    fn and(mut self, standing: Standing) -> Self {
        self.addresses.push(serve(&self.server, None, standing, &[]));
        self
    }

    fn servers(&self) -> Arc<Servers> {
        let server = |address: &SocketAddr| Server { host: address.ip().to_string(), port: address.port() };
        let servers = self.addresses.iter().map(server).collect();
        let identity = Identity::load(self.device.path()).unwrap();
        let access = Access::new(identity, Tuning::default(), BUNDLE, vec!["classify".into()]).unwrap();
        Arc::new(Servers::new(servers, &Arc::new(access), self.choice, Duration::ZERO))
    }

    /// Takes frames with these budgets through an uplink; returns its result and the end of each frame, ordered by id.
    async fn run(
        &self,
        budgets: &[Duration],
        retry_for: Duration,
        has_fallback: bool,
    ) -> (Result<(), Error>, Vec<String>) {
        let (incoming, encoded) = mpsc::channel(8);
        let (finished_in, finished) = sync_channel(8);
        let (local_in, local) = sync_channel(8);
        for (id, &budget) in budgets.iter().enumerate() {
            incoming.try_send(frame(id as u64, Instant::now(), budget)).unwrap();
        }
        drop(incoming);
        let servers = self.servers();
        let first = find(&servers, retry_for, has_fallback).await;
        let uplink = Uplink {
            planning: None,
            servers,
            queue: FrameQueue::new(encoded, finished_in),
            retry_for,
            fallback: has_fallback.then(|| Fallback::new(local_in)),
            shutdown: Shutdown::new(),
            state: Arc::default(),
        };
        let result = tokio::time::timeout(Duration::from_secs(30), uplink.run(first)).await.unwrap();
        (result, ends(&finished, &local))
    }
}

fn ends(finished: &Receiver<Frame<Finished>>, local: &Receiver<fallback::FallbackFrame>) -> Vec<String> {
    let finished = finished.try_iter().map(|frame| {
        let end = match &frame.stage.outcome {
            Outcome::Answered { .. } => "answered".to_owned(),
            Outcome::Refused { refusal, .. } => format!("refused: {refusal}"),
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Dropped => "dropped".to_owned(),
            Outcome::Spooled(reason) => format!("spooled: {reason}"),
            Outcome::Local { .. } => "local".to_owned(),
            Outcome::Kept { .. } => "kept".to_owned(),
        };
        (frame.id.0, end)
    });
    let local = local.try_iter().map(|(frame, reason)| (frame.id.0, format!("local: {reason}")));
    let mut all: Vec<(u64, String)> = finished.chain(local).collect();
    all.sort();
    let ids: Vec<u64> = all.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (0..all.len() as u64).collect::<Vec<_>>(), "every frame ends once: {all:?}");
    all.into_iter().map(|(_, end)| end).collect()
}

/// Runs a server in a thread of its own until the test ends.
fn serve(identity: &TempDir, hello: Option<RefusalCode>, standing: Standing, acts: &[Act]) -> SocketAddr {
    let acts = Arc::new(Mutex::new(acts.iter().copied().collect::<VecDeque<Act>>()));
    let identity = Identity::load(identity.path()).unwrap();
    let (ready, address) = sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tuning = Tuning::default();
            let config = quic::server_config(&identity, &tuning).unwrap();
            let any = "127.0.0.1:0".parse().unwrap();
            let endpoint = quic::server_endpoint(any, config, &identity, &tuning).unwrap();
            ready.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                let (acts, standing) = (Arc::clone(&acts), standing.clone());
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let Ok((send, receive)) = connection.accept_bi().await else { return };
                    if !welcome(send, receive, hello, standing).await {
                        connection.closed().await;
                        return;
                    }
                    quic::allow_requests(&connection, 8, &Tuning::default());
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Answer);
                        tokio::spawn(play(connection.clone(), send, receive, act));
                    }
                });
            }
        });
    });
    address.recv().unwrap()
}

async fn welcome(
    mut send: SendStream,
    mut receive: RecvStream,
    refusal: Option<RefusalCode>,
    standing: Standing,
) -> bool {
    let Ok(hello) = read_message(&mut receive, MAX_HELLO).await else { return false };
    Hello::parse(&hello).unwrap();
    let bytes = match refusal {
        Some(code) => {
            let refusal = Refusal::new(code, "no");
            HelloRefusal { refusal, oldest: 1, newest: 1, serves: Vec::new() }.encode()
        }
        None => {
            let bundles = vec![WelcomeBundle { id: BUNDLE, tasks: vec!["classify".into()] }];
            Welcome { version: 2, max_in_flight: 8, bundles, standing: Some(standing) }.encode()
        }
    };
    write_message(&mut send, &bytes.unwrap()).await.is_ok() && refusal.is_none()
}

async fn play(connection: Connection, mut send: SendStream, mut receive: RecvStream, act: Act) {
    let Ok(request) = read_message(&mut receive, MAX_REQUEST).await else { return };
    let id = Request::parse(&request).unwrap().id;
    let answer = || {
        let classes = TaskOutcome::Classes(vec![Class { index: 0, probability: 1.0 }]);
        let answers = vec![TaskAnswer { task: 0, batch: 1, outcome: classes }];
        let timings = narrows_wire::Timings::default();
        FrameReply::Answered(Reply {
            id,
            path: Path::Split,
            provider: Provider::Cpu,
            groups: None,
            timings,
            answers,
        })
    };
    let reply = match act {
        Act::Answer => answer().encode().unwrap(),
        Act::Refuse(code) => FrameReply::Refused { id, refusal: Refusal::new(code, "no") }.encode().unwrap(),
        Act::Ignore => return std::future::pending().await,
        Act::Reset => {
            let _ = send.reset(VarInt::from_u32(Reset::TooLarge.into()));
            return;
        }
        Act::Garbage => vec![99; 3],
        Act::Close => return quic::close(&connection, narrows_wire::Close::Internal, "bye"),
        Act::Hang(time) => {
            thread::sleep(time);
            answer().encode().unwrap()
        }
    };
    let _ = write_message(&mut send, &reply).await;
    let _ = send.stopped().await;
}

#[tokio::test]
async fn frames_are_answered_and_the_run_ends() {
    let scene = Scene::new(None, &[]);
    let (result, ends) = scene.run(&[LONG; 3], LONG, false).await;
    result.unwrap();
    assert_eq!(ends, ["answered"; 3]);
    assert!(scene.server.path().exists());
}

#[tokio::test]
async fn a_server_without_time_is_replaced_by_this_device_and_other_refusals_stay() {
    let acts = [Act::Refuse(RefusalCode::Busy), Act::Refuse(RefusalCode::BadPacket), Act::Reset];
    let (result, mut ends) = Scene::new(None, &acts).run(&[LONG; 4], LONG, true).await;
    result.unwrap();
    ends.sort();
    assert!(ends[0] == "answered" && ends[3].starts_with("refused: bad packet"), "{ends:?}");
    assert!(ends[1].starts_with("local: the server at 127.0.0.1:"), "{ends:?}");
    assert!(ends[1].ends_with("busy: \"no\"") && ends[2].contains("the peer gave the stream up"), "{ends:?}");
    let (result, mut ends) = Scene::new(None, &acts).run(&[LONG; 4], LONG, false).await;
    result.unwrap();
    ends.sort();
    assert!(ends[1].starts_with("failed: no answer: the peer gave"), "{ends:?}");
    assert!(ends[2].starts_with("refused: bad packet") && ends[3].starts_with("refused: busy"), "{ends:?}");
}

#[tokio::test]
async fn frames_without_an_answer_are_sent_again_over_the_next_connection() {
    for act in [Act::Close, Act::Refuse(RefusalCode::Draining)] {
        let (result, ends) = Scene::new(None, &[act]).run(&[LONG; 3], LONG, false).await;
        result.unwrap();
        assert_eq!(ends, ["answered"; 3]);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_the_protocol_fails_its_frame_only() {
    let (result, ends) = Scene::new(None, &[Act::Garbage]).run(&[LONG; 1], LONG, false).await;
    result.unwrap();
    assert!(ends[0].starts_with("failed: unexpected unknown code 99"), "{ends:?}");
}

#[tokio::test]
async fn a_frame_without_an_answer_ends_with_its_budget() {
    let budget = Duration::from_millis(300);
    let (result, ends) = Scene::new(None, &[Act::Ignore]).run(&[budget, LONG], LONG, false).await;
    result.unwrap();
    assert_eq!(ends, ["failed: no answer within the budget of 300 ms", "answered"]);
}

#[tokio::test]
async fn a_frame_that_a_slow_server_does_not_answer_is_answered_here_within_its_budget() {
    let budget = Duration::from_millis(600);
    let begin = Instant::now();
    let (result, ends) = Scene::new(None, &[Act::Ignore]).run(&[budget], LONG, true).await;
    result.unwrap();
    assert!(
        ends[0].starts_with("local: the server at 127.0.0.1:") && ends[0].ends_with("600 ms"),
        "{ends:?}"
    );
    assert!(begin.elapsed() >= budget / 2, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_hangs_is_replaced_by_this_device_in_half_of_the_time() {
    let hang = Duration::from_millis(2500);
    let budget = Duration::from_secs(2);
    let begin = Instant::now();
    let (result, ends) = Scene::new(None, &[Act::Hang(hang)]).run(&[budget], LONG, true).await;
    result.unwrap();
    assert!(
        ends[0].starts_with("local: the server at 127.0.0.1:") && ends[0].ends_with("is silent"),
        "{ends:?}"
    );
    assert!(begin.elapsed() >= budget / 2 && begin.elapsed() < budget, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_hangs_answers_every_frame_once_when_it_goes_on() {
    let hang = Duration::from_millis(2500);
    let (result, ends) = Scene::new(None, &[Act::Hang(hang)]).run(&[LONG; 3], LONG, false).await;
    result.unwrap();
    assert_eq!(ends, ["answered"; 3]);
}

#[tokio::test]
async fn what_an_authenticated_server_says_ends_the_run_without_a_local_network() {
    let patience = Duration::from_secs(20);
    let begin = Instant::now();
    for (code, part) in [(RefusalCode::Task, "task not available"), (RefusalCode::Bundle, "another bundle")] {
        let scene = Scene::new(Some(code), &[]);
        let (result, ends) = scene.run(&[LONG], patience, false).await;
        let error = Chain(&result.unwrap_err()).to_string();
        assert!(error.contains(part), "{error}");
        assert!(ends[0].starts_with("failed: no answer: ") && ends[0].contains(part), "{ends:?}");
        let (result, ends) = scene.run(&[LONG], patience, true).await;
        result.unwrap();
        assert!(ends[0].starts_with("local: ") && ends[0].contains(part), "{ends:?}");
    }
    assert!(begin.elapsed() < patience);
}

#[tokio::test]
async fn a_full_server_is_tried_for_the_whole_patience() {
    let patience = Duration::from_millis(1200);
    let scene = Scene::new(Some(RefusalCode::Connections), &[]);
    let begin = Instant::now();
    let (result, ends) = scene.run(&[LONG], patience, false).await;
    assert!(begin.elapsed() >= patience);
    let error = Chain(&result.unwrap_err()).to_string();
    assert!(error.contains(" s: too many connections") && !error.contains("within 0."), "{error}");
    assert!(ends[0].contains("too many connections"), "{ends:?}");
}

fn waiting(millis: u64) -> Standing {
    Standing { wait: Duration::from_millis(millis), ..Standing::default() }
}

#[tokio::test]
async fn of_two_servers_the_one_with_less_load_is_taken() {
    let refuses = Some(RefusalCode::Connections);
    let mut scene = Scene::new(refuses, &[]).and(waiting(30)).and(waiting(2));
    scene.choice = ServerChoice::Load;
    scene.addresses.remove(0);
    for _ in 0..4 {
        let session = scene.servers().connect().await.unwrap();
        assert_eq!(session.server().port, scene.addresses[1].port());
    }
}

#[tokio::test]
async fn in_order_the_first_server_that_answers_is_taken_and_an_earlier_one_returned_to() {
    let scene = Scene::new(Some(RefusalCode::Connections), &[]).and(waiting(30)).and(waiting(2));
    let servers = scene.servers();
    let session = servers.connect().await.unwrap();
    assert_eq!(session.server().port, scene.addresses[1].port());
    servers.lost(&session.connector);
    let session = servers.connect().await.unwrap();
    assert_eq!(session.server().port, scene.addresses[2].port(), "the lost one comes last for a while");
    let better = servers.better(Arc::clone(&session.connector), Arc::clone(&session.wait));
    let better = tokio::time::timeout(Duration::from_secs(20), better).await.unwrap();
    assert_eq!(better.server().port, scene.addresses[1].port());
}

#[tokio::test]
async fn a_draining_server_sends_its_frames_to_the_one_that_it_names() {
    let second: SocketAddr = "127.0.0.1:7".parse().unwrap();
    let scene = Scene::new(None, &[]);
    // Nothing listens there, so that the other one answers.
    let next = Standing { next: second.to_string(), ..Standing::default() };
    let draining = serve(&scene.server, None, next, &[Act::Refuse(RefusalCode::Draining)]);
    let servers = Scene { addresses: vec![draining, scene.addresses[0]], ..scene };
    let session = servers.servers();
    let (result, ends) = servers.run(&[LONG; 3], LONG, false).await;
    result.unwrap();
    assert_eq!(ends, ["answered"; 3]);
    let first = session.connect().await.unwrap();
    session.draining(&first);
    assert_eq!(session.candidates()[0].server().to_string(), second.to_string());
    assert!(session.has_other(&first.connector));
}
