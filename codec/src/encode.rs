//! Features to packets (FORMAT.md, sections 3 to 6).

use crate::{
    Error, Feature, GROUPS_MAX, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Tables,
    checksum::{Checksum, lane_shares},
    cursor::push_number,
    header::{GEOMETRIES_MAX, LANES},
    plan::{ChannelPlan, Plan, pick_direction},
    rans::{LOWEST, RansEncoder},
    simd::Simd,
    states,
};

/// How hard zstd tries. It is for features that the tables do not fit, where speed matters more than the last byte.
const ZSTD_LEVEL: i32 = 3;

/// Which mode an encoder takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The smallest of all that the tables allow; never larger than raw or zstd.
    #[default]
    Auto,
    /// The smallest of those that can be tried within so much effort per symbol. Raw and [`Mode::Static`] together
    /// take 1, [`Mode::Context`] 4, [`Mode::Indexed`] 6, [`Mode::Columns`] 4, [`Mode::Rows`] 4 and [`Mode::Zstd`] 6; they
    /// are tried in this order, and one that does not fit into what is left is passed over. So is one of columns and rows,
    /// or both, where symbols do not change less along it than across.
    Within(u8),
    /// This one, whatever its size.
    Only(Mode),
}

/// What the modes take in [`Choice::Within`], in the order in which they are tried.
const EFFORTS: [(Mode, u8); 6] = [
    (Mode::Static, 1),
    (Mode::Context, 4),
    (Mode::Indexed, 6),
    (Mode::Columns, 4),
    (Mode::Rows, 4),
    (Mode::Zstd, 6),
];

/// [`Encoder::encode`] with memory of its own, for a packet now and then.
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

/// Makes packets, with memory that is used again: for features of one shape it asks for none once every mode that it tries
/// was tried.
pub struct Encoder {
    simd: Simd,
    truncatable: bool,
    lanes: Option<usize>,
    plans: [Plan; 5],
    words: Vec<u8>,
    escapes: Vec<u8>,
    raw: Vec<u8>,
    frame: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder that uses what this processor has.
    #[must_use]
    pub fn new() -> Self {
        Self { simd: Simd::detect(), ..Self::portable() }
    }

    /// An encoder that uses the portable code alone. Its packets are the same, byte for byte.
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
            frame: Vec::new(),
            zstd: None,
        }
    }

    /// Whether packets get a directory, so that they can be cut where a group of channels ends: about four bytes for
    /// each group but the last. Off at first.
    #[must_use]
    pub fn truncatable(mut self, truncatable: bool) -> Self {
        self.truncatable = truncatable;
        self
    }

    /// The number of lanes of all packets, whatever their size: 1, 2, 4, 8, 16 or 32. Any other number leaves it to the size,
    /// as at first.
    #[must_use]
    pub fn lanes(mut self, lanes: u8) -> Self {
        self.lanes = LANES.iter().position(|known| *known == lanes);
        self
    }

    /// Codes `feature` into `out`, whose former content is dropped and whose memory is used again. Returns the mode
    /// that was taken.
    ///
    /// # Errors
    /// [`Error::NoLevel`] and [`Error::NoGeometry`] for an index that no packet can carry, [`Error::NoMode`] for a mode
    /// that the tables do not hold, [`Error::Channels`] when the feature has another number of channels than the
    /// tables, [`Error::Zstd`] when the compressor fails.
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
        if level.index() >= tables.levels() {
            return Err(Error::NoLevel { found: level.0, levels: tables.levels() });
        }
        let channels = feature.shape().channels();
        if channels != tables.channels() {
            return Err(Error::Channels { tables: tables.channels(), feature: channels });
        }
        let task = Job { tables, geometry, level, feature };
        match choice {
            Choice::Auto => self.smallest(task, u8::MAX, out),
            Choice::Within(effort) => self.smallest(task, effort, out),
            Choice::Only(mode) => {
                if !tables.supports(mode) {
                    return Err(Error::NoMode { mode });
                }
                match mode {
                    Mode::Raw => self.write_raw(task, out),
                    Mode::Zstd => {
                        self.write_zstd(task)?;
                        std::mem::swap(&mut self.frame, out);
                    }
                    _ => {
                        self.plans[0].fill(mode, tables, level, feature, self.simd);
                        self.write_coded(task, mode, 0, out);
                    }
                }
                Ok(mode)
            }
        }
    }

    /// What the symbols of `feature` cost under the tables of `mode`, in 1/256 bit: each by section 4.3 of FORMAT.md, with
    /// the indices of mode indexed, without header, directory and states.
    ///
    /// # Errors
    /// [`Error::NoLevel`], [`Error::Channels`] as [`encode`](Self::encode); [`Error::NoMode`] for a mode that the tables do
    /// not hold or that has none.
    pub fn cost(
        &mut self,
        tables: &Tables,
        level: LevelId,
        mode: Mode,
        feature: &Feature,
    ) -> Result<u64, Error> {
        if level.index() >= tables.levels() {
            return Err(Error::NoLevel { found: level.0, levels: tables.levels() });
        }
        let channels = feature.shape().channels();
        if channels != tables.channels() {
            return Err(Error::Channels { tables: tables.channels(), feature: channels });
        }
        if !mode.is_coded() || !tables.supports(mode) {
            return Err(Error::NoMode { mode });
        }
        let plan = &mut self.plans[0];
        plan.fill(mode, tables, level, feature, self.simd);
        Ok(plan.cost(mode, tables, level))
    }

    fn smallest(&mut self, task: Job<'_>, effort: u8, out: &mut Vec<u8>) -> Result<Mode, Error> {
        let mut left = effort;
        let mut best: Option<(u64, Mode, usize)> = None;
        let (mut zstd, mut along) = (false, None);
        for (at, (mode, price)) in EFFORTS.into_iter().enumerate() {
            if !task.tables.supports(mode) || price > left {
                continue;
            }
            if matches!(mode, Mode::Columns | Mode::Rows)
                && *along.get_or_insert_with(|| pick_direction(task.feature)) != Some(mode)
            {
                continue;
            }
            left -= price;
            if mode == Mode::Zstd {
                zstd = true;
                continue;
            }
            let plan = &mut self.plans[at];
            plan.fill(mode, task.tables, task.level, task.feature, self.simd);
            let cost = plan.cost(mode, task.tables, task.level);
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, mode, at));
            }
        }
        let raw_bytes = HEADER_BYTES + 4 + task.width() * task.feature.symbols().len();
        let mut taken = Mode::Raw;
        if let Some((_, mode, at)) = best {
            self.write_coded(task, mode, at, out);
            taken = mode;
        }
        if best.is_none() || raw_bytes < out.len() {
            self.write_raw(task, out);
            taken = Mode::Raw;
        }
        if zstd {
            self.write_zstd(task)?;
            if self.frame.len() < out.len() {
                std::mem::swap(&mut self.frame, out);
                taken = Mode::Zstd;
            }
        }
        Ok(taken)
    }

    fn write_raw(&mut self, task: Job<'_>, out: &mut Vec<u8>) {
        task.begin_plain(Mode::Raw, out);
        task.push_raw(out);
    }

    /// Into `frame`.
    fn write_zstd(&mut self, task: Job<'_>) -> Result<(), Error> {
        self.raw.clear();
        task.push_raw(&mut self.raw);
        task.begin_plain(Mode::Zstd, &mut self.frame);
        let front = self.frame.len();
        self.frame.resize(front + zstd::zstd_safe::compress_bound(self.raw.len()), 0);
        let failed = |source| Error::Zstd { source };
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?),
        };
        let written = zstd.compress_to_buffer(&self.raw, &mut self.frame[front..]).map_err(failed)?;
        self.frame.truncate(front + written);
        Ok(())
    }

    fn write_coded(&mut self, task: Job<'_>, mode: Mode, plan: usize, out: &mut Vec<u8>) {
        let groups = if self.truncatable { task.tables.groups() } else { 1 };
        let lanes = self.lanes.unwrap_or_else(|| self.plans[plan].lanes(mode));
        if !self.write_groups(task, mode, plan, (groups, lanes), out) {
            self.write_groups(task, mode, plan, (1, lanes), out);
        }
    }

    fn write_groups(
        &mut self,
        task: Job<'_>,
        mode: Mode,
        plan: usize,
        (groups, lanes): (usize, usize),
        out: &mut Vec<u8>,
    ) -> bool {
        let header = task.header(mode, ((groups - 1) << 3 | lanes) as u8);
        match LANES[lanes] {
            1 => self.write_lanes::<1>(task, header, plan, out),
            2 => self.write_lanes::<2>(task, header, plan, out),
            4 => self.write_lanes::<4>(task, header, plan, out),
            8 => self.write_lanes::<8>(task, header, plan, out),
            16 => self.write_lanes::<16>(task, header, plan, out),
            _ => self.write_lanes::<32>(task, header, plan, out),
        }
    }

    /// Returns whether the packet can be written with so many groups: the last one needs a word.
    fn write_lanes<const N: usize>(
        &mut self,
        task: Job<'_>,
        header: Header,
        plan: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let Job { tables, level, feature, .. } = task;
        let plan = &self.plans[plan];
        let truncatable = header.groups() > 1;
        let mut checksum = Checksum::new(tables.digest(), header.bytes());
        let mut checks = [0; GROUPS_MAX];
        for (group, check) in tables.order().zip(&mut checks) {
            group.iter().for_each(|&channel| checksum.update(feature.plane(channel.into())));
            if truncatable {
                *check = checksum.check();
            }
        }
        self.words.clear();
        let states = lane_shares::<N>(checksum.value()).map(|share| LOWEST + share);
        let mut writer = RansEncoder { states, words: &mut self.words, simd: self.simd };
        let set = tables.table_set(header.mode, level);
        let mut place = tables.channels();
        let mut counts = [0; GROUPS_MAX];
        for (group, count) in tables.order().zip(&mut counts).rev() {
            let before = writer.words.len();
            for &channel in group.iter().rev() {
                place -= 1;
                let part = plan.part(header.mode, tables, set, level, feature, (place, channel.into()));
                put(&mut writer, &part, &mut self.escapes, tables.precision());
            }
            *count = (writer.words.len() - before) / 2;
        }
        let states = writer.states;
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
        let front = out.len();
        out.extend_from_slice(&self.words);
        out[front..].as_chunks_mut::<2>().0.reverse();
        true
    }
}

/// Codes a channel, from its last value to its first.
fn put<const N: usize>(
    writer: &mut RansEncoder<'_, N>,
    part: &ChannelPlan<'_>,
    escapes: &mut Vec<u8>,
    precision: u32,
) {
    let mut end = part.entries.len();
    for &begin in part.escaped.iter().rev() {
        let run = part.run(begin as usize);
        put_runs(writer, part, run.start + part.stride..end);
        escapes.clear();
        for (&entry, value) in part.entries[run.clone()].iter().zip(&part.values[run.clone()]) {
            if part.escapes[usize::from(entry)] {
                escapes.extend(value.to_le_bytes());
            }
        }
        writer.bytes(escapes, precision);
        end = run.start;
        writer.run(part.encode_entries, &part.entries[run]);
    }
    put_runs(writer, part, 0..end);
    if let Some((encode_entries, indices)) = part.indices {
        writer.run(encode_entries, indices);
    }
}

/// Codes runs without escapes, from the last to the first.
fn put_runs<const N: usize>(
    writer: &mut RansEncoder<'_, N>,
    part: &ChannelPlan<'_>,
    mut runs: std::ops::Range<usize>,
) {
    if part.stride.is_multiple_of(N) {
        return writer.run(part.encode_entries, &part.entries[runs]);
    }
    while !runs.is_empty() {
        runs.end -= part.stride;
        writer.run(part.encode_entries, &part.entries[part.run(runs.end)]);
    }
}

/// What is to be coded.
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

    /// Bytes per symbol in the modes that hold them as they are.
    fn width(self) -> usize {
        let symbols = self.feature.symbols();
        let fits = symbols.iter().fold(true, |fits, &symbol| fits & (i16::from(symbol as i8) == symbol));
        if fits { 1 } else { 2 }
    }

    /// The header and the checksum of a mode that holds symbols as they are.
    fn begin_plain(self, mode: Mode, out: &mut Vec<u8>) {
        let header = self.header(mode, self.width() as u8);
        let mut checksum = Checksum::new(self.tables.digest(), header.bytes());
        self.tables
            .order()
            .flatten()
            .for_each(|&channel| checksum.update(self.feature.plane(channel.into())));
        out.clear();
        out.extend(header.bytes());
        out.extend(checksum.value().to_le_bytes());
    }

    fn push_raw(self, out: &mut Vec<u8>) {
        let symbols = self.feature.symbols();
        match self.width() {
            1 => out.extend(symbols.iter().map(|&symbol| symbol as u8)),
            _ => out.extend(symbols.iter().flat_map(|symbol| symbol.to_le_bytes())),
        }
    }
}
