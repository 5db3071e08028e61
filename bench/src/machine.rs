//! Facts about the machine that figures were measured on.

use std::{fs, path::Path, process::Command};

/// Processor, memory, kernel and frequency governor: pairs of name and value, in the order to show.
#[must_use]
pub fn describe() -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".into());
    let facts = [
        ("processor", format!("{}, {cores} cores", processor())),
        ("memory", memory),
        ("kernel", read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into())),
        ("governor", governor()),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The processor's architecture and model.
#[must_use]
pub fn processor() -> String {
    let name = field("/proc/cpuinfo", "model name").or_else(|| field("/proc/cpuinfo", "CPU part"));
    format!("{} {}", std::env::consts::ARCH, name.unwrap_or_default()).trim().to_owned()
}

fn governor() -> String {
    let mut found: Vec<String> = cores("cpufreq/scaling_governor").collect();
    found.sort();
    found.dedup();
    match found.len() {
        0 => "unknown: the kernel offers no cpufreq here".into(),
        _ => found.join(", "),
    }
}

/// The present clock of the fastest core in MHz.
#[must_use]
pub fn mhz() -> Option<f64> {
    let of_kernel = cores("cpufreq/scaling_cur_freq").filter_map(|khz| Some(khz.parse::<f64>().ok()? / 1e3));
    of_kernel.reduce(f64::max).or_else(|| {
        let info = fs::read_to_string("/proc/cpuinfo").ok()?;
        let lines = info.lines().filter(|line| line.starts_with("cpu MHz"));
        lines.filter_map(|line| line.split_once(':')?.1.trim().parse().ok()).reduce(f64::max)
    })
}

/// The load average of the last minute.
#[must_use]
pub fn load() -> Option<f64> {
    read("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

/// How often cores were slowed down because of heat since the machine started; `None` where the kernel does not count it.
#[must_use]
pub fn throttled() -> Option<u64> {
    let counts: Vec<u64> =
        cores("thermal_throttle/core_throttle_count").filter_map(|count| count.parse().ok()).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

/// `git describe` of the tree that contains the running program, with `-dirty` where it has changes.
#[must_use]
pub fn commit() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(Path::new("."));
    let git = Command::new("git").arg("-C").arg(folder).args(["describe", "--always", "--dirty"]).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".into(),
    }
}

/// The content of a file in the folder of every core in /sys.
fn cores(file: &str) -> impl Iterator<Item = String> {
    let folders = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let is_core = |name: &str| {
        name.strip_prefix("cpu").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let folders = folders.filter(move |entry| is_core(&entry.file_name().to_string_lossy()));
    folders.filter_map(move |entry| read(entry.path().join(file)))
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
