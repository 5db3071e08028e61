//! What a frame is worth at each level and at each cut point of its packets.

use serde::{Deserialize, Serialize};

/// A place in a packet where it may end, and what the answer is worth when exactly this much of it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u32, f64)", into = "(u32, f64)")]
pub struct CutPoint {
    /// Bytes from the packet's beginning.
    pub bytes: u32,
    /// Value of the answer: accuracy or mIoU on held-out data, from 0 to 1.
    pub value: f64,
}

/// A rate level: the cut points of its packet, the whole packet last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(u8, Vec<CutPoint>)", into = "(u8, Vec<CutPoint>)")]
pub struct Rung {
    level: u8,
    cut_points: Vec<CutPoint>,
}

/// The levels that a frame may be sent at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rung>", into = "Vec<Rung>")]
pub struct Ladder {
    rungs: Vec<Rung>,
    /// The corners of the upper convex hull over nothing and all cut points, by ascending bytes.
    hull: Vec<CutPoint>,
}

/// Why cut points or levels are not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LadderError {
    /// No cut point, or no level.
    #[error("a ladder needs a level, and a level needs a cut point")]
    Empty,
    /// Bytes do not ascend from 1.
    #[error("the cut points of level {level} must ascend in bytes, from 1")]
    Bytes {
        /// The level.
        level: u8,
    },
    /// A value is not a number from 0 to 1, or is below the one before it.
    #[error("the values of level {level} must be 0 to 1 and must not descend")]
    Value {
        /// The level.
        level: u8,
    },
}

impl From<(u32, f64)> for CutPoint {
    fn from((bytes, value): (u32, f64)) -> Self {
        CutPoint { bytes, value }
    }
}

impl From<CutPoint> for (u32, f64) {
    fn from(cut_point: CutPoint) -> Self {
        (cut_point.bytes, cut_point.value)
    }
}

impl TryFrom<(u8, Vec<CutPoint>)> for Rung {
    type Error = LadderError;

    fn try_from((level, cut_points): (u8, Vec<CutPoint>)) -> Result<Self, LadderError> {
        Rung::new(level, cut_points)
    }
}

impl From<Rung> for (u8, Vec<CutPoint>) {
    fn from(rung: Rung) -> Self {
        (rung.level, rung.cut_points)
    }
}

impl TryFrom<Vec<Rung>> for Ladder {
    type Error = LadderError;

    fn try_from(rungs: Vec<Rung>) -> Result<Self, LadderError> {
        Ladder::new(rungs)
    }
}

impl From<Ladder> for Vec<Rung> {
    fn from(ladder: Ladder) -> Self {
        ladder.rungs
    }
}

impl Rung {
    /// A level whose packet may end at `cut_points`.
    ///
    /// # Errors
    /// [`LadderError`] if there are none, if their bytes do not ascend from 1, or if their values descend or leave 0 to 1.
    pub fn new(level: u8, cut_points: Vec<CutPoint>) -> Result<Self, LadderError> {
        if cut_points.is_empty() {
            return Err(LadderError::Empty);
        }
        let mut before = CutPoint { bytes: 0, value: 0.0 };
        for &cut_point in &cut_points {
            if cut_point.bytes <= before.bytes {
                return Err(LadderError::Bytes { level });
            }
            // A comparison with NaN is false.
            if !(before.value..=1.0).contains(&cut_point.value) {
                return Err(LadderError::Value { level });
            }
            before = cut_point;
        }
        Ok(Rung { level, cut_points })
    }

    /// The level's number.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Where the packet may end, the whole packet last.
    #[must_use]
    pub fn cut_points(&self) -> &[CutPoint] {
        &self.cut_points
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.whole().bytes
    }

    /// Value of the answer when the whole packet arrives.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.whole().value
    }

    /// Value of the answer when the first `bytes` arrive: that of the last cut point among them, 0 before the first.
    #[must_use]
    pub fn value_at(&self, bytes: u32) -> f64 {
        let reached = self.cut_points.partition_point(|cut_point| cut_point.bytes <= bytes);
        reached.checked_sub(1).map_or(0.0, |last| self.cut_points[last].value)
    }

    fn whole(&self) -> CutPoint {
        *self.cut_points.last().expect("checked when the rung was made")
    }
}

impl Ladder {
    /// The levels of a frame, in any order.
    ///
    /// # Errors
    /// [`LadderError::Empty`] if there are none.
    pub fn new(rungs: Vec<Rung>) -> Result<Self, LadderError> {
        if rungs.is_empty() {
            return Err(LadderError::Empty);
        }
        let mut points: Vec<CutPoint> =
            rungs.iter().flat_map(|rung| rung.cut_points.iter().copied()).collect();
        points.sort_by_key(|point| point.bytes);
        let mut hull = vec![CutPoint { bytes: 0, value: 0.0 }];
        for point in points {
            while let [.., before, last] = hull[..]
                && slope(before, last) <= slope(last, point)
            {
                hull.pop();
            }
            if hull.last().is_none_or(|last| point.value > last.value) {
                hull.push(point);
            }
        }
        Ok(Ladder { rungs, hull })
    }

    /// The levels.
    #[must_use]
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// The index of the level with the smallest packet.
    pub(crate) fn smallest(&self) -> usize {
        let sizes = self.rungs.iter().map(Rung::bytes).enumerate();
        sizes.min_by_key(|(_, bytes)| *bytes).map_or(0, |(index, _)| index)
    }

    /// The most value that a unit of cost can buy, where a frame costs `fixed` and `per_byte` for each byte that is sent of it:
    /// the highest ratio of value to cost over all cut points.
    ///
    /// Sending bytes while they are worth at least this much for their cost ends at that cut point (Dinkelbach, Management
    /// Science 13, 1967). Infinite where a frame costs nothing.
    #[must_use]
    pub fn best_ratio(&self, fixed: f64, per_byte: f64) -> f64 {
        let ratio = |point: &CutPoint| point.value / (fixed + per_byte * f64::from(point.bytes));
        self.hull[1..].iter().map(ratio).fold(0.0, f64::max)
    }

    /// The value of one more byte for a stream of frames of which each gets `bytes`: the slope of the best mixture of
    /// levels and cuts at that size. Zero where every frame can have the most valuable level.
    #[must_use]
    pub fn price(&self, bytes: f64) -> f64 {
        let corner = self.hull.windows(2).find(|corner| bytes < f64::from(corner[1].bytes));
        corner.map_or(0.0, |corner| slope(corner[0], corner[1]))
    }
}

fn slope(from: CutPoint, to: CutPoint) -> f64 {
    (to.value - from.value) / (f64::from(to.bytes) - f64::from(from.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_point(bytes: u32, value: f64) -> CutPoint {
        CutPoint { bytes, value }
    }

    fn whole(level: u8, bytes: u32, value: f64) -> Rung {
        Rung::new(level, vec![cut_point(bytes, value)]).unwrap()
    }

    #[test]
    fn a_packet_is_worth_its_last_border() {
        let rung = Rung::new(1, vec![cut_point(100, 0.2), cut_point(300, 0.5), cut_point(900, 0.7)]).unwrap();
        let values: Vec<f64> = [0, 99, 100, 299, 300, 900, 5000].map(|bytes| rung.value_at(bytes)).into();
        assert_eq!(values, [0.0, 0.0, 0.2, 0.2, 0.5, 0.7, 0.7]);
        assert_eq!((rung.level(), rung.bytes(), rung.value()), (1, 900, 0.7));
    }

    #[test]
    fn unusable_borders_are_named() {
        assert_eq!(Rung::new(3, vec![]), Err(LadderError::Empty));
        assert_eq!(Ladder::new(vec![]), Err(LadderError::Empty));
        let level = 3;
        for cut_points in [vec![cut_point(0, 0.1)], vec![cut_point(9, 0.1), cut_point(9, 0.2)]] {
            assert_eq!(Rung::new(3, cut_points), Err(LadderError::Bytes { level }));
        }
        for value in [f64::NAN, -0.1, 1.1] {
            assert_eq!(Rung::new(3, vec![cut_point(1, value)]), Err(LadderError::Value { level }));
        }
        let descending = vec![cut_point(1, 0.2), cut_point(2, 0.1)];
        assert_eq!(Rung::new(3, descending), Err(LadderError::Value { level }));
    }

    #[test]
    fn the_best_ratio_weighs_the_bytes_against_what_a_frame_costs_anyhow() {
        let ladder = Ladder::new(vec![whole(0, 4000, 0.7), whole(1, 1000, 0.5)]).unwrap();
        // Where bytes cost nothing, the most valuable level is best; where they cost all, the smallest is.
        assert!((ladder.best_ratio(2.0, 0.0) - 0.35).abs() < 1e-12);
        assert!((ladder.best_ratio(0.0, 1e-3) - 0.5).abs() < 1e-12);
        assert!((ladder.best_ratio(1.0, 1e-3) - 0.25).abs() < 1e-12);
        assert!(ladder.best_ratio(0.0, 0.0).is_infinite());
    }

    #[test]
    fn the_price_of_a_byte_falls_along_the_hull() {
        // Level 2 lies below the line between its neighbours, level 4 is worth less than the smaller level 3.
        let levels = [(0, 4000, 0.7), (1, 1000, 0.5), (2, 2000, 0.51), (3, 3000, 0.6), (4, 3500, 0.55)];
        let ladder =
            Ladder::new(levels.map(|(level, bytes, value)| whole(level, bytes, value)).into()).unwrap();
        let close = |bytes, price: f64| {
            assert!((ladder.price(bytes) - price).abs() < 1e-12, "{bytes}: {}", ladder.price(bytes));
        };
        close(0.0, 0.5 / 1000.0);
        close(999.0, 0.5 / 1000.0);
        close(1000.0, 0.2 / 3000.0);
        close(3999.0, 0.2 / 3000.0);
        close(4000.0, 0.0);
        close(f64::INFINITY, 0.0);
    }
}
