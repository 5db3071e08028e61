//! Processor time and memory of this process and of the server, as the kernel counts them.
#![expect(clippy::disallowed_methods, reason = "processor time is compared with wall time")]

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Clock ticks per second in /proc (proc(5)): 100 for programs, whatever the kernel uses itself.
const TICKS: f64 = 100.0;

/// Processor time of one process at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuTime {
    cpu: Duration,
    at: Instant,
}

impl CpuTime {
    /// Of this process, to a nanosecond.
    pub(super) fn own() -> Self {
        let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        CpuTime { cpu, at: Instant::now() }
    }

    /// Of the process `pid`, to a clock tick; `None` when the kernel does not tell.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything; utime and stime are the 12th and 13th field after it (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(CpuTime { cpu: Duration::from_secs_f64(ticks / TICKS), at: Instant::now() })
    }

    /// Mean share of one core until `later`.
    pub(super) fn share_until(self, later: CpuTime) -> f64 {
        later.cpu.saturating_sub(self.cpu).as_secs_f64() / (later.at - self.at).as_secs_f64().max(1e-3)
    }
}

/// Resident memory before and after the clients connected.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Before, in kB of 1024 bytes; `None` when the kernel does not tell.
    pub before_kb: Option<u64>,
    /// With all clients connected.
    pub after_kb: Option<u64>,
    /// The difference per connection.
    pub per_connection_kb: Option<f64>,
}

impl Memory {
    pub(super) fn between(before_kb: Option<u64>, after_kb: Option<u64>, connections: usize) -> Self {
        let grown = before_kb.zip(after_kb).map(|(before, after)| after as f64 - before as f64);
        let per_connection_kb = grown.map(|grown| grown / connections.max(1) as f64);
        Memory { before_kb, after_kb, per_connection_kb }
    }

    /// Memory per connection in words.
    pub(super) fn text(&self) -> String {
        self.per_connection_kb.map_or_else(|| "unknown (no /proc)".into(), |kb| format!("{kb:.0} KiB"))
    }
}

/// Resident memory of the process `pid` in kB of 1024 bytes; `None` when the kernel does not tell.
pub(super) fn resident_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::id;

    use super::*;

    #[test]
    fn work_shows_as_processor_time_and_as_memory() {
        let (before, other_before) = (CpuTime::own(), CpuTime::of(id()).unwrap());
        let memory_before = resident_kb(id()).unwrap();
        let mut block = vec![1u8; 64 << 20];
        while before.at.elapsed() < Duration::from_millis(200) {
            block.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert!(before.share_until(CpuTime::own()) > 0.0);
        assert!(CpuTime::of(id()).unwrap().cpu >= other_before.cpu);
        assert!(resident_kb(id()).unwrap() > memory_before + (48 << 10));
        assert!(block[0] != 0);
    }
}
