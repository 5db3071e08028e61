//! Settings of a run: flags checked against the bundle.

use std::{path::PathBuf, time::Duration};

use narrows_codec::{Choice, GeometryId, LevelId, Mode};
use narrows_models::{Bundle, TaskKind};
use narrows_policy::{EnergyModel, Waiting};
use narrows_wire::{
    Framing, enrol::ENROLMENT_PORT, identity::is_server_name, limits::MAX_IN_FLIGHT, quic::Tuning,
};

use crate::{
    Error,
    encoding::{Chroma, Encoding, Format},
};

mod decisions;
mod energy;
mod exit;
mod flags;
mod gate;
mod outputs;
mod signature;
mod spool;
mod threshold;

pub use decisions::{DecisionFlags, DecisionSettings};
pub use energy::EnergyFlags;
pub use exit::ExitMode;
pub use flags::{
    Coding, FallbackMode, Flags, FrameChoice, LevelFlag, Path, Purpose, ServerChoice, Size, Transport,
};
pub use gate::{GateMode, GateSettings};
pub use outputs::{
    Lines, Mqtt, MqttFlags, Only, OutputFlags, Outputs, Page, PageFlags, Webhook, WebhookFlags,
};
pub(crate) use outputs::{read_secret, topic_level};
pub use signature::SignatureFlags;
pub use spool::{SpoolDrop, SpoolFlags, SpoolSettings};
pub use threshold::Threshold;

/// Classes in the answer of a classification task.
pub(crate) const TOP_K: u16 = 5;
/// Coding of packets unless another one is chosen: context tables, along columns or rows for the few frames that change
/// little along them, or static tables where those give smaller packets. Indexed tables and zstd take more time on a device
/// than the bytes that they saved on any measured feature are worth.
pub(crate) const SMALLEST: Choice = Choice::Within(9);

/// Quality of images unless another one is chosen.
const QUALITY: u8 = 75;
/// Time from a capture to its answer unless another one is given, in milliseconds, and the same where the newest frames of live
/// sources are sent.
const BUDGET: u64 = 30_000;
const LIVE_BUDGET: u64 = 1000;
/// Most frames in flight where energy is to be saved and the newest frame counts: one on its way, and one that is ready.
const SAVING_IN_FLIGHT: usize = 2;
/// Most servers of a run.
const MOST_SERVERS: usize = 64;
/// Longest `--budget` and `--retry-for` in seconds.
const HOUR: u64 = 3600;

/// A run's settings, checked against the bundle.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Name of this device, unless the one of its certificate or of the host is to be taken.
    pub device: Option<String>,
    /// Addresses of the servers, at least one, and folder of this device's identity; `None` where nothing is sent.
    pub servers: Option<(Vec<Server>, PathBuf)>,
    /// Where this device renews its certificate.
    pub renew_at: RenewAt,
    /// How one of several servers is chosen.
    pub server_choice: ServerChoice,
    /// For how long an earlier server must have been back before it is used again.
    pub return_after: Duration,
    /// Where frames wait that no server answered, if they do.
    pub spool: Option<SpoolSettings>,
    /// Where the network runs.
    pub path: Path,
    /// Whether this device answers when the server is away.
    pub fallback: bool,
    /// When the answer to an earlier frame is kept; `None` gives every frame an answer of its own.
    pub gate: Option<GateSettings>,
    /// From which confidence on the local network's answer is used and a frame is not sent; `None` sends every frame.
    pub exit: Option<f64>,
    /// Indices in the bundle of the tasks to answer, at most one of each kind, in the order given.
    pub tasks: Vec<usize>,
    /// Rate level of the packets.
    pub level: Level,
    /// Which frames wait while another one is sent, with [`Level::Auto`].
    pub waiting: Waiting,
    /// What computing and sending cost, where energy is to be saved.
    pub energy: Option<EnergyModel>,
    /// Whether the watts of computing are measured where the device has sensors, since none were given.
    pub measures_watts: bool,
    /// How packets are coded.
    pub coding: Choice,
    /// How images are encoded.
    pub encoding: Encoding,
    /// The size at which images are sent.
    pub framing: Framing,
    /// Geometry of the network's input.
    pub geometry: GeometryId,
    /// Folder for pictures, if any are wanted.
    pub out: Option<PathBuf>,
    /// Where answers go.
    pub outputs: Outputs,
    /// Time from a frame's capture to its answer.
    pub budget: Duration,
    /// Most frames between capture and answer.
    pub in_flight: usize,
    /// How long to look for a server that is away.
    pub retry_for: Duration,
    /// How often to read a source that has an end; `None` repeats without end.
    pub repeat: Option<u64>,
    /// Most frames to take from each source in a second.
    pub fps: Option<f64>,
    /// How long a live source may deliver nothing.
    pub stall: Duration,
    /// Whether every frame of a live source is taken, and not the newest.
    pub every_frame: bool,
    /// Where observations and decisions are recorded, if they are.
    pub decisions: Option<DecisionSettings>,
    /// Settings of the transport.
    pub tuning: Tuning,
}

/// The choice of the rate level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// This one for every frame.
    Fixed(LevelId),
    /// For each frame by what the link carries until its deadline.
    Auto,
}

/// Where a device renews its certificate before it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewAt {
    /// Where it was enrolled; a device whose identity was copied does not.
    Enrolled,
    /// At this server.
    Server(Server),
    /// Nowhere.
    Never,
}

/// Address of a server. The host is also the name that its certificate must contain, without the zone of a link-local address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A DNS name or an IP address, an IPv6 one without brackets. A link-local address ends in `%` and the zone (RFC 4007
    /// section 11): the name or index of this device's network interface.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl Config {
    /// Checks flags against `bundle` and fills in its defaults, and those for live sources where `live` says that there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] with the flag and the values that it may have.
    pub fn new(flags: &Flags, bundle: &Bundle, live: bool) -> Result<Self, Error> {
        let tasks: Vec<TaskOption> = bundle
            .tasks()
            .iter()
            .map(|task| TaskOption { name: &task.name, kind: task.kind, geometry: task.geometry })
            .collect();
        let chosen = choose_tasks(&flags.tasks, &tasks)?;
        let (split, image) = (flags.path == Path::Split, flags.path == Path::Image);
        for (flag, given, used, path) in [
            ("--level", flags.level.is_some(), split, "split"),
            ("--coding", flags.coding.is_some(), split, "split"),
            ("--format", flags.format.is_some(), image, "image"),
            ("--quality", flags.quality.is_some(), image, "image"),
            ("--subsampling", flags.subsampling.is_some(), image, "image"),
            ("--send", flags.send.is_some(), image, "image"),
        ] {
            if given && !used {
                return Err(Error::usage(flag, format!("only --path {path} has it")));
            }
        }
        let level = choose_level(flags.level, bundle, &chosen, live && split)?;
        if flags.purpose.is_some() && (level != Level::Auto || !split) {
            return Err(Error::usage("--for", "only --path split --level auto has it"));
        }
        let newest = live && flags.frames == FrameChoice::Newest;
        let waiting = match flags.purpose {
            Some(Purpose::Latency) => Waiting::Newest,
            Some(Purpose::Accuracy) => Waiting::All,
            Some(Purpose::Energy) | None if newest => Waiting::Newest,
            Some(Purpose::Energy) | None => Waiting::All,
        };
        let saves = flags.purpose == Some(Purpose::Energy);
        let energy = flags.energy.model(saves)?;
        let fps = flags.fps.map(|fps| in_span("--fps", fps, 0.001, 1000.0)).transpose()?;
        let budget = flags.budget.unwrap_or(match newest && split {
            true => LIVE_BUDGET,
            // A frame that waits until --fps lets it through has as much time again.
            false => BUDGET.max(fps.map_or(0, |fps| (2000.0 / fps) as u64)),
        });
        let encoding = Encoding {
            format: flags.format.unwrap_or(Format::Jpeg),
            quality: flags.quality.unwrap_or(QUALITY),
            chroma: flags.subsampling.unwrap_or(Chroma::Half),
        };
        if (encoding.format, encoding.chroma) == (Format::Webp, Chroma::Full) {
            return Err(Error::usage("--subsampling", "lossy WebP has 420 only; leave it out or send JPEG"));
        }
        if flags.path == Path::Local && flags.spool.spool.is_some() {
            return Err(Error::usage("--spool", "--path local sends nothing, so nothing waits for a server"));
        }
        let local = local_task(bundle, &chosen);
        let exit = flags.exit.unwrap_or(if saves { ExitMode::Auto } else { ExitMode::Off });
        let exit = match exit.threshold(flags.path != Path::Local, bundle, &chosen) {
            // Nobody has asked for it.
            Err(_) if flags.exit.is_none() => None,
            exit => exit.map_err(|reason| Error::usage("--exit", reason))?,
        };
        let gate = flags.gate.unwrap_or(if saves && live { GateMode::Auto } else { GateMode::Off });
        let gate = gate.settings(flags.gate_max_age)?;
        let servers = match flags.path {
            Path::Split | Path::Image => Some((
                self::servers(&flags.server)?,
                required("--identity", flags.identity.as_ref())?.clone(),
            )),
            Path::Local => {
                local.clone().map_err(|reason| Error::usage("--path", reason))?;
                None
            }
        };
        let geometries: Vec<&str> =
            bundle.geometries().iter().map(|geometry| geometry.name.as_str()).collect();
        let first = chosen.first().map_or(0, |&index| tasks[index].geometry);
        Ok(Config {
            device: flags.device.as_deref().map(device_name).transpose()?,
            servers,
            renew_at: match flags.renew_at.as_deref() {
                None => RenewAt::Enrolled,
                Some("off") => RenewAt::Never,
                Some(text) => RenewAt::Server(enrolment_server("--renew-at", text)?),
            },
            server_choice: flags.servers,
            return_after: Duration::from_secs(in_range("--return-after", flags.return_after, 0, HOUR)?),
            spool: flags.spool.settings()?,
            path: flags.path,
            gate,
            exit,
            // A bundle may be installed on a device without this part.
            fallback: flags.fallback == FallbackMode::Lost && local.is_ok_and(|part| bundle.has(part)),
            // A bundle has at most 16 geometries and 16 levels.
            geometry: GeometryId(choose_geometry(flags.geometry.as_deref(), &geometries, first)? as u8),
            level,
            waiting,
            energy,
            measures_watts: saves && flags.energy.computing_watts.is_none(),
            coding: flags.coding.unwrap_or(Coding::Auto).into(),
            encoding,
            framing: match flags.send.unwrap_or(Size::Fitted) {
                Size::Fitted => Framing::Fitted,
                Size::Original => Framing::Original,
            },
            tasks: chosen,
            out: flags.out.clone(),
            outputs: flags.outputs.check()?,
            budget: Duration::from_millis(in_range("--budget", budget, 1, HOUR * 1000)?),
            in_flight: match in_range("--in-flight", flags.in_flight as u64, 1, MAX_IN_FLIGHT.into())?
                as usize
            {
                // A frame that another one replaces before it is sent was computed on for nothing.
                in_flight if saves && waiting == Waiting::Newest => in_flight.min(SAVING_IN_FLIGHT),
                in_flight => in_flight,
            },
            retry_for: Duration::from_secs(in_range("--retry-for", flags.retry_for, 0, HOUR)?),
            repeat: (flags.repeat > 0).then_some(flags.repeat.into()),
            fps,
            stall: Duration::from_secs_f64(in_span("--stall", flags.stall, 0.1, HOUR as f64)?),
            every_frame: flags.frames == FrameChoice::Every,
            decisions: flags.decisions.settings(level == Level::Auto || exit.is_some() || gate.is_some())?,
            tuning: flags.transport.tuning()?,
        })
    }
}

impl From<Coding> for Choice {
    fn from(coding: Coding) -> Self {
        match coding {
            Coding::Auto => SMALLEST,
            Coding::Static => Choice::Only(Mode::Static),
            Coding::Zstd => Choice::Only(Mode::Zstd),
            Coding::Raw => Choice::Only(Mode::Raw),
        }
    }
}

impl Server {
    /// Parses `HOST:PORT`, with an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`Error::Usage`] for `--server` if host or port are missing or malformed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Server::parse_for("--server", text)
    }

    /// The same for another flag.
    fn parse_for(flag: &'static str, text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::usage(
                flag,
                format!("{text:?} {what}; give HOST:PORT, for example tail.local:7461 or [::1]:7461"),
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || bare.is_none() && host.contains([':', '[', ']', '/']) {
            return Err(wrong("has no usable host"));
        }
        let Some(port) = port.parse().ok().filter(|&port| port != 0) else {
            return Err(wrong("has no port from 1 to 65535"));
        };
        let server = Server { host: bare.unwrap_or(host).to_owned(), port };
        let is_v6 = server.name().parse::<std::net::Ipv6Addr>().is_ok();
        if bare.is_some() != is_v6 || server.zone().is_some_and(|zone| zone.is_empty() || !is_v6) {
            return Err(wrong("has no usable host"));
        }
        if !is_server_name(server.name()) {
            return Err(wrong("has a host that no certificate can name"));
        }
        Ok(server)
    }

    /// The name that the server's certificate must contain: the host without its zone, which only this device knows.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.split_once('%').map_or(&self.host, |(name, _)| name)
    }

    /// The network interface of a link-local address, by its name or index.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses the address of a server that enrols devices, whose port may be left out.
///
/// # Errors
/// [`Error::Usage`] for `flag`.
pub(crate) fn enrolment_server(flag: &'static str, text: &str) -> Result<Server, Error> {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match has_port {
        true => Server::parse_for(flag, text),
        false => Server::parse_for(flag, &format!("{text}:{ENROLMENT_PORT}")),
    }
}

/// The properties of a task by which tasks are chosen.
struct TaskOption<'a> {
    name: &'a str,
    kind: TaskKind,
    geometry: usize,
}

/// Indices of the tasks named in `wanted`, or of the first task of each kind.
fn choose_tasks(wanted: &[String], options: &[TaskOption<'_>]) -> Result<Vec<usize>, Error> {
    let all = || options.iter().map(|option| option.name).collect::<Vec<_>>().join(", ");
    let mut chosen: Vec<usize> = Vec::new();
    if wanted.is_empty() {
        for (index, option) in options.iter().enumerate() {
            if chosen.iter().all(|&other| options[other].kind != option.kind) {
                chosen.push(index);
            }
        }
    }
    for name in wanted {
        let name = name.trim();
        let index = options.iter().position(|option| option.name == name).ok_or_else(|| {
            Error::usage("--tasks", format!("the bundle has no task {name:?}; it has {}", all()))
        })?;
        if let Some(&other) = chosen.iter().find(|&&other| options[other].kind == options[index].kind) {
            let reason = match other == index {
                true => format!("{name} stands twice"),
                false => {
                    format!("{} and {name} are of one kind; ask for them in two runs", options[other].name)
                }
            };
            return Err(Error::usage("--tasks", reason));
        }
        chosen.push(index);
    }
    Ok(chosen)
}

fn choose_geometry(wanted: Option<&str>, names: &[&str], default: usize) -> Result<usize, Error> {
    let Some(name) = wanted else { return Ok(default) };
    names.iter().position(|other| *other == name).ok_or_else(|| {
        Error::usage(
            "--geometry",
            format!("the bundle has no geometry {name:?}; it has {}", names.join(", ")),
        )
    })
}

/// The level asked for; else [`Level::Auto`] with `prefer_auto`, where the bundle allows it, or the bundle's.
fn choose_level(
    wanted: Option<LevelFlag>,
    bundle: &Bundle,
    tasks: &[usize],
    prefer_auto: bool,
) -> Result<Level, Error> {
    // A bundle has at most 16 levels.
    let fixed = |level: usize| Level::Fixed(LevelId(level as u8));
    let measured = tasks.iter().all(|&task| !bundle.tasks()[task].ladder.is_empty());
    match wanted {
        None if prefer_auto && measured => Ok(Level::Auto),
        None => Ok(fixed(bundle.default_level())),
        Some(LevelFlag::Auto) if measured => Ok(Level::Auto),
        Some(LevelFlag::Auto) => {
            let name = |&task: &usize| bundle.tasks()[task].name.as_str();
            let names: Vec<&str> = tasks.iter().map(name).collect();
            let reason = "the bundle does not say what its levels are worth for";
            Err(Error::usage("--level", format!("{reason} {}; give a number", names.join(", "))))
        }
        Some(LevelFlag::Number(level)) => choose_number(level, bundle.levels().len()).map(fixed),
    }
}

fn choose_number(level: usize, levels: usize) -> Result<usize, Error> {
    if level < levels {
        return Ok(level);
    }
    let last = levels.saturating_sub(1);
    let reason = format!("the bundle has no level {level}; it has 0 (finest) to {last}, and auto");
    Err(Error::usage("--level", reason))
}

/// The bundle's part that answers one of the tasks on this device, or why there is none.
fn local_task<'a>(bundle: &'a Bundle, tasks: &[usize]) -> Result<&'a str, String> {
    let Some(local) = bundle.local() else {
        return Err("the bundle brings no local network".to_owned());
    };
    if tasks.contains(&local.task) {
        return Ok(&local.file);
    }
    let names: Vec<&str> = tasks.iter().map(|&task| bundle.tasks()[task].name.as_str()).collect();
    let own = &bundle.tasks()[local.task].name;
    Err(format!("the bundle's local network answers {own}, not {}; ask a server for that", names.join(", ")))
}

impl Transport {
    /// The settings of QUIC.
    ///
    /// # Errors
    /// [`Error::Usage`] for a keep-alive interval that does not fit the idle timeout.
    pub fn tuning(&self) -> Result<Tuning, Error> {
        let idle = in_range("--idle-timeout", self.idle_timeout, 1000, 600_000)?;
        let keep_alive = in_range("--keep-alive", self.keep_alive, 100, 300_000)?;
        // Of three keep-alive packets two may be lost.
        if keep_alive * 3 > idle {
            let reason = format!("{keep_alive} is more than a third of --idle-timeout, which is {idle}");
            return Err(Error::usage("--keep-alive", reason));
        }
        let millis = Duration::from_millis;
        Ok(Tuning { idle_timeout: millis(idle), keep_alive: millis(keep_alive), ..Tuning::default() })
    }
}

/// Checks the name of a device, which stands in lines, topics and file names.
fn device_name(name: &str) -> Result<String, Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        true => Ok(name.to_owned()),
        false => {
            Err(Error::usage("--device", format!("{name:?}; give 1 to 64 letters, digits, '.', '-' or '_'")))
        }
    }
}

/// The servers that were named, each once.
pub(crate) fn servers(texts: &[String]) -> Result<Vec<Server>, Error> {
    required("--server", texts.first())?;
    let mut servers = Vec::new();
    for text in texts {
        let server = Server::parse(text)?;
        if servers.contains(&server) {
            return Err(Error::usage("--server", format!("{server} stands twice")));
        }
        servers.push(server);
    }
    match servers.len() <= MOST_SERVERS {
        true => Ok(servers),
        false => {
            Err(Error::usage("--server", format!("stands {} times; at most {MOST_SERVERS}", servers.len())))
        }
    }
}

fn required<'a, T>(flag: &'static str, value: Option<&'a T>) -> Result<&'a T, Error> {
    value.ok_or_else(|| Error::usage(flag, "is missing; only --path local needs no server"))
}

fn in_range(flag: &'static str, value: u64, low: u64, high: u64) -> Result<u64, Error> {
    match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(Error::usage(flag, format!("{value} is out of range; give {low} to {high}"))),
    }
}

fn in_span(flag: &'static str, value: f64, low: f64, high: f64) -> Result<f64, Error> {
    match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(Error::usage(flag, format!("{value} is out of range; give {low} to {high}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [TaskOption<'static>; 3] = [
        TaskOption { name: "classify", kind: TaskKind::Classify, geometry: 0 },
        TaskOption { name: "segment", kind: TaskKind::Segment, geometry: 1 },
        TaskOption { name: "depth", kind: TaskKind::Segment, geometry: 1 },
    ];

    fn tasks(names: &[&str]) -> Result<Vec<usize>, Error> {
        choose_tasks(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), &OPTIONS)
    }

    #[test]
    fn tasks_default_to_the_first_of_each_kind() {
        assert_eq!(tasks(&[]).unwrap(), [0, 1]);
        assert_eq!(tasks(&["depth", "classify"]).unwrap(), [2, 0]);
    }

    #[test]
    fn a_wrong_choice_names_the_flag_and_its_possible_values() {
        for (error, parts) in [
            (tasks(&["classfy"]).unwrap_err(), ["--tasks: ", "classify, segment, depth"]),
            (tasks(&["segment", "depth"]).unwrap_err(), ["--tasks: ", "two runs"]),
            (tasks(&["segment", "segment"]).unwrap_err(), ["--tasks: ", "twice"]),
            (
                choose_geometry(Some("x"), &["photo", "frame"], 0).unwrap_err(),
                ["--geometry: ", "photo, frame"],
            ),
            (choose_number(5, 5).unwrap_err(), ["--level: ", "0 (finest) to 4"]),
            (in_range("--in-flight", 0, 1, 256).unwrap_err(), ["--in-flight: ", "1 to 256"]),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
        }
    }

    #[test]
    fn timeouts_of_the_transport_are_validated_against_each_other() {
        let tuning = |idle_timeout, keep_alive| Transport { idle_timeout, keep_alive }.tuning();
        assert_eq!(tuning(10_000, 3000).unwrap(), Tuning::default());
        let error = tuning(5000, 3000).unwrap_err().to_string();
        assert!(
            error.starts_with("--keep-alive: ") && error.contains("--idle-timeout, which is 5000"),
            "{error}"
        );
        assert!(tuning(10, 3000).unwrap_err().to_string().starts_with("--idle-timeout: "));
        assert!(tuning(10_000, 0).unwrap_err().to_string().starts_with("--keep-alive: "));
    }

    #[test]
    fn choices_default_to_those_of_the_bundle() {
        assert_eq!(choose_geometry(None, &["photo", "frame"], 1).unwrap(), 1);
        assert_eq!(choose_geometry(Some("photo"), &["photo", "frame"], 1).unwrap(), 0);
        assert_eq!(choose_number(4, 5).unwrap(), 4);
    }

    #[test]
    fn addresses_are_parsed_and_displayed() {
        for text in [
            "tail.local:7461",
            "127.0.0.1:1",
            "[::1]:65535",
            "[fe80::1%eth0]:7461",
            "[fe80::1%3]:7461",
            "a_b:1",
        ] {
            assert_eq!(Server::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Server::parse("[fe80::1]:7").unwrap().host, "fe80::1");
        let scoped = Server::parse("[fe80::1%eth0]:7").unwrap();
        assert_eq!((scoped.name(), scoped.zone()), ("fe80::1", Some("eth0")));
        for text in [
            "",
            "tail",
            "tail:",
            ":7461",
            "tail:0",
            "tail:65536",
            "::1:7461",
            "http://tail:1",
            "[::1:4",
            "tail%eth0:1",
            "[tail]:1",
            "[fe80::1%]:1",
            "[10.0.0.1]:1",
            "a b:1",
            "tail..local:1",
            "ta\nil:1",
        ] {
            let error = Server::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("--server: ") && error.contains("HOST:PORT"), "{error}");
        }
    }
}
