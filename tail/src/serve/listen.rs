//! The addresses that the server listens on, resolved and tried before the networks are loaded.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket},
};

use crate::{Error, config::Listen};

/// Resolves the address to listen on and checks that a socket can be bound there: of a name with several addresses the first
/// one that this machine has. The socket is closed again, so that a device which looks for the server while it loads is told
/// at once that there is none.
///
/// # Errors
/// [`Error::Resolve`] for a name without an address, [`Error::Bind`] where none of them can be bound.
pub(crate) fn resolve(listen: &Listen) -> Result<SocketAddr, Error> {
    first(listen, |address| UdpSocket::bind(address).map(|_| address))
}

/// Listens for TCP connections, and returns where that is.
///
/// # Errors
/// Those of [`resolve`].
pub(crate) fn bind_tcp(listen: &Listen) -> Result<(SocketAddr, TcpListener), Error> {
    first(listen, |address| {
        let listener = TcpListener::bind(address)?;
        Ok((listener.local_addr()?, listener))
    })
}

/// What `bind` makes of the first address that it can bind.
fn first<T>(listen: &Listen, bind: impl Fn(SocketAddr) -> io::Result<T>) -> Result<T, Error> {
    let unresolved = |source| Error::Resolve { listen: listen.to_string(), source };
    let addresses: Vec<SocketAddr> =
        (listen.host.as_str(), listen.port).to_socket_addrs().map_err(unresolved)?.collect();
    let mut refused = None;
    for address in addresses {
        match bind(address) {
            Ok(bound) => return Ok(bound),
            Err(source) => refused = refused.or(Some(Error::Bind { address, source })),
        }
    }
    Err(refused.unwrap_or_else(|| unresolved(io::Error::other("the name has no address"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Result<SocketAddr, Error> {
        resolve(&text.parse::<Listen>().unwrap())
    }

    #[test]
    fn a_name_is_resolved_and_an_address_in_use_is_named() {
        assert!(listen("localhost:0").unwrap().ip().is_loopback());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let error = listen(&taken.to_string()).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("another program"), "{error}");
        // Of the documentation's network, which no machine has.
        let error = listen("192.0.2.1:0").unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:0") && error.contains("no interface"), "{error}");
        let status = |text: &str| bind_tcp(&text.parse::<Listen>().unwrap());
        let (address, _held) = status("127.0.0.1:0").unwrap();
        let error = status(&address.to_string()).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("another program"), "{error}");
        let error = listen("no-such-host.invalid:7461").unwrap_err();
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains("no-such-host.invalid:7461"), "{error}");
    }
}
