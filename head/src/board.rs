//! `narrows-head board`: measures what a frame costs on this device, stage by stage and over minutes, and writes the figures as
//! JSON and as a page.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use narrows_int8::Isa;
use narrows_models::{Bundle, Parts};
use narrows_power::{Places, discover};

use self::{
    machine::Machine,
    progress::progress,
    report::{BundleFacts, Report},
};
use crate::{Chain, Error, Head, Stop, doctor, draft::Draft, signals::Signals};

mod machine;
mod page;
mod progress;
mod report;
mod stages;
mod sustained;

/// Longest sustained part in seconds: a day.
const MOST_SECONDS: f64 = 86_400.0;

/// The flags of `narrows-head board`, as typed.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Folder of the bundle
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,

    /// Seconds of the part in which frames follow each other without a pause; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    pub seconds: f64,

    /// Seconds of doing nothing before and after it, which the net joules are above
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub idle: f64,

    /// A photo that the frames show instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub photo: Option<PathBuf>,

    /// The figures as JSON
    #[arg(long, value_name = "FILE", default_value = "board.json")]
    pub json: PathBuf,

    /// The figures as a page for a browser
    #[arg(long, value_name = "FILE", default_value = "board.html")]
    pub page: PathBuf,

    /// The server whose answers are timed, too: a name in its certificate and a port; may be given several times
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub server: Vec<String>,

    /// Folder with ca.pem, cert.pem and key.pem of this device
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// Where sysfs is mounted; in a container the host's may be elsewhere
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sys: PathBuf,
}

/// Measures, writes both files and returns the exit code: 1 where a check failed.
///
/// # Errors
/// An [`Error`] for a flag out of range, a bundle or photo that cannot be used, and a file that cannot be written.
pub fn board(flags: &Flags) -> Result<u8, Error> {
    for (flag, value) in [("--seconds", flags.seconds), ("--idle", flags.idle)] {
        if !(0.0..=MOST_SECONDS).contains(&value) {
            return Err(Error::usage(flag, format!("{value} is out of range; give seconds, at most a day")));
        }
    }
    for file in [&flags.json, &flags.page] {
        // What cannot be written is told before minutes of measuring.
        draft(file, "").map_err(unwritten(file))?;
    }
    let stop = Signals::watch_aside()?;
    let (report, is_failed) = measure(flags, &stop)?;
    let text = serde_json::to_string_pretty(&report)
        .map_err(|error| Error::Device { problem: "no JSON", source: error.into() })?;
    write(&flags.json, &(text.clone() + "\n"))?;
    write(&flags.page, &page::page(&text))?;
    let place = "standard output".to_owned();
    let shown =
        format!("{}Written: {} and {}\n", page::summary(&report), flags.json.display(), flags.page.display());
    narrows_service::print(&shown).map_err(|source| Error::Output { place, source })?;
    Ok(match stop.get() {
        Some(Stop::Interrupt) => 130,
        Some(_) => 143,
        None => u8::from(is_failed),
    })
}

fn measure(flags: &Flags, stop: &OnceLock<Stop>) -> Result<(Report, bool), Error> {
    let stopped = || stop.get().is_some();
    let places = Places { sys: flags.sys.clone(), ..Places::default() };
    let photo = stages::photo(flags.photo.as_deref())
        .map_err(|error| Error::usage("--photo", Chain(&error).to_string()))?;
    progress("checking the device and the bundle");
    let checks = doctor::examine(&doctor::Flags {
        bundle: flags.bundle.clone(),
        server: flags.server.clone(),
        identity: flags.identity.clone(),
        json: false,
        sys: flags.sys.clone(),
    })?;
    let bundle = Bundle::open(&flags.bundle, Parts::Head)?;
    let facts = BundleFacts { name: bundle.name().to_owned(), digest: bundle.digest().to_string() };
    let mut head = Head::open(bundle.clone())?;
    let networks = stages::networks(&bundle, &mut head, &photo, &stopped)?;
    let cameras = stages::cameras(&bundle, &photo, &stopped)?;
    let sensors = discover(&places);
    let machine = Machine::of_this_device(&places, sensors.board.clone(), Isa::detect());
    let sustained = match flags.seconds > 0.0 && !stopped() {
        true => Some(sustained::run(
            &bundle,
            &mut head,
            &stages::frame(&photo)?,
            sensors,
            &places,
            sustained::Spans {
                run: Duration::from_secs_f64(flags.seconds),
                idle: Duration::from_secs_f64(flags.idle),
            },
            &stopped,
        )?),
        false => None,
    };
    let is_failed = checks.failed();
    let report = Report {
        program: concat!("narrows-head ", env!("CARGO_PKG_VERSION")).to_owned(),
        taken_at: machine::seconds_since_1970(),
        machine,
        bundle: facts,
        checks,
        networks,
        cameras,
        sustained,
        interrupted: stopped(),
    };
    Ok((report, is_failed))
}

/// Writes a file whole or not at all.
fn write(file: &Path, text: &str) -> Result<(), Error> {
    let written = match draft(file, text) {
        Ok(Some(draft)) => draft.publish(),
        Ok(None) => fs::write(file, text),
        Err(error) => Err(error),
    };
    written.map_err(unwritten(file))
}

/// A file that is written beside its place. `None` for a device or a pipe, which is written as it is.
fn draft(file: &Path, text: &str) -> io::Result<Option<Draft>> {
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Ok(None),
        _ => Draft::write(file, text.as_bytes()).map(Some),
    }
}

fn unwritten(file: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Output { place: file.display().to_string(), source }
}
