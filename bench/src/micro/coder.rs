//! Mode static against constriction's ANS coders: the same tables, the symbols of the bundle's vectors.

use std::{cell::RefCell, hint::black_box};

use anyhow::{Context, Result, ensure};
use constriction::stream::{
    Decode,
    model::{ContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel},
    stack::{DefaultAnsCoder, SmallAnsCoder},
};
use narrows_codec::{
    Choice, Feature, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Shape, Table, Tables, decode_into,
    encode,
};
use narrows_models::Bundle;
use serde::Serialize;

use super::median;
use crate::contest::{Contest, Row, twelve_bits};

#[derive(Debug, Serialize)]
pub(super) struct Coder {
    features: usize,
    symbols: usize,
    pub(super) rows: Vec<Row>,
    pub(super) entropy_bytes: f64,
    payload_bytes: usize,
    lanes: usize,
    /// Payload less 3 bytes a lane over the cross-entropy, in percent.
    pub(super) over_percent: f64,
    pub(super) encode_times_constriction: f64,
    pub(super) decode_times_constriction: f64,
}

/// A channel's table as constriction has it.
struct Channel<'a> {
    table: &'a Table,
    encoder: ContiguousCategoricalEntropyModel<u16, Vec<u16>, 12>,
    decoder: SmallContiguousLookupDecoderModel,
}

/// A vector's symbols and rate level, the channels of that level, and the packet.
struct Case<'a> {
    level: LevelId,
    feature: Feature,
    channels: Vec<Channel<'a>>,
    packet: Vec<u8>,
}

/// Decodes all planes with a coder of either state size. The symbols that escapes stand for are not part of it.
macro_rules! planes {
    ($coder:ident, $case:ident, $symbols:expr) => {{
        let size = $case.feature.shape().plane();
        for (channel, plane) in $case.channels.iter().zip($symbols.chunks_exact_mut(size)) {
            let entries = $coder.decode_iid_symbols(plane.len(), &channel.decoder);
            for (to, entry) in plane.iter_mut().zip(entries) {
                *to = channel.table.low() + entry.ok().context("constriction cannot decode")? as i16;
            }
        }
        black_box(&$symbols);
    }};
}

pub(super) fn measure(bundle: &Bundle, rounds: usize) -> Result<Coder> {
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let mut cases = Vec::new();
    for vector in bundle.vectors() {
        let symbols = bundle.read(&vector.symbols)?.into_iter().map(|byte| byte.cast_signed().into());
        let (rows, columns) = bundle.geometries()[vector.geometry].latent(bundle.head().stride);
        let feature = Feature::new(Shape::new(tables.channels(), rows, columns)?, symbols.collect())?;
        let level = LevelId(u8::try_from(vector.level)?);
        let channels = tables.level(level).context("a vector's level")?.iter().map(channel);
        let mut packet = Vec::new();
        encode(&tables, GeometryId(0), level, Choice::Only(Mode::Static), &feature, &mut packet)?;
        cases.push(Case { level, feature, channels: channels.collect::<Result<_>>()?, packet });
    }
    ensure!(!cases.is_empty(), "the bundle has no vectors");

    let (tables, cases) = (&tables, &cases);
    // Declared before the contest, which borrows them to its end.
    let (mut packet, mut symbols) = (Vec::new(), Vec::new());
    let (words, wide) =
        (RefCell::new(vec![Vec::new(); cases.len()]), RefCell::new(vec![Vec::new(); cases.len()]));
    let (mut narrow_buffer, mut wide_buffer) = (Vec::new(), Vec::new());
    let mut contest = Contest::default();
    contest.add("narrows encode", None, || {
        for case in cases {
            let feature = black_box(&case.feature);
            encode(tables, GeometryId(0), case.level, Choice::Only(Mode::Static), feature, &mut packet)?;
            black_box(&packet);
        }
        Ok(())
    });
    contest.add("narrows decode", None, || {
        for case in cases {
            decode_into(tables, &[case.feature.shape()], black_box(&case.packet), &mut symbols)?;
            black_box(&symbols);
        }
        Ok(())
    });
    contest.add("constriction encode, 32-bit state", None, || {
        for (case, words) in cases.iter().zip(words.borrow_mut().iter_mut()) {
            let mut coder = SmallAnsCoder::new();
            for (channel, plane) in case.channels.iter().zip(black_box(&case.feature).planes()).rev() {
                let entries = plane.iter().map(|&symbol| channel.table.entry(symbol));
                coder.encode_iid_symbols_reverse(entries, &channel.encoder)?;
            }
            *words = coder.into_compressed().expect("a vector takes any word");
        }
        Ok(())
    });
    contest.add("constriction decode, 32-bit state", None, || {
        for (case, words) in cases.iter().zip(words.borrow().iter()) {
            narrow_buffer.resize(case.feature.symbols().len(), 0);
            let coder = SmallAnsCoder::from_compressed(black_box(words.as_slice()).to_vec());
            let mut coder = coder.ok().context("constriction refuses its own words")?;
            planes!(coder, case, narrow_buffer);
        }
        Ok(())
    });
    contest.add("constriction encode, 64-bit state", None, || {
        for (case, words) in cases.iter().zip(wide.borrow_mut().iter_mut()) {
            let mut coder = DefaultAnsCoder::new();
            for (channel, plane) in case.channels.iter().zip(black_box(&case.feature).planes()).rev() {
                let entries = plane.iter().map(|&symbol| channel.table.entry(symbol));
                coder.encode_iid_symbols_reverse(entries, &channel.encoder)?;
            }
            *words = coder.into_compressed().expect("a vector takes any word");
        }
        Ok(())
    });
    contest.add("constriction decode, 64-bit state", None, || {
        for (case, words) in cases.iter().zip(wide.borrow().iter()) {
            wide_buffer.resize(case.feature.symbols().len(), 0);
            let coder = DefaultAnsCoder::from_compressed(black_box(words.as_slice()).to_vec());
            let mut coder = coder.ok().context("constriction refuses its own words")?;
            planes!(coder, case, wide_buffer);
        }
        Ok(())
    });
    let rows = contest.run(rounds)?;
    let best = |what: &str| -> Result<f64> {
        let name = |state: &str| format!("constriction {what}, {state}-bit state");
        Ok(median(&rows, &name("32"))?.min(median(&rows, &name("64"))?))
    };
    let (encode_best, decode_best) = (best("encode")?, best("decode")?);
    let entropy_bytes = cases.iter().map(|case| bits(case, tables.precision())).sum::<f64>() / 8.0;
    let payload_bytes = cases.iter().map(|case| case.packet.len() - HEADER_BYTES).sum::<usize>();
    let lanes = cases.iter().map(|case| Ok(usize::from(Header::parse(&case.packet)?.lanes())));
    let lanes = lanes.sum::<Result<usize>>()?;
    Ok(Coder {
        features: cases.len(),
        symbols: cases.iter().map(|case| case.feature.symbols().len()).sum(),
        encode_times_constriction: encode_best / median(&rows, "narrows encode")?,
        decode_times_constriction: decode_best / median(&rows, "narrows decode")?,
        rows,
        entropy_bytes,
        payload_bytes,
        lanes,
        over_percent: 100.0 * ((payload_bytes - 3 * lanes) as f64 / entropy_bytes - 1.0),
    })
}

fn channel(table: &Table) -> Result<Channel<'_>> {
    let frequencies = twelve_bits(table);
    let refused = |()| anyhow::anyhow!("constriction refuses a table");
    let encoder =
        ContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(&frequencies, false);
    let decoder =
        SmallContiguousLookupDecoderModel::from_nonzero_fixed_point_probabilities(&frequencies, false);
    Ok(Channel { table, encoder: encoder.map_err(refused)?, decoder: decoder.map_err(refused)? })
}

/// Bits of a vector's symbols under its tables; an escape costs 16 more.
fn bits(case: &Case<'_>, precision: u32) -> f64 {
    let cost = |table: &Table, symbol: i16| {
        let frequency = table.frequencies()[table.entry(symbol)];
        f64::from(precision) - f64::from(frequency).log2() + if table.holds(symbol) { 0.0 } else { 16.0 }
    };
    let planes = case.channels.iter().zip(case.feature.planes());
    planes.flat_map(|(channel, plane)| plane.iter().map(|&symbol| cost(channel.table, symbol))).sum()
}
