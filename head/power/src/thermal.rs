//! Temperature and throttling of a board: thermal zones, cooling devices, and the flags of a Raspberry Pi's firmware.

use std::{
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use crate::{
    Error, Places, firmware,
    sysfs::{folders, number, optional_text},
};

/// Temperature in °C from which a zone without a trip point counts as hot.
const HOT: f64 = 80.0;
/// Time between two readings of a [`ThermalWatch`].
const EVERY: Duration = Duration::from_secs(1);
/// Bits of a Raspberry Pi's `get_throttled` at present; 16 bits higher they say that it happened since the start.
pub const FIRMWARE_BITS: [(u32, &str); 4] = [
    (0, "the supply's voltage is too low"),
    (1, "the clock is capped"),
    (2, "the processor is throttled"),
    (3, "the soft temperature limit is active"),
];

/// A thermal zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its type, such as `cpu-thermal`.
    pub name: String,
    /// Its temperature in °C.
    pub celsius: f64,
    /// The temperature in °C from which the board slows down: the lowest passive trip point, else 80.
    pub limit: f64,
}

/// Temperature and throttling at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thermal {
    /// The zone nearest to its limit; `None` where the system tells no temperature.
    pub zone: Option<Zone>,
    /// Why the board is slower than it could be, each cause once; empty where nothing says that it is.
    pub throttled: Vec<String>,
}

/// Reads temperature and throttling again and again.
#[derive(Debug)]
pub struct ThermalReader {
    places: Places,
    /// Whether the firmware is asked by its command-line client, since the kernel does not pass on its flags.
    asks_firmware: bool,
    /// Over-current events of a Jetson at the last reading.
    events: u64,
}

impl ThermalReader {
    /// A reader of the board at these places.
    #[must_use]
    pub fn new(places: Places) -> Self {
        let board = optional_text(&places.sys.join("firmware/devicetree/base/model"));
        let is_pi = board.is_some_and(|board| board.starts_with("Raspberry Pi"));
        let asks_firmware = is_pi && kernel_flags(&places.sys).is_none();
        let events = over_current_events(&places.sys);
        ThermalReader { places, asks_firmware, events }
    }

    /// The temperature now, and what slows the board down now or has since the last reading.
    pub fn read(&mut self) -> Thermal {
        let sys = self.places.sys.as_path();
        let flags = match self.asks_firmware {
            true => firmware_flags(&self.places.vcgencmd),
            false => kernel_flags(sys),
        };
        // Where the client cannot be started or refuses, it does so the next time as well.
        self.asks_firmware &= flags.is_some();
        let set = FIRMWARE_BITS.iter().filter(|(bit, _)| flags.unwrap_or(0) >> bit & 1 == 1);
        let mut throttled: Vec<String> = set.map(|(_, cause)| (*cause).to_owned()).collect();
        throttled.extend(undervoltage(sys));
        throttled.extend(cooling(sys));
        let events = over_current_events(sys);
        if events > self.events {
            throttled.push("over-current".to_owned());
        }
        self.events = events;
        throttled.sort();
        throttled.dedup();
        Thermal { zone: hottest(sys), throttled }
    }
}

/// Reads throttling each second on a thread of its own.
#[derive(Debug)]
pub struct ThermalWatch {
    /// Closed to end the thread.
    end: Sender<()>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl ThermalWatch {
    /// Begins to watch the board at these places.
    ///
    /// # Errors
    /// [`Error::Thread`] if no thread can be started.
    pub fn start(places: Places) -> Result<Self, Error> {
        let (end, ended) = channel();
        let watch = move || {
            let mut reader = ThermalReader::new(places);
            let mut causes: Vec<String> = Vec::new();
            loop {
                for cause in reader.read().throttled {
                    if !causes.contains(&cause) {
                        causes.push(cause);
                    }
                }
                if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return causes;
                }
            }
        };
        let thread = thread::Builder::new().name("heat".to_owned()).spawn(watch).map_err(Error::Thread)?;
        Ok(ThermalWatch { end, thread })
    }

    /// Why the board was slowed down since the start, each cause once; empty where nothing says that it was.
    ///
    /// # Errors
    /// [`Error::Device`] if the thread failed.
    pub fn stop(self) -> Result<Vec<String>, Error> {
        drop(self.end);
        self.thread.join().map_err(|_| Error::Device("the thread that watches the heat failed".to_owned()))
    }
}

/// The thermal zone nearest to its limit.
#[must_use]
pub fn hottest(sys: &Path) -> Option<Zone> {
    let mut found: Option<Zone> = None;
    for folder in folders(&sys.join("class/thermal"), "thermal_zone") {
        // A zone that is switched off cannot be read, or reads 0.
        let Some(celsius) = degrees(&folder.join("temp")) else { continue };
        let passive = (0..12).filter(|trip| {
            let kind = optional_text(&folder.join(format!("trip_point_{trip}_type")));
            kind.is_some_and(|kind| kind == "passive")
        });
        let limit = passive.filter_map(|trip| degrees(&folder.join(format!("trip_point_{trip}_temp"))));
        let limit = limit.reduce(f64::min).unwrap_or(HOT);
        if found.as_ref().is_none_or(|other| celsius - limit > other.celsius - other.limit) {
            let name = optional_text(&folder.join("type")).unwrap_or_default();
            found = Some(Zone { name, celsius, limit });
        }
    }
    found
}

/// Over-current events of a Jetson since its start, each of which throttled it.
#[must_use]
pub fn over_current_events(sys: &Path) -> u64 {
    let counters = folders(&sys.join("class/hwmon"), "hwmon").into_iter().flat_map(|folder| {
        (1..=4).filter_map(move |alarm| number(&folder.join(format!("oc{alarm}_event_cnt")), "").ok())
    });
    counters.filter_map(|count| u64::try_from(count).ok()).sum()
}

/// The flags of a Raspberry Pi's firmware, where the kernel passes them on.
fn kernel_flags(sys: &Path) -> Option<u32> {
    let found = folders(&sys.join("devices/platform"), "soc").into_iter().find_map(|soc| {
        folders(&soc, "soc").into_iter().find_map(|firmware| optional_text(&firmware.join("get_throttled")))
    });
    u32::from_str_radix(found?.trim_start_matches("0x"), 16).ok()
}

/// The same flags from the firmware's command-line client: `throttled=0x50005`.
fn firmware_flags(vcgencmd: &Path) -> Option<u32> {
    let output = firmware::ask(vcgencmd, "get_throttled").ok()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    u32::from_str_radix(answer.trim().strip_prefix("throttled=0x")?, 16).ok()
}

/// The alarm of a Raspberry Pi's supply, which every kernel has.
fn undervoltage(sys: &Path) -> Option<String> {
    let is_low = folders(&sys.join("class/hwmon"), "hwmon").into_iter().any(|folder| {
        optional_text(&folder.join("name")).is_some_and(|name| name == "rpi_volt")
            && number(&folder.join("in0_lcrit_alarm"), "").is_ok_and(|alarm| alarm != 0)
    });
    is_low.then(|| FIRMWARE_BITS[0].1.to_owned())
}

/// Cooling devices that slow something down at present; a fan does not.
fn cooling(sys: &Path) -> Vec<String> {
    let slows =
        |name: &str| ["cpufreq", "devfreq", "throttle", "Processor"].iter().any(|part| name.contains(part));
    let active = folders(&sys.join("class/thermal"), "cooling_device").into_iter().filter_map(|folder| {
        let name = optional_text(&folder.join("type")).filter(|name| slows(name))?;
        let state = number(&folder.join("cur_state"), "").ok()?;
        (state > 0).then(|| format!("{name} is active"))
    });
    active.collect()
}

fn degrees(path: &Path) -> Option<f64> {
    let celsius = number(path, "").ok()? as f64 * 1e-3;
    (celsius > 0.0).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn board(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, text)| set(root.path(), file, text));
        root
    }

    fn reader(sys: &Path) -> ThermalReader {
        ThermalReader::new(Places { sys: sys.to_owned(), vcgencmd: sys.join("vcgencmd") })
    }

    fn set(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn a_raspberry_pi_tells_its_firmwares_flags() {
        // Attributes of a Raspberry Pi 4 with kernel 6.6.
        let root = board(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("class/thermal/thermal_zone0/temp", "58426"),
            ("class/thermal/thermal_zone0/trip_point_0_type", "critical"),
            ("class/thermal/thermal_zone0/trip_point_0_temp", "110000"),
            ("class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            ("class/thermal/cooling_device0/cur_state", "0"),
            ("class/hwmon/hwmon0/name", "cpu_thermal"),
            ("class/hwmon/hwmon1/name", "rpi_volt"),
            ("class/hwmon/hwmon1/in0_lcrit_alarm", "0"),
            ("devices/platform/soc/soc:firmware/get_throttled", "50000"),
        ]);
        let mut reader = reader(root.path());
        let zone = Zone { name: "cpu-thermal".into(), celsius: 58.426, limit: 80.0 };
        assert_eq!(reader.read(), Thermal { zone: Some(zone), throttled: Vec::new() });
        set(root.path(), "devices/platform/soc/soc:firmware/get_throttled", "0x50005");
        set(root.path(), "class/hwmon/hwmon1/in0_lcrit_alarm", "1");
        let causes = ["the processor is throttled", "the supply's voltage is too low"];
        assert_eq!(reader.read().throttled, causes);
    }

    #[test]
    fn what_slows_the_board_down_while_it_is_watched_is_kept() {
        let root = board(&[
            ("class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            ("class/thermal/cooling_device0/cur_state", "1"),
        ]);
        let places = Places { sys: root.path().to_owned(), vcgencmd: root.path().join("vcgencmd") };
        let watch = ThermalWatch::start(places).unwrap();
        // The first reading is that of the start.
        assert_eq!(watch.stop().unwrap(), ["cpufreq-cpu0 is active"]);
    }

    #[test]
    fn the_firmware_is_asked_where_the_kernel_says_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let root = board(&[
            ("firmware/devicetree/base/model", "Raspberry Pi 5 Model B Rev 1.0"),
            ("vcgencmd", "#!/bin/sh\necho throttled=0x80008"),
        ]);
        let client = root.path().join("vcgencmd");
        assert!(reader(root.path()).read().throttled.is_empty());
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(reader(root.path()).read().throttled, ["the soft temperature limit is active"]);
    }

    #[test]
    fn a_jetson_tells_its_alerts_and_over_current() {
        // Attributes of a Jetson Orin Nano with JetPack 6.
        let root = board(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("class/thermal/thermal_zone0/temp", "51031"),
            ("class/thermal/thermal_zone0/trip_point_1_type", "passive"),
            ("class/thermal/thermal_zone0/trip_point_1_temp", "99000"),
            ("class/thermal/thermal_zone1/type", "gpu-thermal"),
            ("class/thermal/thermal_zone1/temp", "0"),
            ("class/thermal/cooling_device0/type", "pwm-fan"),
            ("class/thermal/cooling_device0/cur_state", "2"),
            ("class/thermal/cooling_device3/type", "cpu-throttle-alert"),
            ("class/thermal/cooling_device3/cur_state", "0"),
            ("class/hwmon/hwmon2/oc1_event_cnt", "3"),
        ]);
        let mut reader = reader(root.path());
        let zone = reader.read().zone.unwrap();
        assert_eq!((zone.name.as_str(), zone.limit), ("cpu-thermal", 99.0));
        set(root.path(), "class/thermal/cooling_device3/cur_state", "1");
        set(root.path(), "class/hwmon/hwmon2/oc1_event_cnt", "4");
        assert_eq!(reader.read().throttled, ["cpu-throttle-alert is active", "over-current"]);
        assert_eq!(reader.read().throttled, ["cpu-throttle-alert is active"]);
    }

    #[test]
    fn a_system_that_tells_nothing_is_neither_hot_nor_throttled() {
        let root = board(&[]);
        assert_eq!(reader(root.path()).read(), Thermal::default());
    }
}
