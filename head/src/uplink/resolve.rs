//! Name resolution that never blocks the end of a run.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::{config::Server, error::Unavailable};

/// Longest wait for the first addresses.
const FIRST: Duration = Duration::from_secs(5);
/// Longest wait where addresses are known from before.
const AGAIN: Duration = Duration::from_millis(300);

/// What a lookup gave; `None` while it runs. An error is kept as kind and text, because several attempts may ask for it.
type Lookup = watch::Receiver<Option<Result<Vec<SocketAddr>, (io::ErrorKind, String)>>>;

/// Resolves the server's name, again for every attempt.
///
/// The system's resolver blocks its thread for as long as name servers do not answer, and cannot be cancelled. So lookups run
/// in a thread of their own that nobody waits for, one at a time, and the addresses of the last successful lookup serve while
/// there is no newer answer.
#[derive(Debug, Default)]
pub(crate) struct Resolver(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Vec<SocketAddr>,
    lookup: Option<Lookup>,
}

impl Resolver {
    /// At least one address of `server`. Cancel safe.
    ///
    /// # Errors
    /// [`Unavailable::NameServer`] if no answer came in time, [`Unavailable::Name`] for an answer that says no.
    pub(crate) async fn resolve(&self, server: &Server) -> Result<Vec<SocketAddr>, Unavailable> {
        if let Some(address) = literal(server) {
            return Ok(vec![address]);
        }
        let (mut lookup, known) = self.lookup(server)?;
        let limit = if known.is_empty() { FIRST } else { AGAIN };
        let answer = match timeout(limit, lookup.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        if answer.is_some() {
            self.state().lookup = None;
        }
        match answer {
            Some(Ok(addresses)) if !addresses.is_empty() => {
                self.state().known.clone_from(&addresses);
                Ok(addresses)
            }
            _ if !known.is_empty() => Ok(known),
            Some(Ok(_)) => Err(Unavailable::NoAddress),
            Some(Err((kind, text))) => Err(match server.zone() {
                Some(interface) => Unavailable::NoInterface(interface.to_owned()),
                None => Unavailable::Name(io::Error::new(kind, text)),
            }),
            None => Err(Unavailable::NameServer),
        }
    }

    /// The lookup that runs, or a new one; and the addresses of the last one.
    fn lookup(&self, server: &Server) -> Result<(Lookup, Vec<SocketAddr>), Unavailable> {
        let mut state = self.state();
        let lookup = match &state.lookup {
            Some(lookup) => lookup.clone(),
            None => {
                let (done, lookup) = watch::channel(None);
                let asked = (server.host.clone(), server.port);
                let work = move || {
                    let found = asked.to_socket_addrs().map(Iterator::collect);
                    // Nobody may be left to hear it.
                    let _ = done.send(Some(found.map_err(|error| (error.kind(), error.to_string()))));
                };
                thread::Builder::new().name("resolver".into()).spawn(work).map_err(Unavailable::Name)?;
                lookup
            }
        };
        state.lookup = Some(lookup.clone());
        Ok((lookup, state.known.clone()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address of a host that is one, where no name must be looked up: the name of an interface is one too.
fn literal(server: &Server) -> Option<SocketAddr> {
    let Some(zone) = server.zone() else {
        return server.name().parse().ok().map(|address: IpAddr| SocketAddr::new(address, server.port));
    };
    let (address, index) = (server.name().parse::<Ipv6Addr>().ok()?, zone.parse().ok()?);
    Some(SocketAddrV6::new(address, server.port, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(text: &str) -> Result<Vec<SocketAddr>, Unavailable> {
        Resolver::default().resolve(&Server::parse(text).unwrap()).await
    }

    #[tokio::test]
    async fn addresses_need_no_lookup() {
        assert_eq!(resolve("127.0.0.1:7").await.unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("[::1]:7").await.unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    #[tokio::test]
    async fn the_zone_of_a_link_local_address_becomes_the_index_of_its_interface() {
        let loopback = SocketAddrV6::new("fe80::1".parse().unwrap(), 7461, 0, 1);
        assert_eq!(resolve("[fe80::1%lo]:7461").await.unwrap(), [loopback.into()]);
        assert_eq!(resolve("[fe80::1%1]:7461").await.unwrap(), [loopback.into()]);
        let error = resolve("[fe80::1%no-such0]:7461").await.unwrap_err();
        assert!(error.to_string().contains("no-such0"), "{error}");
    }

    #[tokio::test]
    async fn a_lookup_that_does_not_answer_is_asked_once_and_known_addresses_serve() {
        let server = Server::parse("tail.example:7").unwrap();
        let (_never, lookup) = watch::channel(None);
        let known: SocketAddr = "10.0.0.7:7".parse().unwrap();
        let resolver = Resolver(Mutex::new(State { known: vec![known], lookup: Some(lookup) }));
        assert_eq!(resolver.resolve(&server).await.unwrap(), [known]);
        assert!(resolver.state().lookup.is_some(), "and the lookup goes on");
    }
}
