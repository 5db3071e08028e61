//! The INA3221 of Jetson modules: three channels per chip, identified by label and not by hwmon number.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Absent, Error, Method, Quality, Rail, Scope, Source,
    sysfs::{HWMON, bus_address, folders, number, optional_text, text},
};

/// Assumed where the driver does not report the conversion time.
const INTERVAL: Duration = Duration::from_millis(100);
/// Name of the sum over a module without an input rail.
const SUM: &str = "module sum";

/// The channels of all chips of the module.
struct Jetson {
    rails: Vec<Rail>,
    channels: Vec<Channel>,
    /// The last rail is the sum of the channels with these indices.
    summed: Option<Vec<usize>>,
}

struct Channel {
    millivolts: PathBuf,
    milliamperes: PathBuf,
}

/// The rail of a label.
struct Description {
    covers: &'static str,
    scope: Scope,
    part_of: Option<&'static str>,
}

/// Finds the channels under `sys`: in hwmon (JetPack 5 and later) or in the older i2c folder (JetPack 4).
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Option<Box<dyn Source>> {
    let mut found = hwmon(sys, absent);
    if found.is_empty() {
        found = i2c(sys, absent);
    }
    (!found.is_empty()).then(|| Box::new(Jetson::new(found)) as Box<dyn Source>)
}

/// Label, sensor, conversion time and channel.
type Found = (String, String, Duration, Channel);

fn hwmon(sys: &Path, absent: &mut Vec<Absent>) -> Vec<Found> {
    let mut found = Vec::new();
    for chip in folders(&sys.join("class/hwmon"), "hwmon") {
        if optional_text(&chip.join("name")).as_deref() != Some("ina3221") {
            continue;
        }
        let sensor = format!("INA3221 {}", bus_address(&chip).unwrap_or_default()).trim_end().to_owned();
        let interval = number(&chip.join("update_interval"), HWMON).ok().filter(|&ms| ms > 0);
        let interval = interval.map_or(INTERVAL, |ms| Duration::from_millis(ms.unsigned_abs()));
        // Channels 4 to 7 are shunt voltages and their sum.
        for number in 1..=3 {
            let label = optional_text(&chip.join(format!("in{number}_label")));
            let enabled = optional_text(&chip.join(format!("in{number}_enable"))).is_none_or(|on| on != "0");
            let channel = Channel {
                millivolts: chip.join(format!("in{number}_input")),
                milliamperes: chip.join(format!("curr{number}_input")),
            };
            found.extend(usable(label.filter(|_| enabled), &sensor, interval, channel, absent));
        }
    }
    found
}

fn i2c(sys: &Path, absent: &mut Vec<Absent>) -> Vec<Found> {
    let mut found = Vec::new();
    for chip in folders(&sys.join("bus/i2c/drivers/ina3221x"), "") {
        let sensor = format!("INA3221 {}", chip.file_name().unwrap_or_default().to_string_lossy());
        for device in folders(&chip, "iio") {
            for number in 0..=2 {
                let label = optional_text(&device.join(format!("rail_name_{number}")));
                let channel = Channel {
                    millivolts: device.join(format!("in_voltage{number}_input")),
                    milliamperes: device.join(format!("in_current{number}_input")),
                };
                found.extend(usable(label, &sensor, INTERVAL, channel, absent));
            }
        }
    }
    found
}

/// Returns a labelled channel that can be read. Channels that are not connected are labelled `NC`.
fn usable(
    label: Option<String>,
    sensor: &str,
    interval: Duration,
    channel: Channel,
    absent: &mut Vec<Absent>,
) -> Option<Found> {
    let label = label.filter(|label| !label.split('_').any(|word| word == "NC"))?;
    match channel.watts() {
        Ok(_) => Some((label, sensor.to_owned(), interval, channel)),
        Err(error) => {
            absent.push(Absent::new(format!("{sensor} {label}"), &error));
            None
        }
    }
}

impl Channel {
    fn watts(&self) -> Result<f64, Error> {
        // Right after one another, so that both belong to the same moment.
        let (volts, amperes) = (number(&self.millivolts, HWMON)?, number(&self.milliamperes, HWMON)?);
        Ok(volts as f64 * amperes as f64 * 1e-6)
    }
}

impl Jetson {
    fn new(found: Vec<Found>) -> Self {
        let whole = found.iter().any(|(label, ..)| describe(label).scope == Scope::Module);
        let mut jetson = Jetson { rails: Vec::new(), channels: Vec::new(), summed: None };
        let mut summed = Vec::new();
        let mut slowest = Duration::ZERO;
        for (label, sensor, interval, channel) in found {
            let Description { covers, scope, part_of } = describe(&label);
            let part_of = match (scope, whole) {
                (Scope::Part, false) if part_of.is_none() => {
                    summed.push(jetson.rails.len());
                    Some(SUM)
                }
                _ => part_of,
            };
            slowest = slowest.max(interval);
            jetson.rails.push(Rail {
                name: label,
                covers: covers.to_owned(),
                scope,
                part_of: part_of.map(str::to_owned),
                sensor,
                method: Method::VoltageTimesCurrent,
                quality: Quality::Measured,
                interval,
                trust: None,
            });
            jetson.channels.push(channel);
        }
        if !summed.is_empty() {
            let names: Vec<&str> = summed.iter().map(|&index| jetson.rails[index].name.as_str()).collect();
            jetson.rails.push(Rail {
                name: SUM.to_owned(),
                covers: format!(
                    "{}: this module has no input rail; losses before the rails and the carrier board are missing",
                    names.join(" + ")
                ),
                scope: Scope::Module,
                part_of: None,
                sensor: "INA3221".to_owned(),
                method: Method::VoltageTimesCurrent,
                quality: Quality::Estimated,
                interval: slowest,
                trust: None,
            });
            jetson.summed = Some(summed);
        }
        jetson
    }
}

impl Source for Jetson {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        for channel in &self.channels {
            readings.push(channel.watts()?);
        }
        if let Some(summed) = &self.summed {
            let sum = summed.iter().map(|&index| readings[index]).sum();
            readings.push(sum);
        }
        Ok(())
    }
}

/// Describes the rails of the boards by NVIDIA's documentation.
fn describe(label: &str) -> Description {
    let of = |covers, scope, part_of| Description { covers, scope, part_of };
    match label {
        "VDD_IN" => of("the whole module, without the carrier board", Scope::Module, None),
        "POM_5V_IN" => of(
            "the 5 V input: the whole module, not what the carrier board feeds itself",
            Scope::Module,
            None,
        ),
        "POM_5V_GPU" => of("the GPU", Scope::Part, Some("POM_5V_IN")),
        "POM_5V_CPU" => of("the CPU", Scope::Part, Some("POM_5V_IN")),
        "VDD_CPU_GPU_CV" => of(
            "CPU, GPU and accelerators together; this board cannot tell them apart",
            Scope::Part,
            Some("VDD_IN"),
        ),
        "VDD_SOC" => of("memory controller, video and other engines", Scope::Part, Some("VDD_IN")),
        "VDD_GPU_SOC" => of("GPU, memory controller, video and other engines", Scope::Part, None),
        "VDD_CPU_CV" => of("CPU and accelerators", Scope::Part, None),
        "VIN_SYS_5V0" => {
            of("the 5 V system rail: memory, storage, ports; not the module's input", Scope::Part, None)
        }
        "VDDQ_VDD2_1V8AO" => {
            of("memory and always-on parts, fed from the 5 V system rail", Scope::Part, Some("VIN_SYS_5V0"))
        }
        "GPU" => of("the GPU", Scope::Part, None),
        "CPU" => of("the CPU", Scope::Part, None),
        "SOC" => of("memory controller, video and other engines", Scope::Part, None),
        "CV" => of("accelerators", Scope::Part, None),
        "VDDRQ" => of("memory", Scope::Part, None),
        "SYS5V" => of("the 5 V system rail", Scope::Part, None),
        carrier if carrier.starts_with("CVB_") => {
            of("a supply of the carrier board", Scope::Part, Some("carrier board"))
        }
        _ => of("not described here; see the board's documentation", Scope::Part, None),
    }
}

/// Reads the name of the board from the device tree, if there is one.
pub(crate) fn board(sys: &Path) -> Option<String> {
    text(&sys.join("firmware/devicetree/base/model"), "").ok().filter(|model| !model.is_empty())
}
