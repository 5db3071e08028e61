//! Packets to features (FORMAT.md, sections 3 to 6).

use crate::cursor::Cursor;
use crate::rans::{LOWEST, STATE_END, Words};
use crate::{Error, Feature, HEADER_BYTES, Header, Mode, Shape, Table, Tables, packet_max};

/// What a packet held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packet {
    /// Index of the geometry, which is in the shapes that [`decode`] was given.
    pub geometry: u8,
    /// Index of the rate level, which is in the tables.
    pub level: u8,
    /// How it was coded.
    pub mode: Mode,
    /// The symbols.
    pub feature: Feature,
}

/// Decodes `packet`. `shapes` holds the feature's shape for each geometry of the bundle; they alone decide how much
/// memory is taken and how much work is done.
///
/// # Errors
/// An [`Error`] of kind [`Kind::Peer`](crate::Kind::Peer) that names the field when the packet is not a whole and
/// undamaged packet of these tables and shapes, [`Error::Channels`] when shapes and tables do not fit together.
pub fn decode(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Error> {
    let mut symbols = Vec::new();
    let header = decode_into(tables, shapes, packet, &mut symbols)?;
    let feature = Feature::new(shapes[usize::from(header.geometry)], symbols)?;
    Ok(Packet { geometry: header.geometry, level: header.level, mode: header.mode, feature })
}

/// As [`decode`], into a buffer whose former content is dropped and whose memory is used again. After an error the
/// buffer's content has no meaning.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_into(
    tables: &Tables,
    shapes: &[Shape],
    packet: &[u8],
    symbols: &mut Vec<i16>,
) -> Result<Header, Error> {
    let header = Header::parse(packet)?;
    let level = tables
        .level(header.level.into())
        .ok_or(Error::Level { found: header.level, levels: tables.levels() })?;
    let &shape = shapes
        .get(usize::from(header.geometry))
        .ok_or(Error::Geometry { found: header.geometry, geometries: shapes.len() })?;
    if shape.channels() != tables.channels() {
        return Err(Error::Channels { tables: tables.channels(), feature: shape.channels() });
    }
    if packet.len() > packet_max(shape) {
        return Err(Error::PacketLength { found: packet.len(), max: packet_max(shape) });
    }
    if header.table_id != tables.id() {
        return Err(Error::TableId { found: header.table_id, expected: tables.id() });
    }
    let payload = &packet[HEADER_BYTES..];
    symbols.clear();
    symbols.resize(shape.symbols(), 0);
    match (header.mode, header.layout) {
        (Mode::Static, 1) => read_static::<1>(level, shape, payload, symbols)?,
        (Mode::Static, 2) => read_static::<2>(level, shape, payload, symbols)?,
        (Mode::Static, 4) => read_static::<4>(level, shape, payload, symbols)?,
        (Mode::Static, _) => read_static::<8>(level, shape, payload, symbols)?,
        (Mode::Raw, width) => read_raw(width, payload, symbols)?,
        (Mode::Zstd, width) => read_zstd(width, payload, symbols)?,
    }
    let expected = header.check_of(symbols);
    if header.check != expected {
        return Err(Error::Check { found: header.check, expected });
    }
    Ok(header)
}

fn read_static<const N: usize>(
    tables: &[Table],
    shape: Shape,
    payload: &[u8],
    symbols: &mut [i16],
) -> Result<(), Error> {
    let mut cursor = Cursor::new(payload);
    let mut states = [0; N];
    for (lane, state) in states.iter_mut().enumerate() {
        *state = cursor.u32("states")?;
        if !(LOWEST..STATE_END).contains(state) {
            return Err(Error::State { lane, found: *state });
        }
    }
    let (pairs, odd) = cursor.rest().as_chunks();
    if !odd.is_empty() {
        return Err(Error::PacketTrailing { field: "words", bytes: odd.len() });
    }
    let mut words = Words::new(pairs);
    for (table, plane) in tables.iter().zip(symbols.chunks_exact_mut(shape.plane())) {
        table.decode(&mut states, &mut words, plane);
    }
    let escapes = words.rest().ok_or(Error::PacketTruncated { field: "words" })?;
    if let Some(lane) = states.iter().position(|state| *state != LOWEST) {
        return Err(Error::FinalState { lane, found: states[lane] });
    }
    read_escapes(tables, shape, escapes, symbols)
}

fn read_escapes(
    tables: &[Table],
    shape: Shape,
    escapes: &[[u8; 2]],
    symbols: &mut [i16],
) -> Result<(), Error> {
    let mut escapes = escapes.iter();
    for (channel, (table, plane)) in tables.iter().zip(symbols.chunks_exact_mut(shape.plane())).enumerate() {
        let marker = table.marker();
        if !plane.iter().fold(false, |any, &symbol| any | (symbol == marker)) {
            continue;
        }
        for symbol in plane.iter_mut().filter(|symbol| **symbol == marker) {
            let &pair = escapes.next().ok_or(Error::PacketTruncated { field: "escapes" })?;
            *symbol = i16::from_le_bytes(pair);
            if table.holds(*symbol) {
                return Err(Error::Escape { found: *symbol, channel });
            }
        }
    }
    match escapes.len() {
        0 => Ok(()),
        left => Err(Error::PacketTrailing { field: "escapes", bytes: 2 * left }),
    }
}

fn read_raw(width: u8, bytes: &[u8], symbols: &mut [i16]) -> Result<(), Error> {
    let expected = usize::from(width) * symbols.len();
    if bytes.len() < expected {
        return Err(Error::PacketTruncated { field: "symbols" });
    }
    if bytes.len() > expected {
        return Err(Error::PacketTrailing { field: "symbols", bytes: bytes.len() - expected });
    }
    match width {
        1 => symbols.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = i16::from(byte.cast_signed())),
        _ => {
            symbols.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, &pair)| *to = i16::from_le_bytes(pair))
        }
    }
    Ok(())
}

fn read_zstd(width: u8, frame: &[u8], symbols: &mut [i16]) -> Result<(), Error> {
    let fault = |problem| Error::Frame { problem };
    let end = zstd::zstd_safe::find_frame_compressed_size(frame).map_err(|_| fault("not a whole frame"))?;
    if end != frame.len() {
        return Err(Error::PacketTrailing { field: "frame", bytes: frame.len() - end });
    }
    let mut raw = vec![0; usize::from(width) * symbols.len()];
    let written = zstd::bulk::decompress_to_buffer(frame, &mut raw)
        .map_err(|_| fault("damaged, or more content than the symbols"))?;
    if written != raw.len() {
        return Err(fault("less content than the symbols"));
    }
    read_raw(width, &raw, symbols)
}
