//! The checks of a bundle and of power sensors.

use narrows_models::Bundle;
use narrows_power::Sensors;
use narrows_service::Check;

/// The check of a bundle that was opened, so its digests are right.
pub(crate) fn bundle(bundle: &Bundle) -> Check {
    let parts = bundle.manifest().digests();
    let here = parts.iter().filter(|(part, _)| bundle.has(part)).count();
    let found = format!(
        "{} {}: the digests of {here} parts hold, {} parts are not on this device",
        bundle.name(),
        bundle.digest().short(),
        parts.len() - here
    );
    Check::ok("bundle", found)
}

/// The checks of the power sensors.
pub(super) fn sensors(sensors: &Sensors) -> Vec<Check> {
    let rails: Vec<&str> = sensors.rails().map(|rail| rail.name.as_str()).collect();
    let mut checks = vec![match rails.is_empty() {
        true => Check::warning(
            "power",
            "no power sensor can be read: joules are unknown",
            "Put an INA226 or INA260 into the supply, or align a USB meter's recording (`narrows-head power --marker`)",
        ),
        false => Check::ok("power", rails.join(", ")),
    }];
    checks.extend(sensors.absent.iter().map(|absent| {
        let remedy =
            absent.remedy.as_deref().unwrap_or("`narrows-head power` lists what can be read instead");
        Check::warning("power", format!("{}: {}", absent.sensor, absent.reason), remedy)
    }));
    checks
}
