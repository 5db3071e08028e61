//! The relay: one thread, one socket towards the heads, one towards the tail for each head.
#![expect(clippy::disallowed_methods, reason = "datagrams are held until their time")]

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{prctl, time::TimeSpec},
    time::{ClockId, clock_gettime},
};
use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    link::{Direction, Link},
    shape::{Count, Shaper},
};

/// Largest UDP payload.
const DATAGRAM_MAX: usize = 65_535;
/// Datagrams taken from one socket before others have their turn.
const TURN: usize = 64;
/// The kernel wakes a thread some tens of microseconds late; the rest of the wait is spent looking at the clock.
const SPIN: Duration = Duration::from_micros(30);
/// Longest sleep, after which the thread looks whether it should end.
const NAP: Duration = Duration::from_millis(20);
/// Socket buffers: the line's queue is the shaper's, the kernel's must not be the first to overflow.
const BUFFER: usize = 4 << 20;
/// Heads at once; beyond, the one that was silent longest makes room.
const HEADS: usize = 256;
/// Of the relay's thread, where it may have it: the highest that is not real time.
const PRIORITY: i32 = -20;
/// What makes the two directions' chances differ.
const OTHER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running relay. Dropping it ends it; datagrams still under way are lost.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<()>>,
}

/// What went through a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// From heads to the tail.
    pub up: Count,
    /// From the tail to heads.
    pub down: Count,
    /// Processor time of the relay's thread: its waiting for the last microseconds is in it.
    pub cpu: Duration,
}

impl Relay {
    /// Starts a relay on a free port of loopback that forwards to `tail` over `link`. All heads share the link.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(link: &Link, tail: SocketAddr, seed: u64) -> io::Result<Self> {
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
            up: Shaper::new(link.shape(Direction::Up), seed),
            down: Shaper::new(link.shape(Direction::Down), seed ^ OTHER),
            unsent: (0, 0),
            epoch: Instant::now(),
            stop: Arc::clone(&stop),
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || line.run())?;
        Ok(Relay { address, stop, counts, thread: Some(thread) })
    }

    /// Where heads find the tail.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has gone through so far.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody to tell.
            let _ = thread.join();
        }
    }
}

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

/// A head's way to the tail.
struct Head {
    socket: UdpSocket,
    heard: Duration,
}

struct Datagram {
    head: SocketAddr,
    bytes: Vec<u8>,
}

impl Line {
    fn run(mut self) {
        // Best effort: without it the kernel may add its default of 50 µs to every wait.
        let _ = prctl::set_timerslack(1);
        // Likewise, and for this thread alone: a link does not wait for the programs that use it. Needs root.
        let _ = setpriority_process(None, PRIORITY);
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            self.deliver();
            self.publish();
            let due = [self.up.due(), self.down.due()].into_iter().flatten().min();
            let wait = due.map_or(NAP, |due| due.saturating_sub(self.epoch.elapsed())).min(NAP);
            let (front, ready) = self.wait(wait.saturating_sub(SPIN));
            if front {
                self.take_up(&mut buffer);
            }
            for head in ready {
                self.take_down(head, &mut buffer);
            }
        }
    }

    /// Hands over what has arrived by now.
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

    /// Sleeps until a socket is readable or the time is over; which sockets are.
    fn wait(&self, time: Duration) -> (bool, Vec<SocketAddr>) {
        let mut sockets = Vec::with_capacity(1 + self.heads.len());
        sockets.push(PollFd::new(self.front.as_fd(), PollFlags::POLLIN));
        sockets.extend(self.heads.values().map(|head| PollFd::new(head.socket.as_fd(), PollFlags::POLLIN)));
        match ppoll(&mut sockets, Some(TimeSpec::from_duration(time)), None) {
            Ok(0) | Err(_) => return (false, Vec::new()),
            Ok(_) => {}
        }
        // Errors count as readable: reading fetches them.
        let readable = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let ready = self.heads.keys().zip(&sockets[1..]).filter(|(_, fd)| readable(fd));
        (readable(&sockets[0]), ready.map(|(head, _)| *head).collect())
    }

    fn take_up(&mut self, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Ok((bytes, head)) = self.front.recv_from(buffer) else { return };
            let now = self.epoch.elapsed();
            if !self.meet(head, now) {
                continue;
            }
            self.up.push(now, bytes, Datagram { head, bytes: buffer[..bytes].to_vec() });
        }
    }

    fn take_down(&mut self, from: SocketAddr, buffer: &mut [u8]) {
        let Some(head) = self.heads.get_mut(&from) else { return };
        for _ in 0..TURN {
            let Ok(bytes) = head.socket.recv(buffer) else { return };
            let now = self.epoch.elapsed();
            self.down.push(now, bytes, Datagram { head: from, bytes: buffer[..bytes].to_vec() });
        }
    }

    /// Makes sure that the head has its way to the tail.
    fn meet(&mut self, from: SocketAddr, now: Duration) -> bool {
        if let Some(head) = self.heads.get_mut(&from) {
            head.heard = now;
            return true;
        }
        if self.heads.len() >= HEADS
            && let Some(silent) = self.heads.iter().min_by_key(|(_, head)| head.heard).map(|(from, _)| *from)
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
                self.heads.insert(from, Head { socket, heard: now });
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
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts { up, down, cpu };
    }
}

/// A socket that does not block, with room for bursts as far as the kernel grants it.
fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel caps the sizes without an error.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
