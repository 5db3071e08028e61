//! The battery of a device that runs on one: the power that flows out of it is the power of the device.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Absent, Error, Method, Quality, Rail, Scope, Source,
    sysfs::{HWMON, folders, number, optional_text},
};

/// Battery gauges have a new value about once a second.
const INTERVAL: Duration = Duration::from_secs(1);

struct Battery {
    rails: [Rail; 1],
    folder: PathBuf,
}

/// Finds the batteries under `sys` that supply the device.
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Vec<Box<dyn Source>> {
    let mut found: Vec<Box<dyn Source>> = Vec::new();
    for folder in folders(&sys.join("class/power_supply"), "") {
        // Batteries of mice and keyboards have the scope `Device`.
        let own = optional_text(&folder.join("scope")).is_none_or(|scope| scope != "Device");
        if optional_text(&folder.join("type")).as_deref() != Some("Battery") || !own {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let method = match folder.join("power_now").exists() {
            true => Method::Power,
            false => Method::VoltageTimesCurrent,
        };
        let rail = Rail {
            name: name.clone(),
            covers: "the whole device, as long as it runs on the battery".to_owned(),
            scope: Scope::Device,
            part_of: None,
            sensor: format!("battery gauge {name}"),
            method,
            quality: Quality::Measured,
            interval: INTERVAL,
            trust: None,
        };
        let battery = Battery { rails: [rail], folder };
        match battery.watts() {
            Ok(_) => found.push(Box::new(battery)),
            Err(error) => absent.push(Absent::new(name, &error)),
        }
    }
    found
}

impl Battery {
    fn watts(&self) -> Result<f64, Error> {
        let status = optional_text(&self.folder.join("status")).unwrap_or_default();
        if status != "Discharging" {
            return Err(Error::Silent {
                sensor: self.rails[0].name.clone(),
                reason: format!(
                    "the battery is {:?}, so it does not tell what the device takes; unplug the charger",
                    status.to_lowercase()
                ),
            });
        }
        // Some gauges report a discharge as negative.
        let micro = |name: &str| {
            Ok::<f64, Error>(number(&self.folder.join(name), HWMON)?.unsigned_abs() as f64 * 1e-6)
        };
        match self.rails[0].method {
            Method::Power => micro("power_now"),
            _ => Ok(micro("voltage_now")? * micro("current_now")?),
        }
    }
}

impl Source for Battery {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        readings.push(self.watts()?);
        Ok(())
    }
}
