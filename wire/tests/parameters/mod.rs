//! The transport parameters of both sides of a handshake (RFC 9000 section 18), as they are sent to the peer.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use quinn::{
    ConnectionId, ServerConfig,
    crypto::{ExportKeyingMaterialError, KeyPair, Keys, PacketKey, Session, UnsupportedVersion},
};
use quinn_proto::{Side, TransportError, crypto, transport_parameters::TransportParameters};

/// Each parameter's number with its value.
pub(crate) type Parameters = BTreeMap<u64, Vec<u8>>;

/// Numbers of transport parameters (RFC 9000 section 18.2, RFC 9221).
pub(crate) mod id {
    pub(crate) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(crate) const INITIAL_MAX_DATA: u64 = 0x04;
    pub(crate) const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(crate) const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(crate) const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub(crate) const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub(crate) const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
    pub(crate) const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
}

/// The parameters of a server and of the client that connected last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    server: Arc<Mutex<Parameters>>,
    client: Arc<Mutex<Parameters>>,
}

impl Recorder {
    /// Records the parameters of each handshake that a server with this configuration does.
    pub(crate) fn watch(config: &mut ServerConfig) -> Recorder {
        let recorder = Recorder::default();
        config.crypto = Arc::new(Watched { inner: Arc::clone(&config.crypto), recorder: recorder.clone() });
        recorder
    }

    /// What the server sent.
    pub(crate) fn server(&self) -> Parameters {
        self.server.lock().unwrap().clone()
    }

    /// What the client sent.
    pub(crate) fn client(&self) -> Parameters {
        self.client.lock().unwrap().clone()
    }
}

/// The value of a parameter that is a number. A parameter that is not sent is 0.
pub(crate) fn number(parameters: &Parameters, id: u64) -> u64 {
    parameters.get(&id).map_or(0, |value| varint(&mut value.as_slice()))
}

fn parse(parameters: &TransportParameters) -> Parameters {
    let mut bytes = Vec::new();
    parameters.write(&mut bytes);
    let (mut rest, mut all) = (bytes.as_slice(), Parameters::new());
    while !rest.is_empty() {
        let (id, length) = (varint(&mut rest), varint(&mut rest));
        let (value, after) = rest.split_at(length as usize);
        all.insert(id, value.to_vec());
        rest = after;
    }
    all
}

/// Reads an integer of variable length (RFC 9000 section 16).
fn varint(bytes: &mut &[u8]) -> u64 {
    let length = 1 << (bytes[0] >> 6);
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)) & (u64::MAX >> (66 - 8 * length))
}

struct Watched {
    inner: Arc<dyn crypto::ServerConfig>,
    recorder: Recorder,
}

impl crypto::ServerConfig for Watched {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.inner.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.inner.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        *self.recorder.server.lock().unwrap() = parse(parameters);
        let inner = Arc::clone(&self.inner).start_session(version, parameters);
        Box::new(WatchedSession { inner, recorder: self.recorder.clone() })
    }
}

struct WatchedSession {
    inner: Box<dyn Session>,
    recorder: Recorder,
}

impl Session for WatchedSession {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let parameters = self.inner.transport_parameters()?;
        if let Some(parameters) = &parameters {
            *self.recorder.client.lock().unwrap() = parse(parameters);
        }
        Ok(parameters)
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
