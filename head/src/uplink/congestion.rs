//! QUIC's congestion control of a connection whose frames are planned: everything that is written leaves at once, and what
//! becomes of it is told to the model of the link, which says how much may be written.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use narrows_policy::{Entry, Link, LinkConfig};
use quinn::{
    Connection,
    congestion::{Controller, ControllerFactory},
};
use quinn_proto::RttEstimator;
use tokio::sync::Notify;

use super::decisions::DecisionLog;

/// Bytes of a datagram that are no stream data: headers of QUIC and of the stream, and the tag of the encryption.
const OVERHEAD: u16 = 44;

/// QUIC's own window, so large that QUIC does not pace. The window of the link is what limits the connection.
const WINDOW: u64 = 1 << 40;

/// The model of the link of one connection.
#[derive(Debug)]
pub(super) struct LinkState {
    model: Mutex<Model>,
    /// Woken when something was delivered or lost.
    pub(super) changed: Notify,
    epoch: Instant,
}

#[derive(Debug)]
struct Model {
    link: Link,
    /// Bytes that were written to streams and have not left yet.
    unsent: u64,
    written_at: Instant,
    /// Where observations are recorded.
    log: Option<DecisionLog>,
}

/// Written bytes leave at once. Those that have not left by then never will: their stream was given up.
const UNSENT_TIME: Duration = Duration::from_millis(100);

impl LinkState {
    fn new(now: Instant, mtu: u16) -> Self {
        let config = LinkConfig { datagram: stream_bytes(mtu), ..LinkConfig::default() };
        let model = Model { link: Link::new(config), unsent: 0, written_at: now, log: None };
        LinkState { model: Mutex::new(model), changed: Notify::new(), epoch: now }
    }

    /// That of a connection which was configured with [`PlannedFrames`].
    pub(super) fn of(connection: &Connection) -> Option<Arc<LinkState>> {
        let controller = connection.congestion_state().into_any().downcast::<LinkController>();
        controller.ok().map(|controller| controller.0)
    }

    /// Calls `observe` with the model as it is at this time.
    pub(super) fn with<T>(&self, now: Instant, observe: impl FnOnce(&Link) -> T) -> T {
        let mut model = self.lock();
        if model.unsent > 0 && now.saturating_duration_since(model.written_at) > UNSENT_TIME {
            let in_flight = model.link.in_flight().saturating_sub(model.unsent);
            model.set_in_flight(in_flight);
            model.unsent = 0;
        }
        observe(&model.link)
    }

    /// Has observations recorded from now on, or no longer.
    pub(super) fn record(&self, log: Option<DecisionLog>) {
        self.lock().log = log;
    }

    /// Takes note of bytes that are written to a stream.
    pub(super) fn written(&self, at: Instant, bytes: u32) {
        let mut model = self.lock();
        let time = self.time(at);
        model.link.on_sent(time, bytes);
        model.note(|| Entry::Sent { at: time, bytes });
        model.unsent += u64::from(bytes);
        model.written_at = at;
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time on the model's clock.
    pub(super) fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.epoch)
    }

    /// The moment of a time on the model's clock.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        self.epoch + time
    }
}

impl Model {
    fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(log) = &self.log {
            log.note(entry);
        }
    }

    fn set_in_flight(&mut self, bytes: u64) {
        if self.link.in_flight() != bytes {
            self.link.set_in_flight(bytes);
            self.note(|| Entry::InFlight { bytes });
        }
    }
}

/// Makes the congestion control of connections whose frames are planned.
#[derive(Debug)]
pub(super) struct PlannedFrames;

impl ControllerFactory for PlannedFrames {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LinkController(Arc::new(LinkState::new(now, current_mtu))))
    }
}

#[derive(Debug, Clone)]
struct LinkController(Arc<LinkState>);

impl Controller for LinkController {
    /// This is told of packets too that are never acknowledged, so it says only what has left.
    fn on_sent(&mut self, _: Instant, bytes: u64, _: u64) {
        let mut model = self.0.lock();
        model.unsent = model.unsent.saturating_sub(bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        let (at, sent, bytes) = (self.0.time(now), self.0.time(sent), size(bytes));
        let mut model = self.0.lock();
        model.link.on_delivered(at, sent, bytes);
        model.note(|| Entry::Delivered { at, sent, bytes });
    }

    fn on_end_acks(&mut self, _: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        let mut model = self.0.lock();
        let unsent = model.unsent;
        model.set_in_flight(in_flight + unsent);
        drop(model);
        self.0.changed.notify_one();
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, lost_bytes: u64) {
        let bytes = size(lost_bytes);
        let mut model = self.0.lock();
        model.link.on_lost(bytes);
        model.note(|| Entry::Lost { bytes });
        drop(model);
        self.0.changed.notify_one();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        let bytes = stream_bytes(new_mtu);
        let mut model = self.0.lock();
        model.link.set_datagram(bytes);
        model.note(|| Entry::Datagram { bytes });
    }

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn stream_bytes(mtu: u16) -> u32 {
    mtu.saturating_sub(OVERHEAD).into()
}

fn size(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
