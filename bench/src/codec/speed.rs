//! How fast coders are: contenders that take turns on the first features of a set.

use std::{cell::RefCell, hint::black_box, path::Path};

use anyhow::{Context, Result, ensure};
use constriction::stream::{
    Decode,
    model::{ContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel},
    stack::{DefaultAnsCoder, SmallAnsCoder},
};
use narrows_codec::{Choice, Decoder, Encoder, Feature, GeometryId, Mode, Table, Tables};
use serde::Serialize;

use super::{
    compressai::{self, CompressAi},
    set::Set,
    sizes::{CODED, raw},
};
use crate::{
    contest::{Contest, Row, twelve_bits},
    micro::median,
};

/// Features in a run.
const FEATURES: usize = 24;
/// Bundles in rotation.
const BUNDLES: usize = 16;

/// Times of a set, and the ratios that the issue of speed is about.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    pub(super) set: String,
    pub(super) features: usize,
    pub(super) symbols: usize,
    pub(super) rows: Vec<Row>,
    /// A name and how many times as fast: static and context against constriction's faster coder, static against
    /// CompressAI, decoding with bundles in rotation against one bundle.
    pub(super) ratios: Vec<(String, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compressai: Option<compressai::Report>,
}

impl Speed {
    pub(super) fn ratio(&self, name: &str) -> Option<f64> {
        self.ratios.iter().find(|(found, _)| found == name).map(|(_, ratio)| *ratio)
    }
}

/// A channel's table as constriction has it.
struct Channel<'a> {
    table: &'a Table,
    encoder: ContiguousCategoricalEntropyModel<u16, Vec<u16>, 12>,
    decoder: SmallContiguousLookupDecoderModel,
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

/// Adds constriction's encoder and decoder of one state size. The symbols that escapes stand for are not part of it.
macro_rules! constriction {
    ($contest:ident, $coder:ident, $state:literal, $features:ident, $channels:ident, $words:ident) => {
        $contest.add(concat!("constriction encode, ", $state), None, || {
            for (feature, words) in $features.iter().zip($words.borrow_mut().iter_mut()) {
                let mut coder = $coder::new();
                for (channel, plane) in $channels.iter().zip(black_box(feature).planes()).rev() {
                    let entries = plane.iter().map(|&symbol| channel.table.entry(symbol));
                    coder.encode_iid_symbols_reverse(entries, &channel.encoder)?;
                }
                *words = coder.into_compressed().expect("a vector takes any word");
            }
            Ok(())
        });
        let mut symbols = vec![0i16; $features[0].symbols().len()];
        $contest.add(concat!("constriction decode, ", $state), None, move || {
            for (feature, words) in $features.iter().zip($words.borrow().iter()) {
                let coder = $coder::from_compressed(black_box(words.as_slice()).to_vec());
                let mut coder = coder.ok().context("constriction refuses its own words")?;
                let planes = symbols.chunks_exact_mut(feature.shape().plane());
                for (channel, plane) in $channels.iter().zip(planes) {
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

pub(super) fn measure(set: &Set, rounds: usize, python: Option<&Path>) -> Result<Speed> {
    ensure!(set.tables.precision() == 12, "{}: constriction's lookup decoder is for 12-bit tables", set.name);
    let features = &set.features[..set.features.len().min(FEATURES)];
    let channels = &set.channels()?.iter().map(channel).collect::<Result<Vec<_>>>()?;
    let shapes = &[set.shape()];
    let modes: Vec<Mode> = CODED.into_iter().filter(|&mode| set.tables.supports(mode)).collect();
    let packets = modes.iter().map(|&mode| packets(set, features, mode)).collect::<Result<Vec<_>>>()?;
    let bundles = (0..BUNDLES).map(|_| Tables::parse(&set.file)).collect::<Result<Vec<_>, _>>()?;
    let raws = &features.iter().map(raw).collect::<Vec<_>>();
    let frames = &raws.iter().map(|raw| zstd::bulk::compress(raw, 1)).collect::<Result<Vec<_>, _>>()?;
    let (narrow, wide) = (
        &RefCell::new(vec![Vec::<u16>::new(); features.len()]),
        &RefCell::new(vec![Vec::<u32>::new(); features.len()]),
    );
    let child = python.map(|python| CompressAi::start(python, set, features)).transpose()?;
    let child = &RefCell::new(child);

    let mut contest = Contest::default();
    for (&mode, packets) in modes.iter().zip(&packets) {
        let (mut encoder, mut packet) = (Encoder::new(), Vec::new());
        contest.add(format!("narrows {mode} encode"), None, move || {
            for feature in features {
                let feature = black_box(feature);
                encoder.encode(
                    &set.tables,
                    GeometryId(0),
                    set.level,
                    Choice::Only(mode),
                    feature,
                    &mut packet,
                )?;
                black_box(&packet);
            }
            Ok(())
        });
        let rotation = format!(", {BUNDLES} bundles");
        for (suffix, bundles) in [("", vec![&bundles[0]]), (&rotation, bundles.iter().collect())] {
            let (mut decoder, mut symbols) = (Decoder::new(), Vec::new());
            contest.add(format!("narrows {mode} decode{suffix}"), None, move || {
                for (packet, tables) in packets.iter().zip(bundles.iter().cycle()) {
                    decoder.decode_into(tables, shapes, black_box(packet), &mut symbols)?;
                    black_box(&symbols);
                }
                Ok(())
            });
        }
    }
    constriction!(contest, SmallAnsCoder, "32-bit state", features, channels, narrow);
    constriction!(contest, DefaultAnsCoder, "64-bit state", features, channels, wide);
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    contest.add("zstd -1 encode", None, move || {
        raws.iter().try_for_each(|raw| {
            black_box(compressor.compress(black_box(raw))?);
            Ok(())
        })
    });
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    contest.add("zstd -1 decode", None, move || {
        frames.iter().zip(raws).try_for_each(|(frame, raw)| {
            black_box(decompressor.decompress(black_box(frame), raw.len())?);
            Ok(())
        })
    });
    if child.borrow().is_some() {
        contest.add("CompressAI (call, with its overhead)", None, || {
            child.borrow_mut().as_mut().map_or(Ok(()), CompressAi::turn)
        });
    }
    let rows = contest.run(rounds)?;
    let compressai = child.borrow_mut().take().map(CompressAi::finish).transpose()?;
    let ratios = ratios(&rows, &modes, compressai.as_ref())?;
    let symbols = features.len() * set.shape().symbols();
    Ok(Speed { set: set.name.clone(), features: features.len(), symbols, rows, ratios, compressai })
}

pub(super) fn packets(set: &Set, features: &[Feature], mode: Mode) -> Result<Vec<Vec<u8>>> {
    let mut encoder = Encoder::new();
    let packet = |feature: &Feature| {
        let mut packet = Vec::new();
        encoder.encode(&set.tables, GeometryId(0), set.level, Choice::Only(mode), feature, &mut packet)?;
        Ok(packet)
    };
    features.iter().map(packet).collect()
}

fn ratios(
    rows: &[Row],
    modes: &[Mode],
    compressai: Option<&compressai::Report>,
) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for way in ["encode", "decode"] {
        let theirs = |state: &str| median(rows, &format!("constriction {way}, {state}"));
        let constriction = theirs("32-bit state")?.min(theirs("64-bit state")?);
        for &mode in modes {
            let ours = median(rows, &format!("narrows {mode} {way}"))?;
            found.push((format!("{mode} {way} to constriction"), constriction / ours));
        }
        if let Some(report) = compressai {
            let ours = median(rows, &format!("narrows static {way}"))?;
            let theirs = if way == "encode" { report.encode_s } else { report.decode_s };
            found.push((format!("static {way} to CompressAI"), theirs / ours));
        }
    }
    for &mode in modes {
        let one = median(rows, &format!("narrows {mode} decode"))?;
        let many = median(rows, &format!("narrows {mode} decode, {BUNDLES} bundles"))?;
        found.push((format!("{mode} decode, {BUNDLES} bundles to one"), one / many));
    }
    Ok(found)
}
