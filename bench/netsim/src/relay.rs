//! The relay: one thread, one socket towards the heads, and for each head one socket towards the tail.
#![expect(clippy::disallowed_methods, reason = "datagrams are held until they are due")]

use std::{
    collections::BTreeMap,
    io, iter,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::setpriority_process,
    thread::set_current_timer_slack,
    time::Timespec,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    link::{Direction, Link},
    shape::{Count, Shape, Shaper},
};

/// Largest UDP payload.
const DATAGRAM_MAX: usize = 65_535;
/// Datagrams read from one socket before the next one is looked at.
const READS: usize = 64;
/// The kernel wakes a thread some tens of microseconds late, so the last part of a wait is spent polling the clock.
const SPIN: Duration = Duration::from_micros(30);
/// Longest sleep, after which the thread checks whether it should end.
const NAP: Duration = Duration::from_millis(20);
/// Size of the socket buffers: the shaper's queue is to overflow first, not the kernel's.
const BUFFER: usize = 4 << 20;
/// Heads at once; a further one replaces the one that was silent longest.
const HEADS: usize = 256;
/// Nice value of the relay's thread, where the process may set it: the highest priority that is not real time.
const PRIORITY: i32 = -20;
/// Changes the seed for the second direction.
const SEED_DOWN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running relay. Dropping it stops it; datagrams in flight are lost.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<()>>,
}

/// Traffic through a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From heads to the tail.
    pub up: Count,
    /// From the tail to heads.
    pub down: Count,
}

impl Relay {
    /// Starts a relay on a free port of loopback that forwards to `tail` over `link`. All heads share the link.
    ///
    /// # Errors
    /// When a socket or the thread cannot be created.
    pub fn start(link: &Link, tail: SocketAddr, seed: u64) -> io::Result<Self> {
        Relay::with_shapes(link.shape(Direction::Up), link.shape(Direction::Down), tail, seed)
    }

    /// Starts a relay as [`Relay::start`] does, with these effects on the two directions. A recorded link begins when the relay
    /// does.
    ///
    /// # Errors
    /// When a socket or the thread cannot be created.
    pub fn with_shapes(up: Shape, down: Shape, tail: SocketAddr, seed: u64) -> io::Result<Self> {
        let front = socket(match tail {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        })?;
        let address = front.local_addr()?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Counts::default())));
        let line = Line {
            front,
            tail,
            heads: BTreeMap::new(),
            up: Shaper::new(up, seed),
            down: Shaper::new(down, seed ^ SEED_DOWN),
            unsent: (0, 0),
            epoch: Instant::now(),
            stop: Arc::clone(&stop),
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || line.run())?;
        Ok(Relay { address, stop, counts, thread: Some(thread) })
    }

    /// The address that heads connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Traffic so far, at most 20 ms old.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

/// The state of the relay's thread.
struct Line {
    front: UdpSocket,
    tail: SocketAddr,
    heads: BTreeMap<SocketAddr, Head>,
    up: Shaper<Datagram>,
    down: Shaper<Datagram>,
    unsent: (u64, u64),
    epoch: Instant,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
}

/// A head's socket towards the tail.
struct Head {
    socket: UdpSocket,
    last_heard: Duration,
}

struct Datagram {
    head: SocketAddr,
    bytes: Vec<u8>,
}

impl Line {
    fn run(mut self) {
        // Best effort: otherwise the kernel may prolong every wait by 50 µs.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        // Best effort, for this thread alone: a link does not wait for the programs that use it. Needs root.
        let _ = setpriority_process(None, PRIORITY);
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            self.deliver();
            self.publish();
            let due = [self.up.due(), self.down.due()].into_iter().flatten().min();
            let wait = due.map_or(NAP, |due| due.saturating_sub(self.epoch.elapsed())).min(NAP);
            let (front, ready) = self.wait(wait.saturating_sub(SPIN));
            if front {
                self.read_front(&mut buffer);
            }
            for head in ready {
                self.read_back(head, &mut buffer);
            }
        }
    }

    /// Sends the datagrams that have arrived by now.
    fn deliver(&mut self) {
        let now = self.epoch.elapsed();
        while let Some(datagram) = self.up.pop(now) {
            let sent =
                self.heads.get(&datagram.head).is_some_and(|head| head.socket.send(&datagram.bytes).is_ok());
            self.unsent.0 += u64::from(!sent);
        }
        while let Some(datagram) = self.down.pop(now) {
            let sent = self.front.send_to(&datagram.bytes, datagram.head).is_ok();
            self.unsent.1 += u64::from(!sent);
        }
    }

    /// Sleeps until a socket is readable or `time` is over; returns whether the front socket is readable, and for which
    /// heads theirs is.
    fn wait(&self, time: Duration) -> (bool, Vec<SocketAddr>) {
        let sockets = iter::once(&self.front).chain(self.heads.values().map(|head| &head.socket));
        let mut sockets: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let time = Timespec::try_from(time).expect("a nap is short");
        match poll(&mut sockets, Some(&time)) {
            Ok(0) | Err(_) => return (false, Vec::new()),
            Ok(_) => {}
        }
        // Errors count as readable: reading returns them.
        let readable = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = self.heads.keys().zip(&sockets[1..]).filter(|(_, fd)| readable(fd));
        (readable(&sockets[0]), ready.map(|(head, _)| *head).collect())
    }

    fn read_front(&mut self, buffer: &mut [u8]) {
        for _ in 0..READS {
            let Ok((bytes, head)) = self.front.recv_from(buffer) else { return };
            let now = self.epoch.elapsed();
            if !self.admit(head, now) {
                continue;
            }
            self.up.push(now, bytes, Datagram { head, bytes: buffer[..bytes].to_vec() });
        }
    }

    fn read_back(&mut self, from: SocketAddr, buffer: &mut [u8]) {
        let Some(head) = self.heads.get_mut(&from) else { return };
        for _ in 0..READS {
            let Ok(bytes) = head.socket.recv(buffer) else { return };
            let now = self.epoch.elapsed();
            self.down.push(now, bytes, Datagram { head: from, bytes: buffer[..bytes].to_vec() });
        }
    }

    /// Makes sure that the head has a socket towards the tail; false when it cannot get one.
    fn admit(&mut self, from: SocketAddr, now: Duration) -> bool {
        if let Some(head) = self.heads.get_mut(&from) {
            head.last_heard = now;
            return true;
        }
        if self.heads.len() >= HEADS
            && let Some(silent) =
                self.heads.iter().min_by_key(|(_, head)| head.last_heard).map(|(from, _)| *from)
        {
            self.heads.remove(&silent);
        }
        let local = match self.tail {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let connected = socket(local).and_then(|socket| {
            socket.connect(self.tail)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => {
                self.heads.insert(from, Head { socket, last_heard: now });
                true
            }
            Err(_) => {
                self.unsent.0 += 1;
                false
            }
        }
    }

    fn publish(&self) {
        let up = Count { unsent: self.unsent.0, ..self.up.count() };
        let down = Count { unsent: self.unsent.1, ..self.down.count() };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts { up, down };
    }
}

/// A non-blocking socket with buffers of [`BUFFER`] bytes, as far as the kernel grants them.
fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel limits the sizes without an error.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
