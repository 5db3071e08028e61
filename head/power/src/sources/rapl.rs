//! RAPL, the energy counters of x86 processors, read through the kernel's powercap class.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Absent, Error, Method, Quality, Rail, Scope, Source,
    sysfs::{folders, number, optional_text},
};

/// The counters have a new value about once a millisecond.
const TICK: Duration = Duration::from_millis(1);
/// Time between two reads. The hardware sums in between, so few are needed.
const EVERY: Duration = Duration::from_millis(100);
/// More than any package draws. A counter wraps at most once in the time that this power takes for its range, so
/// readings may be that far apart.
const MOST_WATTS: f64 = 1000.0;
const REMEDY: &str = "The kernel lets only root read RAPL (CVE-2020-8694). To let a group: \
     `groupadd -f power && usermod -aG power $USER`, and in /etc/udev/rules.d/70-power.rules: \
     SUBSYSTEM==\"powercap\", ACTION==\"add\", RUN+=\"/bin/sh -c 'chgrp power /sys%p/energy_uj && chmod g+r /sys%p/energy_uj'\"; \
     then log in again and run `udevadm trigger --action=add --subsystem-match=powercap`";

struct Rapl {
    rails: Vec<Rail>,
    counters: Vec<Counter>,
}

/// A counter whose wraps are added up.
struct Counter {
    file: PathBuf,
    /// One more than its largest value, in microjoules.
    range: i64,
    last: Option<i64>,
    total: i64,
}

struct Zone {
    id: String,
    name: String,
    counter: Counter,
}

/// Finds the zones under `sys`.
pub(crate) fn find(sys: &Path, absent: &mut Vec<Absent>) -> Option<Box<dyn Source>> {
    // intel-rapl-mmio has the same packages a second time; AMD's processors appear as intel-rapl too.
    let folders = folders(&sys.join("class/powercap"), "intel-rapl:");
    let mut zones = Vec::new();
    for folder in folders {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = optional_text(&folder.join("name")).unwrap_or_else(|| id.clone());
        let file = folder.join("energy_uj");
        let range = number(&folder.join("max_energy_range_uj"), REMEDY);
        match number(&file, REMEDY).and(range) {
            Ok(range) => {
                let counter = Counter { file, range: range.saturating_add(1), last: None, total: 0 };
                zones.push(Zone { id, name, counter });
            }
            Err(error) => absent.push(Absent::new(format!("RAPL {name}"), &error)),
        }
    }
    (!zones.is_empty()).then(|| Box::new(Rapl::new(zones)) as Box<dyn Source>)
}

impl Rapl {
    fn new(zones: Vec<Zone>) -> Self {
        let system = zones.iter().find(|zone| zone.name == "psys").map(|zone| zone.name.clone());
        // Parts of different sockets have the same names.
        let sockets = zones.iter().filter(|zone| zone.name.starts_with("package")).count();
        let names: Vec<(String, String)> = zones
            .iter()
            .map(|zone| {
                let parent =
                    zone.id.rsplit_once(':').and_then(|(id, _)| zones.iter().find(|other| other.id == id));
                let name = match parent {
                    Some(parent) if sockets > 1 => format!("{} {}", parent.name, zone.name),
                    _ => zone.name.clone(),
                };
                (name, parent.map_or_else(String::new, |parent| parent.name.clone()))
            })
            .collect();
        let mut rapl = Rapl { rails: Vec::new(), counters: Vec::new() };
        for (zone, (name, parent)) in zones.into_iter().zip(names) {
            let (covers, scope, part_of) = match zone.name.as_str() {
                "psys" => ("the whole platform, as far as its regulators report", Scope::Processor, None),
                // Memory is not part of the package, although its zone is below the package's.
                "dram" => ("memory", Scope::Processor, system.clone()),
                "core" => ("the cores", Scope::Part, Some(parent)),
                "uncore" => ("the graphics or other parts beside the cores", Scope::Part, Some(parent)),
                name if name.starts_with("package") => (
                    "the processor package: cores, caches, memory controller",
                    Scope::Processor,
                    system.clone(),
                ),
                _ => ("a zone of the processor", Scope::Part, Some(parent)),
            };
            rapl.rails.push(Rail {
                name,
                covers: covers.to_owned(),
                scope,
                part_of: part_of.filter(|parent| !parent.is_empty()),
                sensor: format!("RAPL {}", zone.id),
                method: Method::EnergyCounter,
                // On most processors the chip models it from event counts and its regulators.
                quality: Quality::Estimated,
                interval: TICK,
                trust: Some(Duration::from_secs_f64(zone.counter.range as f64 * 1e-6 / MOST_WATTS)),
            });
            rapl.counters.push(zone.counter);
        }
        rapl
    }
}

impl Source for Rapl {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        for counter in &mut self.counters {
            readings.push(counter.joules()?);
        }
        Ok(())
    }

    fn every(&self) -> Duration {
        EVERY
    }
}

impl Counter {
    /// Joules since the first reading.
    fn joules(&mut self) -> Result<f64, Error> {
        let now = number(&self.file, REMEDY)?;
        if let Some(last) = self.last {
            let step = now - last;
            self.total += if step < 0 { step + self.range } else { step };
        }
        self.last = Some(now);
        Ok(self.total as f64 * 1e-6)
    }
}
