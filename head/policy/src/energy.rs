//! What answers cost in energy, by a linear model of the device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Ladder;

/// The coefficients of a device: its processor and its radio.
///
/// A frame costs `computing` for as long as the device computes on it, `per_byte` for each byte that is sent of it, and `sending` for
/// as long as the link takes its bytes. What the device draws anyhow is not in it: that does not depend on what is decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyModel {
    /// Watts that computing adds to those of an idle device.
    pub computing: f64,
    /// Joules of a byte, however fast it is sent.
    pub per_byte: f64,
    /// Watts that the radio adds while it sends.
    pub sending: f64,
}

impl EnergyModel {
    /// Joules of a byte over a link of `rate` bytes per second.
    #[must_use]
    pub fn joules_per_byte(&self, rate: f64) -> f64 {
        // A link that carries nothing for long would make bytes cost without bound.
        self.per_byte + self.sending / rate.max(1.0)
    }

    /// Joules of a frame of which `bytes` are sent over a link of `rate` bytes per second, after computing for `computed`.
    #[must_use]
    pub fn joules(&self, computed: Duration, bytes: u64, rate: f64) -> f64 {
        self.computing * computed.as_secs_f64() + self.joules_per_byte(rate) * bytes as f64
    }

    /// What the value of a byte must be so that it is worth its energy, for a frame of `ladder` that was computed on for
    /// `computed`: the energy of the byte times the most value that a joule can buy.
    #[must_use]
    pub fn price(&self, ladder: &Ladder, computed: Duration, rate: f64) -> f64 {
        let per_byte = self.joules_per_byte(rate);
        let price = per_byte * ladder.best_ratio(self.computing * computed.as_secs_f64(), per_byte);
        // Without any costs nothing is to be saved.
        if price.is_finite() { price } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CutPoint, Rung};

    fn ladder() -> Ladder {
        let whole = |level, bytes, value| Rung::new(level, vec![CutPoint { bytes, value }]).unwrap();
        Ladder::new(vec![whole(0, 12_000, 0.70), whole(1, 4_000, 0.64), whole(2, 1_000, 0.55)]).unwrap()
    }

    #[test]
    fn joules_are_those_of_the_processor_the_bytes_and_the_time_on_the_air() {
        let model = EnergyModel { computing: 4.0, per_byte: 2e-6, sending: 0.5 };
        let joules = model.joules(Duration::from_millis(50), 5_000, 125_000.0);
        assert!((joules - (0.2 + 0.01 + 0.02)).abs() < 1e-12, "{joules}");
    }

    #[test]
    fn a_byte_is_worth_its_energy_up_to_the_level_that_buys_most_for_a_joule() {
        let model = EnergyModel { computing: 4.0, per_byte: 2e-6, sending: 0.5 };
        for (computed, rate, bytes) in
            [(1000, 1e6, 12_000), (20, 1e6, 4_000), (1, 1e6, 1_000), (20, 1e4, 1_000)]
        {
            let computed = Duration::from_millis(computed);
            let price = model.price(&ladder(), computed, rate);
            let gain = |rung: &Rung| rung.value() - price * f64::from(rung.bytes());
            let ladder = ladder();
            let best = ladder.rungs().iter().max_by(|a, b| gain(a).total_cmp(&gain(b))).unwrap();
            assert_eq!(best.bytes(), bytes, "{computed:?} {rate}");
            let ratio = |rung: &Rung| rung.value() / model.joules(computed, rung.bytes().into(), rate);
            assert!(ladder.rungs().iter().all(|rung| ratio(rung) <= ratio(best) + 1e-12));
        }
        let free = EnergyModel { computing: 0.0, per_byte: 0.0, sending: 0.0 };
        assert_eq!(free.price(&ladder(), Duration::ZERO, 1.0), 0.0);
    }
}
