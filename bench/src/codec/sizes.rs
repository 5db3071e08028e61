//! How many bytes each coder takes, and what the slow ones cost.

#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::time::Instant;

use anyhow::{Context, Result};
use narrows_codec::{Choice, Encoder, Feature, GeometryId, HEADER_BYTES, Mode};
use narrows_eval::stats::mean;
use serde::Serialize;

use super::set::Set;

/// Modes of ours that the tables of a set may allow.
pub(super) const CODED: [Mode; 3] = [Mode::Static, Mode::Indexed, Mode::Context];
/// Levels of zstd; level 1 is what is taken where speed matters.
const ZSTD: [i32; 3] = [1, 3, 19];
/// The size of brotli's window, as a power of two; as large as its command line takes.
const BROTLI_WINDOW: i32 = 22;
const BROTLI_QUALITY: i32 = 11;

/// Bytes of a packet's header that do not count against an entropy: all of them, but never more than six.
pub(super) const UNCOUNTED: usize = if HEADER_BYTES < 6 { HEADER_BYTES } else { 6 };

/// Mean bytes of a coder on a set.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    pub(super) coder: String,
    pub(super) bytes: f64,
    /// Over the static tables' cross-entropy, in percent: all bytes, of ours without [`UNCOUNTED`].
    pub(super) over_static_entropy: f64,
    /// For modes of ours: the same over the cross-entropy of the mode's own tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_own_entropy: Option<f64>,
    /// Features on which the packet of mode `auto` is larger than this coder's.
    pub(super) beats_auto: usize,
    /// Mean microseconds to encode; of slow coders only, the others take part in the contest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encode_us: Option<f64>,
}

/// A set, and what every coder makes of it.
#[derive(Debug, Serialize)]
pub(super) struct Sizes {
    pub(super) set: String,
    pub(super) real: bool,
    pub(super) features: usize,
    pub(super) symbols: usize,
    pub(super) entropy_bytes: f64,
    /// Modes that `auto` took, and how often.
    pub(super) taken: Vec<(String, usize)>,
    pub(super) coders: Vec<Size>,
}

impl Sizes {
    pub(super) fn of(&self, coder: &str) -> Option<&Size> {
        self.coders.iter().find(|size| size.coder == coder)
    }
}

pub(super) fn measure(set: &Set) -> Result<Sizes> {
    let entropy_bytes = set.entropy()?;
    let mut encoder = Encoder::new();
    let mut packet = Vec::new();
    let mut auto = Vec::new();
    let mut taken: Vec<(String, usize)> = Vec::new();
    for feature in &set.features {
        let mode = encoder
            .encode(&set.tables, GeometryId(0), set.level, Choice::Auto, feature, &mut packet)?
            .to_string();
        match taken.iter_mut().find(|(name, _)| *name == mode) {
            Some((_, count)) => *count += 1,
            None => taken.push((mode, 1)),
        }
        auto.push(packet.len());
    }
    let over = |bytes: f64| 100.0 * (bytes / entropy_bytes - 1.0);
    let size = |coder: &str, bytes: &[usize]| {
        let mean = bytes.iter().sum::<usize>() as f64 / bytes.len() as f64;
        Size {
            coder: coder.to_owned(),
            bytes: mean,
            over_static_entropy: over(mean),
            over_own_entropy: None,
            beats_auto: bytes.iter().zip(&auto).filter(|(bytes, auto)| bytes < auto).count(),
            encode_us: None,
        }
    };
    let ours = |coder: &str, bytes: &[usize]| {
        let size = size(coder, bytes);
        Size { over_static_entropy: over(size.bytes - UNCOUNTED as f64), ..size }
    };
    let mut coders = vec![ours("auto", &auto)];
    for mode in CODED.into_iter().filter(|&mode| set.tables.supports(mode)) {
        let (mut bytes, mut cost) = (Vec::new(), 0.0);
        for feature in &set.features {
            encoder.encode(
                &set.tables,
                GeometryId(0),
                set.level,
                Choice::Only(mode),
                feature,
                &mut packet,
            )?;
            bytes.push(packet.len());
            cost += encoder.cost(&set.tables, set.level, mode, feature)? as f64 / 2048.0;
        }
        let counted = bytes.iter().sum::<usize>() - UNCOUNTED * bytes.len();
        let own = Some(100.0 * (counted as f64 / cost - 1.0));
        coders.push(Size { over_own_entropy: own, ..ours(&mode.to_string(), &bytes) });
    }
    let raw = set.features.iter().map(raw).collect::<Vec<_>>();
    for level in ZSTD {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        coders.push(slow(&format!("zstd -{level}"), &raw, size, |raw| Ok(zstd.compress(raw)?.len()))?);
    }
    coders.push(slow("brotli 11", &raw, size, brotli)?);
    Ok(Sizes {
        set: set.name.clone(),
        real: set.real,
        features: set.features.len(),
        symbols: set.shape().symbols(),
        entropy_bytes,
        taken,
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

/// Runs a general compressor over every feature once.
fn slow(
    name: &str,
    raw: &[Vec<u8>],
    size: impl Fn(&str, &[usize]) -> Size,
    mut compress: impl FnMut(&[u8]) -> Result<usize>,
) -> Result<Size> {
    let (mut bytes, mut seconds) = (Vec::new(), Vec::new());
    for raw in raw {
        let begin = Instant::now();
        bytes.push(compress(raw)?);
        seconds.push(begin.elapsed().as_secs_f64());
    }
    Ok(Size { encode_us: Some(1e6 * mean(&seconds)), ..size(name, &bytes) })
}

/// What a general compressor is given: one byte for each symbol where all fit, else two.
pub(super) fn raw(feature: &Feature) -> Vec<u8> {
    let symbols = feature.symbols();
    match symbols.iter().map(|&symbol| i8::try_from(symbol)).collect::<Result<Vec<i8>, _>>() {
        Ok(bytes) => bytes.into_iter().map(i8::cast_unsigned).collect(),
        Err(_) => symbols.iter().flat_map(|symbol| symbol.to_le_bytes()).collect(),
    }
}
