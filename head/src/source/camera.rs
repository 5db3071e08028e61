//! One live source in a thread of its own: opened, read as fast as it delivers, and opened anew when it is lost.
#![expect(clippy::disallowed_methods, reason = "what a stream leaves at its end arrives then")]

use std::{
    io::{self, PipeReader},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use narrows_video::{Picture, RawFormat, StreamFault};

use super::{
    child::Running,
    command::{Otherwise, Program},
    inbox::Content,
    loss::CameraFault,
    outlet::{End, Outlet},
    spec::Input,
    stream::{Pause, Session, Stream, is_stopped_within},
    watch,
};
use crate::image::decode;

/// How long is waited before a lost camera is opened again, at first and at most. Each failure doubles it.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// A live source, and what reading it needs.
#[derive(Debug)]
pub(super) struct Camera {
    pub(super) feed: Feed,
    pub(super) outlet: Outlet,
    /// Closed when the run ends.
    pub(super) stop: Arc<PipeReader>,
    /// How long it may deliver nothing.
    pub(super) patience: Duration,
    /// How often an input that has an end is read; `None` for no end.
    pub(super) passes: Option<u64>,
    /// When the run began: what was in a watched folder before that is not new.
    pub(super) began: SystemTime,
    /// Which of its program's command lines is used.
    pub(super) attempt: usize,
}

/// Where the frames come from.
#[derive(Debug)]
pub(super) enum Feed {
    Stream(Input, Option<RawFormat>),
    Watch(PathBuf, watch::Files),
}

impl Camera {
    /// Reads the camera until the run ends, or its input. Returns why an input that cannot be opened again is of no use.
    pub(super) fn run(mut self) -> Option<CameraFault> {
        let mut delay = SOONEST;
        let mut passes = 0;
        loop {
            let lost_before = self.outlet.lost.is_some();
            let arrived = self.outlet.tally.summary().arrived;
            let end = match &mut self.feed {
                Feed::Stream(..) => self.stream(),
                Feed::Watch(folder, files) => {
                    watch::watch(folder, files, self.began, &self.stop, &mut self.outlet)
                }
            };
            if self.outlet.tally.summary().arrived > arrived || !lost_before {
                delay = SOONEST;
            }
            match end {
                End::Stopped => return None,
                End::Otherwise => continue,
                End::Over => {
                    passes += 1;
                    let once = matches!(self.feed, Feed::Stream(Input::Stdin, _));
                    if once || self.passes.is_some_and(|wanted| passes >= wanted) {
                        return None;
                    }
                    // An empty file has an end as well.
                    if self.outlet.tally.summary().arrived == arrived
                        && is_stopped_within(&self.stop, SOONEST)
                    {
                        return None;
                    }
                }
                End::Lost(fault) => {
                    if matches!(self.feed, Feed::Stream(Input::Stdin, _)) {
                        return Some(fault);
                    }
                    self.outlet.tell_loss(&fault, Some(delay));
                    if is_stopped_within(&self.stop, delay) {
                        return None;
                    }
                    delay = (2 * delay).min(LATEST);
                }
            }
        }
    }

    /// Opens the stream and reads it to its end.
    fn stream(&mut self) -> End {
        let Feed::Stream(input, raw) = &self.feed else { return End::Over };
        let opened = match input {
            Input::Stdin => Stream::stdin().map_err(CameraFault::Read),
            Input::Pipe(path) => {
                Stream::pipe(path).map_err(|source| CameraFault::Open { path: path.clone(), source })
            }
            Input::Program(program) => match start(program, self.attempt) {
                Ok((running, attempt)) => {
                    self.attempt = attempt;
                    Ok(Stream::Program(running))
                }
                Err(fault) => {
                    self.attempt = 0;
                    Err(fault)
                }
            },
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(fault) => return End::Lost(fault),
        };
        let mut session = Session::new(*raw);
        let pause = loop {
            let outlet = &mut self.outlet;
            let mut deliver = |picture, at, on| outlet.deliver(content(picture), at, on, None);
            match session.read(&mut stream, &self.stop, self.patience, &mut deliver) {
                // A stream that others write is not opened again: it is waited for.
                Pause::Stalled(time) if !matches!(stream, Stream::Program(_)) => {
                    if self.outlet.lost.is_none() {
                        self.outlet.tell_loss(&CameraFault::Stalled { time, words: None }, None);
                    }
                    session.last = Instant::now();
                }
                pause => break pause,
            }
        };
        if let Pause::Stopped = pause {
            // What the run cuts off is no damage; what came before is.
            self.outlet.tally.count_damaged(session.parser.counts().damaged);
            return End::Stopped;
        }
        let has_frames = session.has_frames;
        let finished = session.parser.finish();
        if let Ok((last, counts)) = &finished {
            self.outlet.tally.count_damaged(counts.damaged);
            self.deliver_last(last.clone());
        }
        self.judge(stream, pause, finished.err(), has_frames)
    }

    /// Delivers the last picture of a stream if it is complete without an end marker, and counts it as damaged if it is not.
    fn deliver_last(&mut self, last: Option<Picture>) {
        let Some(Picture::Jpeg(file)) = last else { return };
        match decode(&file) {
            Ok(_) => self.outlet.deliver(Content::File(file), Instant::now(), SystemTime::now(), None),
            Err(_) => self.outlet.tally.count_damaged(1),
        }
    }

    /// What the end of a stream means.
    fn judge(&mut self, stream: Stream, pause: Pause, fault: Option<StreamFault>, has_frames: bool) -> End {
        let Stream::Program(mut running) = stream else {
            return match (pause, fault) {
                (Pause::Fault(fault), _) | (_, Some(fault)) => {
                    End::Lost(CameraFault::Stream { fault, words: None })
                }
                (Pause::Read(error), _) => End::Lost(CameraFault::Read(error)),
                _ => End::Over,
            };
        };
        let (status, by_itself) = running.finish(matches!(pause, Pause::Ended));
        let Feed::Stream(Input::Program(program), _) = &self.feed else { return End::Over };
        let attempt = &program.attempts[self.attempt];
        if !has_frames {
            let has_next = self.attempt + 1 < program.attempts.len();
            let is_next = match attempt.otherwise {
                Otherwise::Said(text) => running.words.contain(text),
                Otherwise::Failed => true,
                Otherwise::Never | Otherwise::Missing => false,
            };
            if has_next && is_next {
                self.attempt += 1;
                return End::Otherwise;
            }
            self.attempt = 0;
        }
        let words = running.words.last_line();
        let succeeded = by_itself && status.is_some_and(|status| status.success());
        match (pause, fault) {
            (Pause::Stalled(time), _) => End::Lost(CameraFault::Stalled { time, words }),
            (Pause::Read(error), _) => End::Lost(CameraFault::Read(error)),
            (Pause::Fault(fault), _) => End::Lost(CameraFault::Stream { fault, words }),
            (_, Some(fault)) if succeeded => End::Lost(CameraFault::Stream { fault, words }),
            _ if succeeded && program.is_finite && has_frames => End::Over,
            _ => {
                let status = status.filter(|_| by_itself);
                End::Lost(CameraFault::Ended { program: attempt.program, status, words })
            }
        }
    }
}

/// Starts the program of a camera by its command line number `first`, or by a later one where that is not installed.
fn start(program: &Program, first: usize) -> Result<(Running, usize), CameraFault> {
    let mut programs = Vec::new();
    for (place, attempt) in program.attempts.iter().enumerate().skip(first) {
        match Running::start(attempt) {
            Ok(running) => return Ok((running, place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                programs.push(attempt.program);
                if attempt.otherwise != Otherwise::Missing {
                    break;
                }
            }
            Err(source) => return Err(CameraFault::Start { program: attempt.program, source }),
        }
    }
    Err(CameraFault::Missing { programs, remedy: program.preset.remedy() })
}

fn content(picture: Picture) -> Content {
    match picture {
        Picture::Jpeg(file) => Content::File(file),
        Picture::Raw(raw) => Content::Raw(raw),
    }
}
