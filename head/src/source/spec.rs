//! What `--source` names: files, or a live source with the format of its frames.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use narrows_video::RawFormat;

use super::{
    SourceError,
    address::without_secrets,
    command::{Preset, Program},
    listing::list,
};
use crate::{config::read_secret, error::Chain, name::Escaped};

/// Longest name of a source.
const NAME_MAX: usize = 64;

/// One `--source`, parsed: `[NAME=][i420:WxH[+STRIDE]:|nv12:WxH[+STRIDE]:]KIND`, or `[NAME=]@FILE` with that in a file.
///
/// A path that exists is files, whatever its name. So is a pattern that matches something.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The name that was given.
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
}

/// Where the frames of a source come from.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Image files, every one of them in order.
    Files(PathBuf),
    /// A folder into which image files are written.
    Watch(PathBuf),
    /// A stream of frames, raw ones of the given format.
    Stream(Input, Option<RawFormat>),
}

/// Where a stream comes from.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// Standard input.
    Stdin,
    /// A FIFO, a device or a file.
    Pipe(PathBuf),
    /// The standard output of a program.
    Program(Program),
}

impl Spec {
    /// Parses the value of a `--source`.
    ///
    /// # Errors
    /// [`SourceError::Spec`] for a file that cannot be read, for a kind without what it needs, for a format of raw frames that cannot be used, and for a V4L2
    /// device in the place of a file.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, SourceError> {
        if let Some((name, file)) = secret_file(text) {
            let shown = text.to_string_lossy();
            let source = read_secret("--source", file.as_ref()).map_err(|reason| fault(&shown, &reason))?;
            let spec = Self::parse(source.as_ref()).map_err(|error| match error {
                // What is in the file is not repeated.
                SourceError::Spec { reason, .. } => fault(&shown, &format!("in the file: {reason}")),
                error => error,
            })?;
            return Ok(Spec { name: name.map(str::to_owned).or(spec.name), ..spec });
        }
        let spec = Self::of_any_kind(text)?;
        if let Kind::Files(path) = &spec.kind
            && is_video_device(path)
        {
            let device = Escaped(path);
            let reason = format!("a V4L2 device is no image file: give v4l2:{device}");
            return Err(fault(&text.to_string_lossy(), &reason));
        }
        Ok(spec)
    }

    fn of_any_kind(text: &OsStr) -> Result<Self, SourceError> {
        let files = |name: Option<&str>, path: &Path| Spec {
            name: name.map(str::to_owned),
            kind: Kind::Files(path.to_owned()),
        };
        let (Some(whole), false) = (text.to_str(), is_path(text.as_ref())) else {
            return Ok(files(None, text.as_ref()));
        };
        let (name, rest) = match whole.split_once('=') {
            Some((name, rest)) if is_name(name) => (Some(name), rest),
            _ => (None, whole),
        };
        if rest.is_empty() {
            return Err(fault(whole, "no source behind the name"));
        }
        if is_path(rest.as_ref()) {
            return Ok(files(name, rest.as_ref()));
        }
        let (raw, rest) = match rest.split_once(':') {
            Some(("i420" | "nv12", behind)) => {
                let (size, source) = behind
                    .split_once(':')
                    .filter(|(_, source)| !source.is_empty())
                    .ok_or_else(|| fault(whole, "no source behind the format, as in i420:640x480:-"))?;
                let format = &rest[..5 + size.len()];
                (Some(format.parse().map_err(|error| fault(whole, &format!("{error}")))?), source)
            }
            _ => (None, rest),
        };
        let kind = match rest.split_once(':') {
            _ if rest == "-" => Kind::Stream(Input::Stdin, raw),
            Some(("pipe", path)) => Kind::Stream(Input::Pipe(needed(whole, path, "a path")?.into()), raw),
            Some(("watch", path)) => Kind::Watch(needed(whole, path, "a folder")?.into()),
            Some((scheme, argument)) => match Preset::named(scheme) {
                Some(preset) => {
                    let program = Program::new(preset, argument, raw.is_some());
                    let (program, format) = program.map_err(|reason| fault(whole, &reason))?;
                    Kind::Stream(Input::Program(program), raw.or(format))
                }
                None if argument.starts_with("//") => {
                    return Err(fault(whole, &format!("an address is read by ffmpeg: give ffmpeg:{rest}")));
                }
                None if raw.is_some() => {
                    return Err(fault(whole, "raw frames come from -, pipe: or a command"));
                }
                None => Kind::Files(rest.into()),
            },
            None => Kind::Files(rest.into()),
        };
        if raw.is_some() && !matches!(kind, Kind::Stream(..)) {
            return Err(fault(whole, "raw frames come from -, pipe: or a command"));
        }
        Ok(Spec { name: name.map(str::to_owned), kind })
    }

    /// The value of a `--source` with its path, where it has one, relative to `folder`. What a program is given stays as it is,
    /// but for the name of a file that ffmpeg reads.
    pub(crate) fn rebase(text: &OsStr, folder: &Path) -> OsString {
        let joined = |path: &str| folder.join(path).into_os_string();
        if let (Some((_, file)), Some(whole)) = (secret_file(text), text.to_str()) {
            let mut rebased = OsString::from(&whole[..whole.len() - file.len()]);
            rebased.push(joined(file));
            return rebased;
        }
        let Some(whole) = text.to_str() else { return folder.join(text).into() };
        if is_path_in(folder, whole) {
            return joined(whole);
        }
        let (name, rest) = match whole.split_once('=') {
            Some((name, rest)) if is_name(name) && !rest.is_empty() => (&whole[..=name.len()], rest),
            _ => ("", whole),
        };
        let behind = match rest.split_once(':') {
            _ if is_path_in(folder, rest) => rest,
            Some(("i420" | "nv12", behind)) => behind.split_once(':').map_or("", |(_, source)| source),
            _ => rest,
        };
        let (kind, path) = match behind.split_once(':') {
            _ if is_path_in(folder, behind) => ("", behind),
            Some((kind @ ("pipe" | "watch"), path)) if !path.is_empty() => (&behind[..=kind.len()], path),
            Some(("ffmpeg", path)) if folder.join(path).is_file() => (&behind[..7], path),
            Some((scheme, argument)) if Preset::named(scheme).is_some() || argument.starts_with("//") => {
                return text.to_owned();
            }
            _ if matches!(behind, "" | "-") => return text.to_owned(),
            _ => ("", behind),
        };
        let front = &whole[..name.len() + (rest.len() - behind.len()) + kind.len()];
        let mut rebased = OsString::from(front);
        rebased.push(joined(path));
        rebased
    }

    /// Looks whether what the source needs is there, without opening it; returns what was found.
    ///
    /// # Errors
    /// What is not there.
    pub(crate) fn look(&self) -> Result<String, String> {
        let reason = |error: &dyn std::error::Error| Chain(error).to_string();
        match &self.kind {
            Kind::Files(path) => match list(path).map_err(|error| reason(&error))?.len() {
                1 => Ok("1 file".to_owned()),
                files => Ok(format!("{files} files")),
            },
            Kind::Watch(folder) => {
                let entries =
                    fs::read_dir(folder).map_err(|error| format!("{}: {error}", Escaped(folder)))?;
                Ok(format!("a folder with {} files", entries.count()))
            }
            Kind::Stream(Input::Stdin, _) => Ok("standard input".to_owned()),
            Kind::Stream(Input::Pipe(path), _) => {
                fs::metadata(path).map_err(|error| format!("{}: {error}", Escaped(path)))?;
                Ok(Escaped(path).to_string())
            }
            Kind::Stream(Input::Program(program), _) => program.look(),
        }
    }

    /// What a message calls the source.
    pub(crate) fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(self.default_name())
    }

    /// Whether the newest frame is what counts of this source.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.kind, Kind::Files(_))
    }

    /// What a source without a name is called.
    pub(super) fn default_name(&self) -> &'static str {
        match &self.kind {
            Kind::Files(_) => "files",
            Kind::Watch(_) => "watch",
            Kind::Stream(Input::Stdin, _) => "stdin",
            Kind::Stream(Input::Pipe(_), _) => "pipe",
            Kind::Stream(Input::Program(program), _) => program.preset.name(),
        }
    }
}

/// The name and the file of a source that stands in a file, `[NAME=]@FILE`, so that no secret in it is seen in the list of
/// processes.
fn secret_file(text: &OsStr) -> Option<(Option<&str>, &str)> {
    let whole = text.to_str().filter(|whole| !is_path(whole.as_ref()))?;
    let (name, rest) = match whole.split_once('=') {
        Some((name, rest)) if is_name(name) => (Some(name), rest),
        _ => (None, whole),
    };
    rest.strip_prefix('@').filter(|file| !file.is_empty()).map(|file| (name, file))
}

/// Whether a path is that of a V4L2 device, which cannot be read as a file.
fn is_video_device(path: &Path) -> bool {
    let number = path.to_str().and_then(|path| path.strip_prefix("/dev/video"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Whether a text is the path of something that exists, the front of such a path, or a pattern of one.
fn is_path(text: &Path) -> bool {
    match text.to_str() {
        Some(text) => is_path_in(Path::new(""), text),
        None => fs::symlink_metadata(text).is_ok(),
    }
}

/// The same for a text that is relative to `folder`.
fn is_path_in(folder: &Path, text: &str) -> bool {
    // A name that is too long, or has a part of a file in its middle, does not exist either.
    let exists = |path: &Path| fs::symlink_metadata(folder.join(path)).is_ok();
    // The front of `shots=2024/*.jpg` is a folder, and not the name of a source.
    let front = Path::new(text).components().next();
    let has_front = text.contains('=') && front.is_some_and(|front| exists(front.as_ref()));
    !text.is_empty() && text != "-" && exists(text.as_ref())
        || has_front
        || folder.join(text).to_str().is_some_and(matches_something)
}

fn matches_something(text: &str) -> bool {
    text.contains(['*', '?', '[']) && glob::glob(text).is_ok_and(|mut found| found.any(|entry| entry.is_ok()))
}

/// Whether a text can be the name of a source, which stands in lines, topics and file names.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=NAME_MAX).contains(&text.len()) && text.chars().all(is_plain)
}

fn needed<'a>(whole: &str, argument: &'a str, what: &str) -> Result<&'a str, SourceError> {
    match argument.is_empty() {
        true => Err(fault(whole, &format!("{what} is missing behind the colon"))),
        false => Ok(argument),
    }
}

fn fault(whole: &str, reason: &str) -> SourceError {
    let text = without_secrets(&Escaped(whole.as_ref()).to_string());
    SourceError::Spec { text, reason: without_secrets(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Spec {
        Spec::parse(text.as_ref()).unwrap()
    }

    #[test]
    fn kinds_are_told_apart_by_what_stands_before_the_colon() {
        for (text, name, kind) in [
            ("photos/", None, "Files"),
            ("yard=photos/", Some("yard"), "Files"),
            ("photos/**/*.jpg", None, "Files"),
            ("-", None, "Stdin"),
            ("door=-", Some("door"), "Stdin"),
            ("pipe:cam.fifo", None, "Pipe"),
            ("watch:/srv/ftp", None, "Watch"),
            ("rpicam:", None, "rpicam-vid"),
            ("front=rpicam:--width 640", Some("front"), "\"--width\", \"640\""),
            ("ffmpeg:rtsp://a:b@10.0.0.7/stream?x=1", None, "rtsp://a:b@10.0.0.7/stream?x=1"),
            ("back-2=ffmpeg:rtsp://h/x=y", Some("back-2"), "rtsp://h/x=y"),
            ("gst:videotestsrc ! jpegenc", None, "gst-launch-1.0"),
            ("command:cat a=b", None, "cat a=b"),
            ("i420:640x480+704:command:cam", None, "stride: 704"),
            ("nv12:64x48,full:-", None, "full_range: true"),
            ("a b=c", None, "Files"),
        ] {
            let spec = parse(text);
            assert_eq!(spec.name.as_deref(), name, "{text}");
            assert!(format!("{spec:?}").contains(kind), "{text}: {spec:?}");
        }
    }

    #[test]
    fn a_path_that_exists_is_never_taken_for_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ffmpeg:x", "a=b.jpg", "v=1"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        for path in [at("ffmpeg:x"), at("a=b.jpg"), at("v=1/*.jpg"), at("v=*")] {
            assert!(matches!(parse(&path).kind, Kind::Files(_)), "{path}");
        }
        let named = parse(&format!("n={}", at("ffmpeg:x")));
        assert!(matches!(named.kind, Kind::Files(_)) && named.name.as_deref() == Some("n"));
    }

    #[test]
    fn a_source_in_a_file_is_read_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("front");
        let at = format!("@{}", file.display());
        fs::write(&file, "ffmpeg:rtsp://user:pass@h/1\n").unwrap();
        let named = parse(&format!("door={at}"));
        assert_eq!((named.name.as_deref(), named.default_name()), (Some("door"), "ffmpeg"));
        assert!(parse(&at).name.is_none());
        fs::write(&file, "rtsp://user:pass@h/1").unwrap();
        let error = Spec::parse(at.as_ref()).unwrap_err().to_string();
        assert!(error.contains(&at) && error.contains("in the file: ") && !error.contains("pass"), "{error}");
        fs::remove_file(&file).unwrap();
        let error = Spec::parse(at.as_ref()).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        // A file whose name begins like that is a file.
        let image = folder.path().join("@image.jpg");
        fs::write(&image, "").unwrap();
        assert!(matches!(parse(&image.display().to_string()).kind, Kind::Files(_)));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for (text, words) in [
            ("front=", "no source behind the name"),
            ("front=rtsp://h/1", "give ffmpeg:rtsp://h/1"),
            ("rtsp://user:pass@h/1", "give ffmpeg:rtsp://***@h/1"),
            ("pipe:", "a path is missing"),
            ("/dev/video0", "give v4l2:/dev/video0"),
            ("usb=/dev/video12", "give v4l2:/dev/video12"),
            ("watch:", "a folder is missing"),
            ("ffmpeg:", "missing"),
            ("gst:  ", "missing"),
            ("command:", "missing"),
            ("v4l2:", "missing"),
            ("rpicam:--width '640", "quotation mark"),
            ("i420:640x480", "no source behind the format"),
            ("i420:640:-", "no size"),
            ("nv12:640x480:photos/", "raw frames come from"),
            ("nv12:640x480:watch:x", "raw frames come from"),
        ] {
            let error = Spec::parse(text.as_ref()).unwrap_err().to_string();
            assert!(error.starts_with("--source ") && error.contains(words), "{text}: {error}");
            assert!(!error.contains("pass@"), "{error}");
        }
    }

    #[test]
    fn paths_of_sources_are_relative_to_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("photos")).unwrap();
        fs::write(folder.path().join("a.mp4"), "").unwrap();
        let at = folder.path().display().to_string();
        for (text, expected) in [
            ("photos", "{}/photos"),
            ("yard=photos", "yard={}/photos"),
            ("missing/*.jpg", "{}/missing/*.jpg"),
            ("pipe:cam", "pipe:{}/cam"),
            ("a=i420:4x4:pipe:cam", "a=i420:4x4:pipe:{}/cam"),
            ("watch:/in", "watch:/in"),
            ("ffmpeg:a.mp4", "ffmpeg:{}/a.mp4"),
            ("ffmpeg:rtsp://x/a.mp4", "ffmpeg:rtsp://x/a.mp4"),
            ("door=command:cat a.mp4", "door=command:cat a.mp4"),
            ("rpicam:", "rpicam:"),
            ("nv12:4x4:-", "nv12:4x4:-"),
            ("-", "-"),
            ("/photos", "/photos"),
            ("@front", "@{}/front"),
            ("door=@front", "door=@{}/front"),
        ] {
            let rebased = Spec::rebase(text.as_ref(), folder.path());
            assert_eq!(rebased, OsString::from(expected.replace("{}", &at)), "{text}");
        }
    }
}
