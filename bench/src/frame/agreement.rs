//! How far a frame by way of planes is the frame by way of an image: pixels, the head's symbols, the local network's answers.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use narrows_codec::{GeometryId, LevelId};
use narrows_eval::data;
use narrows_head::net::{LocalNet, Net};
use narrows_int8::Isa;
use narrows_models::{
    Bundle,
    image::{decode, fit},
};
use narrows_pixels::{Converter, JpegDecoder, Planes};
use serde::Serialize;

/// Photos of a tar that are used: the last ones, which the recipes hold out from training.
const USED: usize = 200;

/// The two ways on photos.
#[derive(Debug, Default, Serialize)]
pub(super) struct Agreement {
    /// Photos that were compared.
    photos: usize,
    /// Photos that are no JPEG as cameras write them, which have one way alone.
    others: usize,
    /// Mean distance of the inputs' pixels, in levels of 255.
    pixels: f64,
    /// Share of the head's symbols that are the same at the default level, and their mean distance.
    same_symbols: f64,
    symbols: f64,
    /// Share of photos for which the local network's best class is the same, and whose best class is among the other way's
    /// five.
    same_best: Option<f64>,
    best_among_five: Option<f64>,
    /// Share of photos for which the best class stays the same when pixels of the image's input are changed at random by as
    /// much in the mean.
    same_best_with_noise: Option<f64>,
}

/// Compares the two ways on the photos of `tars`.
pub(super) fn measure(bundle: &Bundle, tars: &[PathBuf]) -> Result<Agreement> {
    let (geometry, level) = (GeometryId(0), LevelId(u8::try_from(bundle.default_level())?));
    let view = bundle.geometries().first().context("the bundle has no geometry")?;
    let net = Net::open(bundle)?;
    let local = bundle.local().map(|spec| Ok::<_, anyhow::Error>((spec, LocalNet::open(bundle, spec)?)));
    let local = local.transpose()?;
    let views: Vec<_> =
        [view].into_iter().chain(local.as_ref().map(|(spec, _)| &spec.geometry)).cloned().collect();
    ensure!(net.isa() == Isa::detect(), "the fastest kernels");
    let (mut decoder, mut converter) = (JpegDecoder::default(), Converter::default());
    let (mut planes, mut input) = (Planes::default(), Vec::new());
    let mut agreement = Agreement::default();
    let (mut best, mut among, mut steady) = (0, 0, 0);
    let mut random = fastrand::Rng::with_seed(7);
    for tar in tars {
        let files = data::files(tar)?;
        for (name, file) in files.iter().rev().take(USED) {
            if decoder.decode(file, &views, &mut planes).is_err() {
                agreement.others += 1;
                continue;
            }
            let image = decode(file).with_context(|| name.clone())?;
            agreement.photos += 1;
            converter.fit(&planes, view, &mut input);
            let wanted = fit(&image, view);
            agreement.pixels += distance(input.iter().zip(&wanted).map(|(a, b)| f64::from(a.abs_diff(*b))));
            let [found, wanted] = [&input, &wanted].map(|input| net.run(geometry, level, input));
            let (found, wanted) = (found?, wanted?);
            let pairs = || found.symbols().iter().zip(wanted.symbols());
            agreement.same_symbols += distance(pairs().map(|(a, b)| f64::from(u8::from(a == b))));
            agreement.symbols += distance(pairs().map(|(a, b)| f64::from(a.abs_diff(*b))));
            if let Some((spec, net)) = &local {
                converter.fit(&planes, &spec.geometry, &mut input);
                let found = order(&net.run(&input)?);
                let mut other = fit(&image, &spec.geometry);
                let wanted = order(&net.run(&other)?);
                let mean = distance(input.iter().zip(&other).map(|(a, b)| f64::from(a.abs_diff(*b))));
                disturb(&mut other, mean, &mut random);
                steady += usize::from(order(&net.run(&other)?)[0] == wanted[0]);
                best += usize::from(found[0] == wanted[0]);
                among += usize::from(wanted[..5.min(wanted.len())].contains(&found[0]));
            }
        }
    }
    ensure!(agreement.photos > 0, "--photos: no JPEG that is decoded to planes");
    let count = agreement.photos as f64;
    for mean in [&mut agreement.pixels, &mut agreement.same_symbols, &mut agreement.symbols] {
        *mean /= count;
    }
    if local.is_some() {
        let share = |photos: usize| Some(photos as f64 / count);
        (agreement.same_best, agreement.best_among_five) = (share(best), share(among));
        agreement.same_best_with_noise = share(steady);
    }
    Ok(agreement)
}

/// Changes pixels by one level up or down, so many that the mean change is `mean`, below 1.
fn disturb(pixels: &mut [u8], mean: f64, random: &mut fastrand::Rng) {
    for pixel in pixels {
        if random.f64() < mean {
            *pixel = if random.bool() { pixel.saturating_add(1) } else { pixel.saturating_sub(1) };
        }
    }
}

/// The mean of all values.
fn distance(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Classes by their scores, the best first.
fn order(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

impl Agreement {
    pub(super) fn print(&self) {
        println!(
            "\nby planes against by image, {} photos ({} more have one way alone)",
            self.photos, self.others
        );
        println!("  {:42} {:8.3}", "mean distance of pixels, of 255", self.pixels);
        println!("  {:42} {:7.1}%", "symbols that are the same", 100.0 * self.same_symbols);
        println!("  {:42} {:8.3}", "mean distance of symbols", self.symbols);
        if let Some((best, among)) = self.same_best.zip(self.best_among_five) {
            println!("  {:42} {:7.1}%", "local network: the same best class", 100.0 * best);
            println!("  {:42} {:7.1}%", "local network: best among the other's five", 100.0 * among);
        }
        if let Some(steady) = self.same_best_with_noise {
            println!("  {:42} {:7.1}%", "the same best class with noise as large", 100.0 * steady);
        }
    }
}
