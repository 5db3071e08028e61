//! Packets to features (FORMAT.md, sections 3 to 6).

use crate::{
    Error, Feature, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Shape, Tables,
    checksum::{Checksum, lane_shares},
    cursor::Cursor,
    header::Directory,
    indexed::Indexed,
    packet_max,
    rans::{LOWEST, RansDecoder},
    simd::Simd,
    state::{CodedChannel, ContextState},
    states,
};

/// What a packet held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packet {
    /// Index of the geometry, which is in the shapes that [`decode`] was given.
    pub geometry: GeometryId,
    /// Index of the rate level, which is in the tables.
    pub level: LevelId,
    /// How it was coded.
    pub mode: Mode,
    /// The groups that the packet was made of.
    pub groups: usize,
    /// Those of them that it still holds, from the first on. The symbols of the others are medians.
    pub groups_decoded: usize,
    /// The symbols.
    pub feature: Feature,
}

/// What [`Decoder::decode_into`] says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// What the packet says about itself.
    pub header: Header,
    /// The groups that the packet holds, of [`Header::groups`].
    pub groups_decoded: usize,
}

/// Decodes `packet`. `shapes` holds the feature's shape for each geometry of the bundle; they alone decide how much
/// memory is taken and how much work is done.
///
/// # Errors
/// Those of [`Decoder::decode_into`].
pub fn decode(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Error> {
    Decoder::new().decode(tables, shapes, packet)
}

/// [`Decoder::decode_into`] with memory of its own, for a packet now and then.
///
/// # Errors
/// Those of [`Decoder::decode_into`].
pub fn decode_into(
    tables: &Tables,
    shapes: &[Shape],
    packet: &[u8],
    symbols: &mut Vec<i16>,
) -> Result<Decoded, Error> {
    Decoder::new().decode_into(tables, shapes, packet, symbols)
}

/// Reads packets, with memory that is used again: for packets of one shape it asks for none after the first.
pub struct Decoder {
    simd: Simd,
    window: ContextState,
    words: Vec<[u8; 2]>,
    values: Vec<i16>,
    indices: Vec<u8>,
    places: Vec<u8>,
    raw: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder that uses what this processor has.
    #[must_use]
    pub fn new() -> Self {
        Self { simd: Simd::detect(), ..Self::portable() }
    }

    /// A decoder that uses the portable code alone. It decodes and refuses the same.
    #[must_use]
    pub fn portable() -> Self {
        Self {
            simd: Simd::default(),
            window: ContextState::default(),
            words: Vec::new(),
            values: Vec::new(),
            indices: Vec::new(),
            places: Vec::new(),
            raw: Vec::new(),
            zstd: None,
        }
    }

    /// The packet with a feature of its own. `shapes` holds the feature's shape for each geometry of the bundle.
    ///
    /// # Errors
    /// Those of [`Decoder::decode_into`].
    pub fn decode(&mut self, tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Error> {
        let mut symbols = Vec::new();
        let Decoded { header, groups_decoded } = self.decode_into(tables, shapes, packet, &mut symbols)?;
        let feature = Feature::new(shapes[header.geometry.index()], symbols)?;
        Ok(Packet {
            geometry: header.geometry,
            level: header.level,
            mode: header.mode,
            groups: header.groups(),
            groups_decoded,
            feature,
        })
    }

    /// As [`Decoder::decode`], into a buffer whose former content is dropped and whose memory is used again. After an error the
    /// buffer's content has no meaning.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field when the packet is not an undamaged
    /// packet of these tables and shapes, whole or cut where a group ends; [`Error::Channels`] when shapes and tables
    /// do not fit together.
    pub fn decode_into(
        &mut self,
        tables: &Tables,
        shapes: &[Shape],
        packet: &[u8],
        symbols: &mut Vec<i16>,
    ) -> Result<Decoded, Error> {
        let header = Header::parse(packet)?;
        if header.level.index() >= tables.levels() {
            return Err(Error::Level { found: header.level.0, levels: tables.levels() });
        }
        let &shape = shapes
            .get(header.geometry.index())
            .ok_or(Error::Geometry { found: header.geometry.0, geometries: shapes.len() })?;
        if shape.channels() != tables.channels() {
            return Err(Error::Channels { tables: tables.channels(), feature: shape.channels() });
        }
        if packet.len() > packet_max(shape) {
            return Err(Error::PacketLength { found: packet.len(), max: packet_max(shape) });
        }
        let [expected, ..] = tables.id();
        if header.table_id != expected {
            return Err(Error::TableId { found: header.table_id, expected });
        }
        if !tables.supports(header.mode) {
            return Err(Error::Section { mode: header.mode });
        }
        if header.groups() != 1 && header.groups() != tables.groups() {
            return Err(Error::Groups { found: header.groups(), groups: tables.groups() });
        }
        symbols.resize(shape.symbols(), 0);
        let task = Job { tables, header, shape };
        let payload = &packet[HEADER_BYTES..];
        let groups_decoded = match (header.mode, header.lanes()) {
            (Mode::Raw | Mode::Zstd, _) => self.read_plain(task, payload, symbols)?,
            (_, 1) => self.read_lanes::<1>(task, payload, symbols)?,
            (_, 2) => self.read_lanes::<2>(task, payload, symbols)?,
            (_, 4) => self.read_lanes::<4>(task, payload, symbols)?,
            (_, 8) => self.read_lanes::<8>(task, payload, symbols)?,
            (_, 16) => self.read_lanes::<16>(task, payload, symbols)?,
            _ => self.read_lanes::<32>(task, payload, symbols)?,
        };
        Ok(Decoded { header, groups_decoded })
    }

    fn read_plain(&mut self, task: Job<'_>, payload: &[u8], symbols: &mut [i16]) -> Result<usize, Error> {
        let mut cursor = Cursor::new(payload);
        let found = cursor.u32("checksum")?;
        let width = usize::from(task.header.width());
        if task.header.mode == Mode::Zstd {
            self.raw.clear();
            self.raw.resize(width * symbols.len(), 0);
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                none => {
                    none.insert(zstd::bulk::Decompressor::new().map_err(|source| Error::Zstd { source })?)
                }
            };
            unpack(zstd, cursor.rest(), &mut self.raw)?;
            read_raw(width, &self.raw, symbols)?;
        } else {
            read_raw(width, cursor.rest(), symbols)?;
        }
        let mut checksum = Checksum::new(task.tables.digest(), task.header.bytes());
        let planes = task.tables.order().flatten().map(|&channel| usize::from(channel) * task.shape.plane());
        planes.for_each(|begin| checksum.update(&symbols[begin..][..task.shape.plane()]));
        match checksum.value() {
            expected if expected == found => Ok(1),
            expected => Err(Error::Checksum { found, expected }),
        }
    }

    fn read_lanes<const N: usize>(
        &mut self,
        task: Job<'_>,
        payload: &[u8],
        symbols: &mut [i16],
    ) -> Result<usize, Error> {
        let header = task.header;
        let mut cursor = Cursor::new(payload);
        let directory = Directory::parse(&mut cursor, header.groups())?;
        let states = states::read::<N>(&mut cursor)?;
        let (left, odd) = cursor.rest().as_chunks();
        if !odd.is_empty() {
            return Err(Error::PacketTrailing { field: "words", bytes: odd.len() });
        }
        let groups_decoded = directory.groups_decoded(left.len())?;
        let mut buffer = std::mem::take(&mut self.words);
        let found =
            self.read_groups(task, (&directory, groups_decoded), states, (left, &mut buffer), symbols);
        self.words = buffer;
        found.map(|()| groups_decoded)
    }

    fn read_groups<const N: usize>(
        &mut self,
        task: Job<'_>,
        (directory, groups_decoded): (&Directory, usize),
        states: [u32; N],
        (words, buffer): (&[[u8; 2]], &mut Vec<[u8; 2]>),
        symbols: &mut [i16],
    ) -> Result<(), Error> {
        let Job { tables, header, shape } = task;
        let mut reader = RansDecoder::new(states, (tables.precision(), self.simd), words, buffer);
        let mut checksum = Checksum::new(tables.digest(), header.bytes());
        if header.mode.has_contexts() {
            self.window.begin(shape, header.mode, self.simd);
        }
        let whole = groups_decoded == header.groups();
        // Without a directory all groups of the tables are one.
        let groups = if header.groups() == 1 { tables.groups() } else { groups_decoded };
        for (group, channels) in tables.order().enumerate().take(groups) {
            for channel in channels.iter().map(|&channel| usize::from(channel)) {
                let plane = &mut symbols[channel * shape.plane()..][..shape.plane()];
                self.read_channel(task, &mut reader, channel, plane)?;
                checksum.update(plane);
            }
            if let Some(group_end) = directory.group_ends().get(group) {
                let found = reader.words_read() as u64;
                if found != group_end.words {
                    return Err(Error::GroupWords { group, found, expected: group_end.words });
                }
                if checksum.check() != group_end.check {
                    return Err(Error::GroupCheck {
                        group,
                        found: group_end.check,
                        expected: checksum.check(),
                    });
                }
            }
        }
        if whole {
            check_end(&reader, words.len(), &checksum)?;
        }
        let missing = tables.order().skip(groups).flatten().map(|&channel| usize::from(channel));
        for channel in missing {
            let median = tables.median(header.level, channel);
            symbols[channel * shape.plane()..][..shape.plane()].fill(median);
        }
        Ok(())
    }

    fn read_channel<const N: usize>(
        &mut self,
        task: Job<'_>,
        reader: &mut RansDecoder<'_, N>,
        channel: usize,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let Job { tables, header, .. } = task;
        match (header.mode, &tables.indexed, &tables.context) {
            (Mode::Indexed, Some(indexed), _) => self.read_indexed(task, indexed, reader, channel, plane),
            (mode, _, Some(context)) if mode.has_contexts() => {
                let rules = context.rules(mode, header.level, channel);
                self.window.decode_channel(CodedChannel { context, rules, channel }, reader, plane)
            }
            _ => {
                let set = tables.table_set(Mode::Static, header.level);
                if reader.run(&set.models[channel], plane) {
                    reader.escapes_of(set, channel, plane)?;
                }
                Ok(())
            }
        }
    }

    fn read_indexed<const N: usize>(
        &mut self,
        task: Job<'_>,
        indexed: &Indexed,
        reader: &mut RansDecoder<'_, N>,
        channel: usize,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let level = task.header.level;
        let tiles = indexed.tiles(task.shape);
        self.values.clear();
        self.values.resize(tiles.count(), 0);
        if reader.run(&indexed.deltas(level).models[0], &mut self.values) {
            return Err(Error::Index { channel });
        }
        let base = indexed.base(level, channel);
        self.indices.clear();
        for &delta in &self.values {
            let predicted = tiles.predicted(base, &self.indices);
            let index = (u16::from(predicted) + delta.cast_unsigned()) % u16::from(indexed.count());
            self.indices.push(index as u8);
        }
        tiles.spread(&self.indices, &mut self.places);
        if reader.mixed(&indexed.shared, &self.places, plane) {
            reader.escapes(&indexed.set, &self.places, plane, channel)?;
        }
        Ok(())
    }
}

/// What is to be decoded.
#[derive(Clone, Copy)]
struct Job<'a> {
    tables: &'a Tables,
    header: Header,
    shape: Shape,
}

/// That all of so many words are taken and the lanes end with the checksum.
fn check_end<const N: usize>(
    reader: &RansDecoder<'_, N>,
    words: usize,
    checksum: &Checksum,
) -> Result<(), Error> {
    if reader.words_read() > words {
        return Err(Error::PacketTruncated { field: "words" });
    }
    if reader.words_read() < words {
        return Err(Error::PacketTrailing { field: "words", bytes: 2 * (words - reader.words_read()) });
    }
    if let Some(lane) = reader.states.iter().position(|state| state >> 15 != 1) {
        return Err(Error::FinalState { lane, found: reader.states[lane] });
    }
    let expected = lane_shares::<N>(checksum.value());
    let found = reader.states.map(|state| state - LOWEST);
    if found != expected {
        let join = |shares: [u32; N]| {
            shares.iter().zip(0..).take(3).fold(0, |sum, (share, lane)| sum | share << (15 * lane))
        };
        return Err(Error::Checksum { found: join(found), expected: join(expected) });
    }
    Ok(())
}

fn read_raw(width: usize, bytes: &[u8], symbols: &mut [i16]) -> Result<(), Error> {
    let expected = width * symbols.len();
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

fn unpack(zstd: &mut zstd::bulk::Decompressor<'_>, frame: &[u8], raw: &mut [u8]) -> Result<(), Error> {
    let fault = |problem| Error::Frame { problem };
    let end = zstd::zstd_safe::find_frame_compressed_size(frame).map_err(|_| fault("not a whole frame"))?;
    if end != frame.len() {
        return Err(Error::PacketTrailing { field: "frame", bytes: frame.len() - end });
    }
    // After the magic: no checksum, no dictionary, and nothing in the bits without meaning.
    if frame.get(4).is_none_or(|descriptor| descriptor & 0x1f != 0) {
        return Err(fault("with a checksum, a dictionary or reserved bits"));
    }
    if zstd::zstd_safe::get_frame_content_size(frame).ok().flatten() != Some(raw.len() as u64) {
        return Err(fault("without the size of the symbols in its header"));
    }
    let written = zstd
        .decompress_to_buffer(frame, raw)
        .map_err(|_| fault("damaged, or more content than the symbols"))?;
    if written != raw.len() {
        return Err(fault("less content than the symbols"));
    }
    Ok(())
}
