//! Logistic mixing of what several contexts say about a binary decision.

use super::bound::NODES;

/// Contexts that have a say.
const CONTEXTS: usize = 8;
/// Each context counts twice, quickly and slowly forgetting; and one input is constant.
const INPUTS: usize = 2 * CONTEXTS + 1;
/// Steps of the expected magnitude, of single magnitudes, of the place between two integers.
const LEVELS: usize = 24;
const STEPS: usize = 8;
const FRACTIONS: usize = 8;
/// Decisions after which a probability moves no slower.
const FAST: f32 = 30.0;
const SLOW: f32 = 800.0;
/// How quickly weights follow.
const RATE: f32 = 0.003;

#[derive(Clone, Copy)]
struct Slot {
    fast: f32,
    slow: f32,
    seen: f32,
}

/// Probabilities of every context and weights of every node.
#[derive(Clone)]
pub(super) struct Mixer {
    slots: Vec<Vec<Slot>>,
    /// Two sets of weights, chosen by channel and by expected magnitude; their predictions are averaged.
    weights: [Vec<[f32; INPUTS]>; 2],
    chosen: [usize; CONTEXTS],
    sets: [usize; 2],
}

impl Mixer {
    pub(super) fn new(channels: usize) -> Mixer {
        let sizes = [
            channels * LEVELS,
            channels * LEVELS * FRACTIONS,
            channels * STEPS * STEPS,
            LEVELS * FRACTIONS,
            channels * STEPS * STEPS,
            channels * STEPS * STEPS,
            LEVELS * STEPS * STEPS,
            channels * STEPS * STEPS * STEPS,
        ];
        let empty = Slot { fast: 0.5, slow: 0.5, seen: 0.0 };
        let mut even = [0.3 / 2.0; INPUTS];
        even[INPUTS - 1] = 0.0;
        Mixer {
            slots: sizes.iter().map(|size| vec![empty; size * NODES]).collect(),
            weights: [vec![even; channels * NODES], vec![even; LEVELS * NODES]],
            chosen: [0; CONTEXTS],
            sets: [0; 2],
        }
    }

    /// Takes in the surroundings of a symbol: where the mean lies between integers (−0.5 to 0.5), the magnitude
    /// expected, and magnitudes beside, above, across, in earlier channels and in the one before.
    pub(super) fn look(&mut self, channel: usize, fraction: f64, expected: f64, around: &[f64; 5]) {
        let fraction = (((fraction + 0.5) * FRACTIONS as f64) as usize).min(FRACTIONS - 1);
        let level = step(expected, 0.01, LEVELS);
        let [beside, above, across, earlier, before] = around.map(|size| step(size, 0.12, STEPS));
        let wide = step(around[3], 0.02, LEVELS);
        let two = |a: usize, b: usize| a * STEPS + b;
        self.chosen = [
            channel * LEVELS + level,
            (channel * LEVELS + level) * FRACTIONS + fraction,
            channel * STEPS * STEPS + two(beside, above),
            level * FRACTIONS + fraction,
            channel * STEPS * STEPS + two(before, earlier),
            channel * STEPS * STEPS + two(wide * STEPS / LEVELS, across),
            level * STEPS * STEPS + two(beside, above),
            (channel * STEPS * STEPS + two(beside, above)) * STEPS + earlier,
        ];
        self.sets = [channel, level];
    }

    /// Bits that the decision `bit` at `node` takes; learns it.
    pub(super) fn code(&mut self, node: usize, bit: bool) -> f64 {
        let mut inputs = [0.3; INPUTS];
        for (context, &chosen) in self.chosen.iter().enumerate() {
            let slot = self.slots[context][chosen * NODES + node];
            inputs[2 * context] = stretch(slot.fast);
            inputs[2 * context + 1] = stretch(slot.slow);
        }
        let target = if bit { 1.0 } else { 0.0 };
        let mut sum = 0.0;
        for (weights, &set) in self.weights.iter_mut().zip(&self.sets) {
            let weights = &mut weights[set * NODES + node];
            let dot: f32 = weights.iter().zip(&inputs).map(|(weight, input)| weight * input).sum();
            let error = RATE * (target - squash(dot));
            weights.iter_mut().zip(&inputs).for_each(|(weight, input)| *weight += error * input);
            sum += dot;
        }
        for (context, &chosen) in self.chosen.iter().enumerate() {
            let slot = &mut self.slots[context][chosen * NODES + node];
            slot.seen += 1.0;
            slot.fast += (target - slot.fast) / (slot.seen + 0.5).min(FAST);
            slot.slow += (target - slot.slow) / (slot.seen + 0.5).min(SLOW);
        }
        let probability = f64::from(squash(sum / 2.0)).clamp(1.0 / 65536.0, 1.0 - 1.0 / 65536.0);
        -(if bit { probability } else { 1.0 - probability }).log2()
    }
}

/// A class of a magnitude, finer where it is small.
fn step(size: f64, unit: f64, steps: usize) -> usize {
    let octaves = (size.max(0.0) / unit + 1.0).log2();
    ((octaves * if steps > STEPS { 2.4 } else { 1.2 }) as usize).min(steps - 1)
}

fn stretch(probability: f32) -> f32 {
    let probability = probability.clamp(1.0 / 4096.0, 1.0 - 1.0 / 4096.0);
    (probability / (1.0 - probability)).ln()
}

fn squash(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_never_changes_soon_costs_nothing() {
        let mut mixer = Mixer::new(1);
        mixer.look(0, 0.0, 0.5, &[0.0; 5]);
        let first = mixer.code(0, true);
        let last = (0..500).map(|_| mixer.code(0, true)).last().unwrap_or(first);
        assert!(first > 0.9 && last < 0.02, "{first} {last}");
    }
}
