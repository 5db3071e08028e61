//! Encoding and decoding times of several coders, interleaved on the first features of a set.

use std::hint::black_box;

use anyhow::{Result, ensure};
use narrows_codec::{Choice, Decoder, Encoder, Feature, GeometryId, Mode, Tables};
use serde::Serialize;

use super::{
    constriction::{self, Case},
    set::Set,
    sizes::{CODED, raw},
    table::table,
};
use crate::interleaved::{Interleaved, Row, median};

/// Features in a run.
const FEATURES: usize = 24;
/// Bundles whose tables a decoder uses in rotation, as a server with many models does.
const BUNDLES: usize = 16;

/// Times of a set.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    set: String,
    features: usize,
    symbols: usize,
    rows: Vec<Row>,
    /// What is compared, and the other coder's median time over ours: our modes with constriction's faster state size, and
    /// decoding with one bundle with decoding with bundles in rotation.
    ratios: Vec<(String, f64)>,
}

pub(super) fn measure(set: &Set, rounds: usize) -> Result<Speed> {
    ensure!(set.tables.precision() == 12, "{}: constriction's lookup decoder is for 12-bit tables", set.name);
    let features = &set.features[..set.features.len().min(FEATURES)];
    let channels = constriction::channels(set.channels()?)?;
    let cases: Vec<Case<'_>> =
        features.iter().map(|feature| Case { feature, channels: channels.clone() }).collect();
    let shapes = &[set.shape()];
    let modes: Vec<Mode> = CODED.into_iter().filter(|&mode| set.tables.supports(mode)).collect();
    let packets = modes.iter().map(|&mode| packets(set, features, mode)).collect::<Result<Vec<_>>>()?;
    let bundles = (0..BUNDLES).map(|_| Tables::parse(&set.file)).collect::<Result<Vec<_>, _>>()?;
    let raws = &features.iter().map(raw).collect::<Vec<_>>();
    let frames = &raws.iter().map(|raw| zstd::bulk::compress(raw, 1)).collect::<Result<Vec<_>, _>>()?;

    let mut comparison = Interleaved::default();
    for (&mode, packets) in modes.iter().zip(&packets) {
        let (mut encoder, mut packet) = (Encoder::new(), Vec::new());
        comparison.add(format!("narrows {mode} encode"), move || {
            for feature in features {
                let (feature, choice) = (black_box(feature), Choice::Only(mode));
                encoder.encode(&set.tables, GeometryId(0), set.level, choice, feature, &mut packet)?;
                black_box(&packet);
            }
            Ok(())
        });
        let rotation = format!(", {BUNDLES} bundles");
        for (suffix, bundles) in [("", &bundles[..1]), (&rotation, &bundles[..])] {
            let (mut decoder, mut symbols) = (Decoder::new(), Vec::new());
            comparison.add(format!("narrows {mode} decode{suffix}"), move || {
                for (packet, tables) in packets.iter().zip(bundles.iter().cycle()) {
                    decoder.decode_into(tables, shapes, black_box(packet), &mut symbols)?;
                    black_box(&symbols);
                }
                Ok(())
            });
        }
    }
    constriction::add(&mut comparison, &cases);
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    comparison.add("zstd -1 encode", move || {
        raws.iter().try_for_each(|raw| {
            black_box(compressor.compress(black_box(raw))?);
            Ok(())
        })
    });
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    comparison.add("zstd -1 decode", move || {
        frames.iter().zip(raws).try_for_each(|(frame, raw)| {
            black_box(decompressor.decompress(black_box(frame), raw.len())?);
            Ok(())
        })
    });
    let rows = comparison.run(rounds)?;
    let ratios = ratios(&rows, &modes)?;
    let symbols = features.len() * set.shape().symbols();
    Ok(Speed { set: set.name.clone(), features: features.len(), symbols, rows, ratios })
}

fn packets(set: &Set, features: &[Feature], mode: Mode) -> Result<Vec<Vec<u8>>> {
    let mut encoder = Encoder::new();
    let packet = |feature: &Feature| {
        let mut packet = Vec::new();
        encoder.encode(&set.tables, GeometryId(0), set.level, Choice::Only(mode), feature, &mut packet)?;
        Ok(packet)
    };
    features.iter().map(packet).collect()
}

fn ratios(rows: &[Row], modes: &[Mode]) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for operation in ["encode", "decode"] {
        let theirs = constriction::fastest(rows, operation)?;
        for &mode in modes {
            let ours = median(rows, &format!("narrows {mode} {operation}"))?;
            found.push((format!("{mode} {operation} to constriction"), theirs / ours));
        }
    }
    for &mode in modes {
        let one = median(rows, &format!("narrows {mode} decode"))?;
        let many = median(rows, &format!("narrows {mode} decode, {BUNDLES} bundles"))?;
        found.push((format!("{mode} decode, {BUNDLES} bundles to one"), one / many));
    }
    Ok(found)
}

impl Speed {
    pub(super) fn print(&self) {
        println!(
            "\n{}: {} features, interleaved; MB/s is million symbols per second",
            self.set, self.features
        );
        let each = 1e6 / self.features as f64;
        let mut rows = table(&["coder", "us per feature", "MB/s", "p95 us"]);
        for row in &self.rows {
            rows.add_row([
                row.name.clone(),
                format!("{:.1}", each * row.median),
                format!("{:.0}", self.symbols as f64 / 1e6 / row.median),
                row.p95.map_or_else(String::new, |p95| format!("{:.1}", each * p95)),
            ]);
        }
        println!("{rows}");
        for (name, ratio) in &self.ratios {
            println!("  {name:44} {ratio:6.2}");
        }
    }
}
