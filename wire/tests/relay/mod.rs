//! A relay of datagrams between one client and a server that can be cut, so that each side meets silence.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// A running relay; it ends when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    up: Arc<AtomicBool>,
    down: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `server`.
    pub(crate) async fn start(server: SocketAddr) -> Relay {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = near.local_addr().unwrap();
        let up = Arc::new(AtomicBool::new(true));
        let down = Arc::new(AtomicBool::new(true));
        let (up_passes, down_passes) = (Arc::clone(&up), Arc::clone(&down));
        let task = tokio::spawn(async move {
            let (mut client, mut request, mut answer) = (None, [0; 65536], [0; 65536]);
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut request) => {
                        client = Some(from);
                        if up_passes.load(Ordering::SeqCst) {
                            let _ = far.send_to(&request[..length], server).await;
                        }
                    }
                    Ok((length, _)) = far.recv_from(&mut answer) => {
                        if let (true, Some(client)) = (down_passes.load(Ordering::SeqCst), client) {
                            let _ = near.send_to(&answer[..length], client).await;
                        }
                    }
                }
            }
        });
        Relay { address, up, down, task }
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every datagram from now on.
    pub(crate) fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.cut_answers();
    }

    /// Drops every datagram of the server from now on.
    pub(crate) fn cut_answers(&self) {
        self.down.store(false, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
