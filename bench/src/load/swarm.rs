//! Many heads in one thread: connections that share sockets, and frames that leave when they are due.
#![expect(clippy::disallowed_methods, reason = "frames are due at their time")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::ToSocketAddrs,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use narrows_pair::Interrupt;
use narrows_wire::{
    Close, FrameReply, Payload, TaskRequest,
    identity::Identity,
    limits::{HANDSHAKE_TIMEOUT, HELLO_TIMEOUT, MAX_HELLO, MAX_REPLY},
    quic::{self, Tuning},
    session::Client,
    stream::{read_message, write_message},
};
use quinn::{Connection, Endpoint};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep_until, timeout, timeout_at},
};

use crate::load::{arrivals::Arrivals, question::Question, tally::Tally};

/// Heads on one UDP socket.
const SHARE: usize = 512;
/// Handshakes under way at once: what a tail would refuse says nothing about frames.
const HANDSHAKES: usize = 32;
/// How long after its budget a frame may still be answered before it counts as without a word.
const GRACE: Duration = Duration::from_secs(5);
/// How often the loop looks at the user's wish to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Where the tail is, and who the heads say they are.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: String,
    pub(super) identity: PathBuf,
    pub(super) ramp: Duration,
}

/// Connected heads.
#[derive(Debug)]
pub(super) struct Swarm {
    heads: Vec<Rc<Head>>,
    endpoints: Vec<Endpoint>,
    missed: BTreeMap<String, usize>,
    took: Duration,
    packets: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Head {
    connection: Connection,
    session: RefCell<Client>,
    bundle: u8,
    task_requests: Rc<[TaskRequest]>,
    /// Frames that the welcome leaves room for; others wait in turn.
    room: Semaphore,
}

impl Swarm {
    /// Connects `number` heads, evenly over the ramp and never more than a few at once.
    ///
    /// # Errors
    /// When none gets through, with the reason.
    pub(super) async fn connect(
        target: &Target,
        question: &Question,
        number: usize,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (host, _) = target.server.rsplit_once(':').context("--server: has no port; give HOST:PORT")?;
        let host: Rc<str> = host.trim_start_matches('[').trim_end_matches(']').into();
        let address =
            target.server.to_socket_addrs().with_context(|| format!("--server: {}", target.server))?;
        let address = address.into_iter().next().context("--server: the name has no address")?;
        let tuning = Tuning::default();
        let config = quic::client_config(&Identity::load(&target.identity)?, &tuning)?;
        let endpoints = (0..number.div_ceil(SHARE)).map(|_| quic::client_endpoint(address, &tuning));
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, _>>()?;
        let task_requests: Rc<[TaskRequest]> = question.task_requests.clone().into();
        let turns = Rc::new(Semaphore::new(HANDSHAKES));
        let start = Instant::now();
        let bar = bar("connecting", number as u64);
        let mut calls = JoinSet::new();
        for place in 0..number {
            let (endpoint, config, host) =
                (endpoints[place / SHARE].clone(), config.clone(), Rc::clone(&host));
            let (turns, task_requests, hello) =
                (Rc::clone(&turns), Rc::clone(&task_requests), question.hello.clone());
            let due = start + target.ramp.mul_f64(place as f64 / number as f64);
            let bundle = question.bundle;
            calls.spawn_local(async move {
                sleep_until(due.into()).await;
                let _turn = turns.acquire().await?;
                let connecting = endpoint.connect_with(config, address, &host)?;
                let connection = timeout(HANDSHAKE_TIMEOUT, connecting).await.context("handshake")??;
                let session = timeout(HELLO_TIMEOUT, greet(&connection, Client::new(hello)));
                let session = session.await.context("hello")??;
                let bundle = session.bundle(&bundle).context("the tail does not serve the bundle")?;
                let room = Semaphore::new(session.room());
                anyhow::Ok(Head { connection, session: RefCell::new(session), bundle, task_requests, room })
            });
        }
        let mut swarm = Swarm {
            heads: Vec::with_capacity(number),
            endpoints,
            missed: BTreeMap::new(),
            took: Duration::ZERO,
            packets: question.packets.clone(),
        };
        while !interrupt.seen() {
            match timeout(LOOK, calls.join_next()).await {
                // Nobody yet: look at the user, then wait on.
                Err(_) => continue,
                Ok(None) => break,
                Ok(Some(call)) => match call? {
                    Ok(head) => swarm.heads.push(Rc::new(head)),
                    Err(error) => *swarm.missed.entry(format!("{error:#}")).or_default() += 1,
                },
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        swarm.took = start.elapsed();
        let reasons: Vec<&str> = swarm.missed.keys().map(String::as_str).collect();
        ensure!(!swarm.heads.is_empty(), "no head got through to {}: {}", target.server, reasons.join("; "));
        Ok(swarm)
    }

    /// Heads that are connected.
    pub(super) fn heads(&self) -> usize {
        self.heads.len()
    }

    /// UDP sockets that they share.
    pub(super) fn sockets(&self) -> usize {
        self.endpoints.len()
    }

    /// How long connecting took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Why heads are missing, and how many for each reason.
    pub(super) fn missed(&self) -> Vec<(String, usize)> {
        self.missed.iter().map(|(reason, number)| (reason.clone(), *number)).collect()
    }

    /// Sends the frames that are due within `time`, each when it is due whatever became of those before, and waits
    /// for what comes of them.
    pub(super) async fn send(
        &self,
        arrivals: Arrivals,
        time: Duration,
        budget: Duration,
        interrupt: &Interrupt,
    ) -> Result<Tally> {
        let tally = Rc::new(RefCell::new(Tally::new(time)));
        let bar = bar("sending, seconds", time.as_secs());
        let mut frames = JoinSet::new();
        let start = Instant::now();
        let within = arrivals.take_while(|(at, _)| *at < time);
        for ((at, head), packet) in within.zip(self.packets.iter().cycle()) {
            let due = start + at;
            while !interrupt.seen() && Instant::now() < due {
                sleep_until(due.min(Instant::now() + LOOK).into()).await;
            }
            if interrupt.seen() {
                tally.borrow_mut().cut(start.elapsed());
                break;
            }
            tally.borrow_mut().due();
            let head = Rc::clone(&self.heads[head]);
            frames.spawn_local(head.frame(packet.clone(), due, budget, Rc::clone(&tally)));
            bar.set_position(at.as_secs());
            while frames.try_join_next().is_some() {}
            // Behind time there is no sleep above; the frames under way still get their turn.
            tokio::task::yield_now().await;
        }
        while !frames.is_empty() {
            if timeout(LOOK, frames.join_next()).await.is_err() && interrupt.seen() {
                frames.shutdown().await;
            }
        }
        bar.finish_and_clear();
        let mut tally = tally.take();
        tally.gone(self.heads.iter().filter(|head| head.connection.close_reason().is_some()).count());
        Ok(tally)
    }

    /// Says goodbye for every head, and lets the packets out.
    pub(super) async fn close(self) {
        for head in &self.heads {
            quic::close(&head.connection, Close::Done, "");
        }
        for endpoint in &self.endpoints {
            let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        }
    }
}

impl Head {
    /// One frame from when it is due to whatever ends it.
    async fn frame(
        self: Rc<Self>,
        packet: Vec<u8>,
        due: Instant,
        budget: Duration,
        tally: Rc<RefCell<Tally>>,
    ) {
        let end = due + budget + GRACE;
        let Ok(Ok(_place)) = timeout_at(end.into(), self.room.acquire()).await else {
            return tally.borrow_mut().failed("waited behind other frames of its head");
        };
        let (now, task_requests) = (Instant::now(), self.task_requests.to_vec());
        let request = self.session.borrow_mut().request(
            now,
            self.bundle,
            Some(due + budget),
            task_requests,
            Payload::Packet(packet),
        );
        let (id, bytes) = match request {
            Ok(request) => request,
            Err(error) => return tally.borrow_mut().failed(&error.to_string()),
        };
        tally.borrow_mut().left(now - due);
        let exchanged = timeout_at(end.into(), exchange(&self.connection, &bytes)).await;
        let after = due.elapsed();
        let reply = match exchanged {
            Ok(Ok(bytes)) => self.session.borrow_mut().reply(Instant::now(), id, &bytes),
            Ok(Err(error)) => {
                self.session.borrow_mut().abandon(id);
                return tally.borrow_mut().failed(&error.to_string());
            }
            Err(_) => {
                self.session.borrow_mut().abandon(id);
                return tally.borrow_mut().failed("no answer long after its budget");
            }
        };
        match reply.map(|answered| answered.reply) {
            Ok(FrameReply::Answered(reply)) => tally.borrow_mut().answered(after, &reply),
            Ok(FrameReply::Refused { refusal, .. }) => tally.borrow_mut().refused(after, refusal.code),
            Err(error) => {
                quic::close(&self.connection, Close::Violation, &error.to_string());
                tally.borrow_mut().failed(&error.to_string());
            }
        }
    }
}

async fn greet(connection: &Connection, mut session: Client) -> Result<Client> {
    let (mut send, mut receive) = connection.open_bi().await?;
    write_message(&mut send, &session.hello()?).await?;
    session.welcome(&read_message(&mut receive, MAX_HELLO).await?)?;
    Ok(session)
}

async fn exchange(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await?;
    // A tail may answer and stop the stream before it has read everything.
    let sent = write_message(&mut send, bytes).await;
    let answer = read_message(&mut receive, MAX_REPLY).await;
    sent.and(Ok(()))?;
    Ok(answer?)
}

fn bar(what: &'static str, len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").expect("a fixed template");
    ProgressBar::new(len).with_style(style).with_message(what)
}
