//! Packets to features (FORMAT.md, sections 3 to 6).

use crate::{
    Error, Feature, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Shape, Tables,
    context::state::ContextState,
    format::{
        checksum::{Checksum, lane_shares},
        cursor::{Cursor, Truncated},
        directory::Directory,
        header::packet_max,
        plain::{FrameReader, read_symbols},
        states::{self, LOWEST_STATE},
    },
    indexed::IndexedModel,
    rans::decoder::RansDecoder,
    simd::Simd,
};

/// A decoded packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packet {
    /// Index of the geometry, which is one of the shapes that [`decode`] was given.
    pub geometry: GeometryId,
    /// Index of the rate level, which is one of the tables' levels.
    pub level: LevelId,
    /// How the symbols were coded.
    pub mode: Mode,
    /// The number of channel groups that the packet was encoded with.
    pub groups: usize,
    /// How many of them the packet holds, from the first on. The symbols of the other groups are medians.
    pub groups_decoded: usize,
    /// The symbols.
    pub feature: Feature,
}

/// What [`Decoder::decode_into`] returns besides the symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// The header of the packet.
    pub header: Header,
    /// How many of its [`Header::groups`] the packet holds, from the first on.
    pub groups_decoded: usize,
}

/// Decodes one packet with a new [`Decoder`]. To decode many, keep a decoder: it uses its memory again.
///
/// # Errors
/// Those of [`Decoder::decode_into`].
pub fn decode(tables: &Tables, shapes: &[Shape], packet: &[u8]) -> Result<Packet, Error> {
    Decoder::new().decode(tables, shapes, packet)
}

/// [`Decoder::decode_into`] with a new decoder.
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

/// Reads packets. It uses its memory again: for packets of one shape it allocates none after the first.
pub struct Decoder {
    simd: Simd,
    context: ContextState,
    words: Vec<[u8; 2]>,
    deltas: Vec<i16>,
    tile_tables: Vec<u8>,
    symbol_tables: Vec<u8>,
    raw: Vec<u8>,
    frame_reader: FrameReader,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder that uses the vector instructions of this processor.
    #[must_use]
    pub fn new() -> Self {
        Self { simd: Simd::detect(), ..Self::portable() }
    }

    /// A decoder that uses portable code alone. It accepts the same packets and gives the same symbols and errors.
    #[must_use]
    pub fn portable() -> Self {
        Self {
            simd: Simd::default(),
            context: ContextState::default(),
            words: Vec::new(),
            deltas: Vec::new(),
            tile_tables: Vec::new(),
            symbol_tables: Vec::new(),
            raw: Vec::new(),
            frame_reader: FrameReader::default(),
        }
    }

    /// Decodes `packet`. `shapes` holds the shape of the feature for each geometry of the bundle.
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

    /// Decodes `packet` and replaces the content of `symbols`, in the order of [`Feature::symbols`]. `shapes` holds the shape
    /// of the feature for each geometry of the bundle; memory and work are bounded by them alone, whatever the packet holds.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field unless the packet was made with
    /// these tables and shapes, is undamaged, and is whole or cut where a group ends. [`Error::Channels`] when a shape has
    /// another number of channels than the tables, [`Error::Zstd`] when the decompressor cannot be set up. After an error
    /// the content of `symbols` has no meaning.
    pub fn decode_into(
        &mut self,
        tables: &Tables,
        shapes: &[Shape],
        packet: &[u8],
        symbols: &mut Vec<i16>,
    ) -> Result<Decoded, Error> {
        let header = Header::parse(packet)?;
        let job = Job { tables, header, shape: check_header(tables, shapes, packet, header)? };
        symbols.resize(job.shape.symbols(), 0);
        let payload = &packet[HEADER_BYTES..];
        let groups_decoded = match (header.mode, header.lanes()) {
            (Mode::Raw | Mode::Zstd, _) => self.read_plain(job, payload, symbols)?,
            (_, 1) => self.read_lanes::<1>(job, payload, symbols)?,
            (_, 2) => self.read_lanes::<2>(job, payload, symbols)?,
            (_, 4) => self.read_lanes::<4>(job, payload, symbols)?,
            (_, 8) => self.read_lanes::<8>(job, payload, symbols)?,
            (_, 16) => self.read_lanes::<16>(job, payload, symbols)?,
            _ => self.read_lanes::<32>(job, payload, symbols)?,
        };
        Ok(Decoded { header, groups_decoded })
    }

    /// Reads the payload of mode raw or zstd. Returns the number of groups, which is 1.
    fn read_plain(&mut self, job: Job<'_>, payload: &[u8], symbols: &mut [i16]) -> Result<usize, Error> {
        let mut cursor = Cursor::new(payload);
        let found = cursor.u32("checksum").map_err(Truncated::packet)?;
        let width = usize::from(job.header.width());
        if job.header.mode == Mode::Zstd {
            self.raw.clear();
            self.raw.resize(width * symbols.len(), 0);
            self.frame_reader.read(cursor.rest(), &mut self.raw)?;
            read_symbols(width, &self.raw, symbols)?;
        } else {
            read_symbols(width, cursor.rest(), symbols)?;
        }
        let mut checksum = Checksum::new(job.tables.digest(), job.header.bytes());
        job.tables.order().flatten().for_each(|&channel| checksum.update(&symbols[job.plane(channel)]));
        match checksum.value() {
            expected if expected == found => Ok(1),
            expected => Err(Error::Checksum { found, expected }),
        }
    }

    /// Reads the payload of a coded mode. Returns the number of groups that it holds.
    fn read_lanes<const N: usize>(
        &mut self,
        job: Job<'_>,
        payload: &[u8],
        symbols: &mut [i16],
    ) -> Result<usize, Error> {
        let mut cursor = Cursor::new(payload);
        let directory = Directory::parse(&mut cursor, job.header.groups())?;
        let states = states::read::<N>(&mut cursor)?;
        let (words, odd) = cursor.rest().as_chunks();
        if !odd.is_empty() {
            return Err(Error::PacketTrailing { field: "words", bytes: odd.len() });
        }
        let groups_decoded = directory.groups_decoded(words.len())?;
        let mut buffer = std::mem::take(&mut self.words);
        let found =
            self.read_groups(job, (&directory, groups_decoded), states, (words, &mut buffer), symbols);
        self.words = buffer;
        found.map(|()| groups_decoded)
    }

    /// Decodes the first `groups_decoded` groups and fills the channels of the others with medians.
    fn read_groups<const N: usize>(
        &mut self,
        job: Job<'_>,
        (directory, groups_decoded): (&Directory, usize),
        states: [u32; N],
        (words, buffer): (&[[u8; 2]], &mut Vec<[u8; 2]>),
        symbols: &mut [i16],
    ) -> Result<(), Error> {
        let Job { tables, header, shape } = job;
        let mut decoder = RansDecoder::new(states, (tables.precision(), self.simd), words, buffer);
        let mut checksum = Checksum::new(tables.digest(), header.bytes());
        if let Some(model) = tables.context.as_ref().filter(|_| header.mode.has_contexts()) {
            self.context.begin(model, shape, header.mode, self.simd);
        }
        // A packet without a directory has all groups of the tables in one.
        let groups = if header.groups() == 1 { tables.groups() } else { groups_decoded };
        for (group, channels) in tables.order().enumerate().take(groups) {
            for &channel in channels {
                let plane = &mut symbols[job.plane(channel)];
                self.read_channel(job, &mut decoder, channel.into(), plane)?;
                checksum.update(plane);
            }
            if let Some(group_end) = directory.group_ends().get(group) {
                let found = decoder.words_read() as u64;
                if found != group_end.words {
                    return Err(Error::GroupWords { group, found, expected: group_end.words });
                }
                let expected = checksum.group_check();
                if group_end.check != expected {
                    return Err(Error::GroupCheck { group, found: group_end.check, expected });
                }
            }
        }
        if groups_decoded == header.groups() {
            check_end(&decoder, words.len(), &checksum)?;
        }
        for &channel in tables.order().skip(groups).flatten() {
            symbols[job.plane(channel)].fill(tables.median(header.level, channel.into()));
        }
        Ok(())
    }

    fn read_channel<const N: usize>(
        &mut self,
        job: Job<'_>,
        decoder: &mut RansDecoder<'_, N>,
        channel: usize,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let Job { tables, header, .. } = job;
        match (header.mode, &tables.indexed, &tables.context) {
            (Mode::Indexed, Some(indexed), _) => self.read_indexed(job, indexed, decoder, channel, plane),
            (mode, _, Some(context)) if mode.has_contexts() => {
                let model = context.channel(mode, header.level, channel);
                self.context.decode_channel(&model, decoder, plane)
            }
            _ => {
                let tables = tables.static_tables(header.level);
                if decoder.run(&tables.lookups[channel], plane) {
                    decoder.run_escapes(tables, channel, plane)?;
                }
                Ok(())
            }
        }
    }

    /// Decodes the table index of each tile of a channel, then its symbols.
    fn read_indexed<const N: usize>(
        &mut self,
        job: Job<'_>,
        indexed: &IndexedModel,
        decoder: &mut RansDecoder<'_, N>,
        channel: usize,
        plane: &mut [i16],
    ) -> Result<(), Error> {
        let level = job.header.level;
        let tiles = indexed.tiles(job.shape);
        self.deltas.clear();
        self.deltas.resize(tiles.count(), 0);
        if decoder.run(&indexed.deltas().lookups[level.index()], &mut self.deltas) {
            return Err(Error::Index { channel });
        }
        let base = indexed.base(level, channel);
        self.tile_tables.clear();
        for &delta in &self.deltas {
            let predicted = tiles.predicted(base, &self.tile_tables);
            let index = (u16::from(predicted) + delta.cast_unsigned()) % u16::from(indexed.count());
            self.tile_tables.push(index as u8);
        }
        tiles.expand(&self.tile_tables, &mut self.symbol_tables);
        if decoder.mixed_run(&indexed.tables.lookup, &self.symbol_tables, plane) {
            decoder.mixed_escapes(&indexed.tables, &self.symbol_tables, plane, channel)?;
        }
        Ok(())
    }
}

/// The arguments of a decoder, checked.
#[derive(Clone, Copy)]
struct Job<'a> {
    tables: &'a Tables,
    header: Header,
    shape: Shape,
}

impl Job<'_> {
    /// The places of a channel's symbols.
    fn plane(self, channel: u16) -> std::ops::Range<usize> {
        let begin = usize::from(channel) * self.shape.plane();
        begin..begin + self.shape.plane()
    }
}

/// Checks that the header fits tables, shapes and the length of the packet. Returns the shape of the feature.
fn check_header(tables: &Tables, shapes: &[Shape], packet: &[u8], header: Header) -> Result<Shape, Error> {
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
    Ok(shape)
}

/// Checks that all words of a whole packet were read, and that the states are those that the encoder began with.
fn check_end<const N: usize>(
    decoder: &RansDecoder<'_, N>,
    words: usize,
    checksum: &Checksum,
) -> Result<(), Error> {
    if decoder.words_read() > words {
        return Err(Error::PacketTruncated { field: "words" });
    }
    if decoder.words_read() < words {
        return Err(Error::PacketTrailing { field: "words", bytes: 2 * (words - decoder.words_read()) });
    }
    if let Some(lane) = decoder.states.iter().position(|state| state >> 15 != 1) {
        return Err(Error::FinalState { lane, found: decoder.states[lane] });
    }
    let expected = lane_shares::<N>(checksum.value());
    let found = decoder.states.map(|state| state - LOWEST_STATE);
    if found != expected {
        let join = |shares: [u32; N]| {
            shares.iter().zip(0..).take(3).fold(0, |sum, (share, lane)| sum | share << (15 * lane))
        };
        return Err(Error::Checksum { found: join(found), expected: join(expected) });
    }
    Ok(())
}
