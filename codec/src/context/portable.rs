//! The context model's operations for every processor. They define what the vector code must compute.

use crate::{
    context::{
        kernel::{ContextKernel, Sums},
        lanes::{WIDTH, chunk},
        phase::{PhaseModel, TermPair},
    },
    format::context_section::ACTIVITY_MAX,
    rans::{
        decoder::RansDecoder,
        table_set::{MixedTableSet, Span},
    },
};

/// The portable kernel.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl ContextKernel for Portable {
    fn prepare_thresholds(self, _thresholds: &[u16], prepared: &mut Vec<[i16; WIDTH]>) {
        // Activities are looked up in the model.
        prepared.clear();
    }

    #[inline(always)]
    fn sums(
        self,
        phase: &PhaseModel<'_>,
        (symbols, at): (&[i16], usize),
        (magnitudes, in_plane): (&[i16], usize),
    ) -> Sums {
        let mut means = [phase.mean_bias; WIDTH];
        add_pairs(&mut means, symbols, at, phase.mean_terms);
        let mut activities = [phase.activity_bias; WIDTH];
        let [far, wide] = phase.far_weights;
        add(&mut activities, chunk(phase.far, in_plane), far);
        add(&mut activities, chunk(phase.wide, in_plane), wide);
        add_pairs(&mut activities, magnitudes, in_plane, phase.activity_terms);
        let [above, others @ ..] = phase.earlier.map(|offset| chunk(symbols, at.wrapping_add_signed(offset)));
        let differences = |lane: usize| others.iter().fold(0, |all, other| all | (other[lane] ^ above[lane]));
        Sums { means, activities, above: *above, differences: std::array::from_fn(differences) }
    }

    #[inline(always)]
    fn means(self, phase: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        let Sums { mut means, above, differences, .. } = *sums;
        neighbors.iter().zip(phase.mean_weights).for_each(|(values, weight)| add(&mut means, values, weight));
        std::array::from_fn(|lane| {
            let [left, right] = neighbors.map(|values| values[lane] ^ above[lane]);
            let all_equal = left | right | differences[lane] == 0;
            if all_equal { 4 * i32::from(above[lane]) } else { means[lane] >> 8 }
        })
    }

    #[inline(always)]
    fn tables(
        self,
        phase: &PhaseModel<'_>,
        (sums, means): (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        let mut sums = sums.activities;
        neighbors
            .iter()
            .zip(phase.activity_weights)
            .for_each(|(values, weight)| add(&mut sums, values, weight));
        std::array::from_fn(|lane| {
            let activity = (sums[lane] >> phase.shift).clamp(0, ACTIVITY_MAX as i32) as usize;
            let table = phase.context.shape(activity) | (means[lane] & 3) as u8;
            if lane < count { table } else { phase.no_value }
        })
    }

    #[inline(always)]
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        let mut shifted = [0; WIDTH];
        if phase == 0 {
            shifted[..WIDTH - 1].copy_from_slice(&own[1..]);
            [*own, shifted]
        } else {
            shifted[1..].copy_from_slice(&own[..WIDTH - 1]);
            [shifted, *own]
        }
    }

    #[inline(always)]
    fn decode<const N: usize>(
        self,
        decoder: &mut RansDecoder<'_, N>,
        set: &MixedTableSet,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool {
        decoder.mixed_run(&set.lookup, tables, &mut values[..count])
    }

    #[inline(always)]
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        std::array::from_fn(|lane| symbols[lane].wrapping_sub((means[lane] >> 2) as i16))
    }

    #[inline(always)]
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        std::array::from_fn(|lane| values[lane].wrapping_add((means[lane] >> 2) as i16))
    }

    #[inline(always)]
    fn magnitudes(
        self,
        symbols: &[i16; WIDTH],
        means: &[i32; WIDTH],
        (cap, coarse): (u8, u8),
    ) -> [i16; WIDTH] {
        std::array::from_fn(|lane| {
            ((4 * i32::from(symbols[lane]) - means[lane]).abs() >> coarse).min(cap.into()) as i16
        })
    }

    #[inline(always)]
    fn entries(
        self,
        spans: &[Span; 256],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
    ) -> ([u16; WIDTH], bool) {
        let mut escapes = false;
        let entries = std::array::from_fn(|lane| {
            let span = spans[usize::from(tables[lane])];
            escapes |= span.offset(values[lane]) == span.escape;
            span.entry(values[lane])
        });
        (entries, escapes)
    }
}

/// Adds the weighted terms of the chunk that begins at index `at` of `plane`.
#[inline(always)]
fn add_pairs(sums: &mut [i32; WIDTH], plane: &[i16], at: usize, pairs: &[TermPair]) {
    for TermPair { offsets, weights } in pairs {
        for (offset, weight) in offsets.iter().zip(weights) {
            add(sums, chunk(plane, at.wrapping_add_signed(*offset)), *weight);
        }
    }
}

/// Adds `weight` times the values, lane by lane.
#[inline(always)]
fn add(sums: &mut [i32; WIDTH], values: &[i16; WIDTH], weight: i16) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += i32::from(*value) * i32::from(weight);
    }
}
