//! Supply rails and the sources of their readings.

use std::time::Duration;

use serde::Serialize;

use crate::Error;

/// A supply rail or a sum of rails, with the provenance of its readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rail {
    /// Name, as the board's documentation has it.
    pub name: String,
    /// The loads that it supplies, as text.
    pub covers: String,
    /// The part of the device that it covers.
    pub scope: Scope,
    /// Name of the rail that contains this one. The two are never added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// The measuring chip or interface.
    pub sensor: String,
    /// What a reading is.
    pub method: Method,
    /// Whether it is measured or estimated.
    pub quality: Quality,
    /// Time between two new values of the sensor; serialized in seconds.
    #[serde(rename = "interval_s", serialize_with = "crate::seconds::serialize")]
    pub interval: Duration,
    /// For counters that wrap: the longest time in which the counter cannot wrap twice.
    #[serde(skip)]
    pub trust: Option<Duration>,
}

/// The part of the device that a rail covers. A total takes the first of these that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The whole device at its supply.
    Device,
    /// The load that a meter is wired to.
    Wired,
    /// The compute module without its carrier board.
    Module,
    /// The processor package and memory, not the board.
    Processor,
    /// A graphics card.
    Gpu,
    /// A part of one of the others.
    Part,
}

/// What a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Watts.
    Power,
    /// Volts and amperes, read right after one another.
    VoltageTimesCurrent,
    /// Joules since some origin, summed by the hardware.
    EnergyCounter,
    /// Volts and amperes, recorded by a separate instrument.
    Recording,
}

/// Whether a rail is measured or estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// Measured by a sensor.
    Measured,
    /// A sum or a fit over measured rails, or a counter that the processor models from events.
    Estimated,
}

/// A sensor that can be read repeatedly.
pub trait Source: Send {
    /// The rails that it measures, in the order of their readings.
    fn rails(&self) -> &[Rail];

    /// Appends one reading per rail: watts, or joules since some origin for [`Method::EnergyCounter`].
    ///
    /// # Errors
    /// An [`Error`] if there is no reading this time.
    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error>;

    /// Time between two reads: by default that between two new values, and at least 20 ms.
    fn every(&self) -> Duration {
        let fastest = self.rails().iter().map(|rail| rail.interval).min().unwrap_or(Duration::from_secs(1));
        fastest.max(Duration::from_millis(20))
    }

    /// Time spent waiting for helper programs so far, an upper bound of their processor time.
    fn helpers(&self) -> Duration {
        Duration::ZERO
    }

    /// Reasons to rely less on the readings so far.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}
