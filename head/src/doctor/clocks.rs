//! Clock governor, temperature and throttling: the causes of frames that take longer than usual.

use std::{
    fs,
    path::{Path, PathBuf},
};

use narrows_power::{
    firmware,
    thermal::{self, FIRMWARE_BITS, Zone},
};
use narrows_service::Check;

/// Returns one check per clock policy; equal ones are merged.
pub(super) fn clocks(sys: &Path) -> Vec<Check> {
    let policies = folders(&sys.join("devices/system/cpu/cpufreq"), "policy");
    if policies.is_empty() {
        return vec![Check::ok("clock", "not controlled by this system")];
    }
    let mut checks: Vec<Check> = Vec::new();
    for policy in policies {
        let text = |name: &str| {
            fs::read_to_string(policy.join(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let gigahertz = |name: &str| text(name).parse::<f64>().ok().map(|kilohertz| kilohertz * 1e-6);
        let governor = text("scaling_governor");
        let (allowed, able) = (gigahertz("scaling_max_freq"), gigahertz("cpuinfo_max_freq"));
        let clock = allowed.map_or_else(String::new, |top| format!(", at most {top:.2} GHz"));
        let found = format!("governor {governor}{clock}");
        let check = match (governor.as_str(), allowed, able) {
            (_, Some(allowed), Some(able)) if allowed < 0.99 * able => {
                let found = format!("{found}, although {able:.2} GHz are possible");
                Check::warning(
                    "clock",
                    found,
                    "Lift the cap: nvpmodel on a Jetson, arm_freq in config.txt on a Raspberry Pi, scaling_max_freq elsewhere",
                )
            }
            ("powersave", ..) if !able.is_some_and(|_| text("scaling_driver").contains("pstate")) => {
                Check::warning(
                    "clock",
                    found,
                    "echo schedutil | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
                )
            }
            _ => Check::ok("clock", found),
        };
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    checks
}

/// Checks the zone nearest to its passive trip point, and the over-current counters of a Jetson.
pub(super) fn heat(sys: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(Zone { name, celsius, limit }) = thermal::hottest(sys) {
        let found = format!("{name} at {celsius:.0} °C; it slows down from {limit:.0} °C on");
        checks.push(match celsius >= limit {
            true => Check::warning("heat", found, "Give it a heat sink, a fan or a lower power mode"),
            false => Check::ok("heat", found),
        });
    }
    let events = thermal::over_current_events(sys);
    if events > 0 {
        let found = format!("throttled {events} times since the start because of over-current");
        checks.push(Check::warning("supply", found, "Use a stronger supply or a lower power mode"));
    }
    checks
}

/// Checks the throttling bits of a Raspberry Pi.
pub(super) fn throttled(board: Option<&str>, vcgencmd: &Path) -> Option<Check> {
    board.filter(|board| board.starts_with("Raspberry Pi"))?;
    let output = firmware::ask(vcgencmd, "get_throttled");
    let answer = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let bits = answer.as_deref().ok().and_then(|text| text.strip_prefix("throttled=0x"));
    Some(match bits.and_then(|bits| u32::from_str_radix(bits, 16).ok()) {
        Some(bits) => throttle(bits),
        None => Check::warning(
            "throttled",
            "vcgencmd get_throttled does not answer",
            "Install vcgencmd, and `usermod -aG video $USER`; then log in again",
        ),
    })
}

fn throttle(bits: u32) -> Check {
    let set = |shift: u32| {
        FIRMWARE_BITS.iter().filter(move |(bit, _)| bits >> (bit + shift) & 1 == 1).map(|(_, what)| *what)
    };
    let (now, before): (Vec<_>, Vec<_>) = (set(0).collect(), set(16).collect());
    let remedy = "Use the board's own supply and a heat sink; measurements made meanwhile do not count";
    match (now.is_empty(), before.is_empty()) {
        (false, _) => Check::warning("throttled", format!("now: {}", now.join(", ")), remedy),
        (true, false) => {
            Check::warning("throttled", format!("since the start: {}", before.join(", ")), remedy)
        }
        (true, true) => Check::ok("throttled", "never since the start"),
    }
}

fn folders(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    let mut found: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(named).collect(),
        Err(_) => Vec::new(),
    };
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    const POLICY: &str = "devices/system/cpu/cpufreq/policy0";

    #[test]
    fn equal_policies_are_one_line_and_a_cap_is_a_warning() {
        let file = |policy: u8, name: &str| format!("devices/system/cpu/cpufreq/policy{policy}/{name}");
        let files = [0, 4].map(|policy| {
            [
                (file(policy, "scaling_governor"), "schedutil"),
                (file(policy, "scaling_max_freq"), "1510400"),
                (file(policy, "cpuinfo_max_freq"), "1510400"),
            ]
        });
        let files: Vec<(&str, &str)> =
            files.iter().flatten().map(|(file, text)| (file.as_str(), *text)).collect();
        let root = tree(&files);
        assert_eq!(clocks(root.path()), [Check::ok("clock", "governor schedutil, at most 1.51 GHz")]);
        fs::write(root.path().join(POLICY).join("scaling_max_freq"), "729600\n").unwrap();
        let checks = clocks(root.path());
        assert_eq!((checks.len(), checks[0].state), (2, State::Warning));
        assert!(checks[0].found.contains("0.73 GHz, although 1.51 GHz"), "{}", checks[0].found);
    }

    #[test]
    fn powersave_is_a_warning_except_where_it_means_automatic() {
        let files = [
            ("scaling_governor", "powersave"),
            ("cpuinfo_max_freq", "1000000"),
            ("scaling_driver", "cpufreq-dt"),
        ];
        let files = files.map(|(name, text)| (format!("{POLICY}/{name}"), text));
        let root = tree(&files.each_ref().map(|(file, text)| (file.as_str(), *text)));
        assert_eq!(clocks(root.path())[0].state, State::Warning);
        fs::write(root.path().join(POLICY).join("scaling_driver"), "intel_pstate\n").unwrap();
        assert_eq!(clocks(root.path())[0].state, State::Ok);
    }

    #[test]
    fn the_zone_nearest_to_its_limit_is_checked() {
        let zone = "class/thermal/thermal_zone";
        let root = tree(&[
            (&format!("{zone}0/type"), "cpu-thermal"),
            (&format!("{zone}0/temp"), "71000"),
            (&format!("{zone}1/type"), "gpu-thermal"),
            (&format!("{zone}1/temp"), "70000"),
            (&format!("{zone}1/trip_point_0_type"), "passive"),
            (&format!("{zone}1/trip_point_0_temp"), "70000"),
            ("class/hwmon/hwmon5/oc1_event_cnt", "3"),
        ]);
        let checks = heat(root.path());
        assert!(checks[0].found.contains("gpu-thermal at 70 °C") && checks[0].state == State::Warning);
        assert!(checks[1].found.contains("3 times") && checks[1].what == "supply");
    }

    #[test]
    fn throttling_now_and_since_the_start_are_told_apart() {
        assert_eq!(throttle(0).state, State::Ok);
        assert!(
            throttle(0x50005)
                .found
                .starts_with("now: the supply's voltage is too low, the processor is throttled")
        );
        assert!(throttle(0x80000).found.starts_with("since the start: the soft temperature limit"));
        assert!(throttled(Some("NVIDIA Jetson"), Path::new("vcgencmd")).is_none());
        let silent = throttled(Some("Raspberry Pi 5"), Path::new("/nowhere/vcgencmd")).unwrap();
        assert!(silent.remedy.unwrap().contains("video"));
    }
}
