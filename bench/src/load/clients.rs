//! Many simulated heads in one thread: connections that share UDP sockets, and frames that are sent when they are due.
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
use narrows_eval::progress::bar;
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

use crate::load::{arrivals::Arrivals, load_stats::LoadStats, workload::Workload};

/// Heads per UDP socket.
const PER_SOCKET: usize = 512;
/// Handshakes in progress at once, except in a storm: handshakes that a server refuses say nothing about frames.
pub(super) const HANDSHAKES: usize = 32;
/// How long after its deadline a frame may still be answered before it counts as a failure.
const GRACE: Duration = Duration::from_secs(5);
/// The time for frames without a deadline, besides that.
const UNHURRIED: Duration = Duration::from_secs(60);
/// How often an interrupt is checked.
const POLL: Duration = Duration::from_millis(100);

/// The server's address, the identities that the heads have in turn, and the time over which they connect.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) server: String,
    pub(super) identities: Vec<PathBuf>,
    pub(super) ramp: Duration,
    /// Handshakes that may be in progress at once.
    pub(super) handshakes: usize,
}

/// Connected simulated heads.
#[derive(Debug)]
pub(super) struct ClientPool {
    heads: Vec<Rc<Head>>,
    endpoints: Vec<Endpoint>,
    /// Heads that did not connect, by reason.
    failures: BTreeMap<String, usize>,
    connecting: Duration,
    packets: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Head {
    connection: Connection,
    session: RefCell<Client>,
    bundle: u8,
    task_requests: Rc<[TaskRequest]>,
    /// Frames that the server accepts at once, and permits for them; further frames wait.
    room: usize,
    in_flight: Semaphore,
}

impl ClientPool {
    /// Connects `number` heads, evenly over the ramp.
    ///
    /// # Errors
    /// When no head connects, with the reasons.
    pub(super) async fn connect(
        target: &Target,
        workload: &Workload,
        number: usize,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (host, _) = target.server.rsplit_once(':').context("--server: has no port; give HOST:PORT")?;
        let host: Rc<str> = host.trim_start_matches('[').trim_end_matches(']').into();
        let address =
            target.server.to_socket_addrs().with_context(|| format!("--server: {}", target.server))?;
        let address = address.into_iter().next().context("--server: the name has no address")?;
        let tuning = Tuning::default();
        let config = |folder: &PathBuf| anyhow::Ok(quic::client_config(&Identity::load(folder)?, &tuning)?);
        let configs: Vec<_> = target.identities.iter().map(config).collect::<Result<_>>()?;
        let endpoints = (0..number.div_ceil(PER_SOCKET)).map(|_| quic::client_endpoint(address, &tuning));
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, _>>()?;
        let task_requests: Rc<[TaskRequest]> = workload.task_requests.clone().into();
        let handshakes = Rc::new(Semaphore::new(target.handshakes));
        let start = Instant::now();
        let bar = bar("connecting", number);
        let mut calls = JoinSet::new();
        for place in 0..number {
            let config = configs[place % configs.len()].clone();
            let (endpoint, host) = (endpoints[place / PER_SOCKET].clone(), Rc::clone(&host));
            let (handshakes, task_requests, hello) =
                (Rc::clone(&handshakes), Rc::clone(&task_requests), workload.hello.clone());
            let due = start + target.ramp.mul_f64(place as f64 / number as f64);
            let bundle = workload.bundle;
            calls.spawn_local(async move {
                sleep_until(due.into()).await;
                let _permit = handshakes.acquire().await?;
                let connecting = endpoint.connect_with(config, address, &host)?;
                let connection = timeout(HANDSHAKE_TIMEOUT, connecting).await.context("handshake")??;
                let session = timeout(HELLO_TIMEOUT, exchange_hello(&connection, Client::new(hello)));
                let session = session.await.context("hello")??;
                let bundle = session.bundle(&bundle).context("the tail does not serve the bundle")?;
                let room = session.room();
                let in_flight = Semaphore::new(room);
                anyhow::Ok(Head {
                    connection,
                    session: RefCell::new(session),
                    bundle,
                    task_requests,
                    room,
                    in_flight,
                })
            });
        }
        let mut pool = ClientPool {
            heads: Vec::with_capacity(number),
            endpoints,
            failures: BTreeMap::new(),
            connecting: Duration::ZERO,
            packets: workload.packets.clone(),
        };
        while !interrupt.seen() {
            match timeout(POLL, calls.join_next()).await {
                Err(_) => continue,
                Ok(None) => break,
                Ok(Some(call)) => match call? {
                    Ok(head) => pool.heads.push(Rc::new(head)),
                    Err(error) => *pool.failures.entry(format!("{error:#}")).or_default() += 1,
                },
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        pool.connecting = start.elapsed();
        let reasons: Vec<&str> = pool.failures.keys().map(String::as_str).collect();
        ensure!(!pool.heads.is_empty(), "no head connected to {}: {}", target.server, reasons.join("; "));
        Ok(pool)
    }

    /// Number of connected heads.
    pub(super) fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Number of UDP sockets that the heads share.
    pub(super) fn sockets(&self) -> usize {
        self.endpoints.len()
    }

    /// Time that connecting took.
    pub(super) fn connecting(&self) -> Duration {
        self.connecting
    }

    /// Reasons why heads did not connect, and the number of heads for each.
    pub(super) fn failures(&self) -> Vec<(String, usize)> {
        self.failures.iter().map(|(reason, number)| (reason.clone(), *number)).collect()
    }

    /// Sends the frames that are due within `time`, each when it is due whether or not those before were answered, and
    /// waits for the outcome of all.
    pub(super) async fn send(
        &self,
        arrivals: Arrivals,
        time: Duration,
        budget: Duration,
        interrupt: &Interrupt,
    ) -> Result<LoadStats> {
        let stats = LoadStats::new(time);
        let stats = Rc::new(RefCell::new(stats));
        let bar = bar("sending, seconds", time.as_secs() as usize);
        let mut frames = JoinSet::new();
        let start = Instant::now();
        let within = arrivals.take_while(|(at, _)| *at < time);
        for ((at, head), packet) in within.zip(self.packets.iter().cycle()) {
            let due = start + at;
            while !interrupt.seen() && Instant::now() < due {
                sleep_until(due.min(Instant::now() + POLL).into()).await;
            }
            if interrupt.seen() {
                stats.borrow_mut().seconds = start.elapsed().as_secs_f64();
                break;
            }
            stats.borrow_mut().due += 1;
            let head = Rc::clone(&self.heads[head]);
            frames.spawn_local(head.frame(packet.clone(), due, Some(budget), Rc::clone(&stats)));
            bar.set_position(at.as_secs());
            while frames.try_join_next().is_some() {}
            // A loop that is late does not sleep above; frames in flight must run all the same.
            tokio::task::yield_now().await;
        }
        while !frames.is_empty() {
            if timeout(POLL, frames.join_next()).await.is_err() && interrupt.seen() {
                frames.shutdown().await;
            }
        }
        bar.finish_and_clear();
        let mut stats = stats.take();
        stats.heads_lost = self.lost();
        Ok(stats)
    }

    /// Keeps `in_flight` frames of each head in flight for `time`, or as many as the server allows, each sent when one before it
    /// is answered, and waits for the outcome of all.
    pub(super) async fn saturate(
        &self,
        in_flight: Option<usize>,
        time: Duration,
        budget: Option<Duration>,
        interrupt: &Interrupt,
    ) -> Result<LoadStats> {
        let stats = Rc::new(RefCell::new(LoadStats::new(time)));
        let (start, mut streams) = (Instant::now(), JoinSet::new());
        for (number, head) in self.heads.iter().enumerate() {
            for place in 0..in_flight.unwrap_or(usize::MAX).min(head.room) {
                let (head, stats) = (Rc::clone(head), Rc::clone(&stats));
                let packets = self.packets.clone();
                streams.spawn_local(async move {
                    for packet in packets.iter().cycle().skip(number + place) {
                        if start.elapsed() >= time || head.connection.close_reason().is_some() {
                            return;
                        }
                        stats.borrow_mut().due += 1;
                        Rc::clone(&head)
                            .frame(packet.clone(), Instant::now(), budget, Rc::clone(&stats))
                            .await;
                    }
                });
            }
        }
        while !streams.is_empty() {
            if timeout(POLL, streams.join_next()).await.is_err() && interrupt.seen() {
                streams.shutdown().await;
            }
        }
        let mut stats = stats.take();
        stats.seconds = start.elapsed().as_secs_f64();
        stats.heads_lost = self.lost();
        Ok(stats)
    }

    /// Sends one frame of every head at once, and waits for the outcome of all.
    pub(super) async fn once(&self, budget: Duration) -> LoadStats {
        let stats = Rc::new(RefCell::new(LoadStats::new(Duration::ZERO)));
        let (start, mut frames) = (Instant::now(), JoinSet::new());
        for (head, packet) in self.heads.iter().zip(self.packets.iter().cycle()) {
            stats.borrow_mut().due += 1;
            let frame = Rc::clone(head).frame(packet.clone(), start, Some(budget), Rc::clone(&stats));
            frames.spawn_local(frame);
        }
        while frames.join_next().await.is_some() {}
        let mut stats = stats.take();
        stats.seconds = start.elapsed().as_secs_f64();
        stats.heads_lost = self.lost();
        stats
    }

    /// Sends nothing for `time`.
    pub(super) async fn idle(&self, time: Duration, interrupt: &Interrupt) -> LoadStats {
        let start = Instant::now();
        let bar = bar("idle, seconds", time.as_secs() as usize);
        while !interrupt.seen() && start.elapsed() < time {
            tokio::time::sleep(POLL.min(time)).await;
            bar.set_position(start.elapsed().as_secs());
        }
        bar.finish_and_clear();
        let mut stats = LoadStats::new(start.elapsed());
        stats.heads_lost = self.lost();
        stats
    }

    fn lost(&self) -> usize {
        self.heads.iter().filter(|head| head.connection.close_reason().is_some()).count()
    }

    /// Closes every connection and waits until the sockets have sent that.
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
    /// Sends one frame and counts its outcome.
    async fn frame(
        self: Rc<Self>,
        packet: Vec<u8>,
        due: Instant,
        budget: Option<Duration>,
        stats: Rc<RefCell<LoadStats>>,
    ) {
        let end = due + budget.unwrap_or(UNHURRIED) + GRACE;
        let Ok(Ok(_permit)) = timeout_at(end.into(), self.in_flight.acquire()).await else {
            return stats.borrow_mut().failed("waited for other frames of its head");
        };
        let (now, task_requests) = (Instant::now(), self.task_requests.to_vec());
        let request = self.session.borrow_mut().request(
            now,
            self.bundle,
            budget.map(|budget| due + budget),
            task_requests,
            Payload::Packet(packet),
        );
        let (id, bytes) = match request {
            Ok(request) => request,
            Err(error) => return stats.borrow_mut().failed(&error.to_string()),
        };
        stats.borrow_mut().late.record(now - due);
        let exchanged = timeout_at(end.into(), exchange(&self.connection, &bytes)).await;
        let after = due.elapsed();
        let reply = match exchanged {
            Ok(Ok(bytes)) => self.session.borrow_mut().reply(Instant::now(), id, &bytes),
            Ok(Err(error)) => {
                self.session.borrow_mut().abandon(id);
                return stats.borrow_mut().failed(&error.to_string());
            }
            Err(_) => {
                self.session.borrow_mut().abandon(id);
                return stats.borrow_mut().failed("no answer in time");
            }
        };
        match reply.map(|answered| answered.reply) {
            Ok(FrameReply::Answered(reply)) => stats.borrow_mut().answered(after, &reply),
            Ok(FrameReply::Refused { refusal, .. }) => stats.borrow_mut().refused(after, refusal.code),
            Err(error) => {
                quic::close(&self.connection, Close::Violation, &error.to_string());
                stats.borrow_mut().failed(&error.to_string());
            }
        }
    }
}

async fn exchange_hello(connection: &Connection, mut session: Client) -> Result<Client> {
    let (mut send, mut receive) = connection.open_bi().await?;
    write_message(&mut send, &session.hello()?).await?;
    session.welcome(&read_message(&mut receive, MAX_HELLO).await?)?;
    Ok(session)
}

async fn exchange(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await?;
    // A server may answer and stop the stream before it has read everything.
    let sent = write_message(&mut send, bytes).await;
    let answer = read_message(&mut receive, MAX_REPLY).await;
    sent.and(Ok(()))?;
    Ok(answer?)
}
