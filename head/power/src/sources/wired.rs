//! Power meters of the hwmon class that are wired into a supply line: the INA219, INA226, INA260 and related chips.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Absent, Error, Method, Quality, Rail, Scope, Source,
    sysfs::{HWMON, bus_address, folders, number, optional_text},
};

const CHIPS: [&str; 11] = [
    "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina232", "ina233", "ina237", "ina238",
    "ina260",
];
/// Assumed where the driver does not report the conversion time.
const INTERVAL: Duration = Duration::from_millis(50);

struct Wired {
    rails: [Rail; 1],
    power: Power,
}

enum Power {
    /// The attribute in microwatts, where the chip multiplies.
    Microwatts(PathBuf),
    /// The attributes in millivolts and milliamperes.
    Product(PathBuf, PathBuf),
}

/// Finds the meters under `sys`, each a source of its own.
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Vec<Box<dyn Source>> {
    let mut found: Vec<Box<dyn Source>> = Vec::new();
    for folder in folders(&sys.join("class/hwmon"), "hwmon") {
        let Some(chip) = optional_text(&folder.join("name")).filter(|name| CHIPS.contains(&name.as_str()))
        else {
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
        let label =
            optional_text(&folder.join("power1_label")).or_else(|| optional_text(&folder.join("in1_label")));
        let product = folder.join("power1_input");
        let (power, method) = match product.exists() {
            true => (Power::Microwatts(product), Method::Power),
            false => {
                let power = Power::Product(folder.join("in1_input"), folder.join("curr1_input"));
                (power, Method::VoltageTimesCurrent)
            }
        };
        let address = bus_address(folder)
            .unwrap_or_else(|| folder.file_name().unwrap_or_default().to_string_lossy().into());
        let interval = number(&folder.join("update_interval"), HWMON).ok().filter(|&ms| ms > 0);
        let shunt = number(&folder.join("shunt_resistor"), HWMON).ok();
        let sensor = match shunt {
            Some(micro) => format!("{} {address}, shunt {micro} µΩ", chip.to_uppercase()),
            None => format!("{} {address}", chip.to_uppercase()),
        };
        // The input of a Jetson Thor's carrier board.
        let (covers, scope) = match label.as_deref() {
            Some("VIN") => ("the whole board: module and carrier", Scope::Device),
            _ => ("whatever the meter is wired to; check that the shunt is set as built", Scope::Wired),
        };
        let rail = Rail {
            name: label.unwrap_or_else(|| format!("{chip} {address}")),
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
