//! The operations of the context model on chunks of symbols.

use crate::{
    context::{lanes::WIDTH, phase::PhaseModel},
    rans::{
        decoder::RansDecoder,
        table_set::{MixedTableSet, Span},
    },
};

/// What is known of a chunk's symbols before the previous run is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// The sums of means and activities so far, in an order of lanes that is the kernel's own.
    pub(crate) means: [i32; WIDTH],
    pub(crate) activities: [i32; WIDTH],
    /// The symbol above each symbol.
    pub(crate) above: [i16; WIDTH],
    /// Zero where the other own neighbors in earlier runs equal the symbol above.
    pub(crate) differences: [i16; WIDTH],
}

/// An implementation of the operations: the portable one, or one for the vectors of a processor. All give the same
/// results.
///
/// Means are in quarter symbols. `neighbors` are the values to the left and to the right of a chunk's symbols, which are
/// in the previous run.
pub(crate) trait ContextKernel: Copy {
    /// Prepares thresholds for [`tables`](Self::tables), as the smallest activities of all shapes but the first.
    fn prepare_thresholds(self, thresholds: &[u16], prepared: &mut Vec<[i16; WIDTH]>);

    /// The sums of the chunk that begins at an index of the symbols of all planes, and at another one of the magnitudes
    /// of the current plane.
    fn sums(self, phase: &PhaseModel<'_>, symbols: (&[i16], usize), magnitudes: (&[i16], usize)) -> Sums;

    /// The means, given the neighboring symbols.
    fn means(self, phase: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH];

    /// The indices of the tables of the first `count` symbols, given sums, means and the neighboring magnitudes; the table
    /// of no value in the other lanes.
    fn tables(
        self,
        phase: &PhaseModel<'_>,
        predicted: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH];

    /// The left and right neighbors of the next run's chunk, given the values of this run, which is in `phase`. Lanes
    /// whose neighbor is in another chunk are zero.
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2];

    /// Decodes the first `count` values, whose tables have these indices. Returns whether there are escapes. `tables` and
    /// `values` go on to the end of a chunk.
    fn decode<const N: usize>(
        self,
        decoder: &mut RansDecoder<'_, N>,
        set: &MixedTableSet,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool;

    /// The values that code `symbols`: their distances from the means, rounded down to whole symbols.
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The symbols that `values` code.
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH];

    /// The magnitudes of the symbols' distances from their means. `limits` are the largest magnitude and the shift before
    /// it applies.
    fn magnitudes(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH], limits: (u8, u8)) -> [i16; WIDTH];

    /// The entries of values whose tables have these indices, and whether one is an escape.
    fn entries(
        self,
        spans: &[Span; 256],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
    ) -> ([u16; WIDTH], bool);
}
