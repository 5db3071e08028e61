//! Bytes of each coder on a set of features, and the encoding time of the slow ones.

#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result};
use narrows_codec::{Choice, Encoder, Feature, GeometryId, HEADER_BYTES, Mode};
use narrows_eval::stats::mean;
use serde::Serialize;

use super::{set::Set, table::table};

/// Entropy-coded modes of ours that the tables of a set may allow.
pub(super) const CODED: [Mode; 3] = [Mode::Static, Mode::Indexed, Mode::Context];
/// Levels of zstd: 1 is the one for speed, 19 the one for size.
const ZSTD: [i32; 3] = [1, 3, 19];
/// The size of brotli's window as a power of two, the largest that its command line takes.
const BROTLI_WINDOW: i32 = 22;
const BROTLI_QUALITY: i32 = 11;

/// Bytes of a packet's header that do not count against an entropy: all of them, but never more than six.
const UNCOUNTED: usize = if HEADER_BYTES < 6 { HEADER_BYTES } else { 6 };

/// One coder on a set.
#[derive(Debug, Serialize)]
struct Size {
    coder: String,
    /// Mean bytes of a feature.
    bytes: f64,
    /// Percent over the cross-entropy of the static tables; for packets of ours, [`UNCOUNTED`] bytes are left out.
    over_static_entropy: f64,
    /// For modes of ours: the same over the cross-entropy of the mode's own tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_own_entropy: Option<f64>,
    /// Features that the coder makes smaller than mode `auto`.
    smaller_than_auto: usize,
    /// Mean microseconds to encode a feature; only of coders that are not in the speed comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    encode_us: Option<f64>,
}

/// All coders on a set.
#[derive(Debug, Serialize)]
pub(super) struct Sizes {
    set: String,
    features: usize,
    symbols: usize,
    entropy_bytes: f64,
    /// How often `auto` chose each mode.
    auto_modes: BTreeMap<String, usize>,
    coders: Vec<Size>,
}

pub(super) fn measure(set: &Set) -> Result<Sizes> {
    let entropy_bytes = set.entropy()?;
    let mut encoder = Encoder::new();
    let mut packet = Vec::new();
    let mut encode = |choice: Choice, feature: &Feature| -> Result<(Mode, usize)> {
        let mode = encoder.encode(&set.tables, GeometryId(0), set.level, choice, feature, &mut packet)?;
        Ok((mode, packet.len()))
    };
    let (mut auto, mut auto_modes) = (Vec::new(), BTreeMap::new());
    for feature in &set.features {
        let (mode, bytes) = encode(Choice::Auto, feature)?;
        auto.push(bytes);
        *auto_modes.entry(mode.to_string()).or_default() += 1;
    }
    // A coder with these bytes per feature, of which `uncounted` are left out of the comparison with the entropy.
    let size = |coder: &str, bytes: &[usize], uncounted: usize| {
        let mean = bytes.iter().sum::<usize>() as f64 / bytes.len() as f64;
        Size {
            coder: coder.to_owned(),
            bytes: mean,
            over_static_entropy: 100.0 * ((mean - uncounted as f64) / entropy_bytes - 1.0),
            over_own_entropy: None,
            smaller_than_auto: bytes.iter().zip(&auto).filter(|(bytes, auto)| bytes < auto).count(),
            encode_us: None,
        }
    };
    let mut coders = vec![size("auto", &auto, UNCOUNTED)];
    for mode in CODED.into_iter().filter(|&mode| set.tables.supports(mode)) {
        let bytes = set.features.iter().map(|feature| Ok(encode(Choice::Only(mode), feature)?.1));
        let bytes = bytes.collect::<Result<Vec<_>>>()?;
        let counted = bytes.iter().sum::<usize>() - UNCOUNTED * bytes.len();
        let own = Some(100.0 * (counted as f64 / set.cost(mode)? - 1.0));
        coders.push(Size { over_own_entropy: own, ..size(&mode.to_string(), &bytes, UNCOUNTED) });
    }
    let raw = set.features.iter().map(raw).collect::<Vec<_>>();
    let mut add_general = |name: &str, compress: &mut dyn FnMut(&[u8]) -> Result<usize>| -> Result<()> {
        let (mut bytes, mut microseconds) = (Vec::new(), Vec::new());
        for raw in &raw {
            let begin = Instant::now();
            bytes.push(compress(raw)?);
            microseconds.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        coders.push(Size { encode_us: Some(mean(&microseconds)), ..size(name, &bytes, 0) });
        Ok(())
    };
    for level in ZSTD {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        add_general(&format!("zstd -{level}"), &mut |raw| Ok(zstd.compress(raw)?.len()))?;
    }
    add_general("brotli 11", &mut brotli)?;
    Ok(Sizes {
        set: set.name.clone(),
        features: set.features.len(),
        symbols: set.shape().symbols(),
        entropy_bytes,
        auto_modes,
        coders,
    })
}

fn brotli(raw: &[u8]) -> Result<usize> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW,
        size_hint: raw.len(),
        ..Default::default()
    };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &*raw, &mut out, &parameters).context("brotli")?;
    Ok(out.len())
}

/// The input of general compressors: one byte per symbol where all fit, else two.
pub(super) fn raw(feature: &Feature) -> Vec<u8> {
    let symbols = feature.symbols();
    match symbols.iter().map(|&symbol| i8::try_from(symbol)).collect::<Result<Vec<i8>, _>>() {
        Ok(bytes) => bytes.into_iter().map(i8::cast_unsigned).collect(),
        Err(_) => symbols.iter().flat_map(|symbol| symbol.to_le_bytes()).collect(),
    }
}

pub(super) fn print(sizes: &[Sizes]) {
    println!(
        "\nMean bytes, and percent over the cross-entropy of the static tables, {UNCOUNTED} bytes of header not counted"
    );
    let longest = sizes.iter().map(|set| &set.coders).max_by_key(|coders| coders.len());
    let coders: Vec<&str> = longest.into_iter().flatten().map(|size| size.coder.as_str()).collect();
    let mut rows = table(&[&["set", "features", "entropy"], &coders[..], &["modes of auto"]].concat());
    for set in sizes {
        let mut row = vec![set.set.clone(), set.features.to_string(), format!("{:.0}", set.entropy_bytes)];
        row.extend(coders.iter().map(|coder| {
            let size = set.coders.iter().find(|size| size.coder == *coder);
            size.map_or_else(String::new, |size| {
                format!("{:.0} {:+.1}%", size.bytes, size.over_static_entropy)
            })
        }));
        let modes: Vec<_> = set.auto_modes.iter().map(|(mode, count)| format!("{mode} {count}")).collect();
        row.push(modes.join(", "));
        rows.add_row(row);
    }
    println!("{rows}");
}
