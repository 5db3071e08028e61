//! What the figures were measured on.
#![expect(clippy::disallowed_methods, reason = "a report has the time at which it was made")]

use std::{
    fs,
    num::NonZero,
    path::Path,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use narrows_int8::Isa;
use narrows_power::Places;
use serde::Serialize;

/// Facts about the device.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// The board's own name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) board: Option<String>,
    /// The processor's name, or its architecture.
    pub(super) processor: String,
    pub(super) architecture: &'static str,
    pub(super) cores: usize,
    /// Instruction sets that kernels use.
    pub(super) features: Vec<&'static str>,
    /// The kernels that the networks ran on.
    pub(super) kernels: &'static str,
    /// The highest clock in MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) most_mhz: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) governor: Option<String>,
    /// Memory in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_mb: Option<u64>,
    /// The kernel's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<String>,
    /// The system's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<String>,
}

impl Machine {
    pub(super) fn of_this_device(places: &Places, board: Option<String>, isa: Isa) -> Self {
        let cpufreq = places.sys.join("devices/system/cpu/cpu0/cpufreq");
        let memory = field("/proc/meminfo", "MemTotal");
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let model = field("/proc/cpuinfo", "model name");
        Machine {
            processor: model.or_else(|| board.clone()).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            board,
            architecture: std::env::consts::ARCH,
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            features: narrows_int8::features(),
            kernels: isa.name(),
            most_mhz: number(&cpufreq.join("cpuinfo_max_freq")).map(|khz| khz / 1e3),
            governor: text(&cpufreq.join("scaling_governor")),
            memory_mb: memory.map(|kb| kb / 1000),
            kernel: text(Path::new("/proc/sys/kernel/osrelease")),
            system: system(),
        }
    }
}

/// The present clock of the fastest core in MHz, where the kernel tells.
pub(super) fn mhz(sys: &Path) -> Option<f64> {
    let folders = fs::read_dir(sys.join("devices/system/cpu/cpufreq")).ok()?.flatten();
    let clocks = folders.filter_map(|policy| number(&policy.path().join("scaling_cur_freq")));
    clocks.reduce(f64::max).map(|khz| khz / 1e3)
}

/// Seconds since 1970 by the system's clock.
pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `PRETTY_NAME` of the distribution.
fn system() -> Option<String> {
    let release = text(Path::new("/etc/os-release"))?;
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn number(file: &Path) -> Option<f64> {
    text(file)?.parse().ok()
}

fn text(file: &Path) -> Option<String> {
    narrows_service::read_text(file).ok().map(|text| text.trim().to_owned())
}

/// The value of the first line `name : value` of a file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = text(Path::new(file))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'))?;
    Some(line.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_a_system_does_not_tell_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let policy = root.path().join("devices/system/cpu/cpufreq/policy0");
        fs::create_dir_all(&policy).unwrap();
        assert_eq!(mhz(root.path()), None);
        fs::write(policy.join("scaling_cur_freq"), "1500000\n").unwrap();
        assert_eq!(mhz(root.path()), Some(1500.0));
        let places = Places { sys: root.path().to_owned(), ..Places::default() };
        let machine = Machine::of_this_device(&places, Some("A board".to_owned()), Isa::detect());
        assert!(machine.cores > 0 && machine.memory_mb > Some(10) && !machine.processor.is_empty());
        assert_eq!((machine.governor, machine.most_mhz), (None, None));
    }
}
