//! One datagram to each address of the server, to learn what the operating system says about the way.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    time::Duration,
};

use quinn::udp::UdpSocketState;
use tokio::{net::UdpSocket, time::timeout};

use crate::obstacle::Obstacle;

/// Bytes of QUIC's first datagram.
const FIRST_DATAGRAM: usize = 1200;
/// Time in which a report from the network is waited for.
const WAIT: Duration = Duration::from_millis(500);

/// The obstacle on the way to `remote`, if the operating system knows of one.
///
/// QUIC's sockets are not connected and swallow such errors. This datagram is as large as QUIC's first one, must not be
/// fragmented either, and is no packet of QUIC, so a server ignores it.
pub(crate) async fn obstacle(remote: SocketAddr) -> Option<Obstacle> {
    match timeout(WAIT, probe(remote)).await {
        Ok(Err(error)) => Some(Obstacle::new(remote, &error)),
        Ok(Ok(())) | Err(_) => None,
    }
}

async fn probe(remote: SocketAddr) -> io::Result<()> {
    let local: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = StdSocket::bind(local)?;
    // Turns fragmentation off, as it does for QUIC's sockets.
    UdpSocketState::new((&socket).into())?;
    socket.set_nonblocking(true)?;
    socket.connect(remote)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.send(&[0; FIRST_DATAGRAM]).await?;
    // Only a report comes back.
    socket.recv(&mut [0; 1]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_without_a_listener_is_told_apart_from_a_silent_one() {
        let silent = StdSocket::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        assert_eq!(obstacle(address).await, None);
        drop(silent);
        assert_eq!(obstacle(address).await, Some(Obstacle::NoListener(address)));
    }
}
