//! Which samples an output is made of, and with which weights: the filters of BUNDLE.md, section 3, at 15 bits.

use std::ops::Range;

use narrows_models::Filter;

/// The weights of a pass along one axis.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taps {
    key: Option<Key>,
    /// For each output, the first sample and where its weights lie.
    outputs: Vec<(usize, Range<usize>)>,
    /// Of each output they sum to 2^15 − 1 or a little less, the most that one weight can be.
    weights: Vec<i16>,
}

/// What the weights depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    /// Samples that there are.
    pub(crate) size: usize,
    /// Start and length of the window.
    pub(crate) start: f64,
    pub(crate) length: f64,
    /// Outputs.
    pub(crate) count: usize,
    pub(crate) filter: Filter,
}

impl Taps {
    /// Computes the weights, unless they are those from before.
    pub(crate) fn set(&mut self, key: Key) {
        if self.key == Some(key) {
            return;
        }
        self.outputs.clear();
        self.weights.clear();
        let (function, support): (fn(f64) -> f64, f64) = match key.filter {
            Filter::Box => (|x| if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }, 0.5),
            Filter::Bilinear => (|x| (1.0 - x.abs()).max(0.0), 1.0),
            Filter::Bicubic => (catmull_rom, 2.0),
        };
        let scale = key.length / key.count as f64;
        let wide = scale.max(1.0);
        let mut exact = Vec::new();
        for output in 0..key.count {
            let center = key.start + (output as f64 + 0.5) * scale;
            let last = key.size - 1;
            let first = ((center - support * wide).floor().max(0.0) as usize).min(last);
            let end = ((center + support * wide).ceil() as usize).clamp(first + 1, key.size);
            exact.clear();
            exact.extend((first..end).map(|sample| function((sample as f64 - (center - 0.5)) / wide)));
            let sum: f64 = exact.iter().sum();
            let begin = self.weights.len();
            if sum.abs() < 1e-6 {
                // The filter is narrower than a sample and falls between two: the nearest one.
                let nearest = (center.max(0.0) as usize).min(last);
                self.outputs.push((nearest, begin..begin + 1));
                self.weights.push(i16::MAX);
                continue;
            }
            let scaled = exact.iter().map(|weight| (weight / sum * 32767.0).round() as i32);
            let mut weights: Vec<i32> = scaled.collect();
            // What rounding has left goes to the largest, so that an even area stays as it is.
            let rest = 32767 - weights.iter().sum::<i32>();
            if let Some(largest) = weights.iter_mut().max_by_key(|weight| **weight) {
                *largest += rest;
            }
            let front = weights.iter().take_while(|weight| **weight == 0).count();
            let back = weights.iter().rev().take_while(|weight| **weight == 0).count();
            let kept = front..weights.len() - back;
            self.weights.extend(weights[kept].iter().map(|&weight| weight.clamp(-32768, 32767) as i16));
            self.outputs.push((first + front, begin..self.weights.len()));
        }
        self.key = Some(key);
    }

    /// For each output, the first sample and the weights from there on.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (usize, &[i16])> {
        self.outputs.iter().map(|(first, weights)| (*first, &self.weights[weights.clone()]))
    }
}

fn catmull_rom(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        _ => 0.0,
    }
}
