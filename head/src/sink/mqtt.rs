//! Answers to a broker, and a device in Home Assistant.
#![expect(clippy::disallowed_methods, reason = "messages are spaced out in time")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rumqttc::{AsyncClient, EventLoop, PublishOptions, QoS};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    event::Event,
    gallery::{Gallery, Viewer},
    monitor::{Monitor, best_class},
    queue::Queue,
};
use crate::{
    Error,
    config::{Mqtt, topic_level},
    report::{Status, Tally},
};

mod broker;
mod discovery;
mod topics;

use self::{
    broker::Link,
    discovery::Stale,
    topics::{OFFLINE, ONLINE, Topics},
};

/// How often it is looked whether a picture or a state is due.
const TICK: Duration = Duration::from_millis(250);
/// Least time between two messages about the state of a camera.
const STATE_EVERY: Duration = Duration::from_secs(1);
/// Time between two messages about the state of the device, and of a camera that delivers nothing.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long the end of the connection may take.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long what the broker holds of this device is waited for before it is replaced: not so long that answers are lost meanwhile.
const HELD: Duration = Duration::from_millis(200);
/// Longest state that Home Assistant keeps.
const LONGEST_STATE: usize = 255;

/// Publishes answers, states and pictures.
pub(super) struct MqttSink {
    client: AsyncClient,
    events: Option<EventLoop>,
    topics: Topics,
    /// The topic of Home Assistant's discovery.
    discovery: Option<String>,
    /// Least time between two pictures of a camera.
    picture_every: Option<Duration>,
    cameras: BTreeMap<String, Camera>,
    monitor: Arc<Monitor>,
    gallery: Arc<Gallery>,
    /// Every sink, for the state of the device.
    tallies: Vec<Arc<Tally>>,
    status_at: Option<Instant>,
}

/// What was published of a camera.
#[derive(Default)]
struct Camera {
    class: Option<String>,
    /// Whether something has changed since the state was published.
    has_news: bool,
    status: Option<Status>,
    state_at: Option<Instant>,
    picture: Option<Arc<super::gallery::Picture>>,
    picture_at: Option<Instant>,
    /// Waits for the next picture.
    viewer: Option<Viewer>,
}

impl MqttSink {
    /// Checks the settings; nothing is connected yet. The device is announced with these cameras.
    ///
    /// # Errors
    /// [`Error::Usage`] for certificates that cannot be used.
    pub(super) fn open(
        mqtt: &Mqtt,
        monitor: Arc<Monitor>,
        gallery: Arc<Gallery>,
        cameras: Vec<String>,
    ) -> Result<Self, Error> {
        let own = || format!("narrows/{}", topic_level(&monitor.device().name));
        let prefix = mqtt.topic.clone().unwrap_or_else(own);
        let own = mqtt.discovery.as_deref().map(|prefix| discovery::topic(prefix, &monitor.device().name));
        let topics = Topics::new(&prefix, mqtt.discovery.as_deref()).discovering(own);
        let (client, events) = broker::open(mqtt, &topics)?;
        Ok(MqttSink {
            client,
            events: Some(events),
            topics,
            discovery: mqtt.discovery.clone(),
            picture_every: mqtt.picture,
            cameras: cameras.into_iter().map(|name| (name, Camera::default())).collect(),
            monitor,
            gallery,
            tallies: Vec::new(),
            status_at: None,
        })
    }

    /// Publishes until the queue ends, and says farewell.
    pub(super) async fn run(mut self, queue: &Queue<Arc<Event>>, tallies: Vec<Arc<Tally>>) {
        self.tallies = tallies;
        let (sender, mut link) = watch::channel(Link::default());
        let (discovered, mut discovery) = mpsc::unbounded_channel();
        let events = self.events.take().map(|events| {
            tokio::spawn(broker::drive(
                events,
                self.topics.clone(),
                sender,
                discovered,
                Arc::clone(queue.tally()),
            ))
        });
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Link::default();
        loop {
            tokio::select! {
                biased;
                Ok(()) = link.changed() => {
                    let now = *link.borrow_and_update();
                    self.react(known, now, &mut discovery).await;
                    known = now;
                }
                // What this device has announced itself.
                Some(_) = discovery.recv() => {}
                // Before the answers, which may come as fast as they are taken.
                _ = tick.tick() => if known.is_connected { self.publish_due().await },
                // While there is no connection the newest answers wait in the queue.
                event = queue.next(), if known.is_connected => match event {
                    Some(event) => self.take(&event, queue.tally()).await,
                    None => break,
                },
            }
        }
        // Everything before it has been sent when the broker acknowledges it. Where it never does, its last will says the same.
        let farewell = PublishOptions::at_least_once().retained();
        let topic = self.topics.available().to_owned();
        if let Ok(notice) = self.client.publish_tracked(topic, OFFLINE, farewell).await
            && notice.wait_async().await.is_ok()
        {
            let _ = self.client.disconnect_with_timeout(FAREWELL).await;
            if let Some(events) = events {
                let _ = events.await;
            }
        }
    }

    /// Announces the device where the broker or Home Assistant may have forgotten it.
    async fn react(&mut self, known: Link, now: Link, held: &mut mpsc::UnboundedReceiver<Vec<u8>>) {
        if !now.is_connected {
            return;
        }
        let is_new = now.connections != known.connections;
        if is_new {
            for topic in self.topics.heard() {
                // Refused only by a client that has ended.
                let _ = self.client.subscribe(topic, QoS::AtLeastOnce).await;
            }
        }
        if is_new || now.wills != known.wills || now.births != known.births {
            self.send(self.topics.available().to_owned(), ONLINE, QoS::AtLeastOnce, true).await;
        }
        if is_new && self.discovery.is_some() {
            // Where the broker holds nothing, nothing comes.
            if let Ok(Some(held)) = timeout(HELD, held.recv()).await {
                self.remove_stale(&held).await;
            }
        }
        if is_new || now.births != known.births {
            self.discover().await;
        }
        if is_new {
            self.status_at = None;
            for (name, camera) in &self.cameras {
                if let Some(class) = &camera.class {
                    self.send(self.topics.of(name, "class"), class.clone(), QoS::AtLeastOnce, true).await;
                }
                if let Some(picture) = &camera.picture {
                    let topic = self.topics.of(name, "picture");
                    self.send(topic, picture.jpeg.clone(), QoS::AtMostOnce, true).await;
                }
            }
            self.cameras.values_mut().for_each(|camera| (camera.has_news, camera.state_at) = (true, None));
        }
    }

    /// Publishes the outcome of a frame. Where the broker takes no more, this waits, and answers wait in the queue.
    async fn take(&mut self, event: &Event, tally: &Arc<Tally>) {
        let camera = self.cameras.entry(event.camera.clone()).or_default();
        camera.has_news = true;
        let status = event.line.status;
        // A late answer is a record of what was: it is published, and changes no state.
        let late = event.line.is_late();
        if !late && status != Status::Dropped && camera.status.replace(status) != Some(status) {
            camera.state_at = None;
        }
        let class = best_class(&event.line).filter(|_| !late).map(|class| shortened(class.label));
        let news = class.filter(|class| camera.class.as_ref() != Some(class));
        if let Some(class) = &news {
            camera.class = Some(class.clone());
        }
        if let Some(class) = news {
            self.send(self.topics.of(&event.camera, "class"), class, QoS::AtLeastOnce, true).await;
        }
        let json = event.json.trim_ascii_end().to_vec();
        let topic = self.topics.of(&event.camera, "answer");
        match self.client.publish_tracked(topic, json, PublishOptions::at_least_once()).await {
            Ok(notice) => {
                let tally = Arc::clone(tally);
                tokio::spawn(async move {
                    match notice.wait_async().await {
                        Ok(_) => tally.deliver(),
                        Err(_) => tally.lose(1),
                    }
                });
            }
            Err(_) => tally.lose(1),
        }
    }

    /// Publishes states and pictures whose time has come.
    async fn publish_due(&mut self) {
        let now = Instant::now();
        let is_due =
            |at: Option<Instant>, every| at.is_none_or(|at| now.saturating_duration_since(at) >= every);
        let mut messages = Vec::new();
        for (name, camera) in &mut self.cameras {
            // Without news the rate falls and the age grows, which is what tells that a camera is gone.
            let every = if camera.has_news { STATE_EVERY } else { STATUS_EVERY };
            if is_due(camera.state_at, every) {
                (camera.has_news, camera.state_at) = (false, Some(now));
                let json = self.monitor.camera(name, now).map(|status| serde_json::to_vec(&status));
                messages.extend(
                    json.transpose().ok().flatten().map(|json| (self.topics.of(name, "state"), json)),
                );
            }
            let Some(every) = self.picture_every else { continue };
            match &mut camera.viewer {
                Some(viewer) if viewer.newest.has_changed().unwrap_or(false) => {
                    if let Some(picture) = viewer.newest.borrow_and_update().clone() {
                        messages.push((self.topics.of(name, "picture"), picture.jpeg.clone()));
                        camera.picture = Some(picture);
                    }
                    (camera.viewer, camera.picture_at) = (None, Some(now));
                }
                Some(_) => {}
                // Viewing a camera has all frames keep their pixels, so one without frames is not viewed.
                None if camera.status.is_some() && is_due(camera.picture_at, every) => {
                    camera.viewer = Some(self.gallery.view(name));
                }
                None => {}
            }
        }
        if is_due(self.status_at, STATUS_EVERY) {
            self.status_at = Some(now);
            let status = self.monitor.status(&self.tallies, now);
            messages.extend(serde_json::to_vec(&status).ok().map(|json| (self.topics.status(), json)));
        }
        for (topic, payload) in messages {
            self.send(topic, payload, QoS::AtMostOnce, true).await;
        }
    }

    async fn discover(&self) {
        if let Some((topic, payload)) = self.announcement() {
            self.send(topic, payload.to_string(), QoS::AtLeastOnce, true).await;
        }
    }

    /// Topic and payload of the discovery.
    fn announcement(&self) -> Option<(String, Value)> {
        let prefix = self.discovery.as_ref()?;
        let device = &self.monitor.device().name;
        let cameras = self.cameras.keys().map(String::as_str);
        let (pictures, board) = (self.picture_every.is_some(), self.monitor.tells_temperature());
        Some(discovery::message(prefix, device, &self.topics, cameras, pictures, board))
    }

    /// Removes what an earlier run announced and this one has not: `held` is what the broker holds as the discovery.
    async fn remove_stale(&self, held: &[u8]) {
        let Some((topic, payload)) = self.announcement() else { return };
        let Stale { components, topics } = discovery::stale(held, &payload, &self.topics);
        if components.is_empty() {
            return;
        }
        // Home Assistant removes what is announced with its platform alone, and forgets it with the next announcement.
        let mut removing = payload.clone();
        if let Some(all) = removing["components"].as_object_mut() {
            all.extend(components);
        }
        self.send(topic, removing.to_string(), QoS::AtLeastOnce, true).await;
        for topic in topics {
            self.send(topic, Vec::new(), QoS::AtLeastOnce, true).await;
        }
    }

    /// Hands a message over, waiting for room. The event loop goes on by itself, so the wait ends with the connection.
    async fn send(&self, topic: String, payload: impl Into<Vec<u8>>, qos: QoS, retain: bool) {
        let options = PublishOptions::new(qos).retain(retain);
        // Refused only by a client that has ended.
        let _ = self.client.publish(topic, payload.into(), options).await;
    }
}

/// The beginning of a text that fits into a state of Home Assistant.
fn shortened(mut text: String) -> String {
    let end = text.floor_char_boundary(LONGEST_STATE);
    text.truncate(end);
    text
}
