//! The section of the tables file for modes context, columns and rows (FORMAT.md, section 2.4).

use std::ops::RangeInclusive;

use crate::{
    Error, TableName,
    format::{
        cursor::{Cursor, Truncated},
        table::Table,
    },
};

/// The largest threshold. Activities above it choose the same shape.
pub(crate) const ACTIVITY_MAX: usize = 4095;

/// The own neighbors of a symbol in phase 0 (even columns) and phase 1 (odd columns), as (row, column) relative to it.
pub(crate) const NEIGHBORS: [&[(isize, isize)]; 2] =
    [&[(-1, 0), (-1, -1), (-1, 1), (-2, 0)], &[(0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)]];

/// The largest number of own neighbors.
pub(crate) const NEIGHBORS_MAX: usize = 5;

/// The largest number of table shapes; each has four tables, one per fraction of a mean.
const SHAPES_MAX: u8 = 32;

const CAP_MAX: u8 = 63;
const TAPS_MAX: u8 = 8;
const SETS_MAX: u8 = 16;

/// For each channel, the values of phase 0 and phase 1.
pub(crate) type PerChannel<T> = Box<[[T; 2]]>;

/// The parsed section.
#[derive(Clone, Debug)]
pub(crate) struct ContextSection {
    /// The largest magnitude.
    pub(crate) cap: u8,
    /// The shift from an activity sum to an activity.
    pub(crate) shift: u8,
    /// The smallest activity of each shape but the first; none is smaller than the one before.
    pub(crate) thresholds: Box<[u16]>,
    /// Four tables per shape, one for each fraction of a mean in quarter symbols.
    pub(crate) tables: Box<[Table]>,
    /// The sets of mean predictors.
    pub(crate) means: Box<[PerChannel<Mean>]>,
    /// The sets of activity predictors.
    pub(crate) activities: Box<[PerChannel<Activity>]>,
    /// The parameters of each rate level.
    pub(crate) levels: Box<[LevelModel]>,
}

/// The linear predictor of a symbol's mean, in 1/1024 symbol.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mean {
    /// The weights of the own neighbors; 0 where the phase has fewer.
    pub(crate) own: [i16; NEIGHBORS_MAX],
    pub(crate) taps: Box<[Tap]>,
}

/// A term of a mean: a symbol of a channel that is coded earlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// The channel.
    pub(crate) plane: u16,
    /// Its place relative to the predicted symbol: 3 (dy + 1) + dx + 1.
    pub(crate) place: u8,
    pub(crate) weight: i16,
}

/// The linear predictor of the magnitude of a symbol's distance from its mean.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// The weights of the own neighbors' magnitudes; 0 where the phase has fewer.
    pub(crate) own: [i16; NEIGHBORS_MAX],
    /// The weight of A, the decayed magnitudes of earlier channels.
    pub(crate) far: i16,
    /// The weight of B, which is A blurred.
    pub(crate) wide: i16,
}

/// What a rate level chooses and adds.
#[derive(Clone, Debug)]
pub(crate) struct LevelModel {
    /// Index of the set of means.
    pub(crate) mean: u8,
    /// Index of the set of activities.
    pub(crate) activity: u8,
    /// The shift of magnitudes before they are capped.
    pub(crate) coarse: u8,
    pub(crate) biases: PerChannel<Biases>,
}

/// The constants that predictions start from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Biases {
    pub(crate) mean: i16,
    pub(crate) activity: i16,
}

impl ContextSection {
    /// Parses the section of a file whose channels are coded in `order` and that has `levels` levels.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) that names the field.
    pub(crate) fn parse(
        cursor: &mut Cursor<'_>,
        precision: u32,
        order: &[u16],
        levels: usize,
    ) -> Result<Self, Error> {
        let channels = order.len();
        let cap = within(cursor, "cap", 1..=CAP_MAX, "1 to 63")?;
        let shift = within(cursor, "shift", 4..=14, "4 to 14")?;
        let shapes = within(cursor, "shapes", 1..=SHAPES_MAX, "1 to 32")?;
        let thresholds = parse_thresholds(cursor, usize::from(shapes) - 1)?;
        let tables = Table::parse_mixed(cursor, precision, (0..4 * shapes).map(TableName::Context))?;
        let means = parse_means(cursor, order)?;
        let count = within(cursor, "activities", 1..=SETS_MAX, "1 to 16")?;
        let activities = (0..count).map(|_| phases(channels, |_, phase| Activity::parse(cursor, phase)));
        let activities = activities.collect::<Result<Box<[_]>, _>>()?;
        let levels = (0..levels).map(|_| {
            let mean = within(cursor, "mean", 0..=means.len() as u8 - 1, "an index of the mean sets")?;
            let activity = within(cursor, "activity", 0..=count - 1, "an index of the activity sets")?;
            let coarse = within(cursor, "coarse", 0..=8, "0 to 8")?;
            let biases = phases(channels, |_, _| {
                let mean = cursor.i16("mean bias").map_err(Truncated::tables)?;
                Ok(Biases { mean, activity: cursor.i16("activity bias").map_err(Truncated::tables)? })
            })?;
            Ok(LevelModel { mean, activity, coarse, biases })
        });
        let levels = levels.collect::<Result<_, Error>>()?;
        Ok(Self { cap, shift, thresholds, tables, means, activities, levels })
    }
}

fn parse_thresholds(cursor: &mut Cursor<'_>, count: usize) -> Result<Box<[u16]>, Error> {
    let thresholds = cursor.u16s(count, "thresholds").map_err(Truncated::tables)?;
    if let Some(&found) = thresholds.last().filter(|last| usize::from(**last) > ACTIVITY_MAX) {
        return Err(wrong("threshold", found.into(), "at most 4095"));
    }
    if let Some(pair) = thresholds.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(wrong("threshold", pair[1].into(), "none smaller than the one before"));
    }
    Ok(thresholds)
}

/// Parses the sets of means, whose taps name channels that come earlier in `order`.
fn parse_means(cursor: &mut Cursor<'_>, order: &[u16]) -> Result<Box<[PerChannel<Mean>]>, Error> {
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, &channel)| place[usize::from(channel)] = at);
    let count = within(cursor, "means", 1..=SETS_MAX, "1 to 16")?;
    let set = |_| {
        phases(order.len(), |channel, phase| {
            let mean = Mean::parse(cursor, phase)?;
            let too_late =
                |tap: &&Tap| place.get(usize::from(tap.plane)).is_none_or(|p| *p >= place[channel]);
            match mean.taps.iter().find(too_late) {
                Some(tap) => Err(wrong("plane", tap.plane.into(), "a channel that is coded earlier")),
                None => Ok(mean),
            }
        })
    };
    (0..count).map(set).collect()
}

impl Mean {
    fn parse(cursor: &mut Cursor<'_>, phase: usize) -> Result<Self, Error> {
        let own = parse_own_weights(cursor, phase)?;
        let count = within(cursor, "taps", 0..=TAPS_MAX, "0 to 8")?;
        let tap = |_| {
            let plane = cursor.u16("plane").map_err(Truncated::tables)?;
            let place = within(cursor, "place", 0..=8, "0 to 8")?;
            Ok(Tap { plane, place, weight: cursor.i16("weight").map_err(Truncated::tables)? })
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
        let own = parse_own_weights(cursor, phase)?;
        let far = cursor.i16("far").map_err(Truncated::tables)?;
        Ok(Self { own, far, wide: cursor.i16("wide").map_err(Truncated::tables)? })
    }
}

fn parse_own_weights(cursor: &mut Cursor<'_>, phase: usize) -> Result<[i16; NEIGHBORS_MAX], Error> {
    let mut own = [0; NEIGHBORS_MAX];
    for weight in own.iter_mut().take(NEIGHBORS[phase].len()) {
        *weight = cursor.i16("own").map_err(Truncated::tables)?;
    }
    Ok(own)
}

/// Calls `parse` with each channel and phase, in the order of the file.
fn phases<T>(
    channels: usize,
    mut parse: impl FnMut(usize, usize) -> Result<T, Error>,
) -> Result<PerChannel<T>, Error> {
    (0..channels).map(|channel| Ok([parse(channel, 0)?, parse(channel, 1)?])).collect()
}

/// Parses a byte that must be in `range`.
fn within(
    cursor: &mut Cursor<'_>,
    field: &'static str,
    range: RangeInclusive<u8>,
    expected: &'static str,
) -> Result<u8, Error> {
    let found = cursor.u8(field).map_err(Truncated::tables)?;
    if range.contains(&found) { Ok(found) } else { Err(wrong(field, found.into(), expected)) }
}

fn wrong(field: &'static str, found: usize, expected: &'static str) -> Error {
    Error::Tables { field, found, expected }
}
