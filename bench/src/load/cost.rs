//! What the load costs the processes: processor time and memory, as the kernel counts them.
#![expect(clippy::disallowed_methods, reason = "processor time is held against wall time")]

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Clock ticks per second in /proc (proc(5)): 100 for programs, whatever the kernel uses itself.
const TICKS: f64 = 100.0;

/// Processor time of one process at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    cpu: Duration,
    at: Instant,
}

impl Cost {
    /// This process.
    pub(super) fn own() -> Result<Self> {
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("processor time")?;
        Ok(Cost { cpu: cpu.into(), at: Instant::now() })
    }

    /// Another process; `None` when the kernel does not tell.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything; utime and stime are the 12th and 13th after it (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(Cost { cpu: Duration::from_secs_f64(ticks / TICKS), at: Instant::now() })
    }

    /// Mean share of one core until `later`.
    pub(super) fn until(self, later: Cost) -> f64 {
        later.cpu.saturating_sub(self.cpu).as_secs_f64() / (later.at - self.at).as_secs_f64().max(1e-3)
    }
}

/// Resident memory around the connecting of the heads.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Before, in kB of 1024 bytes; `None`: the kernel does not tell.
    pub before_kb: Option<u64>,
    /// With all heads connected.
    pub after_kb: Option<u64>,
    /// The difference for each of them.
    pub per_connection_kb: Option<f64>,
}

impl Memory {
    pub(super) fn between(before_kb: Option<u64>, after_kb: Option<u64>, heads: usize) -> Self {
        let grown = before_kb.zip(after_kb).map(|(before, after)| after as f64 - before as f64);
        let per_connection_kb = grown.map(|grown| grown / heads.max(1) as f64);
        Memory { before_kb, after_kb, per_connection_kb }
    }

    pub(super) fn text(&self) -> String {
        self.per_connection_kb.map_or_else(|| "unknown (no /proc)".into(), |kb| format!("{kb:.0} KiB"))
    }
}

/// Resident memory of a process, this one if none is named, in kB of 1024 bytes.
pub(super) fn memory(pid: Option<u32>) -> Option<u64> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let status = fs::read_to_string(format!("/proc/{who}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_processor_time_and_as_memory() {
        let (before, of) = (Cost::own().unwrap(), Cost::of(std::process::id()).unwrap());
        let (memory_before, start) = (memory(None).unwrap(), Instant::now());
        let mut block = vec![1u8; 64 << 20];
        while before.at.elapsed().min(start.elapsed()) < Duration::from_millis(200) {
            block.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert!(before.until(Cost::own().unwrap()) > 0.0);
        assert!(Cost::of(std::process::id()).unwrap().cpu >= of.cpu);
        assert!(memory(Some(std::process::id())).unwrap() > memory_before + (48 << 10));
        assert!(block[0] != 0);
    }
}
