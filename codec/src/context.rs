//! The section of the tables file that says how contexts choose tables (FORMAT.md, section 2.4).

use crate::{
    Error, LevelId, Mode,
    cursor::Cursor,
    error::TableName,
    kernel::WIDTH,
    model::MixedTables,
    table::{Span, TableSet, tables_truncated},
};

/// The largest threshold, and the largest activity that makes a difference.
pub(crate) const ACTIVITY_MAX: usize = 4095;

/// The largest magnitude.
const CAP_MAX: u8 = 63;

/// Which of [`NEIGHBORS`] are in the run before, from left to right: the others are in earlier ones.
pub(crate) const PREVIOUS_RUN: [[usize; 2]; 2] = [[1, 2], [0, 1]];

/// Those in earlier runs, the one above the symbol first; some are named twice.
pub(crate) const EARLIER_RUNS: [[usize; 3]; 2] = [[0, 3, 3], [2, 3, 4]];

/// The own neighbours of a symbol in the even and in the odd columns, as (row, column) from its place.
pub(crate) const NEIGHBORS: [&[(isize, isize)]; 2] =
    [&[(-1, 0), (-1, -1), (-1, 1), (-2, 0)], &[(0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)]];

/// The most own neighbours.
pub(crate) const NEIGHBORS_MAX: usize = 5;

const SHAPES_MAX: u8 = 32;

/// Spans of tables, of which there are little more than half as many at most, so that any byte names one.
pub(crate) type Spans = [Span; 256];

const TAPS_MAX: u8 = 8;
const SETS_MAX: u8 = 16;

#[derive(Clone, Debug)]
pub(crate) struct ContextModel {
    pub(crate) cap: u8,
    pub(crate) shift: u8,
    /// For each activity, the first table of its shape.
    pub(crate) shapes: Box<[u8; ACTIVITY_MAX + 1]>,
    /// The largest activity of each shape but the last, once for each lane of a vector, and one that is never reached
    /// where this makes their number even.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "read by vectors alone"))]
    pub(crate) tops: Box<[[i16; WIDTH]]>,
    pub(crate) set: TableSet,
    pub(crate) shared: MixedTables,
    pub(crate) spans: Box<Spans>,
    /// The table of no value.
    pub(crate) nothing: u8,
    /// For each set, two phases for each channel; as the next.
    means: Box<[Box<[[Mean; 2]]>]>,
    /// The means of modes columns and rows: four times the symbol above.
    above: [Mean; 2],
    activities: Box<[Box<[[Activity; 2]]>]>,
    levels: Box<[Level]>,
}

/// How the mean of a symbol is predicted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mean {
    pub(crate) own: [i16; NEIGHBORS_MAX],
    pub(crate) taps: Box<[Tap]>,
}

/// A place in another plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    pub(crate) plane: u16,
    /// 3 (dy + 1) + dx + 1.
    pub(crate) place: u8,
    pub(crate) weight: i16,
}

/// How the magnitude of a symbol's distance from its mean is predicted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    pub(crate) own: [i16; NEIGHBORS_MAX],
    pub(crate) far: i16,
    pub(crate) wide: i16,
}

#[derive(Clone, Debug)]
struct Level {
    mean: u8,
    activity: u8,
    coarse: u8,
    biases: Box<[[Biases; 2]]>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Biases {
    pub(crate) mean: i16,
    pub(crate) activity: i16,
}

/// What one channel of a level is predicted with, phase by phase.
#[derive(Clone, Copy)]
pub(crate) struct ChannelModel<'a> {
    pub(crate) means: &'a [Mean; 2],
    pub(crate) activities: &'a [Activity; 2],
    pub(crate) biases: [Biases; 2],
    pub(crate) coarse: u8,
}

impl ContextModel {
    pub(crate) fn parse(
        cursor: &mut Cursor<'_>,
        precision: u32,
        order: &[u16],
        levels: usize,
    ) -> Result<Self, Error> {
        let channels = order.len();
        let cap = within(cursor, "cap", 1..=CAP_MAX, "1 to 63")?;
        let shift = within(cursor, "shift", 4..=14, "4 to 14")?;
        let count = within(cursor, "shapes", 1..=SHAPES_MAX, "1 to 32")?;
        let thresholds = cursor.u16s(usize::from(count) - 1, "thresholds").map_err(tables_truncated)?;
        if let Some(&found) = thresholds.last().filter(|last| usize::from(**last) > ACTIVITY_MAX) {
            return Err(wrong("threshold", found.into(), "at most 4095"));
        }
        if let Some(pair) = thresholds.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(wrong("threshold", pair[1].into(), "none smaller than the one before"));
        }
        let mut shapes = Box::new([0; ACTIVITY_MAX + 1]);
        for (shape, &threshold) in (1..).zip(&thresholds) {
            shapes[usize::from(threshold)..].fill(4 * shape);
        }
        let tops = thresholds.iter().map(|threshold| [threshold.cast_signed() - 1; WIDTH]);
        let never = (thresholds.len() % 2 == 1).then_some([i16::MAX; WIDTH]);
        let tops = tops.chain(never).collect();
        let (set, shared) =
            TableSet::parse_shared(cursor, precision, (0..4 * count).map(TableName::Context))?;
        let mut spans = Box::new([set.spans[0]; 256]);
        spans[..set.spans.len()].copy_from_slice(&set.spans);
        let nothing = set.tables.len() as u8;
        let mut place = vec![0; channels];
        order.iter().enumerate().for_each(|(at, &channel)| place[usize::from(channel)] = at);
        let count = within(cursor, "means", 1..=SETS_MAX, "1 to 16")?;
        let means = (0..count)
            .map(|_| {
                pairs(channels, |channel, phase| {
                    let mean = Mean::parse(cursor, phase)?;
                    match mean
                        .taps
                        .iter()
                        .find(|tap| place.get(usize::from(tap.plane)).is_none_or(|p| *p >= place[channel]))
                    {
                        Some(tap) => Err(wrong("plane", tap.plane.into(), "a channel that is coded earlier")),
                        None => Ok(mean),
                    }
                })
            })
            .collect::<Result<Box<[_]>, _>>()?;
        let count = within(cursor, "activities", 1..=SETS_MAX, "1 to 16")?;
        let activities = (0..count).map(|_| pairs(channels, |_, phase| Activity::parse(cursor, phase)));
        let activities = activities.collect::<Result<Box<[_]>, _>>()?;
        let levels = (0..levels).map(|_| {
            let mean = within(cursor, "mean", 0..=means.len() as u8 - 1, "an index of the mean sets")?;
            let activity = within(cursor, "activity", 0..=count - 1, "an index of the activity sets")?;
            let coarse = within(cursor, "coarse", 0..=8, "0 to 8")?;
            let biases = pairs(channels, |_, _| {
                let mean = cursor.i16("mean bias").map_err(tables_truncated)?;
                Ok(Biases { mean, activity: cursor.i16("activity bias").map_err(tables_truncated)? })
            })?;
            Ok(Level { mean, activity, coarse, biases })
        });
        let levels = levels.collect::<Result<_, Error>>()?;
        let above = EARLIER_RUNS.map(|[above, ..]| {
            let mut mean = Mean::default();
            mean.own[above] = 1 << 10;
            mean
        });
        Ok(Self { cap, shift, shapes, tops, set, shared, spans, nothing, means, above, activities, levels })
    }

    /// The rules of a level and channel, which are those of the tables, in one of the modes that have contexts.
    pub(crate) fn rules(&self, mode: Mode, level: LevelId, channel: usize) -> ChannelModel<'_> {
        let level = &self.levels[level.index()];
        let activities = &self.activities[usize::from(level.activity)][channel];
        let (biases, coarse) = (level.biases[channel], level.coarse);
        if mode == Mode::Context {
            let means = &self.means[usize::from(level.mean)][channel];
            return ChannelModel { means, activities, biases, coarse };
        }
        let biases = biases.map(|biases| Biases { mean: 0, ..biases });
        ChannelModel { means: &self.above, activities, biases, coarse }
    }
}

impl Mean {
    fn parse(cursor: &mut Cursor<'_>, phase: usize) -> Result<Self, Error> {
        let own = own_weights(cursor, phase)?;
        let count = within(cursor, "taps", 0..=TAPS_MAX, "0 to 8")?;
        let tap = |_| {
            let plane = cursor.u16("plane").map_err(tables_truncated)?;
            let place = within(cursor, "place", 0..=8, "0 to 8")?;
            Ok(Tap { plane, place, weight: cursor.i16("weight").map_err(tables_truncated)? })
        };
        let taps = (0..count).map(tap).collect::<Result<Box<[_]>, Error>>()?;
        let weights = own.iter().copied().chain(taps.iter().map(|tap| tap.weight));
        let sum: usize = weights.map(|weight| usize::from(weight.unsigned_abs())).sum();
        if sum > 1 << 15 {
            return Err(wrong("sum of weights", sum, "at most 32768"));
        }
        Ok(Self { own, taps })
    }
}

impl Activity {
    fn parse(cursor: &mut Cursor<'_>, phase: usize) -> Result<Self, Error> {
        let own = own_weights(cursor, phase)?;
        let far = cursor.i16("far").map_err(tables_truncated)?;
        Ok(Self { own, far, wide: cursor.i16("wide").map_err(tables_truncated)? })
    }
}

fn own_weights(cursor: &mut Cursor<'_>, phase: usize) -> Result<[i16; NEIGHBORS_MAX], Error> {
    let mut own = [0; NEIGHBORS_MAX];
    for weight in own.iter_mut().take(NEIGHBORS[phase].len()) {
        *weight = cursor.i16("own").map_err(tables_truncated)?;
    }
    Ok(own)
}

/// What `read` gives for the two phases of each channel.
fn pairs<T>(
    channels: usize,
    mut read: impl FnMut(usize, usize) -> Result<T, Error>,
) -> Result<Box<[[T; 2]]>, Error> {
    (0..channels).map(|channel| Ok([read(channel, 0)?, read(channel, 1)?])).collect()
}

fn within(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    range: std::ops::RangeInclusive<u8>,
    expected: &'static str,
) -> Result<u8, Error> {
    let found = cursor.u8(field).map_err(tables_truncated)?;
    if range.contains(&found) { Ok(found) } else { Err(wrong(field, found.into(), expected)) }
}

fn wrong(field: &'static str, found: usize, expected: &'static str) -> Error {
    Error::Tables { field, found, expected }
}
