//! Programs that write frames to their standard output: how each kind of camera is read.

use std::path::Path;

use narrows_video::RawFormat;

/// A kind of camera, or of anything that a program can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Rpicam,
    Ffmpeg,
    Gst,
    V4l2,
    Command,
}

/// A program that writes frames, with what is tried where it cannot.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) preset: Preset,
    /// Command lines, of which the first that works is used.
    pub(super) attempts: Vec<Attempt>,
    /// Whether the input has an end, which the program reaches with exit code 0.
    pub(super) is_finite: bool,
}

/// A command line.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) program: &'static str,
    pub(super) arguments: Vec<String>,
    /// When the next one is tried instead.
    pub(super) otherwise: Otherwise,
}

/// When the next command line is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Never.
    Never,
    /// Where the program is not installed.
    Missing,
    /// Where it ended without a frame and said this.
    Said(&'static str),
    /// Where it ended without a frame.
    Failed,
}

/// Options of ffmpeg before its input: it is quiet and leaves standard input alone.
const FFMPEG: &str = "-nostdin -hide_banner -loglevel error";
/// It holds nothing back, and drops what it has read to learn the format: for inputs that go on.
const LIVE: &str = "-fflags nobuffer -flags low_delay";
/// Options behind its input: the first video as Y4M, which costs no encoding here and no decoding there.
const FFMPEG_OUT: &str = "-map 0:v:0 -pix_fmt yuv420p -f yuv4mpegpipe";
/// Options against repeating and dropping frames to keep a constant rate, as ffmpeg 5.1 names them, and as those before it do.
const PASS: [&str; 2] = ["-fps_mode passthrough", "-vsync 0"];
/// What the former say about the option that they do not know.
const UNKNOWN: &str = "fps_mode";

impl Preset {
    /// The preset that a source begins with.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Preset::Rpicam, Preset::Ffmpeg, Preset::Gst, Preset::V4l2, Preset::Command]
            .into_iter()
            .find(|preset| preset.name() == name)
    }

    /// How it is written before the colon.
    pub(super) fn name(self) -> &'static str {
        match self {
            Preset::Rpicam => "rpicam",
            Preset::Ffmpeg => "ffmpeg",
            Preset::Gst => "gst",
            Preset::V4l2 => "v4l2",
            Preset::Command => "command",
        }
    }

    /// How the program is got that it needs.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Preset::Rpicam => "install rpicam-apps (apt install rpicam-apps)",
            Preset::Ffmpeg | Preset::V4l2 => "install it (apt install ffmpeg)",
            Preset::Gst => "install it (apt install gstreamer1.0-tools)",
            Preset::Command => "check its name and PATH",
        }
    }
}

impl Program {
    /// Looks whether a program of the attempts is installed and the device that it reads exists; returns what was found.
    ///
    /// # Errors
    /// What is not there.
    pub(super) fn look(&self) -> Result<String, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_installed = |attempt: &&Attempt| {
            attempt.program.contains('/') && Path::new(attempt.program).is_file()
                || std::env::split_paths(&path).any(|folder| folder.join(attempt.program).is_file())
        };
        let Some(found) = self.attempts.iter().find(is_installed) else {
            let names: Vec<&str> = self.attempts.iter().map(|attempt| attempt.program).collect();
            return Err(format!("{} is not installed; {}", names[0], self.preset.remedy()));
        };
        let devices = found.arguments.iter().filter(|argument| argument.starts_with("/dev/"));
        for device in devices {
            std::fs::metadata(device).map_err(|error| format!("{device}: {error}"))?;
        }
        Ok(format!("by {}", found.program))
    }

    /// The program for what stands behind the colon, and the format of its raw frames where that is known. With `is_raw` the
    /// frames are raw and their format was given.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub(super) fn new(
        preset: Preset,
        argument: &str,
        is_raw: bool,
    ) -> Result<(Self, Option<RawFormat>), String> {
        let words = || match preset {
            Preset::Command => Ok(vec![argument.to_owned()]),
            _ => split(argument),
        };
        let words = words()?;
        if preset != Preset::Rpicam && argument.trim().is_empty() {
            return Err(format!(
                "{} is missing behind the colon",
                match preset {
                    Preset::Ffmpeg => "an address, a file, or options of ffmpeg",
                    Preset::Gst => "a pipeline",
                    Preset::V4l2 => "a device such as /dev/video0",
                    _ => "a command line",
                }
            ));
        }
        let mut format = None;
        let mut is_finite = false;
        let attempts = match preset {
            Preset::Rpicam => {
                format = if is_raw { None } else { rpicam_format(&words)? };
                rpicam(&words)
            }
            Preset::Ffmpeg => {
                is_finite = ffmpeg_ends(argument, &words);
                ffmpeg(argument, &words)
            }
            Preset::Gst => vec![gst(words)],
            Preset::V4l2 => v4l2(argument)?,
            Preset::Command => {
                let arguments = vec!["-c".to_owned(), argument.to_owned()];
                vec![Attempt { program: "sh", arguments, otherwise: Otherwise::Never }]
            }
        };
        Ok((Program { preset, attempts, is_finite }, format))
    }
}

/// Words as a shell splits them.
fn split(text: &str) -> Result<Vec<String>, String> {
    shlex::split(text).ok_or_else(|| "a quotation mark or a backslash stands alone".to_owned())
}

fn options(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned)
}

/// `rpicam-vid` without end and without a window, or `libcamera-vid`, as it was called before.
fn rpicam(words: &[String]) -> Vec<Attempt> {
    let mut arguments: Vec<String> = options("-t 0 -n").collect();
    if !words.iter().any(|word| word == "--codec" || word.starts_with("--codec=")) {
        arguments.extend(options("--codec mjpeg"));
    }
    arguments.extend(words.iter().cloned());
    arguments.extend(options("-o -"));
    let attempt = |program, otherwise| Attempt { program, arguments: arguments.clone(), otherwise };
    vec![attempt("rpicam-vid", Otherwise::Missing), attempt("libcamera-vid", Otherwise::Never)]
}

/// The format of the frames that `--codec yuv420` gives: I420 in the full range.
fn rpicam_format(words: &[String]) -> Result<Option<RawFormat>, String> {
    let value = |name: &str| {
        let place = words.iter().position(|word| word == name || word.starts_with(&format!("{name}=")))?;
        words[place].split_once('=').map(|(_, value)| value).or(words.get(place + 1).map(String::as_str))
    };
    match value("--codec") {
        None | Some("mjpeg") => return Ok(None),
        Some("yuv420") => {}
        Some(other) => {
            return Err(format!("--codec {other} is not read; leave it out (MJPEG) or give --codec yuv420"));
        }
    }
    // Rows are padded to 64 or 128 bytes, as the board has it; a width of whole 128 has no padding on any.
    let width = value("--width").and_then(|width| width.parse::<u32>().ok());
    match (width, value("--height")) {
        (Some(width), Some(height)) if width % 128 == 0 => {
            format!("i420:{width}x{height},full").parse().map(Some).map_err(|error| format!("{error}"))
        }
        _ => Err("--codec yuv420 needs --width and --height, the width a multiple of 128; for another one give the distance \
                  of its rows, for example i420:800x600+832,full:rpicam:--codec yuv420 --width 800 --height 600"
            .to_owned()),
    }
}

/// Whether the input has an end: a file, or a pattern that ffmpeg makes.
fn ffmpeg_ends(argument: &str, words: &[String]) -> bool {
    Path::new(argument).is_file() || is_pattern(words)
}

fn is_pattern(words: &[String]) -> bool {
    words.windows(2).any(|pair| pair[0] == "-f" && pair[1] == "lavfi")
}

/// ffmpeg on an address, a file or a device, or with the options that are given, `-i` among them.
fn ffmpeg(argument: &str, words: &[String]) -> Vec<Attempt> {
    let mut front: Vec<String> = options(FFMPEG).collect();
    let mut out = FFMPEG_OUT;
    let is_file = Path::new(argument).is_file();
    match argument.starts_with('-') && !is_file {
        true => {
            if !is_pattern(words) {
                front.extend(options(LIVE));
            } else if !words.iter().any(|word| word == "-re") {
                front.push("-re".to_owned());
            }
            front.extend(words.iter().cloned());
            // Whoever chooses the format of the output chooses all of it.
            let input = words.iter().rposition(|word| word == "-i").unwrap_or(0);
            if words[input..].iter().any(|word| word == "-f") {
                out = "";
            }
        }
        false => {
            if is_file {
                // As fast as it was recorded.
                front.push("-re".to_owned());
            } else {
                front.extend(options(LIVE));
            }
            if argument.starts_with("rtsp") {
                front.extend(options("-rtsp_transport tcp"));
            } else if argument.starts_with("/dev/video") {
                front.extend(options("-f v4l2"));
            }
            front.extend(["-i".to_owned(), argument.to_owned()]);
        }
    }
    if out.is_empty() {
        front.push("pipe:1".to_owned());
        return vec![Attempt { program: "ffmpeg", arguments: front, otherwise: Otherwise::Never }];
    }
    let attempt = |pass: &str, otherwise| {
        let behind = options(out).chain(options(pass)).chain(["pipe:1".to_owned()]);
        let arguments = front.iter().cloned().chain(behind).collect();
        Attempt { program: "ffmpeg", arguments, otherwise }
    };
    vec![attempt(PASS[0], Otherwise::Said(UNKNOWN)), attempt(PASS[1], Otherwise::Never)]
}

/// A pipeline of GStreamer whose last element gives JPEG pictures, Y4M or raw frames.
fn gst(words: Vec<String>) -> Attempt {
    let has_sink = words.iter().any(|word| word == "fdsink" || word == "filesink");
    let sink = if has_sink { "" } else { "! fdsink fd=1 sync=false" };
    let arguments = ["-q".to_owned()].into_iter().chain(words).chain(options(sink)).collect();
    Attempt { program: "gst-launch-1.0", arguments, otherwise: Otherwise::Never }
}

/// A V4L2 device by ffmpeg: its JPEG pictures as they are, or where it has none, its frames as Y4M.
fn v4l2(argument: &str) -> Result<Vec<Attempt>, String> {
    let mut parts = argument.split(',');
    let device = parts.next().unwrap_or_default().to_owned();
    let mut front: Vec<String> = options(FFMPEG).chain(options(LIVE)).chain(options("-f v4l2")).collect();
    let mut settings = Vec::new();
    for part in parts {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let rate = part.strip_suffix("fps").filter(|rate| is_number(rate));
        let size = part.split_once('x').filter(|(width, height)| is_number(width) && is_number(height));
        match (rate, size) {
            (Some(rate), _) => settings.extend(["-framerate".to_owned(), rate.to_owned()]),
            (_, Some(_)) => settings.extend(["-video_size".to_owned(), part.to_owned()]),
            _ => {
                return Err(format!(
                    "{part:?}; behind the device stand a size and a rate, as in /dev/video0,1280x720,30fps"
                ));
            }
        }
    }
    front.extend(settings);
    let attempt = |before: &str, behind: &str, otherwise| {
        let input = ["-i".to_owned(), device.clone()];
        let all = front.iter().cloned().chain(options(before)).chain(input).chain(options(behind));
        Attempt { program: "ffmpeg", arguments: all.chain(["pipe:1".to_owned()]).collect(), otherwise }
    };
    let [pass, old] = PASS.map(|pass| format!("{FFMPEG_OUT} {pass}"));
    Ok(vec![
        attempt("-input_format mjpeg", "-c:v copy -f mjpeg", Otherwise::Failed),
        attempt("", &pass, Otherwise::Said(UNKNOWN)),
        attempt("", &old, Otherwise::Never),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(preset: Preset, argument: &str) -> Vec<String> {
        let (program, _) = Program::new(preset, argument, false).unwrap();
        let line = |attempt: &Attempt| format!("{} {}", attempt.program, attempt.arguments.join(" "));
        program.attempts.iter().map(line).collect()
    }

    #[test]
    fn a_camera_of_the_raspberry_pi_is_read_by_either_name_of_its_program() {
        let both = lines(Preset::Rpicam, "--width 1280 --hflip");
        assert_eq!(both[0], "rpicam-vid -t 0 -n --codec mjpeg --width 1280 --hflip -o -");
        assert_eq!(both[1], both[0].replace("rpicam-vid", "libcamera-vid"));
        let (_, format) =
            Program::new(Preset::Rpicam, "--codec yuv420 --width 640 --height=480", false).unwrap();
        assert_eq!(format, Some("i420:640x480,full".parse().unwrap()));
        for wrong in ["--codec h264", "--codec yuv420", "--codec=yuv420 --width 800 --height 600"] {
            assert!(Program::new(Preset::Rpicam, wrong, false).is_err(), "{wrong}");
        }
        assert!(Program::new(Preset::Rpicam, "--codec yuv420 --width 800 --height 600", true).is_ok());
    }

    #[test]
    fn ffmpeg_reads_addresses_files_devices_and_patterns() {
        let rtsp = &lines(Preset::Ffmpeg, "rtsp://cam/1")[0];
        assert!(rtsp.contains("-rtsp_transport tcp -i rtsp://cam/1 -map 0:v:0"), "{rtsp}");
        assert!(rtsp.ends_with("-f yuv4mpegpipe -fps_mode passthrough pipe:1"), "{rtsp}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(lines(Preset::Ffmpeg, path)[1].contains(&format!("-re -i {path} ")));
        assert!(Program::new(Preset::Ffmpeg, path, false).unwrap().0.is_finite);
        let pattern = "-f lavfi -i testsrc2=size=64x48:rate=5";
        let y4m = &lines(Preset::Ffmpeg, pattern)[0];
        assert!(y4m.contains(&format!("-re {pattern} -map")), "{y4m}");
        let mjpeg = &lines(Preset::Ffmpeg, "-f lavfi -i testsrc2 -f mjpeg");
        assert!(mjpeg.len() == 1 && mjpeg[0].ends_with("-i testsrc2 -f mjpeg pipe:1"), "{mjpeg:?}");
        assert!(!Program::new(Preset::Ffmpeg, "http://cam/x.mjpg", false).unwrap().0.is_finite);
    }

    #[test]
    fn pipelines_end_in_standard_output_and_devices_take_size_and_rate() {
        let line = &lines(Preset::Gst, "v4l2src ! 'video/x-raw(memory:NVMM),width=64' ! jpegenc")[0];
        assert_eq!(
            line,
            "gst-launch-1.0 -q v4l2src ! video/x-raw(memory:NVMM),width=64 ! jpegenc ! fdsink fd=1 sync=false"
        );
        assert!(lines(Preset::Gst, "a ! fdsink fd=1")[0].ends_with("a ! fdsink fd=1"));
        let device = lines(Preset::V4l2, "/dev/video0,640x480,15fps");
        assert_eq!(device.len(), 3);
        let front = "-f v4l2 -framerate 15";
        assert!(
            device[0]
                .contains("-f v4l2 -video_size 640x480 -framerate 15 -input_format mjpeg -i /dev/video0")
        );
        assert!(!device[1].contains(front) && device[1].contains("-framerate 15 -i /dev/video0"));
        assert!(Program::new(Preset::V4l2, "/dev/video0,large", false).is_err());
    }
}
