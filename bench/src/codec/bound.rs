//! What is left on the table: bits that a strong model, too slow to ship, takes for the same latents.
//!
//! Each symbol is cut into binary decisions; the predictions of eight contexts are mixed in the logistic domain
//! (M. Mahoney, "Adaptive weighing of context models for lossless data compression", 2005). The model learns on the
//! first half of a set and is measured on the second, where every feature starts from what was learned.

use anyhow::{Result, ensure};
use narrows_codec::{Encoder, Feature, Mode, Shape};
use serde::Serialize;

use super::{mixer::Mixer, set::Set};

/// Features that linear predictors are fitted on, at most.
const FITTED: usize = 40;
/// Channels, from the first coded on, whose surroundings take part in a prediction.
const LEADING: usize = 5;
/// Decisions about a magnitude before its remaining bits are sent plainly.
const UNARY: usize = 24;
/// Nodes of the decision tree: zero, sign, magnitude.
pub(super) const NODES: usize = UNARY + 2;

/// Mean bytes on the second half of a set.
#[derive(Debug, Serialize)]
pub(super) struct Bound {
    set: String,
    features: usize,
    /// Symbols' cost alone, without header and states.
    static_bytes: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    indexed_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_bytes: Option<f64>,
    mixing_bytes: f64,
}

pub(super) fn measure(set: &Set) -> Result<Bound> {
    let (learned, measured) = set.features.split_at(set.features.len() / 2);
    ensure!(!learned.is_empty(), "{}: a bound needs at least two photos", set.name);
    let order: Vec<usize> = set.tables.order().flatten().map(|&channel| channel.into()).collect();
    let model = Model::fit(&order, &learned[..learned.len().min(FITTED)]);
    let mut mixer = Mixer::new(order.len());
    for feature in learned {
        model.code(feature, &mut mixer);
    }
    let each = |bits: f64| bits / 8.0 / measured.len() as f64;
    let mixing = measured.iter().map(|feature| model.code(feature, &mut mixer.clone())).sum();
    let mut encoder = Encoder::new();
    let mut cost = |mode: Mode| -> Result<Option<f64>> {
        if !set.tables.supports(mode) {
            return Ok(None);
        }
        let bits = measured
            .iter()
            .map(|feature| Ok(encoder.cost(&set.tables, set.level, mode, feature)? as f64 / 256.0));
        Ok(Some(each(bits.sum::<Result<f64>>()?)))
    };
    Ok(Bound {
        set: set.name.clone(),
        features: measured.len(),
        static_bytes: cost(Mode::Static)?.unwrap_or_default(),
        indexed_bytes: cost(Mode::Indexed)?,
        context_bytes: cost(Mode::Context)?,
        mixing_bytes: each(mixing),
    })
}

pub(super) fn print(bounds: &[Bound]) {
    println!(
        "\nBytes of the symbols alone, on the half of the photos that the mixing model did not learn from"
    );
    let mut rows =
        super::table(&["set", "features", "static", "indexed", "context", "mixing", "left to save"]);
    for bound in bounds {
        let shown = |bytes: Option<f64>| bytes.map_or_else(String::new, |bytes| format!("{bytes:.0}"));
        let best = bound.context_bytes.or(bound.indexed_bytes).unwrap_or(bound.static_bytes);
        rows.add_row([
            bound.set.clone(),
            bound.features.to_string(),
            shown(Some(bound.static_bytes)),
            shown(bound.indexed_bytes),
            shown(bound.context_bytes),
            shown(Some(bound.mixing_bytes)),
            format!("{:.1} %", 100.0 * (1.0 - bound.mixing_bytes / best)),
        ]);
    }
    println!("{rows}");
}

/// A plane that is 0 outside.
#[derive(Clone)]
struct Plane {
    height: usize,
    width: usize,
    values: Vec<f64>,
}

impl Plane {
    fn new(shape: Shape) -> Plane {
        Plane { height: shape.height(), width: shape.width(), values: vec![0.0; shape.plane()] }
    }

    fn of(feature: &Feature, channel: usize) -> Plane {
        let values = feature.planes().nth(channel).unwrap_or_default();
        Plane {
            values: values.iter().map(|&value| f64::from(value)).collect(),
            ..Plane::new(feature.shape())
        }
    }

    fn at(&self, (y, x): (usize, usize), (dy, dx): (isize, isize)) -> f64 {
        match (y.checked_add_signed(dy), x.checked_add_signed(dx)) {
            (Some(y), Some(x)) if y < self.height && x < self.width => self.values[y * self.width + x],
            _ => 0.0,
        }
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let width = self.width;
        (0..self.height).flat_map(move |y| (0..width).map(move |x| (y, x)))
    }
}

/// Neighbours that are known before a symbol, nearest first.
const BEFORE: [(isize, isize); 6] = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)];

/// Linear predictors of each channel in the order of coding: of the symbol, and of the magnitude of what is left.
struct Model {
    order: Vec<usize>,
    means: Vec<Vec<f64>>,
    magnitudes: Vec<Vec<f64>>,
}

impl Model {
    fn fit(order: &[usize], features: &[Feature]) -> Model {
        let mut model = Model { order: order.to_vec(), means: Vec::new(), magnitudes: Vec::new() };
        let mut states: Vec<State> = features.iter().map(State::new).collect();
        for (position, &channel) in order.iter().enumerate() {
            states.iter_mut().for_each(|state| state.begin(channel));
            let inputs = |state: &State<'_>, at| state.mean_inputs(position, at);
            model.means.push(least_squares(&states, inputs, |state, at| state.now.at(at, (0, 0))));
            states.iter_mut().for_each(|state| state.miss(position, &model.means[position]));
            let inputs = |state: &State<'_>, at| state.magnitude_inputs(at);
            model.magnitudes.push(least_squares(&states, inputs, |state, at| state.missed.at(at, (0, 0))));
            states.iter_mut().for_each(State::finish);
        }
        model
    }

    /// Bits that `mixer` takes for a feature, and what it learns from it.
    fn code(&self, feature: &Feature, mixer: &mut Mixer) -> f64 {
        let mut state = State::new(feature);
        let mut bits = 0.0;
        for (position, &channel) in self.order.iter().enumerate() {
            state.begin(channel);
            state.miss(position, &self.means[position]);
            for at in state.now.places() {
                let mean = dot(&self.means[position], &state.mean_inputs(position, at));
                let expected = dot(&self.magnitudes[position], &state.magnitude_inputs(at));
                let base = mean.round();
                mixer.look(position, mean - base, expected, &state.surroundings(at));
                bits += decide(state.now.at(at, (0, 0)) as i32 - base as i32, mixer);
            }
            state.finish();
        }
        bits
    }
}

/// Sends a residual as binary decisions.
fn decide(residual: i32, mixer: &mut Mixer) -> f64 {
    let mut bits = mixer.code(0, residual != 0);
    if residual == 0 {
        return bits;
    }
    bits += mixer.code(1, residual < 0);
    let size = residual.unsigned_abs() as usize;
    for step in 1..UNARY {
        bits += mixer.code(step + 1, size > step);
        if size == step {
            return bits;
        }
    }
    // The rest in Elias gamma code, plainly.
    bits + 2.0 * f64::from((size - UNARY + 1).ilog2()) + 1.0
}

/// What is known of a feature while its channels are coded.
struct State<'a> {
    feature: &'a Feature,
    /// The channels so far, in the order of coding, the present one last.
    planes: Vec<Plane>,
    now: Plane,
    /// How far the symbols of the present channel and the one before lie from their prediction.
    missed: Plane,
    before: Plane,
    /// Magnitudes of the channels so far, recent ones most.
    activity: Plane,
}

impl<'a> State<'a> {
    fn new(feature: &'a Feature) -> State<'a> {
        let empty = Plane::new(feature.shape());
        let [now, missed, before, activity] = std::array::from_fn(|_| empty.clone());
        State { feature, planes: Vec::new(), now, missed, before, activity }
    }

    fn begin(&mut self, channel: usize) {
        self.now = Plane::of(self.feature, channel);
        self.planes.push(self.now.clone());
    }

    fn mean_inputs(&self, position: usize, at: (usize, usize)) -> Vec<f64> {
        let mut inputs: Vec<f64> = BEFORE.iter().map(|&by| self.now.at(at, by)).collect();
        for (earlier, plane) in self.planes[..position].iter().enumerate() {
            if earlier < LEADING || earlier + 3 > position {
                let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
                inputs.extend(around.map(|by| plane.at(at, by)));
            } else {
                inputs.push(plane.at(at, (0, 0)));
            }
        }
        inputs.push(1.0);
        inputs
    }

    /// Fills in how far the present channel's symbols lie from their prediction.
    fn miss(&mut self, position: usize, weights: &[f64]) {
        let missed = self.now.places().map(|at| {
            (self.now.at(at, (0, 0)) - dot(weights, &self.mean_inputs(position, at))).abs().min(16.0)
        });
        self.missed.values = missed.collect();
    }

    fn magnitude_inputs(&self, at: (usize, usize)) -> Vec<f64> {
        let mut inputs: Vec<f64> = BEFORE.iter().map(|&by| self.missed.at(at, by)).collect();
        let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
        inputs.extend(around.clone().map(|by| self.activity.at(at, by)));
        inputs.push(around.map(|by| self.before.at(at, by)).sum());
        inputs.push(self.before.at(at, (0, 0)));
        inputs.push(1.0);
        inputs
    }

    /// Magnitudes beside, above and across, in earlier channels, and in the one before.
    fn surroundings(&self, at: (usize, usize)) -> [f64; 5] {
        let near = |by| self.missed.at(at, by);
        [
            near((0, -1)),
            near((-1, 0)),
            near((-1, -1)) + near((-1, 1)),
            self.activity.at(at, (0, 0)),
            self.before.at(at, (0, 0)),
        ]
    }

    fn finish(&mut self) {
        for (sum, missed) in self.activity.values.iter_mut().zip(&self.missed.values) {
            *sum = 0.8 * *sum + missed.min(4.0);
        }
        std::mem::swap(&mut self.before, &mut self.missed);
    }
}

fn dot(weights: &[f64], inputs: &[f64]) -> f64 {
    weights.iter().zip(inputs).map(|(weight, input)| weight * input).sum()
}

/// Weights of the inputs for the least squared error over all places of all states.
fn least_squares(
    states: &[State<'_>],
    inputs: impl Fn(&State<'_>, (usize, usize)) -> Vec<f64>,
    target: impl Fn(&State<'_>, (usize, usize)) -> f64,
) -> Vec<f64> {
    let mut square: Vec<Vec<f64>> = Vec::new();
    let mut cross: Vec<f64> = Vec::new();
    for state in states {
        for at in state.now.places() {
            let (x, y) = (inputs(state, at), target(state, at));
            if square.is_empty() {
                square = vec![vec![0.0; x.len()]; x.len()];
                cross = vec![0.0; x.len()];
            }
            for (row, &a) in x.iter().enumerate() {
                cross[row] += a * y;
                square[row].iter_mut().zip(&x).for_each(|(sum, b)| *sum += a * b);
            }
        }
    }
    solve(square, cross)
}

/// Gauss's elimination; the diagonal is lifted a little, so that inputs which never vary do no harm.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    let lift = 1e-6 * (0..n).map(|i| a[i][i]).sum::<f64>() / n as f64 + 1e-9;
    (0..n).for_each(|i| a[i][i] += lift);
    for i in 0..n {
        let (above, below) = a.split_at_mut(i + 1);
        let pivot = &above[i];
        for (row, line) in below.iter_mut().enumerate() {
            let factor = line[i] / pivot[i];
            line[i..].iter_mut().zip(&pivot[i..]).for_each(|(to, from)| *to -= factor * from);
            b[i + 1 + row] -= factor * b[i];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elimination_solves() {
        let found = solve(vec![vec![4.0, 1.0], vec![1.0, 3.0]], vec![9.0, 5.0]);
        assert!((found[0] - 2.0).abs() < 1e-4 && (found[1] - 1.0).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_smooth_feature_costs_the_model_less_than_noise() {
        let shape = Shape::new(2, 16, 16).expect("a shape");
        let ramp: Vec<i16> = (0..512).map(|i| (i % 16) / 2).collect();
        let noise: Vec<i16> = (0..512u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 29) as i16).collect();
        let bits = |symbols: &[i16]| {
            let feature = Feature::new(shape, symbols.to_vec()).expect("a feature");
            let features = [feature.clone(), feature.clone()];
            let model = Model::fit(&[0, 1], &features);
            let mut mixer = Mixer::new(2);
            features.iter().map(|feature| model.code(feature, &mut mixer)).sum::<f64>()
        };
        assert!(2.0 * bits(&ramp) < bits(&noise));
    }
}
