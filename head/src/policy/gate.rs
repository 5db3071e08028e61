//! The frame gate: a frame whose features hardly moved since the last answered frame of its source keeps that answer (Reducto,
//! SIGCOMM 2020, with the head's int8 features in place of pixels).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::Feature;
use narrows_policy::Stay;

/// Rows and columns of the latent in a tile: with the shipped bundle 32 by 32 pixels of the network's input.
const TILE: usize = 4;

/// The answers that may be kept, one for each source, and what decides whether they are.
#[derive(Debug)]
pub(crate) struct Gate<A> {
    threshold: f64,
    max_age: Duration,
    /// At most one for each source; a run has few.
    answered: Vec<Answered<A>>,
}

/// The last answered frame of a source.
#[derive(Debug)]
struct Answered<A> {
    /// Its name, if it has one.
    source: Option<Arc<str>>,
    frame: u64,
    captured_at: Instant,
    feature: Feature,
    answer: Arc<A>,
}

/// How far a frame has moved since the last answered one of its source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Movement {
    /// The last answered frame.
    pub(crate) since: u64,
    /// The distance of their features.
    pub(crate) distance: f64,
    /// Below which distance the answer is kept.
    pub(crate) threshold: f64,
    /// Time between the captures of the two.
    pub(crate) age: Duration,
    /// Longest such time for which the answer is kept.
    pub(crate) max_age: Duration,
}

impl Movement {
    /// The figures that decide whether the answer is kept.
    pub(crate) fn figures(self) -> Stay {
        let Movement { distance, threshold, age, max_age, .. } = self;
        Stay::Gate { distance, threshold, age, max_age }
    }
}

/// What the gate says of a frame.
#[derive(Debug)]
pub(crate) struct Verdict<A> {
    /// How far it has moved; `None` for the first frame of a source.
    pub(crate) movement: Option<Movement>,
    /// The answer to keep; `None` where the frame needs one of its own.
    pub(crate) kept: Option<Arc<A>>,
}

impl<A> Gate<A> {
    /// A gate that keeps an answer while the distance is below `threshold`, for at most `max_age` after the capture of the frame
    /// that it was given to.
    pub(crate) fn new(threshold: f64, max_age: Duration) -> Self {
        Gate { threshold, max_age, answered: Vec::new() }
    }

    /// Compares a frame that was captured at `captured_at` with the last answered one of `source`.
    pub(crate) fn compare(
        &self,
        source: Option<&str>,
        captured_at: Instant,
        feature: &Feature,
    ) -> Verdict<A> {
        let last = self.answered.iter().find(|last| last.source.as_deref() == source);
        let compared = last.and_then(|last| Some((last, distance(&last.feature, feature)?)));
        let Some((last, distance)) = compared else { return Verdict { movement: None, kept: None } };
        let age = captured_at.saturating_duration_since(last.captured_at);
        let (threshold, max_age) = (self.threshold, self.max_age);
        let movement = Movement { since: last.frame, distance, threshold, age, max_age };
        let stays = movement.figures().stays();
        Verdict { movement: Some(movement), kept: stays.then(|| Arc::clone(&last.answer)) }
    }

    /// Notes that a frame of `source` was answered. Frames are answered in any order; an older one does not replace a newer one.
    pub(crate) fn note(
        &mut self,
        source: Option<&str>,
        frame: u64,
        captured_at: Instant,
        feature: Feature,
        answer: A,
    ) {
        let last = self.answered.iter_mut().find(|last| last.source.as_deref() == source);
        let answered = |source| Answered { source, frame, captured_at, feature, answer: Arc::new(answer) };
        match last {
            Some(last) if last.frame >= frame => {}
            Some(last) => *last = answered(last.source.take()),
            None => self.answered.push(answered(source.map(Arc::from))),
        }
    }
}

/// The mean absolute difference of the symbols in the tile of [`TILE`] by [`TILE`] positions where it is largest, in quantiser
/// steps; `None` for features of different shapes.
///
/// A mean over the whole frame would not see a small object that enters a still scene. Rows and columns that do not fill a tile
/// belong to the last one.
fn distance(a: &Feature, b: &Feature) -> Option<f64> {
    let shape = a.shape();
    if shape != b.shape() {
        return None;
    }
    let (height, width) = (shape.height(), shape.width());
    let tiles = |length: usize| (length / TILE).max(1);
    let (rows, columns) = (tiles(height), tiles(width));
    let mut sums = vec![0u64; rows * columns];
    for (a, b) in a.planes().zip(b.planes()) {
        for (y, (a, b)) in a.chunks_exact(width).zip(b.chunks_exact(width)).enumerate() {
            let row = (y / TILE).min(rows - 1) * columns;
            for (x, (a, b)) in a.iter().zip(b).enumerate() {
                sums[row + (x / TILE).min(columns - 1)] += u64::from(a.abs_diff(*b));
            }
        }
    }
    // Positions of a tile in one direction; the last tile has the rest.
    let span = |tile: usize, tiles: usize, length: usize| match tile + 1 == tiles {
        true => length - tile * TILE,
        false => TILE,
    };
    let mean = |(tile, sum): (usize, &u64)| {
        let positions = span(tile / columns, rows, height) * span(tile % columns, columns, width);
        *sum as f64 / (positions * shape.channels()) as f64
    };
    sums.iter().enumerate().map(mean).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use narrows_codec::Shape;

    use super::*;

    /// Two channels of 9 rows and 10 columns, all zero but for `changed` positions of both channels from (`y`, `x`) to the right.
    fn feature(y: usize, x: usize, changed: usize, by: i16) -> Feature {
        let mut symbols = vec![0; 180];
        for plane in 0..2 {
            symbols[plane * 90 + y * 10 + x..][..changed].fill(by);
        }
        Feature::new(Shape::new(2, 9, 10).unwrap(), symbols).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> Gate<&'static str> {
        Gate::new(0.5, 3 * SECOND)
    }

    #[test]
    fn the_distance_is_that_of_the_tile_that_moved_most() {
        let still = feature(0, 0, 0, 0);
        assert_eq!(distance(&still, &still), Some(0.0));
        // Four of the sixteen positions of the first tile.
        assert_eq!(distance(&still, &feature(0, 0, 4, 8)), Some(2.0));
        assert_eq!(distance(&still, &feature(0, 0, 4, -8)), Some(2.0));
        // The last tile is larger: rows 4 to 8 and columns 4 to 9.
        assert_eq!(distance(&still, &feature(8, 4, 6, 10)), Some(2.0));
        let other = Feature::new(Shape::new(2, 10, 9).unwrap(), vec![0; 180]).unwrap();
        assert_eq!(distance(&still, &other), None);
        let small = |by| Feature::new(Shape::new(1, 1, 2).unwrap(), vec![0, by]).unwrap();
        assert_eq!(distance(&small(0), &small(6)), Some(3.0));
    }

    #[test]
    fn an_answer_is_kept_while_nothing_moves_and_no_longer_than_its_age() {
        let (mut gate, start) = (gate(), now());
        assert!(gate.compare(None, start, &feature(0, 0, 0, 0)).movement.is_none());
        gate.note(None, 7, start, feature(0, 0, 0, 0), "cat");
        let verdict = gate.compare(None, start + 3 * SECOND, &feature(0, 0, 1, 4));
        assert_eq!(verdict.kept.as_deref(), Some(&"cat"));
        let movement =
            Movement { since: 7, distance: 0.25, threshold: 0.5, age: 3 * SECOND, max_age: 3 * SECOND };
        assert_eq!(verdict.movement, Some(movement));
        let old = gate.compare(None, start + 3 * SECOND + Duration::from_millis(1), &feature(0, 0, 0, 0));
        assert!(old.kept.is_none() && old.movement.is_some_and(|movement| movement.distance == 0.0));
        let moved = gate.compare(None, start, &feature(0, 0, 1, 8));
        assert!(moved.kept.is_none(), "{moved:?}");
    }

    #[test]
    fn each_source_has_its_own_answer() {
        let (mut gate, start) = (gate(), now());
        gate.note(Some("door"), 1, start, feature(0, 0, 0, 0), "nobody");
        gate.note(Some("yard"), 2, start, feature(0, 0, 4, 8), "car");
        let of = |source, feature| gate.compare(source, start, &feature).kept.as_deref().copied();
        assert_eq!(of(Some("door"), feature(0, 0, 0, 0)), Some("nobody"));
        assert_eq!(of(Some("yard"), feature(0, 0, 4, 8)), Some("car"));
        assert_eq!(of(Some("yard"), feature(0, 0, 0, 0)), None);
        assert_eq!(of(None, feature(0, 0, 0, 0)), None);
    }

    #[test]
    fn an_older_frame_that_is_answered_late_does_not_replace_a_newer_one() {
        let (mut gate, start) = (gate(), now());
        gate.note(None, 5, start, feature(0, 0, 0, 0), "new");
        gate.note(None, 4, start, feature(0, 0, 0, 0), "old");
        assert_eq!(gate.compare(None, start, &feature(0, 0, 0, 0)).kept.as_deref(), Some(&"new"));
        gate.note(None, 6, start, feature(0, 0, 0, 0), "newer");
        assert_eq!(gate.compare(None, start, &feature(0, 0, 0, 0)).kept.as_deref(), Some(&"newer"));
    }
}
