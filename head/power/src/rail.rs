//! Rails and where their readings come from.

use std::time::Duration;

use serde::Serialize;

use crate::Error;

/// One supply line, or one sum of them, with the story behind its numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rail {
    /// What the board calls it.
    pub name: String,
    /// What hangs on it, in words.
    pub covers: String,
    /// How much of the device that is.
    pub scope: Scope,
    /// The rail that contains this one. Contained rails are never added to their container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// The chip or interface that measures.
    pub sensor: String,
    /// How a reading is made.
    pub method: Method,
    /// Whether it is measured or worked out.
    pub quality: Quality,
    /// How often the sensor has a new value, in seconds.
    #[serde(rename = "interval_s", serialize_with = "crate::seconds::serialize")]
    pub interval: Duration,
    /// For counters that wrap: the longest time between readings in which no more than one wrap can have happened.
    #[serde(skip)]
    pub trust: Option<Duration>,
}

/// How much of the device a rail covers; the earlier, the better for a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The whole device at its supply.
    Device,
    /// Whatever the meter is wired to.
    Wired,
    /// The compute module without its carrier board.
    Module,
    /// The processor package and memory, not the board.
    Processor,
    /// A graphics card.
    Gpu,
    /// Some part.
    Part,
}

/// How a reading is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The sensor gives watts.
    Power,
    /// Volts and amperes, read one right after the other.
    VoltageTimesCurrent,
    /// The hardware adds up energy; readings are joules since some origin.
    EnergyCounter,
    /// A separate instrument recorded volts and amperes.
    Recording,
}

/// Whether a rail is measured or worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// A sensor measures it.
    Measured,
    /// A sum or a fit over measured rails, or a counter that the processor models.
    Estimated,
}

/// Something that can be read again and again.
pub trait Source: Send {
    /// The rails, in the order of the readings.
    fn rails(&self) -> &[Rail];

    /// Appends one reading per rail: watts, or joules since some origin for [`Method::EnergyCounter`].
    ///
    /// # Errors
    /// Why there is no reading this time.
    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error>;

    /// How often to read it; by default as often as it has new values, and at most 50 times a second.
    fn every(&self) -> Duration {
        let fastest = self.rails().iter().map(|rail| rail.interval).min().unwrap_or(Duration::from_secs(1));
        fastest.max(Duration::from_millis(20))
    }

    /// Time spent in helper programs so far; an upper bound of what they cost in processor time.
    fn helpers(&self) -> Duration {
        Duration::ZERO
    }
}
