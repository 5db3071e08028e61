//! Meters of the hwmon class that somebody wired into a supply line: INA219 to INA260 and their kin.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Absent, Error, Method, Quality, Rail, Scope, Source,
    sysfs::{HWMON, folders, maybe, number, place},
};

const CHIPS: [&str; 11] = [
    "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina232", "ina233", "ina237", "ina238",
    "ina260",
];
/// Assumed where the driver does not tell how long a conversion takes.
const INTERVAL: Duration = Duration::from_millis(50);

struct Wired {
    rails: [Rail; 1],
    power: Power,
}

enum Power {
    /// The chip multiplies: microwatts.
    Microwatts(PathBuf),
    /// Millivolts and milliamperes.
    Product(PathBuf, PathBuf),
}

/// One source per meter under `sys`.
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Vec<Box<dyn Source>> {
    let mut found: Vec<Box<dyn Source>> = Vec::new();
    for folder in folders(&sys.join("class/hwmon"), "hwmon") {
        let Some(chip) = maybe(&folder.join("name")).filter(|name| CHIPS.contains(&name.as_str())) else {
            continue;
        };
        let wired = Wired::new(&folder, &chip);
        match wired.watts() {
            Ok(_) => found.push(Box::new(wired)),
            Err(error) => absent.push(Absent::new(wired.rails[0].name.clone(), &error)),
        }
    }
    found
}

impl Wired {
    fn new(folder: &Path, chip: &str) -> Self {
        let label = maybe(&folder.join("power1_label")).or_else(|| maybe(&folder.join("in1_label")));
        let product = folder.join("power1_input");
        let (power, method) = match product.exists() {
            true => (Power::Microwatts(product), Method::Power),
            false => {
                let power = Power::Product(folder.join("in1_input"), folder.join("curr1_input"));
                (power, Method::VoltageTimesCurrent)
            }
        };
        let place =
            place(folder).unwrap_or_else(|| folder.file_name().unwrap_or_default().to_string_lossy().into());
        let interval = number(&folder.join("update_interval"), HWMON).ok().filter(|&ms| ms > 0);
        let shunt = number(&folder.join("shunt_resistor"), HWMON).ok();
        let sensor = match shunt {
            Some(micro) => format!("{} {place}, shunt {micro} µΩ", chip.to_uppercase()),
            None => format!("{} {place}", chip.to_uppercase()),
        };
        // Jetson Thor's module input.
        let (covers, scope) = match label.as_deref() {
            Some("VIN") => ("the whole module, without the carrier board", Scope::Module),
            _ => ("whatever the meter is wired to; check that the shunt is set as built", Scope::Wired),
        };
        let rail = Rail {
            name: label.unwrap_or_else(|| format!("{chip} {place}")),
            covers: covers.to_owned(),
            scope,
            part_of: None,
            sensor,
            method,
            quality: Quality::Measured,
            interval: interval.map_or(INTERVAL, |ms| Duration::from_millis(ms.unsigned_abs())),
            trust: None,
        };
        Wired { rails: [rail], power }
    }

    fn watts(&self) -> Result<f64, Error> {
        match &self.power {
            Power::Microwatts(path) => Ok(number(path, HWMON)? as f64 * 1e-6),
            Power::Product(volts, amperes) => {
                let (volts, amperes) = (number(volts, HWMON)?, number(amperes, HWMON)?);
                Ok(volts as f64 * amperes as f64 * 1e-6)
            }
        }
    }
}

impl Source for Wired {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        readings.push(self.watts()?);
        Ok(())
    }
}
