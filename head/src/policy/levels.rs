//! What each rate level costs and is worth for the frames of a run.

use narrows_codec::LevelId;
use narrows_models::Bundle;
use narrows_policy::{CutPoint, Ladder, Rung};

/// How far one packet moves the estimate of a level's size.
const WEIGHT: f64 = 0.2;

/// Most bytes of a packet that are believed, so that sizes can ascend behind them.
const MOST_BYTES: u32 = 1 << 30;

/// The bundle's ladder of levels, with sizes that follow those of the frames.
#[derive(Debug, Clone)]
pub(crate) struct Levels {
    /// The cut points of each level as the bundle states them.
    stated: Vec<Vec<CutPoint>>,
    /// The size of the frames' packets over the stated one, by level; `None` before the first.
    scales: Vec<Option<f64>>,
    /// The same over all levels, for those of which there was none.
    scale: f64,
}

impl Levels {
    /// The levels of a bundle for a run that asks these tasks, or `None` if the bundle does not say what they are worth for all
    /// of them. A frame is worth the mean of the tasks' values, at the sizes of the first task.
    pub(crate) fn new(bundle: &Bundle, tasks: &[usize]) -> Option<Levels> {
        let ladders: Vec<_> = tasks.iter().map(|&task| bundle.tasks()[task].ladder.as_slice()).collect();
        let first = *ladders.first()?;
        if first.is_empty() || ladders.iter().any(|ladder| ladder.len() != first.len()) {
            return None;
        }
        let level = |level: usize| -> Vec<CutPoint> {
            let value = |group: usize| {
                let values = ladders.iter().filter_map(|ladder| ladder[level].value.get(group));
                values.sum::<f64>() / ladders.len() as f64
            };
            let bytes = first[level].bytes.iter().enumerate();
            bytes.map(|(group, &bytes)| CutPoint { bytes, value: value(group) }).collect()
        };
        let stated: Vec<_> = (0..first.len()).map(level).collect();
        let levels = Levels { scales: vec![None; stated.len()], scale: 1.0, stated };
        levels.ladder().is_some().then_some(levels)
    }

    /// The ladder of the next frame.
    pub(crate) fn ladder(&self) -> Option<Ladder> {
        let rung = |(level, stated): (usize, &Vec<CutPoint>)| {
            let scale = self.scales[level].unwrap_or(self.scale);
            let mut before = 0;
            let cuts = stated.iter().map(|cut| {
                let bytes = ((f64::from(cut.bytes) * scale) as u32).min(MOST_BYTES);
                before = bytes.max(before + 1);
                CutPoint { bytes: before, ..*cut }
            });
            Rung::new(u8::try_from(level).unwrap_or(u8::MAX), cuts.collect())
        };
        let rungs = self.stated.iter().enumerate().map(rung).collect::<Result<_, _>>().ok()?;
        Ladder::new(rungs).ok()
    }

    /// Takes note of the size of a packet.
    pub(crate) fn observe(&mut self, level: LevelId, bytes: u32) {
        let index = level.index();
        let Some(stated) = self.stated.get(index).and_then(|cuts| cuts.last()) else { return };
        let scale = f64::from(bytes) / f64::from(stated.bytes);
        let before = self.scales[index].unwrap_or(scale);
        self.scales[index] = Some(before + WEIGHT * (scale - before));
        self.scale += WEIGHT * (scale - self.scale);
    }
}

#[cfg(test)]
mod tests {
    use narrows_models::Parts;

    use super::*;

    fn levels() -> Levels {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        let bundle = Bundle::open(folder, Parts::Head).unwrap();
        let segment = bundle.tasks().iter().position(|task| task.name == "segment").unwrap();
        Levels::new(&bundle, &[segment]).unwrap()
    }

    #[test]
    fn sizes_follow_the_frames() {
        let mut levels = levels();
        let stated = levels.ladder().unwrap();
        levels.observe(LevelId(1), 2 * stated.rungs()[1].bytes());
        let ladder = levels.ladder().unwrap();
        assert_eq!(ladder.rungs()[1].bytes(), 2 * stated.rungs()[1].bytes());
        // The others are thought to be larger too, and their cut points with them.
        let (other, before) = (&ladder.rungs()[4], &stated.rungs()[4]);
        assert!(other.bytes() > before.bytes() && other.cut_points()[0].bytes > before.cut_points()[0].bytes);
        for _ in 0..50 {
            levels.observe(LevelId(1), 7000);
        }
        assert!((6990..=7010).contains(&levels.ladder().unwrap().rungs()[1].bytes()));
        levels.observe(LevelId(99), 1);
    }

    #[test]
    fn packets_of_next_to_nothing_are_still_a_ladder() {
        let mut levels = levels();
        (0..6).for_each(|level| levels.observe(LevelId(level), 1));
        assert_eq!(levels.ladder().unwrap().rungs().len(), 6);
    }

    #[test]
    fn packets_of_all_there_is_are_still_a_ladder() {
        let mut levels = levels();
        (0..6).for_each(|level| levels.observe(LevelId(level), u32::MAX));
        assert_eq!(levels.ladder().unwrap().rungs().len(), 6);
    }
}
