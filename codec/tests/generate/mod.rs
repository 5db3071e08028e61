//! Random tables files with every section, and random features, from a seed.

#![allow(dead_code, reason = "each test uses a part of it")]

use narrows_codec::{Feature, Mode, Shape};

/// All modes; under Miri, which cannot run C, all but zstd.
pub(crate) fn modes() -> impl Iterator<Item = Mode> {
    Mode::ALL.into_iter().filter(|mode| !cfg!(miri) || *mode != Mode::Zstd)
}

/// Whether this is Miri and the packet has a mode that Miri cannot run.
pub(crate) fn unsupported_by_miri(packet: &[u8]) -> bool {
    cfg!(miri) && packet.first().is_some_and(|first| first & 15 == Mode::Zstd as u8)
}

/// `all`; under Miri, which is a thousand times slower, `few`.
pub(crate) fn unless_miri<T>(all: T, few: T) -> T {
    if cfg!(miri) { few } else { all }
}

/// The generator xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `end` − 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * end as u128) >> 64) as usize
    }

    /// A number from `low` to `high` − 1.
    pub(crate) fn from(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low) as usize) as i32
    }
}

/// Appends a number in LEB128.
pub(crate) fn number(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Frequencies in proportion to `weights`, then that of the escape.
pub(crate) fn frequencies(weights: &[u32], precision: u32) -> Vec<usize> {
    let spare = (1 << precision) - weights.len() - 1;
    let sum = weights.iter().map(|&w| w as usize).sum::<usize>().max(1);
    let mut all: Vec<usize> = weights.iter().map(|&w| 1 + spare * w as usize / sum).chain([1]).collect();
    all[0] += (1 << precision) - all.iter().sum::<usize>();
    all
}

/// Appends a table of the tables file.
pub(crate) fn table(low: i16, frequencies: &[usize], out: &mut Vec<u8>) {
    out.extend(low.to_le_bytes());
    number(frequencies.len() - 1, out);
    frequencies.iter().for_each(|&frequency| number(frequency, out));
}

/// Appends a table from `-reach` to `reach` with its peak at 0, which is narrower for a smaller `scale`.
pub(crate) fn peak(scale: u32, reach: i16, precision: u32, out: &mut Vec<u8>) {
    let weight = |s: i16| 60_000 * scale / (scale + u32::from(s.unsigned_abs()).pow(2) * 3);
    let weights: Vec<_> = (-reach..=reach).map(weight).collect();
    table(-reach, &frequencies(&weights, precision), out);
}

/// A tables file with the sections order, indexed and context.
pub(crate) fn tables(seed: u64, channels: usize, levels: usize, precision: u32) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let groups = channels.min(3);
    let mut out = b"NRWT\x02".to_vec();
    out.push(precision as u8);
    out.extend((channels as u16).to_le_bytes());
    out.extend([levels as u8, groups as u8, 7, 0]);
    for group in 0..groups {
        let size = if group + 1 < groups { 1 } else { channels - group };
        out.extend((size as u16).to_le_bytes());
    }
    let mut order: Vec<u16> = (0..channels as u16).collect();
    for at in 0..channels {
        order.swap(at, random.below(channels));
    }
    order.iter().for_each(|channel| out.extend(channel.to_le_bytes()));
    for _ in 0..channels * levels {
        peak(random.from(1, 40) as u32, random.from(1, 60) as i16, precision, &mut out);
    }
    // Indexed.
    let count = random.from(2, unless_miri(9, 4)) as u8;
    out.extend([random.from(0, 9) as u8, count]);
    for index in 0..u32::from(count) {
        peak(1 + index * index * 2, 3 + 3 * index as i16, precision, &mut out);
    }
    for _ in 0..levels {
        out.extend((0..channels).map(|_| random.below(count.into()) as u8));
        let weights: Vec<_> = (0..count).map(|_| random.from(1, 100) as u32).collect();
        table(0, &frequencies(&weights, precision), &mut out);
    }
    // Context.
    let shapes = random.from(1, unless_miri(17, 3)) as u8;
    out.extend([random.from(1, 64) as u8, random.from(4, 11) as u8, shapes]);
    for shape in 1..u16::from(shapes) {
        out.extend((shape * shape * 12).to_le_bytes());
    }
    for shape in 0..u32::from(shapes) {
        for _fraction in 0..4 {
            peak(1 + shape * shape, 2 + 2 * shape as i16, precision, &mut out);
        }
    }
    let weights = |random: &mut Random, count: usize, top: i32, out: &mut Vec<u8>| {
        for _ in 0..count {
            out.extend((random.from(-top / 3, top) as i16).to_le_bytes());
        }
    };
    out.push(2);
    for channel in (0..channels as u16).chain(0..channels as u16) {
        let place = order.iter().position(|at| *at == channel).expect("a permutation");
        for own in [4, 5] {
            weights(random, own, 320, &mut out);
            let taps = if place == 0 { 0 } else { random.from(0, 5) as u8 };
            out.push(taps);
            for _ in 0..taps {
                out.extend(order[random.below(place)].to_le_bytes());
                out.push(random.below(9) as u8);
                weights(random, 1, 400, &mut out);
            }
        }
    }
    out.push(1);
    for _ in 0..channels {
        for own in [4, 5] {
            weights(random, own, 300, &mut out);
            weights(random, 2, 40, &mut out);
        }
    }
    for level in 0..levels {
        out.extend([level as u8 % 2, 0, random.from(0, 3) as u8]);
        weights(random, 4 * channels, 90, &mut out);
    }
    out
}

/// A smooth feature, of one value in the upper half of some channels. One symbol in `outliers` is a random i16; none when that
/// is 0.
pub(crate) fn feature(seed: u64, shape: Shape, outliers: usize) -> Feature {
    let random = &mut Random::new(seed);
    let mut symbols = Vec::with_capacity(shape.symbols());
    for _ in 0..shape.channels() {
        let (step, flat) = (random.from(1, 12), random.below(3) == 0);
        let mut value = random.from(-9, 10);
        for at in 0..shape.plane() {
            if flat && at < shape.plane() / 2 {
                symbols.push(value as i16);
                continue;
            }
            value = (value + random.from(-step, step + 1)) * 2 / 3;
            let outlier = outliers > 0 && random.below(outliers) == 0;
            symbols.push(if outlier { random.from(-32768, 32768) } else { value } as i16);
        }
    }
    Feature::new(shape, symbols).expect("symbols of the shape")
}
