//! The connection to a broker: options, reconnecting, and what the broker says.

use std::{sync::Arc, time::Duration};

use narrows_models::Digest;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, LastWill, MqttOptions, QoS,
    TlsConfiguration, Transport,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::topics::{OFFLINE, Topics};
use crate::{Error, config::Mqtt, report::Tally, sink::tls};

/// Seconds of silence after which the broker is asked for a sign of life; half as long again after the last one it tells
/// everybody that this device is offline.
const KEEP_ALIVE: u16 = 15;
/// Seconds that connecting may take.
const CONNECT: u64 = 5;
/// The wait before the first and before every later attempt to connect again, doubled in between.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Messages that may wait to be sent: few, since what waits here is not replaced by what is newer.
const WAITING: usize = 16;
/// Largest message that is heard: the discovery of this device, with some kilobytes for each camera.
const LARGEST_HEARD: usize = 1 << 20;
/// Largest message that is sent: a picture.
const LARGEST: usize = 8 << 20;

/// What is known of the connection. Each count goes up when that happens once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) is_connected: bool,
    /// Connections made.
    pub(super) connections: u64,
    /// Times that Home Assistant has said that it has started.
    pub(super) births: u64,
    /// Times that the broker has told everybody that this device is offline.
    pub(super) wills: u64,
}

/// A client and the event loop that moves its messages; nothing is connected yet.
///
/// # Errors
/// [`Error::Usage`] for certificates that cannot be used.
pub(super) fn open(mqtt: &Mqtt, topics: &Topics) -> Result<(AsyncClient, EventLoop), Error> {
    // The same at every start, so that the broker ends an old connection of this device instead of keeping both.
    let id = format!("narrows{}", &Digest::of(topics.available().as_bytes()).to_string()[..16]);
    let mut options = MqttOptions::new(id, (mqtt.host.clone(), mqtt.port));
    options.set_keep_alive(KEEP_ALIVE);
    options.set_max_packet_size(LARGEST_HEARD, LARGEST);
    options.set_last_will(LastWill::new(topics.available(), OFFLINE, QoS::AtLeastOnce, true));
    if let Some((user, password)) = &mqtt.user {
        options.set_credentials(user.clone(), password.clone());
    }
    if mqtt.tls {
        let roots = tls::roots("--mqtt-ca", mqtt.ca.as_deref())?;
        let identity =
            mqtt.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let config = tls::config(roots, identity)?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
    }
    let (client, mut events) = AsyncClient::builder(options).capacity(WAITING).build();
    events.network_options.set_connection_timeout(CONNECT).set_tcp_nodelay(true);
    Ok((client, events))
}

/// Keeps the connection, until the client disconnects.
pub(super) async fn drive(
    mut events: EventLoop,
    topics: Topics,
    link: watch::Sender<Link>,
    discovered: mpsc::UnboundedSender<Vec<u8>>,
    tally: Arc<Tally>,
) {
    let mut wait = WAIT.0;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                wait = WAIT.0;
                tally.note_recovery();
                link.send_modify(|link| (link.is_connected, link.connections) = (true, link.connections + 1));
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => {
                if message.topic == topics.available().as_bytes() && message.payload == OFFLINE.as_bytes() {
                    link.send_modify(|link| link.wills += 1);
                } else if topics.is_birth(&message.topic, &message.payload) {
                    link.send_modify(|link| link.births += 1);
                } else if topics.is_discovery(&message.topic) {
                    // The sink outlives this, unless it has ended.
                    discovered.send(message.payload.to_vec()).ok();
                }
            }
            Ok(_) => {}
            Err(ConnectionError::RequestsDone) => return,
            Err(error) => {
                link.send_modify(|link| link.is_connected = false);
                tally.note_trouble(reason(&error));
                sleep(wait).await;
                wait = (wait * 2).min(WAIT.1);
            }
        }
    }
}

/// Why there is no connection, and what to do about it.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword => {
                "the broker refuses this user or password (--mqtt-user, --mqtt-password-file)".to_owned()
            }
            ConnectReturnCode::NotAuthorized => {
                "the broker does not admit this user and password (--mqtt-user, --mqtt-password-file, --mqtt-cert)"
                    .to_owned()
            }
            code => format!("the broker refuses the connection: {code:?}"),
        },
        ConnectionError::NetworkTimeout => "the broker does not answer".to_owned(),
        ConnectionError::Tls(error) => format!("no TLS with the broker: {error}"),
        ConnectionError::Io(error) => format!("no connection to the broker: {error}"),
        error => format!("the connection to the broker was lost: {error}"),
    }
}
