//! The coders of the crate constriction as candidates, on the same features and static tables as our mode static.

use std::{cell::RefCell, hint::black_box, rc::Rc};

use ::constriction::stream::{
    Decode,
    model::{ContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel},
    stack::{DefaultAnsCoder, SmallAnsCoder},
};
use anyhow::{Context, Result, anyhow};
use narrows_codec::{Feature, Table};

use crate::interleaved::{Interleaved, Row, median};

/// A channel's static table as constriction's models.
pub(super) struct Channel<'a> {
    table: &'a Table,
    encoder: ContiguousCategoricalEntropyModel<u16, Vec<u16>, 12>,
    decoder: SmallContiguousLookupDecoderModel,
}

/// A feature and its channels.
pub(super) struct Case<'a> {
    pub(super) feature: &'a Feature,
    pub(super) channels: Rc<[Channel<'a>]>,
}

/// The models of the channels of a rate level.
pub(super) fn channels(tables: &[Table]) -> Result<Rc<[Channel<'_>]>> {
    let refused = |()| anyhow!("constriction refuses a table");
    let channel = |table| {
        let frequencies = twelve_bits(table);
        let encoder =
            ContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(&frequencies, false);
        let decoder =
            SmallContiguousLookupDecoderModel::from_nonzero_fixed_point_probabilities(&frequencies, false);
        Ok(Channel { table, encoder: encoder.map_err(refused)?, decoder: decoder.map_err(refused)? })
    };
    tables.iter().map(channel).collect()
}

/// The frequencies of a table rounded to 12 bits, the precision of constriction's lookup decoder; none is below 1.
fn twelve_bits(table: &Table) -> Vec<u16> {
    let wide = table.frequencies();
    let total: u32 = wide.iter().map(|&frequency| u32::from(frequency)).sum();
    let narrow = |&frequency: &u16| (u32::from(frequency) * 4096 / total).max(1) as u16;
    let mut frequencies: Vec<u16> = wide.iter().map(narrow).collect();
    let sum: i32 = frequencies.iter().map(|&frequency| i32::from(frequency)).sum();
    if let Some(most) = frequencies.iter_mut().max() {
        *most = (i32::from(*most) + 4096 - sum) as u16;
    }
    frequencies
}

/// Adds constriction's encoder and decoder of one state size: constriction has no trait for both.
macro_rules! add_coder {
    ($comparison:ident, $cases:ident, $coder:ident, $state:literal) => {
        let words = Rc::new(RefCell::new(vec![Vec::new(); $cases.len()]));
        let encoded = Rc::clone(&words);
        $comparison.add(concat!("constriction encode, ", $state), move || {
            for (case, words) in $cases.iter().zip(encoded.borrow_mut().iter_mut()) {
                let mut coder = $coder::new();
                for (channel, plane) in case.channels.iter().zip(black_box(case.feature).planes()).rev() {
                    let entries = plane.iter().map(|&symbol| channel.table.entry(symbol));
                    coder.encode_iid_symbols_reverse(entries, &channel.encoder)?;
                }
                *words = coder.into_compressed().expect("a vector takes any word");
            }
            Ok(())
        });
        let mut symbols = Vec::new();
        $comparison.add(concat!("constriction decode, ", $state), move || {
            for (case, words) in $cases.iter().zip(words.borrow().iter()) {
                symbols.resize(case.feature.symbols().len(), 0i16);
                let coder = $coder::from_compressed(black_box(words.as_slice()).to_vec());
                let mut coder = coder.ok().context("constriction refuses its own words")?;
                let planes = symbols.chunks_exact_mut(case.feature.shape().plane());
                for (channel, plane) in case.channels.iter().zip(planes) {
                    let entries = coder.decode_iid_symbols(plane.len(), &channel.decoder);
                    for (to, entry) in plane.iter_mut().zip(entries) {
                        *to = channel.table.low() + entry.ok().context("constriction cannot decode")? as i16;
                    }
                }
                black_box(&symbols);
            }
            Ok(())
        });
    };
}

/// Adds constriction's encoders and decoders with both of its state sizes. They do not code the 16 bits of a symbol
/// outside its table, which our packets hold.
pub(super) fn add<'a>(comparison: &mut Interleaved<'a>, cases: &'a [Case<'a>]) {
    add_coder!(comparison, cases, SmallAnsCoder, "32-bit state");
    add_coder!(comparison, cases, DefaultAnsCoder, "64-bit state");
}

/// The median of constriction's faster state size, in seconds; `operation` is `encode` or `decode`.
pub(super) fn fastest(rows: &[Row], operation: &str) -> Result<f64> {
    let of = |state: &str| median(rows, &format!("constriction {operation}, {state}"));
    Ok(of("32-bit state")?.min(of("64-bit state")?))
}
