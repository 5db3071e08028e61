//! What the symbols of one phase of a channel are predicted from.

use crate::context::{
    lanes::WIDTH,
    layout::PlaneLayout,
    model::{ChannelModel, ContextModel, IN_EARLIER_RUNS, IN_PREVIOUS_RUN},
};

/// Two terms of a weighted sum: the distances of their values from the symbol's index, and their weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TermPair {
    pub(crate) offsets: [isize; 2],
    pub(crate) weights: [i16; 2],
}

/// Replaces `pairs` by the terms, two by two, since a vector multiplies and adds two at once. The last term may be paired
/// with itself at weight 0.
pub(crate) fn pair_terms(terms: impl Iterator<Item = (isize, i16)>, pairs: &mut Vec<TermPair>) {
    pairs.clear();
    let mut unpaired = None;
    for (offset, weight) in terms {
        match unpaired.take() {
            Some((first, held)) => pairs.push(TermPair { offsets: [first, offset], weights: [held, weight] }),
            None => unpaired = Some((offset, weight)),
        }
    }
    if let Some((offset, weight)) = unpaired {
        pairs.push(TermPair { offsets: [offset; 2], weights: [weight, 0] });
    }
}

/// The terms of one phase of a channel that are known before the previous run is: own neighbors in earlier runs, taps.
#[derive(Debug, Default)]
pub(crate) struct PhaseTerms {
    pub(crate) means: Vec<TermPair>,
    pub(crate) activities: Vec<TermPair>,
}

/// The predictors of one phase of a channel, with the planes of earlier channels' magnitudes.
pub(crate) struct PhaseModel<'a> {
    pub(crate) context: &'a ContextModel,
    /// The shift from an activity sum to an activity.
    pub(crate) shift: u8,
    /// The table of lanes without a symbol.
    pub(crate) no_value: u8,
    /// The thresholds as the kernel has prepared them.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "used by vector code alone"))]
    pub(crate) thresholds: &'a [[i16; WIDTH]],
    /// The terms of the mean and of the activity that are known before the previous run is.
    pub(crate) mean_terms: &'a [TermPair],
    pub(crate) activity_terms: &'a [TermPair],
    /// The distances to the own neighbors in earlier runs, the one above first.
    pub(crate) earlier: [isize; 3],
    /// A and B of FORMAT.md: the decayed magnitudes of earlier channels, and those blurred. Then their weights.
    pub(crate) far: &'a [i16],
    pub(crate) wide: &'a [i16],
    pub(crate) far_weights: [i16; 2],
    /// The weights of the two own neighbors in the previous run.
    pub(crate) mean_weights: [i16; 2],
    pub(crate) activity_weights: [i16; 2],
    /// The constants that sums start from.
    pub(crate) mean_bias: i32,
    pub(crate) activity_bias: i32,
}

impl<'a> PhaseModel<'a> {
    pub(crate) fn new(
        (model, phase): (&ChannelModel<'a>, usize),
        layout: &PlaneLayout,
        (terms, thresholds): (&'a PhaseTerms, &'a [[i16; WIDTH]]),
        (far, wide): (&'a [i16], &'a [i16]),
    ) -> Self {
        let (mean, activity) = (&model.means[phase], &model.activities[phase]);
        let biases = model.biases[phase];
        Self {
            context: model.context,
            shift: model.context.shift(),
            no_value: model.context.tables.no_value,
            thresholds,
            mean_terms: &terms.means,
            activity_terms: &terms.activities,
            earlier: IN_EARLIER_RUNS[phase].map(|at| layout.own[phase][at]),
            far,
            wide,
            far_weights: [activity.far, activity.wide],
            mean_weights: IN_PREVIOUS_RUN[phase].map(|at| mean.own[at]),
            activity_weights: IN_PREVIOUS_RUN[phase].map(|at| activity.own[at]),
            mean_bias: 16 * i32::from(biases.mean),
            activity_bias: i32::from(biases.activity) << (model.context.shift() - 4),
        }
    }
}
