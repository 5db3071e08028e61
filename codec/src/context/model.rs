//! The model of a tables file, and what one channel is predicted with.

use crate::{
    LevelId, Mode,
    format::context_section::{ACTIVITY_MAX, Activity, Biases, ContextSection, Mean, NEIGHBORS_MAX},
    rans::table_set::MixedTableSet,
};

/// The own neighbors that are in the previous run, left and right, as indices into
/// [`NEIGHBORS`](crate::format::context_section::NEIGHBORS) for each phase. The others are in earlier runs.
pub(crate) const IN_PREVIOUS_RUN: [[usize; 2]; 2] = [[1, 2], [0, 1]];

/// The own neighbors in earlier runs, the one above the symbol first. Phase 0 has two, of which one is repeated.
pub(crate) const IN_EARLIER_RUNS: [[usize; 3]; 2] = [[0, 3, 3], [2, 3, 4]];

/// The weight of one symbol in a mean.
const ONE: i16 = 1 << 10;

/// The context section with what encoder and decoder derive from it.
#[derive(Clone, Debug)]
pub(crate) struct ContextModel {
    section: ContextSection,
    /// For each activity, the index of its shape's first table.
    shapes: Box<[u8; ACTIVITY_MAX + 1]>,
    pub(crate) tables: MixedTableSet,
    /// The mean predictor of modes columns and rows: the symbol above.
    above: [Mean; 2],
}

/// What one channel is predicted with at one level: the predictors of phase 0 and 1.
#[derive(Clone, Copy)]
pub(crate) struct ChannelModel<'a> {
    pub(crate) context: &'a ContextModel,
    pub(crate) channel: usize,
    pub(crate) means: &'a [Mean; 2],
    pub(crate) activities: &'a [Activity; 2],
    pub(crate) biases: [Biases; 2],
    /// The largest magnitude, and the shift before it applies.
    pub(crate) limits: (u8, u8),
}

impl ContextModel {
    pub(crate) fn new(section: ContextSection, precision: u32) -> Self {
        let mut shapes = Box::new([0; ACTIVITY_MAX + 1]);
        for (shape, &threshold) in (1..).zip(&section.thresholds) {
            shapes[usize::from(threshold)..].fill(4 * shape);
        }
        let tables = MixedTableSet::new(&section.tables, precision);
        let above = IN_EARLIER_RUNS.map(|[above, ..]| {
            let mut own = [0; NEIGHBORS_MAX];
            own[above] = ONE;
            Mean { own, ..Mean::default() }
        });
        Self { section, shapes, tables, above }
    }

    /// What `channel` is predicted with at `level` in a mode that has contexts.
    pub(crate) fn channel(&self, mode: Mode, level: LevelId, channel: usize) -> ChannelModel<'_> {
        let level = &self.section.levels[level.index()];
        let activities = &self.section.activities[usize::from(level.activity)][channel];
        let (mut means, mut biases) =
            (&self.section.means[usize::from(level.mean)][channel], level.biases[channel]);
        if mode != Mode::Context {
            means = &self.above;
            biases = biases.map(|biases| Biases { mean: 0, ..biases });
        }
        let limits = (self.section.cap, level.coarse);
        ChannelModel { context: self, channel, means, activities, biases, limits }
    }

    /// The index of the first table of the shape that an activity has.
    #[inline(always)]
    pub(crate) fn shape(&self, activity: usize) -> u8 {
        self.shapes[activity]
    }

    /// The shift from an activity sum to an activity.
    #[inline(always)]
    pub(crate) fn shift(&self) -> u8 {
        self.section.shift
    }

    /// The smallest activity of each shape but the first.
    pub(crate) fn thresholds(&self) -> &[u16] {
        &self.section.thresholds
    }
}
