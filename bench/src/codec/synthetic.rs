//! Seeded synthetic features: Laplace or Gauss distributed channels of scales from 8 down to 0.1, times a smooth field that
//! all channels share.

use std::fmt;

use anyhow::Result;
use narrows_codec::{Feature, Shape};

/// Sum of a table's frequencies.
const TOTAL: u32 = 4096;
/// Features that a channel's table is counted on, and draws that a tile's table is counted on.
const TRAINING: usize = 64;
const DRAWS: usize = 1 << 16;
/// Tables that tiles choose from, and rows and columns of a tile.
const INDEXED: usize = 16;
const TILE: u8 = 8;
/// Largest magnitude of a symbol.
const REACH: i16 = 127;

/// The distribution of a channel's symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distribution {
    Laplace,
    Gauss,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distribution::Laplace => "laplace",
            Distribution::Gauss => "gauss",
        })
    }
}

/// Generator of features.
pub(super) struct Source {
    distribution: Distribution,
    shape: Shape,
    state: u64,
}

impl Source {
    pub(super) fn new(distribution: Distribution, shape: Shape, seed: u64) -> Source {
        Source { distribution, shape, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ distribution as u64 }
    }

    /// A number above 0 and below 1 from SplitMix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    /// A draw of mean 0 and scale 1.
    fn draw(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        match self.distribution {
            Distribution::Laplace => -a.ln() * if b < 0.5 { -1.0 } else { 1.0 },
            Distribution::Gauss => (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos(),
        }
    }

    /// A field [height, width] around 1 with wavelengths of 8 to 25 positions.
    fn activity(&mut self) -> Vec<f64> {
        let (height, width) = (self.shape.height(), self.shape.width());
        let waves: Vec<[f64; 4]> = (0..6)
            .map(|_| {
                let (angle, phase) = (std::f64::consts::TAU * self.uniform(), self.uniform());
                let frequency = 0.04 + 0.08 * self.uniform();
                [frequency * angle.cos(), frequency * angle.sin(), phase, self.uniform()]
            })
            .collect();
        let at = |y: usize, x: usize| {
            let wave = |[along, down, phase, size]: &[f64; 4]| {
                size * (std::f64::consts::TAU * (along * x as f64 + down * y as f64 + phase)).sin()
            };
            (0.5 * waves.iter().map(wave).sum::<f64>()).exp()
        };
        (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect()
    }

    /// The scale of a channel where the shared field is 1.
    fn scale(&self, channel: usize) -> f64 {
        8.0 * (0.1f64 / 8.0).powf(channel as f64 / (self.shape.channels() - 1) as f64)
    }

    fn symbol(&mut self, scale: f64) -> i16 {
        (scale * self.draw()).round().clamp(-f64::from(REACH), f64::from(REACH)) as i16
    }

    pub(super) fn feature(&mut self) -> Result<Feature> {
        let channels = self.shape.channels();
        let activity = self.activity();
        let mut symbols = Vec::with_capacity(self.shape.symbols());
        for channel in 0..channels {
            let scale = self.scale(channel);
            symbols.extend(activity.iter().map(|active| self.symbol(scale * active)));
        }
        Ok(Feature::new(self.shape, symbols)?)
    }

    /// A tables file (codec/FORMAT.md, section 2) of one level: static tables counted on other features of the source, and
    /// tables for tiles counted on the distribution, at scales that grow by a factor of 1.6.
    pub(super) fn tables(&mut self) -> Vec<u8> {
        let channels = self.shape.channels();
        let mut counts = vec![[0u32; 2 * REACH as usize + 1]; channels];
        for _ in 0..TRAINING {
            let feature = self.feature().expect("a source draws features of its own shape");
            for (counts, plane) in counts.iter_mut().zip(feature.planes()) {
                plane.iter().for_each(|&symbol| counts[(symbol + REACH) as usize] += 1);
            }
        }
        let mut file = b"NRWT\x02\x0c".to_vec();
        file.extend((channels as u16).to_le_bytes());
        file.extend([1, 1, 2, 0]);
        counts.iter().for_each(|counts| push_table(counts, &mut file));
        let scales: Vec<f64> = (0..INDEXED).map(|index| 0.03 * 1.6f64.powi(index as i32)).collect();
        file.extend([TILE, INDEXED as u8]);
        for &scale in &scales {
            let mut counts = [0u32; 2 * REACH as usize + 1];
            (0..DRAWS).for_each(|_| counts[(self.symbol(scale) + REACH) as usize] += 1);
            push_table(&counts, &mut file);
        }
        file.extend((0..channels).map(|channel| {
            let of = self.scale(channel);
            scales.iter().filter(|&&scale| scale * 1.6f64.sqrt() < of).count().min(INDEXED - 1) as u8
        }));
        // Neighbouring tiles mostly have the same or a similar table.
        let near = (0..INDEXED).map(|delta| 0.5f64.powi(delta.min(INDEXED - delta) as i32));
        let shares: Vec<f64> = near.chain([0.0]).collect();
        let sum: f64 = shares.iter().sum();
        push_frequencies(0, &shares.iter().map(|share| share / sum).collect::<Vec<_>>(), &mut file);
        file
    }
}

/// Appends a table with the frequencies of `counts` (codec/FORMAT.md, section 2.1).
fn push_table(counts: &[u32], file: &mut Vec<u8>) {
    let total: u32 = counts.iter().sum();
    let kept = |&&count: &&u32| 2 * TOTAL * count >= total;
    let first = counts.iter().position(|count| kept(&count)).unwrap_or(0);
    let last = counts.iter().rposition(|count| kept(&count)).unwrap_or(0);
    let inside = &counts[first..=last];
    let mut shares: Vec<f64> = inside.iter().map(|&count| f64::from(count) / f64::from(total)).collect();
    shares.push(1.0 - shares.iter().sum::<f64>());
    push_frequencies(first as i16 - REACH, &shares, file);
}

/// Appends a table of the values from `low` on with these shares, of which the last is the escape's.
fn push_frequencies(low: i16, shares: &[f64], file: &mut Vec<u8>) {
    file.extend(low.to_le_bytes());
    push_number(shares.len() as u32 - 1, file);
    quantise(shares).into_iter().for_each(|frequency| push_number(frequency, file));
}

/// Rounds shares to frequencies of at least 1 that sum to [`TOTAL`]; each correction is made where the code length falls
/// most or rises least.
fn quantise(shares: &[f64]) -> Vec<u32> {
    let mut found: Vec<u32> =
        shares.iter().map(|share| ((share * f64::from(TOTAL)).round() as u32).max(1)).collect();
    loop {
        let sum: u32 = found.iter().sum();
        let gain = |frequency: u32, share: f64, step: f64| {
            share * ((f64::from(frequency) + step) / f64::from(frequency)).ln()
        };
        let candidates = found.iter().zip(shares).enumerate();
        let best = if sum < TOTAL {
            candidates.map(|(at, (&f, &share))| (at, gain(f, share, 1.0))).max_by(|a, b| a.1.total_cmp(&b.1))
        } else if sum > TOTAL {
            candidates
                .filter(|(_, (f, _))| **f > 1)
                .map(|(at, (&f, &share))| (at, gain(f, share, -1.0)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
        } else {
            return found;
        };
        let (at, _) = best.expect("a table has fewer entries than counts");
        if sum < TOTAL { found[at] += 1 } else { found[at] -= 1 }
    }
}

fn push_number(mut value: u32, file: &mut Vec<u8>) {
    while value >= 128 {
        file.push(value as u8 | 128);
        value >>= 7;
    }
    file.push(value as u8);
}

#[cfg(test)]
mod tests {
    use narrows_codec::Tables;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_features_and_tables_that_hold_most_symbols() {
        let shape = Shape::new(4, 8, 8).expect("a shape");
        let draw = || {
            let mut source = Source::new(Distribution::Gauss, shape, 3);
            (source.tables(), source.feature().expect("a feature"))
        };
        let (file, feature) = draw();
        assert_eq!(draw(), (file.clone(), feature.clone()));
        let tables = Tables::parse(&file).expect("tables");
        let level = tables.level(narrows_codec::LevelId(0)).expect("a level");
        let planes = level.iter().zip(feature.planes());
        let held = planes.flat_map(|(table, plane)| plane.iter().map(|symbol| table.holds(*symbol)));
        assert!(held.filter(|held| *held).count() > 240);
    }

    #[test]
    fn frequencies_follow_shares_and_none_is_zero() {
        let found = quantise(&[0.5, 0.25, 0.249_99, 0.000_01]);
        assert_eq!(found.iter().sum::<u32>(), TOTAL);
        assert_eq!(found, [2047, 1024, 1024, 1]);
    }
}
