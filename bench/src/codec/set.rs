//! The features that coders are compared on: latents of photos from the shipped head.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use narrows_codec::{Encoder, Feature, GeometryId, LevelId, Mode, Shape, Table, Tables};
use narrows_eval::data;
use narrows_head::Head;
use narrows_models::Bundle;
use sha2::{Digest, Sha256};

/// Photos of the recipe's tars that are held out from all training (models/recipes/configs).
const HELD_OUT: usize = 200;

/// Features that share tables and a rate level.
pub(super) struct Set {
    pub(super) name: String,
    /// The tables file.
    pub(super) file: Vec<u8>,
    pub(super) tables: Tables,
    pub(super) level: LevelId,
    pub(super) features: Vec<Feature>,
}

impl Set {
    pub(super) fn shape(&self) -> Shape {
        self.features[0].shape()
    }

    /// The static table of each channel.
    pub(super) fn channels(&self) -> Result<&[Table]> {
        self.tables.level(self.level).context("a level of the tables")
    }

    /// Mean bytes of the features under the static tables: the cross-entropy, where a symbol outside its table costs 16 bits
    /// more than its escape.
    pub(super) fn entropy(&self) -> Result<f64> {
        let (channels, precision) = (self.channels()?, f64::from(self.tables.precision()));
        let cost = |table: &Table, symbol: i16| {
            let frequency = table.frequencies()[table.entry(symbol)];
            precision - f64::from(frequency).log2() + if table.holds(symbol) { 0.0 } else { 16.0 }
        };
        let bits = |feature: &Feature| -> f64 {
            let planes = channels.iter().zip(feature.planes());
            planes.flat_map(|(table, plane)| plane.iter().map(move |&symbol| cost(table, symbol))).sum()
        };
        Ok(self.features.iter().map(bits).sum::<f64>() / 8.0 / self.features.len() as f64)
    }

    /// Bytes of all features under the tables that `mode` chooses, without header and final states.
    pub(super) fn cost(&self, mode: Mode) -> Result<f64> {
        let mut encoder = Encoder::new();
        // In 1/256 bits.
        let costs = self.features.iter().map(|feature| encoder.cost(&self.tables, self.level, mode, feature));
        Ok(costs.sum::<Result<u64, _>>()? as f64 / 2048.0)
    }
}

/// The latents of the held-out photos of `tars` at every rate level, the finest first; without tars, of the photos in `folder`.
pub(super) fn sets(bundle: Bundle, tars: &[PathBuf], folder: &Path) -> Result<Vec<Set>> {
    let file = bundle.read(bundle.tables())?;
    let levels = bundle.levels().len();
    let images = if tars.is_empty() { pictures(folder)? } else { held_out(tars)? };
    let mut head = Head::open(bundle)?;
    let mut features = vec![Vec::new(); levels];
    for (name, bytes) in images {
        let image: RgbImage = image::load_from_memory(&bytes).with_context(|| name)?.into_rgb8();
        for (level, features) in features.iter_mut().enumerate() {
            features.push(head.encode_image(&image, GeometryId(0), LevelId(u8::try_from(level)?))?.feature);
        }
    }
    let sets = features.into_iter().enumerate().map(|(level, features)| {
        Ok(Set {
            name: format!("latents, level {level}"),
            tables: Tables::parse(&file)?,
            file: file.clone(),
            level: LevelId(u8::try_from(level)?),
            features,
        })
    });
    sets.collect()
}

/// The photos that no training step used: the first in the order of the SHA-256 of their names, as models/recipes selects
/// them.
fn held_out(tars: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for tar in tars {
        all.extend(data::files(tar)?.into_iter().filter(|(name, _)| name.ends_with(".jpg")));
    }
    all.sort_by_cached_key(|(name, _)| Sha256::digest(name.trim_start_matches("./")));
    all.truncate(HELD_OUT);
    Ok(all)
}

fn pictures(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let unreadable = || format!("{}: cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "jpg" || end == "png") {
            found.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    ensure!(!found.is_empty(), "{}: holds no photos", folder.display());
    found.sort();
    Ok(found)
}
