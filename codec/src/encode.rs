//! Features to packets (FORMAT.md, sections 3 to 6).

mod plan;

use std::ops::Range;

use crate::{
    Error, Feature, GROUPS_MAX, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Tables,
    encode::plan::{ChannelPlan, Plan, pick_direction},
    format::{
        checksum::{Checksum, lane_shares},
        cursor::push_number,
        header::LANES,
        plain::{FrameWriter, bytes_per_symbol, write_symbols},
        states::{self, LOWEST_STATE},
    },
    limits::GEOMETRIES_MAX,
    rans::encoder::RansEncoder,
    simd::Simd,
};

/// Which mode an encoder uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The mode with the smallest packet of all that the tables support. It is never larger than with raw or zstd.
    #[default]
    Auto,
    /// The mode with the smallest packet of those that can be tried within so much effort per symbol. Raw and
    /// [`Mode::Static`] together take 1, [`Mode::Context`] 4, [`Mode::Indexed`] 6, [`Mode::Columns`] 4, [`Mode::Rows`] 4 and
    /// [`Mode::Zstd`] 6. They are tried in this order; one that takes more than what is left is skipped. So are columns and
    /// rows when symbols do not change clearly less in that direction than in the other.
    Within(u8),
    /// This mode, whatever its size.
    Only(Mode),
}

/// The effort of each mode in [`Choice::Within`], in the order in which they are tried.
const EFFORTS: [(Mode, u8); 6] = [
    (Mode::Static, 1),
    (Mode::Context, 4),
    (Mode::Indexed, 6),
    (Mode::Columns, 4),
    (Mode::Rows, 4),
    (Mode::Zstd, 6),
];

/// Encodes one feature with a new [`Encoder`]. To encode many, keep an encoder: it uses its memory again.
///
/// # Errors
/// Those of [`Encoder::encode`].
pub fn encode(
    tables: &Tables,
    geometry: GeometryId,
    level: LevelId,
    choice: Choice,
    feature: &Feature,
    out: &mut Vec<u8>,
) -> Result<Mode, Error> {
    Encoder::new().encode(tables, geometry, level, choice, feature, out)
}

/// Writes packets. It uses its memory again: for features of one shape it allocates none once it has tried every mode that
/// it tries.
pub struct Encoder {
    simd: Simd,
    truncatable: bool,
    /// Index of the number of lanes in [`LANES`]; none when it follows from the size.
    lanes: Option<usize>,
    /// The plans of the coded modes, so that the smallest can be written after all are known.
    plans: [Plan; 5],
    words: Vec<u8>,
    escapes: Vec<u8>,
    raw: Vec<u8>,
    /// A packet of mode zstd.
    zstd_packet: Vec<u8>,
    frame_writer: FrameWriter,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder that uses the vector instructions of this processor.
    #[must_use]
    pub fn new() -> Self {
        Self { simd: Simd::detect(), ..Self::portable() }
    }

    /// An encoder that uses portable code alone. Its packets are the same, byte for byte.
    #[must_use]
    pub fn portable() -> Self {
        Self {
            simd: Simd::default(),
            truncatable: false,
            lanes: None,
            plans: Default::default(),
            words: Vec::new(),
            escapes: Vec::new(),
            raw: Vec::new(),
            zstd_packet: Vec::new(),
            frame_writer: FrameWriter::default(),
        }
    }

    /// Sets whether packets have a directory, so that they can be cut where a group of channels ends. It takes about four
    /// bytes for each group but the last. Off by default.
    #[must_use]
    pub fn truncatable(mut self, truncatable: bool) -> Self {
        self.truncatable = truncatable;
        self
    }

    /// Sets the number of lanes of all packets: 1, 2, 4, 8, 16 or 32. With any other number, and by default, it follows from
    /// the size of the packet.
    #[must_use]
    pub fn lanes(mut self, lanes: u8) -> Self {
        self.lanes = LANES.iter().position(|known| *known == lanes);
        self
    }

    /// Encodes `feature` and replaces the content of `out` by the packet. Returns the mode that was used.
    ///
    /// # Errors
    /// [`Error::NoLevel`] and [`Error::NoGeometry`] for an index that no packet can hold, [`Error::NoMode`] for a mode that
    /// the tables do not support, [`Error::Channels`] when the feature has another number of channels than the tables,
    /// [`Error::Zstd`] when the compressor fails.
    pub fn encode(
        &mut self,
        tables: &Tables,
        geometry: GeometryId,
        level: LevelId,
        choice: Choice,
        feature: &Feature,
        out: &mut Vec<u8>,
    ) -> Result<Mode, Error> {
        if geometry.index() >= GEOMETRIES_MAX {
            return Err(Error::NoGeometry { found: geometry.0, max: GEOMETRIES_MAX });
        }
        check_fit(tables, level, feature)?;
        let job = Job { tables, geometry, level, feature };
        match choice {
            Choice::Auto => self.write_smallest(job, u8::MAX, out),
            Choice::Within(effort) => self.write_smallest(job, effort, out),
            Choice::Only(mode) => {
                if !tables.supports(mode) {
                    return Err(Error::NoMode { mode });
                }
                match mode {
                    Mode::Raw => job.write_raw(out),
                    Mode::Zstd => {
                        self.write_zstd(job)?;
                        std::mem::swap(&mut self.zstd_packet, out);
                    }
                    _ => {
                        self.plans[0].fill(mode, tables, level, feature, self.simd);
                        self.write_coded(job, mode, 0, out);
                    }
                }
                Ok(mode)
            }
        }
    }

    /// The cost of the symbols of `feature` under the tables of `mode`, in 1/256 bit, as FORMAT.md defines it in section 4.3.
    /// It includes the tile indices of mode indexed, but neither header, directory nor states.
    ///
    /// # Errors
    /// [`Error::NoLevel`] and [`Error::Channels`] as for [`encode`](Self::encode); [`Error::NoMode`] for a mode that the
    /// tables do not support or that uses none.
    pub fn cost(
        &mut self,
        tables: &Tables,
        level: LevelId,
        mode: Mode,
        feature: &Feature,
    ) -> Result<u64, Error> {
        check_fit(tables, level, feature)?;
        if !mode.is_coded() || !tables.supports(mode) {
            return Err(Error::NoMode { mode });
        }
        let plan = &mut self.plans[0];
        plan.fill(mode, tables, level, feature, self.simd);
        Ok(plan.cost(mode, tables, level))
    }

    /// Writes the smallest packet that can be found within `effort`.
    fn write_smallest(&mut self, job: Job<'_>, effort: u8, out: &mut Vec<u8>) -> Result<Mode, Error> {
        let mut left = effort;
        let mut best: Option<(u64, Mode, usize)> = None;
        let (mut try_zstd, mut direction) = (false, None);
        for (at, (mode, price)) in EFFORTS.into_iter().enumerate() {
            if !job.tables.supports(mode) || price > left {
                continue;
            }
            if matches!(mode, Mode::Columns | Mode::Rows)
                && *direction.get_or_insert_with(|| pick_direction(job.feature, self.simd)) != Some(mode)
            {
                continue;
            }
            left -= price;
            if mode == Mode::Zstd {
                try_zstd = true;
                continue;
            }
            let plan = &mut self.plans[at];
            plan.fill(mode, job.tables, job.level, job.feature, self.simd);
            let cost = plan.cost(mode, job.tables, job.level);
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, mode, at));
            }
        }
        let raw_bytes = HEADER_BYTES + 4 + job.width() * job.feature.symbols().len();
        let mut used = Mode::Raw;
        if let Some((_, mode, at)) = best {
            self.write_coded(job, mode, at, out);
            used = mode;
        }
        if best.is_none() || raw_bytes < out.len() {
            job.write_raw(out);
            used = Mode::Raw;
        }
        if try_zstd {
            self.write_zstd(job)?;
            if self.zstd_packet.len() < out.len() {
                std::mem::swap(&mut self.zstd_packet, out);
                used = Mode::Zstd;
            }
        }
        Ok(used)
    }

    /// Writes a packet of mode zstd to `zstd_packet`.
    fn write_zstd(&mut self, job: Job<'_>) -> Result<(), Error> {
        self.raw.clear();
        write_symbols(job.width(), job.feature.symbols(), &mut self.raw);
        job.begin_plain(Mode::Zstd, &mut self.zstd_packet);
        self.frame_writer.write(&self.raw, &mut self.zstd_packet)
    }

    /// Writes a packet of a coded mode, whose entries are in the plan with this index.
    fn write_coded(&mut self, job: Job<'_>, mode: Mode, plan: usize, out: &mut Vec<u8>) {
        let groups = if self.truncatable { job.tables.groups() } else { 1 };
        let lanes = self.lanes.unwrap_or_else(|| self.plans[plan].lanes(mode));
        if !self.write_groups(job, mode, plan, (groups, lanes), out) {
            self.write_groups(job, mode, plan, (1, lanes), out);
        }
    }

    /// Writes a packet with a directory of so many groups; `lanes` is an index in [`LANES`]. Returns whether that is possible.
    fn write_groups(
        &mut self,
        job: Job<'_>,
        mode: Mode,
        plan: usize,
        (groups, lanes): (usize, usize),
        out: &mut Vec<u8>,
    ) -> bool {
        let header = job.header(mode, ((groups - 1) << 3 | lanes) as u8);
        match LANES[lanes] {
            1 => self.write_lanes::<1>(job, header, plan, out),
            2 => self.write_lanes::<2>(job, header, plan, out),
            4 => self.write_lanes::<4>(job, header, plan, out),
            8 => self.write_lanes::<8>(job, header, plan, out),
            16 => self.write_lanes::<16>(job, header, plan, out),
            _ => self.write_lanes::<32>(job, header, plan, out),
        }
    }

    /// Writes a packet with this header. Returns false when the last of several groups has no word, which the directory
    /// cannot express.
    fn write_lanes<const N: usize>(
        &mut self,
        job: Job<'_>,
        header: Header,
        plan: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let Job { tables, level, feature, .. } = job;
        let plan = &self.plans[plan];
        let truncatable = header.groups() > 1;
        let mut checksum = Checksum::new(tables.digest(), header.bytes());
        let mut checks = [0; GROUPS_MAX];
        for (group, check) in tables.order().zip(&mut checks) {
            group.iter().for_each(|&channel| checksum.update(feature.plane(channel.into())));
            if truncatable {
                *check = checksum.group_check();
            }
        }
        self.words.clear();
        let states = lane_shares::<N>(checksum.value()).map(|share| LOWEST_STATE + share);
        let mut encoder = RansEncoder { states, words: &mut self.words, simd: self.simd };
        let set = tables.table_set(header.mode, level);
        let mut place = tables.channels();
        let mut counts = [0; GROUPS_MAX];
        for (group, count) in tables.order().zip(&mut counts).rev() {
            let before = encoder.words.len();
            for &channel in group.iter().rev() {
                place -= 1;
                let plan = plan.channel(header.mode, tables, set, level, feature, (place, channel.into()));
                encode_channel(&mut encoder, &plan, &mut self.escapes, tables.precision());
            }
            *count = (encoder.words.len() - before) / 2;
        }
        let states = encoder.states;
        if truncatable && counts[header.groups() - 1] == 0 {
            return false;
        }
        out.clear();
        out.extend(header.bytes());
        for (&count, check) in counts.iter().zip(checks).take(header.groups() - 1) {
            push_number(count, out);
            out.extend(check.to_le_bytes());
        }
        states::write(&states, out);
        let first_word = out.len();
        out.extend_from_slice(&self.words);
        out[first_word..].as_chunks_mut::<2>().0.reverse();
        true
    }
}

/// Encodes a channel, from its last value to its first.
fn encode_channel<const N: usize>(
    encoder: &mut RansEncoder<'_, N>,
    plan: &ChannelPlan<'_>,
    escapes: &mut Vec<u8>,
    precision: u32,
) {
    let mut end = plan.entries.len();
    for &begin in plan.escaped.iter().rev() {
        let run = plan.run(begin as usize);
        encode_runs(encoder, plan, run.start + plan.stride..end);
        escapes.clear();
        for (&entry, value) in plan.entries[run.clone()].iter().zip(&plan.values[run.clone()]) {
            if plan.escapes[usize::from(entry)] {
                escapes.extend(value.to_le_bytes());
            }
        }
        encoder.bytes(escapes, precision);
        end = run.start;
        encoder.run(plan.table, &plan.entries[run]);
    }
    encode_runs(encoder, plan, 0..end);
    if let Some((table, indices)) = plan.indices {
        encoder.run(table, indices);
    }
}

/// Encodes runs without escapes, from the last to the first.
fn encode_runs<const N: usize>(
    encoder: &mut RansEncoder<'_, N>,
    plan: &ChannelPlan<'_>,
    mut runs: Range<usize>,
) {
    // Where a stride is a whole number of rounds, the entries of no value between runs keep the lanes in step.
    if plan.stride.is_multiple_of(N) {
        return encoder.run(plan.table, &plan.entries[runs]);
    }
    while !runs.is_empty() {
        runs.end -= plan.stride;
        encoder.run(plan.table, &plan.entries[plan.run(runs.end)]);
    }
}

/// Checks that the tables have this level and the channels of the feature.
fn check_fit(tables: &Tables, level: LevelId, feature: &Feature) -> Result<(), Error> {
    if level.index() >= tables.levels() {
        return Err(Error::NoLevel { found: level.0, levels: tables.levels() });
    }
    let channels = feature.shape().channels();
    if channels != tables.channels() {
        return Err(Error::Channels { tables: tables.channels(), feature: channels });
    }
    Ok(())
}

/// The arguments of an encoder, checked.
#[derive(Clone, Copy)]
struct Job<'a> {
    tables: &'a Tables,
    geometry: GeometryId,
    level: LevelId,
    feature: &'a Feature,
}

impl Job<'_> {
    fn header(self, mode: Mode, layout: u8) -> Header {
        let [table_id, ..] = self.tables.id();
        Header { mode, level: self.level, geometry: self.geometry, layout, table_id }
    }

    /// Bytes per symbol in modes raw and zstd.
    fn width(self) -> usize {
        bytes_per_symbol(self.feature.symbols())
    }

    fn write_raw(self, out: &mut Vec<u8>) {
        self.begin_plain(Mode::Raw, out);
        write_symbols(self.width(), self.feature.symbols(), out);
    }

    /// Replaces the content of `out` by the header and the checksum of a packet of mode raw or zstd.
    fn begin_plain(self, mode: Mode, out: &mut Vec<u8>) {
        let header = self.header(mode, self.width() as u8);
        let mut checksum = Checksum::new(self.tables.digest(), header.bytes());
        let order = self.tables.order().flatten();
        order.for_each(|&channel| checksum.update(self.feature.plane(channel.into())));
        out.clear();
        out.extend(header.bytes());
        out.extend(checksum.value().to_le_bytes());
    }
}
