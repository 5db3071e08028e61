//! Flags, and what they mean for a given bundle.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use narrows_codec::{Choice, Mode};
use narrows_models::{Bundle, TaskKind};
use narrows_wire::{Framing, limits::MAX_IN_FLIGHT};

use crate::{
    Error,
    encoding::{Chroma, Encoding, Format},
    pipeline::SMALLEST,
};

/// Quality of images when nobody asks for another.
const QUALITY: u8 = 75;
/// Longest `--budget`, `--retry-for`: an hour.
const HOUR: u64 = 3600;

/// The flags of `narrows-head run`, as typed.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Folder of the bundle; the server must serve the same one
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,

    /// The tail: a name in its certificate and a port; not needed with --path local
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,

    /// Folder with ca.pem, cert.pem and key.pem of this device (`narrows-tail certs device` makes one); not needed
    /// with --path local
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// An image file, a folder of images (one level), or a quoted pattern such as 'photos/**/*.jpg'
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    pub source: String,

    /// What to ask, by task name [default: the bundle's first task of each kind]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    pub tasks: Vec<String>,

    /// Where the network runs
    #[arg(long, value_name = "PATH", value_enum, default_value_t = Path::Split)]
    pub path: Path,

    /// When this device answers instead of the server, where the bundle's local network can
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = FallbackMode::Lost)]
    pub fallback: FallbackMode,

    /// Rate level, 0 is the finest and largest [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,

    /// How the split's packet is coded [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub coding: Option<Coding>,

    /// File format of --path image [default: jpeg]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Quality of --path image, 1 (smallest) to 100 [default: 75]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,

    /// Colour planes of --path image: 420 halves them both ways, 444 (JPEG only) keeps them [default: 420]
    #[arg(long, value_name = "420|444", value_enum)]
    pub subsampling: Option<Chroma>,

    /// Size of --path image [default: fitted]
    #[arg(long, value_name = "SIZE", value_enum)]
    pub send: Option<Size>,

    /// How an image becomes the network's input [default: the first task's geometry]
    #[arg(long, value_name = "NAME")]
    pub geometry: Option<String>,

    /// Write a mask and an annotated picture per image into this folder, which is made if missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Milliseconds from the start of a frame to its answer; what is left of it travels with the frame, and work
    /// past it is dropped on both sides
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub budget: u64,

    /// Frames between decoding and their answer; 1 finishes each before the next begins
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub in_flight: usize,

    /// Seconds to look for a server that is away, at the start and after a loss
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub retry_for: u64,

    /// Work through the source this many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: usize,
}

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// Here up to the bottleneck, on the server from there: features travel
    Split,
    /// On the server, which must serve the whole network (`narrows-tail serve --offload`): an image travels
    Image,
    /// Here, the bundle's local network: nothing travels
    Local,
}

/// When this device answers instead of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FallbackMode {
    /// The server was looked for as long as --retry-for says; it is looked for further and taken again when back
    Lost,
    /// Never: frames without a server fail and end the run
    Never,
}

/// How a packet is coded (codec/FORMAT.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Coding {
    /// Tables chosen by context, along columns or rows where that suits, or one table for each channel: the smallest
    Auto,
    /// One table for each channel
    Static,
    /// Zstandard over the 8-bit symbols
    Zstd,
    /// The 8-bit symbols as they are
    Raw,
}

/// At which size an image is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Resized and cropped here to the network's input: both paths see the same pixels
    Fitted,
    /// At its own size; the server resizes and crops
    Original,
}

/// A run's settings, checked against the bundle.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the server is and who this device is; none where nothing travels.
    pub server: Option<(Server, PathBuf)>,
    /// Where the network runs.
    pub path: Path,
    /// Whether this device answers when the server is away.
    pub fallback: bool,
    /// Indices of the tasks to ask, at most one of each kind, in the order they were asked for.
    pub tasks: Vec<usize>,
    /// Index of the rate level.
    pub level: usize,
    /// How packets are coded.
    pub coding: Choice,
    /// How images are encoded.
    pub encoding: Encoding,
    /// At which size images are sent.
    pub framing: Framing,
    /// Index of the geometry.
    pub geometry: usize,
    /// Where pictures go.
    pub out: Option<PathBuf>,
    /// From a frame's start to its answer.
    pub budget: Duration,
    /// Frames between decoding and their answer.
    pub in_flight: usize,
    /// How long to look for a server that is away.
    pub retry_for: Duration,
    /// How often to work through the source.
    pub repeat: usize,
}

/// A server's address as given: the host is also the name that its certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A DNS name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl Config {
    /// Resolves flags for `bundle`.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the flag and what it may be.
    pub fn new(flags: &Flags, bundle: &Bundle) -> Result<Self, Error> {
        let tasks: Vec<TaskOption> = bundle
            .tasks()
            .iter()
            .map(|task| TaskOption { name: &task.name, kind: task.kind, geometry: task.geometry })
            .collect();
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
        let encoding = Encoding {
            format: flags.format.unwrap_or(Format::Jpeg),
            quality: flags.quality.unwrap_or(QUALITY),
            chroma: flags.subsampling.unwrap_or(Chroma::Half),
        };
        if (encoding.format, encoding.chroma) == (Format::Webp, Chroma::Full) {
            return Err(Error::usage("--subsampling", "lossy WebP has 420 only; leave it out or send JPEG"));
        }
        let tasks_asked = choose_tasks(&flags.tasks, &tasks)?;
        let local = local_task(bundle, &tasks_asked);
        let server = match flags.path {
            Path::Split | Path::Image => Some((
                Server::parse(required("--server", flags.server.as_ref())?)?,
                required("--identity", flags.identity.as_ref())?.clone(),
            )),
            Path::Local => {
                local.clone().map_err(|reason| Error::usage("--path", reason))?;
                None
            }
        };
        let geometries: Vec<&str> =
            bundle.geometries().iter().map(|geometry| geometry.name.as_str()).collect();
        let first = tasks_asked.first().map_or(0, |&index| tasks[index].geometry);
        Ok(Config {
            server,
            path: flags.path,
            // A device may have been given the bundle without this part.
            fallback: flags.fallback == FallbackMode::Lost
                && local.is_ok_and(|part| bundle.path(part).is_file()),
            geometry: choose_geometry(flags.geometry.as_deref(), &geometries, first)?,
            level: choose_level(flags.level, bundle.levels().len(), bundle.default_level())?,
            coding: flags.coding.unwrap_or(Coding::Auto).into(),
            encoding,
            framing: match flags.send.unwrap_or(Size::Fitted) {
                Size::Fitted => Framing::Fitted,
                Size::Original => Framing::Original,
            },
            tasks: tasks_asked,
            out: flags.out.clone(),
            budget: Duration::from_millis(in_range("--budget", flags.budget, 1, HOUR * 1000)?),
            in_flight: in_range("--in-flight", flags.in_flight as u64, 1, MAX_IN_FLIGHT.into())? as usize,
            retry_for: Duration::from_secs(in_range("--retry-for", flags.retry_for, 0, HOUR)?),
            repeat: in_range("--repeat", flags.repeat as u64, 1, u32::MAX.into())? as usize,
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
    /// Reads `HOST:PORT`, an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`Error::Usage`] for `--server`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::usage(
                "--server",
                format!("{text:?} {what}; give HOST:PORT, for example tail.local:7461 or [::1]:7461"),
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || bare.is_none() && host.contains([':', '[', ']', '/']) {
            return Err(wrong("has no host that can be dialled"));
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(wrong("has no port from 1 to 65535")),
            Ok(port) => Ok(Server { host: bare.unwrap_or(host).to_owned(), port }),
        }
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

/// What choosing needs to know of a task.
struct TaskOption<'a> {
    name: &'a str,
    kind: TaskKind,
    geometry: usize,
}

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

fn choose_level(wanted: Option<usize>, levels: usize, default: usize) -> Result<usize, Error> {
    match wanted {
        None => Ok(default),
        Some(level) if level < levels => Ok(level),
        Some(level) => {
            let last = levels.saturating_sub(1);
            Err(Error::usage(
                "--level",
                format!("the bundle has no level {level}; it has 0 (finest) to {last}"),
            ))
        }
    }
}

/// The part that answers one of the tasks on this device, or why there is none.
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

fn required<'a, T>(flag: &'static str, value: Option<&'a T>) -> Result<&'a T, Error> {
    value.ok_or_else(|| Error::usage(flag, "is missing; only --path local needs no server"))
}

fn in_range(flag: &'static str, value: u64, low: u64, high: u64) -> Result<u64, Error> {
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
    fn a_wrong_choice_names_the_flag_and_the_way_out() {
        for (error, parts) in [
            (tasks(&["classfy"]).unwrap_err(), ["--tasks: ", "classify, segment, depth"]),
            (tasks(&["segment", "depth"]).unwrap_err(), ["--tasks: ", "two runs"]),
            (tasks(&["segment", "segment"]).unwrap_err(), ["--tasks: ", "twice"]),
            (
                choose_geometry(Some("x"), &["photo", "frame"], 0).unwrap_err(),
                ["--geometry: ", "photo, frame"],
            ),
            (choose_level(Some(5), 5, 1).unwrap_err(), ["--level: ", "0 (finest) to 4"]),
            (in_range("--in-flight", 0, 1, 256).unwrap_err(), ["--in-flight: ", "1 to 256"]),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
        }
    }

    #[test]
    fn choices_default_to_the_bundles() {
        assert_eq!(choose_geometry(None, &["photo", "frame"], 1).unwrap(), 1);
        assert_eq!(choose_geometry(Some("photo"), &["photo", "frame"], 1).unwrap(), 0);
        assert_eq!(choose_level(None, 5, 2).unwrap(), 2);
        assert_eq!(choose_level(Some(4), 5, 2).unwrap(), 4);
    }

    #[test]
    fn servers_are_read_and_printed() {
        for text in ["tail.local:7461", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(Server::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Server::parse("[fe80::1]:7").unwrap().host, "fe80::1");
        for text in
            ["", "tail", "tail:", ":7461", "tail:0", "tail:65536", "::1:7461", "http://tail:1", "[::1:4"]
        {
            let error = Server::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("--server: ") && error.contains("HOST:PORT"), "{error}");
        }
    }
}
