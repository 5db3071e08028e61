//! A UDP socket that delivers each datagram on its own, so that what QUIC keeps of one does not keep others in memory.
//!
//! With receive offload (GRO) the kernel delivers up to 64 datagrams of one sender in one buffer. quinn copies such a buffer
//! once and keeps all of it as long as one byte of it waits for the bytes before it. A peer can so make one byte take 64 KiB,
//! and no window of QUIC limits that.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Buffers that are received at once.
const BUFFERS: usize = 8;

/// Bytes of a buffer: the most that the kernel delivers in one.
const BUFFER: usize = 1 << 16;

/// A socket that delivers the datagrams of another one apart.
pub(crate) struct Separating {
    socket: Arc<dyn AsyncUdpSocket>,
    received: Mutex<Received>,
}

/// Buffers with one or more datagrams each, which have been received and are delivered in their order.
struct Received {
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; BUFFERS],
    /// The buffers that hold datagrams.
    filled: usize,
    /// The buffer with the next datagram, and where it begins.
    next: (usize, usize),
}

impl Separating {
    /// A socket that delivers the datagrams of `socket` apart.
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Separating {
        Separating { socket, received: Mutex::new(Received::new()) }
    }
}

impl Received {
    fn new() -> Received {
        let buffers = vec![vec![0; BUFFER]; BUFFERS];
        Received { buffers, metas: [RecvMeta::default(); BUFFERS], filled: 0, next: (0, 0) }
    }

    /// The next datagram and its metadata.
    fn next(&mut self) -> Option<(&[u8], RecvMeta)> {
        let (buffer, start) = self.next;
        if buffer >= self.filled {
            return None;
        }
        let meta = self.metas[buffer];
        let end = (start + meta.stride.max(1)).min(meta.len);
        self.next = if end >= meta.len { (buffer + 1, 0) } else { (buffer, end) };
        Some((&self.buffers[buffer][start..end], RecvMeta { len: end - start, stride: end - start, ..meta }))
    }

    /// Copies datagrams to `buffers`, as many as there are and fit, and returns their number. One that is longer than its
    /// buffer is dropped: it is longer than this side allows.
    fn deliver(&mut self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut delivered = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let datagram = loop {
                match self.next() {
                    Some((datagram, _)) if datagram.len() > buffer.len() => {}
                    next => break next,
                }
            };
            let Some((datagram, of)) = datagram else { break };
            buffer[..datagram.len()].copy_from_slice(datagram);
            *meta = of;
            delivered += 1;
        }
        delivered
    }

    /// Receives into all buffers. Called only when all have been delivered.
    fn receive(&mut self, socket: &dyn AsyncUdpSocket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffers: Vec<IoSliceMut<'_>> =
            self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        self.filled = ready!(socket.poll_recv(context, &mut buffers, &mut self.metas))?;
        self.next = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Separating {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let delivered = received.deliver(buffers, metas);
            if delivered > 0 {
                return Poll::Ready(Ok(delivered));
            }
            ready!(received.receive(&*self.socket, context))?;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for Separating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Separating").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datagrams_of_a_buffer_are_delivered_apart_and_in_order() {
        let mut received = Received::new();
        for (buffer, bytes) in received.buffers.iter_mut().zip([&b"aaaabbbbcc"[..], b"", b"dddddddd", b"e"]) {
            buffer[..bytes.len()].copy_from_slice(bytes);
        }
        for (meta, (len, stride)) in received.metas.iter_mut().zip([(10, 4), (0, 0), (8, 8), (1, 1)]) {
            (meta.len, meta.stride) = (len, stride);
        }
        received.filled = 4;
        let mut delivered = Vec::new();
        let mut space = [[0; 6]; 2];
        loop {
            let mut metas = [RecvMeta::default(); 2];
            let mut buffers = space.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let count = received.deliver(&mut buffers, &mut metas);
            if count == 0 {
                break;
            }
            for (buffer, meta) in space.iter().zip(&metas[..count]) {
                assert_eq!(meta.len, meta.stride);
                delivered.push(String::from_utf8(buffer[..meta.len].to_vec()).unwrap());
            }
        }
        // An empty datagram is one; the one that is longer than the buffers is dropped.
        assert_eq!(delivered, ["aaaa", "bbbb", "cc", "", "e"]);
    }
}
