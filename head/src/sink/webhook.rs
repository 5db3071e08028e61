//! Each JSON line to a web address.
#![expect(clippy::disallowed_methods, reason = "attempts are spaced out in time")]

use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use ureq::{
    Agent,
    http::StatusCode,
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::{
    event::Event,
    queue::{Next, Queue},
    tls,
};
use crate::{
    Error,
    config::{Only, Webhook},
    report::{Line, Status, Tally},
};

/// The wait after the first and after every later failed attempt, doubled in between.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest wait for a line at a time; the next one follows.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of an answer's body that are read, so that its connection can be used again.
const LONGEST_BODY: u64 = 64 << 10;

/// Sends lines to a web address.
pub(super) struct WebhookSink {
    agent: Agent,
    webhook: Webhook,
}

/// What became of a request.
enum Outcome {
    Delivered,
    /// The same line may be accepted later.
    Postponed(String),
    /// This line will never be accepted.
    Refused(String),
}

impl WebhookSink {
    /// Checks the settings; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for certificates that cannot be used.
    pub(super) fn open(webhook: Webhook) -> Result<Self, Error> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(webhook.timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("narrows-head/", env!("CARGO_PKG_VERSION")));
        if webhook.url.scheme_str() == Some("https") {
            let roots = tls::roots("--webhook-ca", webhook.ca.as_deref())?;
            let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(roots)))
                .unversioned_rustls_crypto_provider(tls::provider())
                .build();
            config = config.tls_config(tls);
        }
        Ok(WebhookSink { agent: config.build().into(), webhook })
    }

    /// Whether the address gets this line.
    pub(super) fn wants(only: Option<Only>, line: &Line) -> bool {
        match only {
            None => true,
            Some(Only::Answered) => line.status == Status::Answered,
            // That of a dropped frame is no failure.
            Some(Only::Unanswered) => !matches!(line.status, Status::Answered | Status::Dropped),
        }
    }

    /// Sends lines until the queue ends. A line that fails is tried again until a newer one waits, which takes its place.
    pub(super) fn run(self, queue: &Queue<Arc<Event>>) {
        loop {
            let mut events = match queue.take(PATIENCE) {
                Next::Entries(events) => events,
                Next::Nothing => continue,
                Next::End => return,
            };
            let mut wait = WAIT.0;
            while let Some(event) = events.pop_front() {
                if self.deliver(&event, queue.tally()) {
                    wait = WAIT.0;
                    continue;
                }
                // Only the newest line is worth another attempt.
                queue.tally().lose(events.len() as u64);
                let newest = events.pop_back().unwrap_or(event);
                events.clear();
                events.push_back(newest);
                let until = Instant::now() + wait;
                wait = (wait * 2).min(WAIT.1);
                if !pause(until, queue, &mut events) {
                    return;
                }
            }
        }
    }

    /// Makes one attempt; returns whether this line is done with.
    fn deliver(&self, event: &Event, tally: &Tally) -> bool {
        match self.post(&event.json) {
            Outcome::Delivered => {
                tally.deliver();
                tally.note_recovery();
                true
            }
            Outcome::Refused(reason) => {
                tally.lose(1);
                tally.note_trouble(reason);
                true
            }
            Outcome::Postponed(reason) => {
                tally.note_trouble(reason);
                false
            }
        }
    }

    fn post(&self, json: &[u8]) -> Outcome {
        let mut request = self.agent.post(&self.webhook.url).content_type("application/json");
        for (name, value) in &self.webhook.headers {
            request = request.header(name, value);
        }
        match request.send(json.trim_ascii_end()) {
            Ok(mut response) => {
                let status = response.status();
                // A connection with something unread in it is closed, and each line would need another one. Where the rest
                // does not come, the line has been answered all the same.
                let _ = io::copy(&mut response.body_mut().as_reader().take(LONGEST_BODY), &mut io::sink());
                match status {
                    _ if status.is_success() => Outcome::Delivered,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                        Outcome::Postponed(format!("answers {status}"))
                    }
                    _ if status.is_server_error() => Outcome::Postponed(format!("answers {status}")),
                    _ if status.is_redirection() => {
                        let place = response.headers().get("location").and_then(|place| place.to_str().ok());
                        let place = place.unwrap_or("nowhere").escape_default();
                        Outcome::Refused(format!("answers {status} and points to {place}; give that address"))
                    }
                    _ => Outcome::Refused(format!("answers {status}")),
                }
            }
            Err(error) => Outcome::Postponed(format!("cannot be reached: {error}")),
        }
    }
}

/// Waits until `until`. Newer lines take the place of the one in `events`; returns whether the sink goes on.
fn pause(until: Instant, queue: &Queue<Arc<Event>>, events: &mut VecDeque<Arc<Event>>) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match queue.take(left) {
            Next::Entries(newer) => {
                queue.tally().lose((events.len() + newer.len()) as u64 - 1);
                *events = newer;
                events.drain(..events.len() - 1);
            }
            Next::Nothing => return true,
            // The end of the run is no time to wait.
            Next::End => return false,
        }
    }
}
