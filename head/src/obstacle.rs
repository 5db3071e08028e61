//! What the operating system says about the way to a server, in words.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
};

/// Numbers of Linux for errors that `io::ErrorKind` does not tell apart.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EMSGSIZE: i32 = 90;
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

/// Bytes of a UDP payload that every path of QUIC carries (RFC 9000, section 14), and of the headers below it.
const LEAST: usize = 1200;
const HEADERS: usize = 48;

/// Something on the way to the server, as the operating system reports it. Reports from the network are not authenticated, so
/// an obstacle never ends the search for a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// No program listens on the port.
    NoListener(SocketAddr),
    /// The network interface takes no datagram as large as QUIC needs. The interfaces with too small an MTU, with their MTUs.
    SmallMtu(IpAddr, Vec<(String, usize)>),
    /// This device has no route.
    NoRoute(IpAddr),
    /// The machine does not exist on its network, or a router refuses the way to it.
    HostUnreachable(IpAddr),
    /// This device forbids it.
    Denied(IpAddr),
    /// This device has no addresses of this family.
    NoFamily(IpAddr),
    /// This process has no file handle left.
    NoHandle,
    /// Another error of the operating system.
    Other(IpAddr, String),
}

impl Obstacle {
    /// The obstacle behind an error on a socket for `remote`.
    pub(crate) fn new(remote: SocketAddr, error: &io::Error) -> Self {
        let address = remote.ip();
        match (error.raw_os_error(), error.kind()) {
            (Some(EMSGSIZE), _) => Obstacle::SmallMtu(address, small_interfaces()),
            (Some(EAFNOSUPPORT | EADDRNOTAVAIL), _) => Obstacle::NoFamily(address),
            (Some(EMFILE | ENFILE), _) => Obstacle::NoHandle,
            (_, io::ErrorKind::ConnectionRefused) => Obstacle::NoListener(remote),
            (_, io::ErrorKind::NetworkUnreachable) => Obstacle::NoRoute(address),
            (_, io::ErrorKind::HostUnreachable) => Obstacle::HostUnreachable(address),
            (_, io::ErrorKind::PermissionDenied) => Obstacle::Denied(address),
            _ => Obstacle::Other(address, error.to_string()),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoListener(address) => {
                write!(f, "nothing listens on UDP port {} of {}", address.port(), address.ip())
            }
            Obstacle::SmallMtu(address, interfaces) => {
                write!(
                    f,
                    "the network interface on the way to {address} does not take the datagrams of {LEAST} bytes that QUIC \
                     needs; set its MTU to at least 1280"
                )?;
                for (index, (name, mtu)) in interfaces.iter().enumerate() {
                    write!(f, "{}{name} has {mtu}", if index == 0 { " (" } else { ", " })?;
                }
                f.write_str(if interfaces.is_empty() { "" } else { ")" })
            }
            Obstacle::NoRoute(address) => write!(
                f,
                "this device has no route to {address}; its network is down, or has no {}",
                family(address)
            ),
            Obstacle::HostUnreachable(address) => {
                write!(
                    f,
                    "{address} cannot be reached: no machine answers to it, or a router refuses the way"
                )
            }
            Obstacle::Denied(address) => {
                write!(f, "a firewall of this device forbids datagrams to {address}")
            }
            Obstacle::NoFamily(address) => {
                write!(f, "this device has no {}, which {address} needs", family(address))
            }
            Obstacle::NoHandle => {
                f.write_str("this process has no file handle left; raise its limit (`ulimit -n`)")
            }
            Obstacle::Other(address, error) => write!(f, "no datagram can be sent to {address}: {error}"),
        }
    }
}

impl std::error::Error for Obstacle {}

fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The interfaces whose MTU is too small for QUIC.
fn small_interfaces() -> Vec<(String, usize)> {
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let small = interfaces.filter_map(|interface| {
        let interface = interface.ok()?;
        let mtu = fs::read_to_string(interface.path().join("mtu")).ok()?.trim().parse().ok()?;
        (mtu < LEAST + HEADERS).then(|| (interface.file_name().to_string_lossy().into_owned(), mtu))
    });
    small.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_words_that_name_the_address() {
        let remote: SocketAddr = "[2001:db8::1]:7461".parse().unwrap();
        for (number, words) in [
            (111, "nothing listens on UDP port 7461 of 2001:db8::1"),
            (101, "no route to 2001:db8::1; its network is down, or has no IPv6"),
            (113, "2001:db8::1 cannot be reached"),
            (13, "a firewall of this device forbids"),
            (1, "a firewall of this device forbids"),
            (97, "this device has no IPv6"),
            (90, "set its MTU to at least 1280"),
            (24, "ulimit -n"),
            (5, "no datagram can be sent to 2001:db8::1: "),
        ] {
            let text = Obstacle::new(remote, &io::Error::from_raw_os_error(number)).to_string();
            assert!(text.contains(words), "{number}: {text}");
        }
    }
}
