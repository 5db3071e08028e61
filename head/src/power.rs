//! `narrows-head power`: lists the power sensors, and measures the joules of a command or of a span of time.
#![expect(clippy::disallowed_methods, reason = "spans are waited for and measured here")]

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use narrows_power::{
    Places, Plan, Sampler, Sensors, Window, discover, marker, meter::Log, thermal::ThermalWatch, total,
};
use serde::{Deserialize, Serialize};

use self::report::{Listing, Report};
use crate::{Error, Stop, limits, signals::Signals};

mod report;
mod table;

/// Time between two looks whether a wait has ended.
const STEP: Duration = Duration::from_millis(5);
/// Time that an interrupted command has to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Largest recording of a meter, in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Longest span in seconds: a week.
const MOST_SECONDS: f64 = 7.0 * 86_400.0;

/// The flags of `narrows-head power`, as typed.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Measure for so long, whatever runs
    #[arg(long, value_name = "SECONDS", conflicts_with = "command")]
    pub seconds: Option<f64>,

    /// Seconds of doing nothing before and after, which the net joules are above; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub idle: f64,

    /// Play a pattern of load before and after, by which a USB meter's recording is aligned
    #[arg(long)]
    pub marker: bool,

    /// Work out the joules of an earlier run from what a USB meter recorded: CSV with time, volts and amps
    #[arg(long, value_name = "CSV", requires = "run", conflicts_with_all = ["command", "seconds", "marker"])]
    pub meter: Option<PathBuf>,

    /// What that run printed with --marker --json
    #[arg(long, value_name = "JSON", requires = "meter")]
    pub run: Option<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// The kernel's tree; in a container the host's may lie elsewhere
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sys: PathBuf,

    /// A command to measure; its standard output goes to standard error
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The part of a [`Report`] that `--run` must have.
#[derive(Deserialize)]
struct Earlier {
    plan: Plan,
    markers: Vec<Window>,
}

/// Lists or measures as the flags say and returns the exit code.
///
/// # Errors
/// An [`Error`] for a flag out of range, a file that cannot be read and a sensor or thread that fails.
pub fn power(flags: &Flags) -> Result<u8, Error> {
    let spans = [("--seconds", flags.seconds.unwrap_or(1.0)), ("--idle", flags.idle)];
    for (flag, value) in spans {
        if !(0.0..=MOST_SECONDS).contains(&value) || (flag == "--seconds" && value == 0.0) {
            return Err(Error::usage(flag, format!("{value} is out of range; give seconds, at most a week")));
        }
    }
    if let (Some(csv), Some(run)) = (&flags.meter, &flags.run) {
        let report = import(csv, run)?;
        return finish(&report, flags.json, None);
    }
    let places = Places { sys: flags.sys.clone(), ..Places::default() };
    let sensors = discover(&places);
    if flags.command.is_empty() && flags.seconds.is_none() {
        return list(&sensors, flags.json);
    }
    limits::descriptors()?;
    let stop = Signals::watch_aside()?;
    let report = measure(flags, sensors, places, &stop)?;
    finish(&report, flags.json, stop.get().copied())
}

fn list(sensors: &Sensors, json: bool) -> Result<u8, Error> {
    let listing = Listing {
        board: sensors.board.as_deref(),
        rails: sensors.rails().collect(),
        absent: &sensors.absent,
    };
    print(&match json {
        true => text(&listing)?,
        false => table::listing(listing.board, &listing.rails, listing.absent),
    })?;
    Ok(u8::from(listing.rails.is_empty()))
}

fn measure(flags: &Flags, sensors: Sensors, places: Places, stop: &OnceLock<Stop>) -> Result<Report, Error> {
    let stopped = || stop.get().is_some();
    let wait = |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while !stopped() && Instant::now() < end {
            thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
        }
    };
    let absent = sensors.absent;
    let sampler = Sampler::start(sensors.sources)?;
    let mut markers = Vec::new();
    // An interrupted marker is left out; the report states the interruption.
    let played = || (flags.marker && !stopped()).then(|| marker::play(&sampler, &stopped).ok()).flatten();
    markers.extend(played());
    let before = sampler.mark()?;
    wait(flags.idle);
    let heat = ThermalWatch::start(places)?;
    let from = sampler.mark()?;
    let exit = match flags.seconds {
        Some(seconds) => {
            wait(seconds);
            None
        }
        None if stopped() => None,
        None => wait_for(&mut start(&flags.command)?, &stopped)?,
    };
    let to = sampler.mark()?;
    let throttled = heat.stop()?;
    let interrupted = stopped();
    wait(flags.idle);
    let after = sampler.mark()?;
    markers.extend(played());
    let recording = sampler.stop()?;
    let idle = |from: Duration, to: Duration| (flags.idle > 0.0).then(|| Window::new(from, to));
    let plan =
        Plan { run: Window::new(from, to), idle_before: idle(before, from), idle_after: idle(to, after) };
    let rails = recording.over(&plan);
    let sum = total(&rails);
    let command = flags.command.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    Ok(Report {
        complete: !interrupted && sum.as_ref().is_ok_and(|total| total.complete),
        command: (!command.is_empty()).then_some(command),
        exit,
        interrupted: stopped(),
        seconds: plan.run.length().as_secs_f64(),
        unknown: sum.as_ref().err().cloned(),
        total: sum.ok(),
        rails,
        absent,
        failures: recording.failures.clone(),
        throttled,
        remarks: recording.remarks.clone(),
        plan,
        markers,
        sampler: Some(recording.cost),
    })
}

/// Starts the command with its standard output on standard error, so that ours has the report alone.
fn start(command: &[OsString]) -> Result<Child, Error> {
    let (program, arguments) = command.split_first().expect("the caller has a command");
    let child = Command::new(program).args(arguments).stdout(Stdio::from(io::stderr())).spawn();
    child.map_err(|error| {
        Error::usage("COMMAND", format!("{} cannot be started: {error}", program.to_string_lossy()))
    })
}

/// Waits for the command. After an interrupt, which the terminal sends to the command as well, it has [`GRACE`] to end.
fn wait_for(child: &mut Child, stopped: &dyn Fn() -> bool) -> Result<Option<i32>, Error> {
    let lost = |source: io::Error| Error::Device { problem: "the command cannot be waited for", source };
    let mut deadline = None;
    loop {
        if let Some(status) = child.try_wait().map_err(lost)? {
            return Ok(status.code());
        }
        if stopped() && *deadline.get_or_insert_with(|| Instant::now() + GRACE) < Instant::now() {
            child.kill().map_err(lost)?;
        }
        thread::sleep(STEP);
    }
}

/// Computes the joules of an earlier run from a meter's recording.
fn import(csv: &Path, run: &Path) -> Result<Report, Error> {
    let read = |path: &Path| -> Result<Vec<u8>, Error> {
        let unreadable = |source| Error::File { file: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        match bytes.len() as u64 > MOST_BYTES {
            true => Err(unreadable(io::Error::other(format!("more than {MOST_BYTES} bytes")))),
            false => Ok(bytes),
        }
    };
    let earlier: Earlier = serde_json::from_slice(&read(run)?).map_err(|error| {
        Error::usage(
            "--run",
            format!("{}: {error}; give what `narrows-head power --marker --json` printed", run.display()),
        )
    })?;
    let markers: Vec<Duration> = earlier.markers.iter().map(|marker| marker.from).collect();
    let placed = Log::parse(&read(csv)?)?.place(&markers)?;
    let mut measured = placed.over(&earlier.plan);
    measured.remarks.push(format!(
        "aligned with correlation {:.3}; the meter's clock ran {:+.0} parts per million off",
        placed.correlation,
        (1.0 / placed.rate - 1.0) * 1e6
    ));
    let rails = vec![measured];
    let sum = total(&rails);
    Ok(Report {
        command: None,
        exit: None,
        complete: sum.as_ref().is_ok_and(|total| total.complete),
        interrupted: false,
        seconds: earlier.plan.run.length().as_secs_f64(),
        unknown: sum.as_ref().err().cloned(),
        total: sum.ok(),
        rails,
        absent: Vec::new(),
        failures: Vec::new(),
        throttled: Vec::new(),
        remarks: Vec::new(),
        plan: earlier.plan,
        markers: earlier.markers,
        sampler: None,
    })
}

fn finish(report: &Report, json: bool, stop: Option<Stop>) -> Result<u8, Error> {
    print(&if json { text(report)? } else { table::report(report) })?;
    Ok(match stop {
        Some(Stop::Interrupt) => 130,
        Some(_) => 143,
        None if report.command.is_some() && report.exit != Some(0) => 1,
        None => u8::from(!report.complete),
    })
}

fn text(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Error::Device { problem: "no JSON", source: error.into() })
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has closed the pipe and needs no more output.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Output { place: "standard output".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
