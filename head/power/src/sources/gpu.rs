//! The energy counters of NVIDIA cards, read through NVML, a library of the driver that is loaded at run time.

use std::{path::Path, time::Duration};

use nvml_wrapper::{Nvml, error::NvmlError};

use crate::{Absent, Error, Method, Quality, Rail, Scope, Source};

/// The counter has a new value every 10 ms to 100 ms, depending on the card.
const INTERVAL: Duration = Duration::from_millis(100);

struct Cards {
    nvml: Nvml,
    rails: Vec<Rail>,
    indices: Vec<u32>,
}

/// Finds the cards that count energy (Volta and later); none without a driver under `sys`.
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Option<Box<dyn Source>> {
    if !sys.join("module/nvidia").exists() {
        return None;
    }
    let fail = |absent: &mut Vec<Absent>, what: String, error: &NvmlError| {
        let error = silent(&what, error);
        absent.push(Absent::new(what, &error));
    };
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(error) => {
            fail(absent, "NVML".to_owned(), &error);
            return None;
        }
    };
    let (mut rails, mut indices) = (Vec::new(), Vec::new());
    for index in 0..nvml.device_count().unwrap_or(0) {
        let name = format!("GPU {index}");
        match nvml
            .device_by_index(index)
            .and_then(|card| Ok((card.total_energy_consumption()?, card.name()?)))
        {
            Ok((_, model)) => {
                indices.push(index);
                rails.push(Rail {
                    name,
                    covers: format!(
                        "the card {model} with its memory; everybody's work on it, not one client's"
                    ),
                    scope: Scope::Gpu,
                    part_of: None,
                    sensor: "NVML total energy".to_owned(),
                    method: Method::EnergyCounter,
                    quality: Quality::Measured,
                    interval: INTERVAL,
                    trust: None,
                });
            }
            Err(error) => fail(absent, name, &error),
        }
    }
    (!rails.is_empty()).then(|| Box::new(Cards { nvml, rails, indices }) as Box<dyn Source>)
}

fn silent(sensor: &str, error: &NvmlError) -> Error {
    Error::Silent { sensor: sensor.to_owned(), reason: error.to_string() }
}

impl Source for Cards {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        for (&index, rail) in self.indices.iter().zip(&self.rails) {
            let millijoules =
                self.nvml.device_by_index(index).and_then(|card| card.total_energy_consumption());
            readings.push(millijoules.map_err(|error| silent(&rail.name, &error))? as f64 * 1e-3);
        }
        Ok(())
    }
}
