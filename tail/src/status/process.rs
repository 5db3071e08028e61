//! The figures of this process that Prometheus' clients usually expose, from Linux's procfs.

use std::fs;

/// Figures of this process; those that the operating system does not give are missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// User and system processor time in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Bytes of resident memory.
    pub(super) resident: Option<u64>,
    /// Open file descriptors.
    pub(super) open_files: Option<usize>,
}

/// Ticks a second of the times in `/proc/self/stat`: USER_HZ, which Linux fixes for programs (`man 5 proc`).
const TICKS: f64 = 100.0;

impl Process {
    /// Reads the figures.
    pub(super) fn read() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let status = fs::read_to_string("/proc/self/status").ok();
        Process {
            cpu_seconds: stat.as_deref().and_then(cpu_seconds),
            resident: status.as_deref().and_then(resident),
            open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }
}

/// The times of `/proc/self/stat`, fields 14 and 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((fields.next()?? + fields.next()??) / TICKS)
}

/// The line `VmRSS` of `/proc/self/status`, in kibibytes there.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_process_are_read() {
        let process = Process::read();
        assert!(process.resident > Some(1 << 20) && process.open_files >= Some(3), "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!((cpu_seconds("7 (a) S"), resident("VmSize: 1 kB\n")), (None, None));
    }
}
