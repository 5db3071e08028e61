//! Every kind of sensor, read from a copy of its board's sysfs: rails with their provenance, and joules of a known waveform.
//!
//! Each folder in `fixtures/` names its source. The waveform is played into a copy of the tree on a clock of the test's
//! own, with jittered readings and a gap of five seconds; joules must come within 1 % of the analytic value.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::Cell,
    f64::consts::TAU,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use narrows_power::{
    Measured, Method, Places, Plan, Quality, Rail, Recorder, Recording, Scope, Sensors, Window, discover,
    marker::{CHIP, CHIPS, LENGTH},
    meter::Log,
    total,
};
use tempfile::TempDir;

/// Idle until 10 s, work until 70 s, idle until 80 s.
const RUN: (f64, f64) = (10.0, 70.0);
const END: f64 = 80.0;
const IDLE_WATTS: f64 = 3.0;
/// Nothing is read here.
const GAP: (f64, f64) = (50.0, 55.0);

fn watts(time: f64) -> f64 {
    match time {
        time if !(RUN.0..RUN.1).contains(&time) => IDLE_WATTS,
        time => {
            2.0 * IDLE_WATTS
                + 2.0 * (TAU * time / 7.0).sin()
                + if (20.0..35.0).contains(&time) { 4.0 } else { 0.0 }
        }
    }
}

/// The integral of [`watts`].
fn joules(from: f64, to: f64) -> f64 {
    let work = |from: f64, to: f64| {
        let (a, b) = (from.clamp(RUN.0, RUN.1), to.clamp(RUN.0, RUN.1));
        let (c, d) = (from.clamp(20.0, 35.0), to.clamp(20.0, 35.0));
        let wave = |time: f64| -2.0 * 7.0 / TAU * (TAU * time / 7.0).cos();
        IDLE_WATTS * (b - a) + wave(b) - wave(a) + 4.0 * (d - c)
    };
    IDLE_WATTS * (to - from) + work(from, to)
}

#[test]
fn the_analytic_joules_are_the_waveforms() {
    let steps = 800_000;
    let width = END / f64::from(steps);
    let sum: f64 = (0..steps).map(|step| watts((f64::from(step) + 0.5) * width) * width).sum();
    assert!((sum - joules(0.0, END)).abs() < 1e-3, "{sum}, {}", joules(0.0, END));
}

/// A copy of a fixture's tree that the waveform is played into.
struct Board {
    folder: TempDir,
}

impl Board {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let source = fs::read_to_string(fixture.join("SOURCE")).expect("a fixture names its source");
        assert!(source.len() > 100);
        copy(&fixture, folder.path());
        Board { folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("sys").join(file)
    }

    fn set(&self, file: &str, value: f64) {
        fs::write(self.path(file), format!("{}\n", value.round() as i64)).unwrap();
    }

    fn find(&self) -> Sensors {
        let vcgencmd = self.folder.path().join("vcgencmd");
        discover(&Places { sys: self.folder.path().join("sys"), vcgencmd })
    }

    /// Plays the waveform; `set` brings the tree to a moment's watts and joules so far.
    fn play(&self, set: impl Fn(f64, f64)) -> Recording {
        set(watts(0.0), 0.0);
        let now = Cell::new(0.0);
        let mut clock = || Duration::from_secs_f64(now.get());
        let mut recorder = Recorder::new(self.find().sources, clock());
        let mut seed = 1_u32;
        let mut jitter = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed >> 8) / f64::from(1 << 24)
        };
        let mut due = 0.0;
        while due < END {
            // A reading is late by up to six tenths of a 50 ms beat.
            let late = due + 0.03 * jitter();
            now.set(if (GAP.0..GAP.1).contains(&late) { GAP.1 } else { late });
            set(watts(now.get()), joules(0.0, now.get()));
            due = recorder.poll(&mut clock).unwrap().as_secs_f64();
        }
        recorder.finish(Some(0.0), END)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else if entry.file_name() == "vcgencmd" {
            // A program that was just written may not be startable yet.
            symlink(entry.path(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn plan() -> Plan {
    let window = |from: f64, to: f64| Window::new(Duration::from_secs_f64(from), Duration::from_secs_f64(to));
    Plan {
        run: window(RUN.0, RUN.1),
        idle_before: Some(window(0.1, RUN.0 - 0.5)),
        idle_after: Some(window(RUN.1 + 0.5, END - 1.0)),
    }
}

fn rail<'a>(measured: &'a [Measured], name: &str) -> &'a Measured {
    measured.iter().find(|one| one.rail.name == name).unwrap_or_else(|| panic!("no rail {name}"))
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= 0.01 * wanted.abs(), "{found} is not within 1 % of {wanted}");
}

/// A rail that was sampled with the share `share` of the waveform's watts and `rest` watts more.
fn sampled(measured: &[Measured], name: &str, share: f64, rest: f64) {
    let (work, covered) = gross(measured, name, share, rest);
    near(rail(measured, name).net_joules.unwrap(), share * (work - IDLE_WATTS * covered));
}

/// Its gross joules and idle watts alone; the waveform's joules and seconds that readings cover.
fn gross(measured: &[Measured], name: &str, share: f64, rest: f64) -> (f64, f64) {
    let one = rail(measured, name);
    let [gap] = one.gross.gaps[..] else { panic!("{name}: not one gap: {:?}", one.gross.gaps) };
    assert!(!gap.counted && !one.complete, "{name}");
    assert!(
        (GAP.0 - 1.1..GAP.0).contains(&gap.from_s) && (GAP.1..GAP.1 + 0.2).contains(&gap.to_s),
        "{gap:?}"
    );
    let covered = RUN.1 - RUN.0 - (gap.to_s - gap.from_s);
    assert!((one.gross.covered_s - covered).abs() < 1e-6);
    let work = joules(RUN.0, RUN.1) - joules(gap.from_s, gap.to_s);
    near(one.gross.joules, share * work + rest * covered);
    near(one.idle.unwrap().watts, share * IDLE_WATTS + rest);
    (work, covered)
}

fn names(sensors: &Sensors) -> Vec<&str> {
    sensors.rails().map(|rail| rail.name.as_str()).collect()
}

fn found<'a>(sensors: &'a Sensors, name: &str) -> &'a Rail {
    sensors.rails().find(|rail| rail.name == name).unwrap()
}

#[test]
fn jetson_nano_has_its_input_as_the_total() {
    let board = Board::new("jetson-nano");
    let sensors = board.find();
    assert_eq!(sensors.board.as_deref(), Some("NVIDIA Jetson Nano Developer Kit"));
    assert_eq!(names(&sensors), ["POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"]);
    assert_eq!(found(&sensors, "POM_5V_GPU").part_of.as_deref(), Some("POM_5V_IN"));
    assert!(found(&sensors, "POM_5V_IN").sensor.contains("6-0040"));
    let chip = "bus/i2c/drivers/ina3221x/6-0040/iio:device0";
    let recording = board.play(|watts, _| {
        for (channel, share) in [(0, 1.0), (1, 0.25), (2, 0.5)] {
            board.set(&format!("{chip}/in_voltage{channel}_input"), 5000.0);
            board.set(&format!("{chip}/in_current{channel}_input"), share * watts / 5.0 * 1e3);
        }
    });
    let measured = recording.over(&plan());
    sampled(&measured, "POM_5V_IN", 1.0, 0.0);
    sampled(&measured, "POM_5V_CPU", 0.5, 0.0);
    let total = total(&measured).unwrap();
    assert_eq!((&total.rails[..], total.scope), (&["POM_5V_IN".to_owned()][..], Scope::Module));
}

#[test]
fn orin_nano_names_the_shared_rail_as_shared() {
    let board = Board::new("orin-nano");
    let sensors = board.find();
    // Neither the sum of shunt voltages nor the thermometer is a rail.
    assert_eq!(names(&sensors), ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]);
    let shared = found(&sensors, "VDD_CPU_GPU_CV");
    assert!(shared.covers.contains("CPU, GPU") && shared.covers.contains("cannot tell them apart"));
    assert_eq!(shared.interval, Duration::from_millis(50));
    assert_eq!((shared.method, shared.quality), (Method::VoltageTimesCurrent, Quality::Measured));
    let chip = "class/hwmon/hwmon1";
    let recording = board.play(|watts, _| {
        // The supply sags under load.
        let volts = 5.1 - 0.02 * watts;
        for (channel, share) in [(1, 1.0), (2, 0.5), (3, 0.25)] {
            board.set(&format!("{chip}/in{channel}_input"), volts * 1e3);
            board.set(&format!("{chip}/curr{channel}_input"), share * watts / volts * 1e3);
        }
    });
    let measured = recording.over(&plan());
    sampled(&measured, "VDD_IN", 1.0, 0.0);
    sampled(&measured, "VDD_CPU_GPU_CV", 0.5, 0.0);
    assert_eq!(total(&measured).unwrap().rails, ["VDD_IN"]);
}

#[test]
fn agx_orin_has_an_estimated_sum_and_no_total() {
    let board = Board::new("agx-orin");
    let sensors = board.find();
    assert_eq!(
        names(&sensors),
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO", "module sum"]
    );
    assert_eq!(found(&sensors, "module sum").quality, Quality::Estimated);
    assert_eq!(found(&sensors, "VDDQ_VDD2_1V8AO").part_of.as_deref(), Some("VIN_SYS_5V0"));
    assert!(found(&sensors, "VDDQ_VDD2_1V8AO").sensor.contains("1-0041"));
    let recording = board.play(|watts, _| {
        for (channel, volts, share) in
            [("3/%1", 19.0, 0.5), ("3/%2", 19.0, 0.3), ("3/%3", 5.0, 0.2), ("4/%2", 5.0, 0.1)]
        {
            let file = |name: &str| format!("class/hwmon/hwmon{}_input", channel.replace('%', name));
            board.set(&file("in"), volts * 1e3);
            board.set(&file("curr"), share * watts / volts * 1e3);
        }
    });
    let measured = recording.over(&plan());
    sampled(&measured, "VDD_GPU_SOC", 0.5, 0.0);
    sampled(&measured, "module sum", 1.0, 0.0);
    let total = total(&measured).unwrap();
    assert_eq!((&total.rails[..], total.quality), (&["module sum".to_owned()][..], Quality::Estimated));
    assert!(!total.complete);
}

#[test]
fn pi_5_adds_its_rails_and_estimates_the_board() {
    let board = Board::new("pi-5");
    let sensors = board.find();
    assert_eq!(sensors.rails().filter(|rail| rail.part_of.as_deref() == Some("PMIC sum")).count(), 12);
    let sum = found(&sensors, "PMIC sum");
    assert!(sum.covers.starts_with("part of the board") && sum.quality == Quality::Measured);
    assert_eq!(found(&sensors, "board").quality, Quality::Estimated);
    let recorded = fs::read_to_string(board.folder.path().join("pmic_read_adc.txt")).unwrap();
    let value = |name: &str| {
        let line = recorded.lines().find(|line| line.trim().starts_with(name)).unwrap();
        line.split_once('=').unwrap().1.trim_end_matches(['A', 'V']).parse::<f64>().unwrap()
    };
    let rails = sensors.rails().filter(|rail| rail.part_of.as_deref() == Some("PMIC sum"));
    let whole: f64 =
        rails.map(|rail| value(&format!("{}_A", rail.name)) * value(&format!("{}_V", rail.name))).sum();
    let recording = board.play(|watts, _| {
        let scaled =
            |line: &str| match line.trim_end().strip_suffix('A').and_then(|line| line.split_once('=')) {
                Some((name, amperes)) => {
                    format!("{name}={:.8}A\n", amperes.parse::<f64>().unwrap() * watts / whole)
                }
                None => format!("{line}\n"),
            };
        let text: String = recorded.lines().map(scaled).collect();
        fs::write(board.folder.path().join("pmic_read_adc.txt"), text).unwrap();
    });
    let measured = recording.over(&plan());
    sampled(&measured, "PMIC sum", 1.0, 0.0);
    sampled(&measured, "board", 1.1451, 0.5879);
    assert_eq!(total(&measured).unwrap().rails, ["board"]);
    assert!(recording.cost.helpers_s > 0.0, "the helper program's time is stated");
}

#[test]
fn a_pi_without_current_sensing_says_what_to_do() {
    let board = Board::new("pi-5");
    fs::write(board.path("firmware/devicetree/base/model"), "Raspberry Pi 4 Model B Rev 1.4\0").unwrap();
    fs::write(
        board.folder.path().join("pmic_read_adc.txt"),
        "error=1 error_msg=\"Command not registered\"\n",
    )
    .unwrap();
    let sensors = board.find();
    assert!(sensors.sources.is_empty());
    assert!(sensors.absent[0].reason.contains("measures no current"));
    assert!(sensors.absent[0].remedy.as_deref().unwrap().contains("INA226"));
}

#[test]
fn rapl_wraps_and_counts_through_the_gap() {
    let board = Board::new("rapl");
    let sensors = board.find();
    assert_eq!(names(&sensors), ["package-0", "core", "dram"]);
    assert_eq!(found(&sensors, "core").part_of.as_deref(), Some("package-0"));
    assert_eq!(found(&sensors, "dram").part_of, None);
    let zones = [
        ("intel-rapl:0", 1.0, 262_143_328_850, 262_000_000_000_i64),
        ("intel-rapl:0:0", 0.5, 262_143_328_850, 0),
    ];
    let memory = ("intel-rapl:0:1", 0.25, 65_712_999_613_i64, 65_630_000_000);
    let recording = board.play(|_, joules| {
        for (zone, share, range, start) in zones.into_iter().chain([memory]) {
            let count = (start + (joules * share * 1e6) as i64) % (range + 1);
            board.set(&format!("class/powercap/{zone}/energy_uj"), count as f64);
        }
    });
    let measured = recording.over(&plan());
    for (name, share) in [("package-0", 1.0), ("core", 0.5), ("dram", 0.25)] {
        let one = rail(&measured, name);
        assert!(
            one.complete && one.gross.gaps.len() == 1 && one.gross.gaps[0].counted,
            "{name}: {:?}",
            one.gross
        );
        near(one.gross.joules, share * joules(RUN.0, RUN.1));
        near(one.net_joules.unwrap(), share * (joules(RUN.0, RUN.1) - IDLE_WATTS * (RUN.1 - RUN.0)));
    }
    let total = total(&measured).unwrap();
    assert_eq!(total.rails, ["package-0", "dram"], "cores are part of the package, memory is not");
    near(total.gross_joules, 1.25 * joules(RUN.0, RUN.1));
}

#[test]
fn an_ina226_is_whatever_it_is_wired_to() {
    let board = Board::new("ina226");
    let sensors = board.find();
    let meter = sensors.rails().next().unwrap();
    assert_eq!((meter.scope, meter.method), (Scope::Wired, Method::Power));
    assert!(meter.sensor.contains("INA226 1-0040, shunt 10000"));
    let recording = board.play(|watts, _| board.set("class/hwmon/hwmon2/power1_input", watts * 1e6));
    let name = meter.name.clone();
    sampled(&recording.over(&plan()), &name, 1.0, 0.0);
    // An INA260 or a driver without a power file: volts times amperes.
    fs::remove_file(board.path("class/hwmon/hwmon2/power1_input")).unwrap();
    assert_eq!(board.find().rails().next().unwrap().method, Method::VoltageTimesCurrent);
    let recording = board.play(|watts, _| {
        board.set("class/hwmon/hwmon2/in1_input", 5000.0);
        board.set("class/hwmon/hwmon2/curr1_input", watts / 5.0 * 1e3);
    });
    sampled(&recording.over(&plan()), &name, 1.0, 0.0);
}

#[test]
fn a_battery_counts_only_while_it_supplies_the_device() {
    let board = Board::new("battery");
    assert_eq!(names(&board.find()), ["BAT0"], "neither a mouse nor what a charger negotiated");
    let recording = board.play(|watts, _| {
        board.set("class/power_supply/BAT0/voltage_now", 11.4e6);
        board.set("class/power_supply/BAT0/current_now", -watts / 11.4 * 1e6);
    });
    // One reading a second blurs the waveform's steps; net joules would not be within 1 %.
    gross(&recording.over(&plan()), "BAT0", 1.0, 0.0);
    fs::write(board.path("class/power_supply/BAT0/status"), "Charging\n").unwrap();
    let sensors = board.find();
    assert!(sensors.sources.is_empty() && sensors.absent[0].reason.contains("unplug the charger"));
}

#[test]
fn a_sensor_that_fails_in_the_run_leaves_a_gap_and_a_word() {
    let board = Board::new("ina226");
    let file = board.path("class/hwmon/hwmon2/power1_input");
    let recording = board.play(|watts, joules| match joules {
        joules if (100.0..200.0).contains(&joules) => fs::write(&file, "EIO\n").unwrap(),
        _ => fs::write(&file, format!("{}\n", (watts * 1e6) as i64)).unwrap(),
    });
    let measured = recording.over(&plan());
    assert!(!measured[0].complete && measured[0].gross.gaps.len() == 2, "{:?}", measured[0].gross.gaps);
    assert!(recording.failures[0].contains("reads failed") && recording.failures[0].contains("\"EIO\""));
}

/// A meter's recording of the waveform with a marker before and one after, on a clock of its own.
fn recorded(start: f64, rate: f64, markers: [f64; 2]) -> String {
    let mut text = String::from("time(ms),voltage(V),current(A)\n");
    let mut seed = 7_u32;
    let (mut time, end) = (markers[0] - 20.0, markers[1] + 20.0);
    while time < end {
        let chip = |from: &f64| {
            let chip = ((time - from) / CHIP.as_secs_f64()).floor();
            (0.0..CHIPS.len() as f64).contains(&chip) && CHIPS[chip as usize]
        };
        let watts = if markers.iter().any(chip) { IDLE_WATTS + 4.0 } else { watts(time) };
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = f64::from(seed >> 8) / f64::from(1 << 24);
        if !(GAP.0..GAP.1).contains(&time) {
            let noise = 0.1 * (random - 0.5);
            text += &format!(
                "{:.1},5.05,{:.4}\n",
                (start + (time - markers[0]) / rate) * 1e3,
                (watts + noise) / 5.05
            );
        }
        time += 0.02 * (0.6 + 0.8 * random);
    }
    text
}

#[test]
fn a_usb_meter_is_aligned_by_the_markers() {
    let markers = [-LENGTH.as_secs_f64() - 2.0, END + 2.0];
    // The run's clock began thirty seconds before the waveform; the meter's has another origin and runs 0.3 % fast.
    let (origin, start, rate) = (30.0, 512.34, 1.0 / 1.003);
    let log = Log::parse(recorded(start, rate, markers).as_bytes()).unwrap();
    let placed = log.place(&markers.map(|marker| Duration::from_secs_f64(origin + marker))).unwrap();
    assert!(placed.correlation > 0.98, "{}", placed.correlation);
    assert!((placed.rate - rate).abs() < 1e-4, "{}", placed.rate);
    let shift = |window: Window| {
        let by = Duration::from_secs_f64(origin);
        Window::new(window.from + by, window.to + by)
    };
    let plan = plan();
    let measured = placed.over(&Plan {
        run: shift(plan.run),
        idle_before: plan.idle_before.map(shift),
        idle_after: plan.idle_after.map(shift),
    });
    let [gap] = measured.gross.gaps[..] else { panic!("{:?}", measured.gross.gaps) };
    assert!((gap.from_s - origin - GAP.0).abs() < 0.1 && (gap.to_s - origin - GAP.1).abs() < 0.1, "{gap:?}");
    let work = joules(RUN.0, RUN.1) - joules(gap.from_s - origin, gap.to_s - origin);
    near(measured.gross.joules, work);
    near(measured.net_joules.unwrap(), work - IDLE_WATTS * measured.gross.covered_s);
    let total = total(&[measured]).unwrap();
    assert_eq!((total.scope, total.quality), (Scope::Device, Quality::Measured));
}

#[test]
fn a_marker_that_could_be_either_is_refused() {
    let markers = [-LENGTH.as_secs_f64() - 2.0, END + 2.0];
    let log = Log::parse(recorded(0.0, 1.0, markers).as_bytes()).unwrap();
    let error = log.place(&[Duration::from_secs(30)]).unwrap_err().to_string();
    assert!(error.contains("and as well at"), "{error}");
}

#[test]
fn a_machine_without_sensors_has_none() {
    let empty = tempfile::tempdir().unwrap();
    let sensors = discover(&Places { sys: empty.path().into(), ..Places::default() });
    assert!(sensors.sources.is_empty() && sensors.absent.is_empty() && sensors.board.is_none());
}
