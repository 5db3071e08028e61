//! `narrows-head status`: asks a running head how it is doing.

use std::{
    fmt::Write as _,
    io::{self, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use narrows_service::Settings;

use crate::{
    Chain, Error,
    name::Escaped,
    report::{DeviceStatus, ServerStatus},
    socket_of,
};

/// Where the packaged service has its socket.
const USUAL: &str = "/run/narrows-head/head.sock";
/// How long a running head may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const MOST: u64 = 16 << 20;

/// The flags of `narrows-head status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The socket of the head: its --status-socket [default: that of the file of --config, else head.sock in
    /// $RUNTIME_DIRECTORY or /run/narrows-head]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,

    /// The head's configuration file, for its status-socket
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,

    /// Fail where no frame had an outcome for this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub max_age: Option<f64>,

    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Asks the head, prints its answer and returns the exit code: 1 if it does not run, does not answer, or has had no outcome for
/// longer than `--max-age`. `settings` are those of the file of `--config`.
///
/// # Errors
/// [`Error::Output`] if standard output cannot be written.
pub fn status(flags: &Flags, settings: Option<&Settings>) -> Result<u8, Error> {
    let named = settings.and_then(|settings| settings.value("status-socket")).map(PathBuf::from);
    let path = socket_of(flags.socket.as_deref().or(named.as_deref())).unwrap_or_else(|| USUAL.into());
    let (answer, status) = match ask(&path) {
        Ok(answered) => answered,
        Err(error) => {
            let reason = Chain(&error);
            eprintln!("narrows-head: no head answers at {}: {reason}", Escaped(&path));
            return Ok(1);
        }
    };
    let text = if flags.json { answer + "\n" } else { text(&status) };
    let place = "standard output".to_owned();
    narrows_service::print(&text).map_err(|source| Error::Output { place, source })?;
    let age = last(&status).unwrap_or(status.uptime_s);
    if let Some(most) = flags.max_age.filter(|most| age > *most) {
        eprintln!("narrows-head: the last outcome is {age:.1} s old, more than {most}");
        return Ok(1);
    }
    Ok(0)
}

fn ask(path: &Path) -> io::Result<(String, DeviceStatus)> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other("it has not opened its bundle, sources and sinks yet"));
    }
    let status = serde_json::from_str(&answer)?;
    Ok((answer, status))
}

/// Seconds since the last outcome of any camera.
fn last(status: &DeviceStatus) -> Option<f64> {
    status.cameras.values().map(|camera| camera.age_s).reduce(f64::min)
}

/// The state in lines for people.
fn text(status: &DeviceStatus) -> String {
    let mut text = String::new();
    let mut line = |what: &str, found: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what:<9} {found}");
    };
    let DeviceStatus { device, version, bundle, uptime_s, .. } = status;
    line("head", format!("{device}, version {version}, bundle {bundle}, up {}", span(*uptime_s)));
    let level = status.level.as_ref().map(|level| format!(", level {level}"));
    line("path", status.path.clone().unwrap_or_default() + &level.unwrap_or_default());
    match &status.server {
        Some(ServerStatus { address, connected: true, since_s, .. }) => {
            line("server", format!("{address}, connected for {}", span(*since_s)));
        }
        Some(ServerStatus { address, since_s, cause, .. }) => {
            let cause = cause.as_deref().unwrap_or("not found yet");
            line("server", format!("{address}, away for {}: {cause}", span(*since_s)));
        }
        None => line("server", "none".to_owned()),
    }
    if let Some(frames) = &status.frames {
        let answered = format!(
            "{} answered ({} on this device alone, {} kept)",
            frames.answered, frames.local, frames.kept
        );
        let rest = format!(
            "{} refused, {} failed, {} dropped for newer ones, {} put on disk",
            frames.refused, frames.failed, frames.dropped, frames.spooled
        );
        line("frames", format!("{answered}, {rest}, {} in flight", frames.in_flight));
    }
    match last(status) {
        Some(age) => line("last", format!("{} ago", span(age))),
        None => line("last", "no frame yet".to_owned()),
    }
    let sum = |of: fn(&crate::report::CameraStatus) -> u64| status.cameras.values().map(of).sum::<u64>();
    line(
        "bytes",
        format!("{} sent, {} received", sum(|camera| camera.sent_total), sum(|camera| camera.received_total)),
    );
    for source in &status.sources {
        let trouble = source.trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        line(
            "source",
            format!(
                "{}: {} arrived, {} taken, {} replaced by newer ones, {} damaged, lost {} times{trouble}",
                source.name, source.arrived, source.taken, source.replaced, source.damaged, source.outages
            ),
        );
    }
    for sink in &status.sinks {
        line("sink", sink.to_string());
    }
    if let Some(spool) = &status.spool {
        line("spool", spool.to_string().trim_start_matches("spool ").to_owned());
    }
    if let Some(board) = &status.board {
        let heat = match (&board.zone, board.celsius, board.limit_celsius) {
            (Some(zone), Some(celsius), Some(limit)) => {
                format!("{zone} at {celsius:.0} °C, slows down from {limit:.0} °C on")
            }
            _ => "no temperature".to_owned(),
        };
        let throttled = match (board.throttled.is_empty(), board.throttled_times) {
            (false, _) => format!("; throttled: {}", board.throttled.join(", ")),
            (true, 0) => String::new(),
            (true, times) => format!("; was throttled {times} times"),
        };
        line("board", heat + &throttled);
    }
    if let Some(settings) = &status.settings {
        let error = settings.error.as_ref().map(|error| format!("; {error}"));
        let times = if settings.used == 1 { "once".to_owned() } else { format!("{} times", settings.used) };
        line("settings", format!("{}, read {times}{}", settings.file.display(), error.unwrap_or_default()));
    }
    text
}

/// A time in the two largest units that it has.
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{seconds:.1} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}
