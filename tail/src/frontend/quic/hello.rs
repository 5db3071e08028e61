//! The hello of a connection, and its place among the open ones.
#![expect(clippy::disallowed_methods, reason = "a silent connection is given a time to answer")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, Error, Hello, Refusal, RefusalCode,
    limits::MAX_HELLO,
    quic::{allow_requests, close, path_state, request_acknowledgement},
    session::HelloOutcome,
    stream::{StreamError, read_message, write_message},
};
use quinn::SendStream;
use tokio::time::{sleep, timeout, timeout_at};

use super::{
    connection::Peer,
    translate::{Offer, Usable},
};
use crate::{
    devices::Scope,
    engine::Unserved,
    frontend::{log::Kind, peers::Full},
};

/// The time that the peer has to take a welcome, or to acknowledge a hello refusal, before the connection is closed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The time, besides three round trips, in which a connection has to acknowledge a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time for that, however long the round trips. It is below the time that a client waits for its welcome.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The interval at which the probed connections are looked at.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The time that a bundle of the client may take to be loaded. It is below the time that a client waits for its welcome.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// The time after which a bundle that is being loaded may be there, for the hint in the refusal.
const LOAD_RETRY: Duration = Duration::from_secs(1);

/// The time after which another attempt of a client may find a place, for the hint in the refusal.
const RETRY: Duration = Duration::from_secs(5);

impl Peer {
    /// Receives and answers the hello. False if the connection is over.
    pub(super) async fn hello(&self) -> bool {
        let due = self.session().hello_due();
        let message = async {
            let (send, mut receive) =
                self.connection.accept_bi().await.map_err(|error| StreamError::Connection(error.into()))?;
            Ok((send, read_message(&mut receive, MAX_HELLO).await?))
        };
        let (mut send, bytes) = match timeout_at(due.into(), message).await {
            Ok(Ok(message)) => message,
            Ok(Err(StreamError::TooLarge { limit })) => {
                self.violation(Close::TooLarge, &format!("hello over {limit} bytes"));
                return false;
            }
            Ok(Err(error)) => {
                self.without_hello(&error.to_string());
                return false;
            }
            Err(_) => {
                self.without_hello("no hello in time");
                close(&self.connection, Close::HelloTimeout, "no hello in time");
                return false;
            }
        };
        let standing = self.shared.standing();
        self.session().stand(standing);
        let outcome = match &self.scope {
            Some(scope) => self.offer_for(&bytes, scope).await,
            None => {
                self.shared.metrics.not_permitted.add(1);
                let text = format!("the server gives the device {} no rights", self.name);
                self.session().refuse_alone(Refusal::new(RefusalCode::NotPermitted, text))
            }
        };
        let outcome = match outcome {
            Ok(HelloOutcome::Open(bytes)) => match self.take_place().await {
                Ok(()) => {
                    let max_in_flight = self.shared.max_in_flight;
                    allow_requests(&self.connection, max_in_flight, &self.shared.tuning);
                    let sent = timeout(ANSWER_TIMEOUT, write_message(&mut send, &bytes)).await;
                    return matches!(sent, Ok(Ok(())));
                }
                Err(refusal) => self.session().refuse(refusal),
            },
            other => other,
        };
        match outcome {
            Ok(HelloOutcome::Refused { bytes, refusal }) => {
                self.refuse_hello(&mut send, &bytes, &refusal).await
            }
            Ok(HelloOutcome::Open(_)) => {}
            Err(error) => self.violation(Close::Violation, &error.to_string()),
        }
        false
    }

    /// Offers what the client may use, and takes its hello. Its bundles are loaded first if they are not in memory.
    async fn offer_for(&self, bytes: &[u8], scope: &Scope) -> Result<HelloOutcome, Error> {
        let (own, others) = match Hello::parse(bytes) {
            Ok(hello) => self.shared.usable(scope).into_iter().partition(|usable| usable.is_of(&hello)),
            // The session says what is wrong with it.
            Err(_) => (Vec::new(), Vec::new()),
        };
        let (mut models, mut unserved) = (Vec::new(), None);
        let due = Instant::now() + LOAD_TIMEOUT;
        let own: Vec<Usable> = own;
        for usable in own {
            match timeout_at(due.into(), self.shared.engine().model(usable.digest)).await {
                Ok(Ok(model)) => models.push((usable, model)),
                Ok(Err(reason)) => unserved = unserved.or(Some(unserved_refusal(&reason))),
                Err(_) => {
                    let refusal = Refusal::new(RefusalCode::Busy, "the bundle is being loaded");
                    unserved = unserved.or(Some(refusal.retry_after(LOAD_RETRY)));
                }
            }
        }
        let offer = Offer::new(models, others, self.shared.max_in_flight);
        let mut session = self.session();
        session.offer(Arc::clone(&offer.catalog));
        let outcome = session.hello(bytes)?;
        // There is one hello.
        let _ = self.offer.set(offer);
        match (outcome, unserved) {
            (HelloOutcome::Refused { refusal, .. }, Some(unserved))
                if matches!(refusal.code, RefusalCode::Bundle | RefusalCode::Task) =>
            {
                session.refuse(unserved)
            }
            (outcome, _) => Ok(outcome),
        }
    }

    /// Sends a refusal of the hello and closes the connection.
    async fn refuse_hello(&self, send: &mut SendStream, bytes: &[u8], refusal: &Refusal) {
        self.shared.metrics.hellos_refused.add(1);
        if self.shared.writes(Kind::HelloRefused) {
            tracing::warn!(peer = %self, reason = %refusal, "hello refused");
        }
        let delivered = async {
            write_message(send, bytes).await?;
            // Closing at once would discard the refusal before it is sent.
            let _ = send.stopped().await;
            Ok::<_, StreamError>(())
        };
        let _ = timeout(ANSWER_TIMEOUT, delivered).await;
        close(&self.connection, Close::Refused, &refusal.to_string());
    }

    /// Takes a place among the open connections. Where the device has as many as it may have, they are probed, and one that
    /// does not answer is closed in favour of this one: a device that crashed does not wait until its dead connections have
    /// timed out.
    ///
    /// # Errors
    /// A refusal that says which limit is reached.
    async fn take_place(&self) -> Result<(), Refusal> {
        let mut full = match self.registration.open() {
            Ok(()) => return Ok(()),
            Err(full @ Full::Device { .. }) => full,
            Err(full) => return Err(self.full(full)),
        };
        let mut silent: Vec<_> = self
            .registration
            .siblings()
            .into_iter()
            .map(|(number, connection)| (number, path_state(&connection).received, connection))
            .collect();
        silent.iter().for_each(|(_, _, connection)| request_acknowledgement(connection, &self.shared.tuning));
        let round_trip = silent.iter().map(|(_, _, connection)| connection.rtt()).max().unwrap_or_default();
        let end = Instant::now() + (PROBE_TIMEOUT + 3 * round_trip).min(MAX_PROBE_TIMEOUT);
        while !silent.is_empty() && Instant::now() < end {
            sleep(PROBE_INTERVAL).await;
            silent.retain(|(_, before, connection)| path_state(connection).received == *before);
            // One of them may have ended meanwhile.
            match self.registration.open() {
                Ok(()) => return Ok(()),
                Err(still) => full = still,
            }
        }
        if silent.is_empty() {
            return Err(self.full(full));
        }
        let replaced = self.registration.open_in_place_of(silent.iter().map(|(number, _, _)| *number));
        let closed = replaced.map_err(|full| self.full(full))?;
        self.shared.metrics.connections_replaced.add(closed);
        Ok(())
    }

    /// The refusal for a limit that is reached.
    fn full(&self, full: Full) -> Refusal {
        let text = match full {
            Full::Server { open } => {
                self.shared.metrics.server_full.add(1);
                format!("full: {open} connections are open, the server allows no more")
            }
            Full::Device { open } => {
                self.shared.metrics.device_full.add(1);
                let name = &self.name;
                format!("full: {open} connections of the device {name} are open, the server allows no more")
            }
            Full::Gone => "the connection was closed while it was opened".to_owned(),
        };
        Refusal::new(RefusalCode::Connections, text).retry_after(RETRY)
    }

    /// Counts and logs a connection that ended without a hello.
    fn without_hello(&self, reason: &str) {
        self.shared.metrics.without_hello.add(1);
        if self.shared.writes(Kind::NoHello) {
            tracing::info!(peer = %self, %reason, "ended before the hello");
        }
    }
}

/// The refusal of a client whose bundle has no model.
fn unserved_refusal(reason: &Unserved) -> Refusal {
    let text = reason.to_string();
    match reason {
        Unserved::NoMemory(_) => Refusal::new(RefusalCode::Busy, text).retry_after(RETRY),
        Unserved::Closed => Refusal::new(RefusalCode::Draining, text),
        Unserved::Unknown => Refusal::new(RefusalCode::Bundle, text),
        _ => Refusal::new(RefusalCode::Internal, text).retry_after(RETRY),
    }
}
