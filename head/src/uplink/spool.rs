//! Frames that no server answered, on disk until one is there (docs/spool.md).
//!
//! A thread of its own writes and reads the disk. It is told of frames and asked for them by a [`SpoolWay`]; a frame from the disk
//! stays there until its line is written, so that no end of the process loses it.
#![expect(clippy::disallowed_methods, reason = "frames on disk have an age on the calendar")]

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    },
    time::{Duration, Instant, SystemTime},
};

use ::image::RgbImage;
use narrows_codec::{GeometryId, LevelId, Mode};
use narrows_wire::{Framing, Payload, RefusalCode};
use tokio::sync::{Semaphore, oneshot};

use self::{
    folder::{Folder, Gone, StoreError},
    record::{Description, Record, Sent},
};
use crate::{
    Error,
    config::{Level, SpoolSettings},
    encoding::{Chroma, Encoding, Format},
    error::Chain,
    frame::{
        Capture, EncodeStats, Encoded, Finished, Frame, FrameId, FramePath, FramePlan, Load, Origin, Outcome,
        SpoolEnd as End, Spooled, Timings,
    },
    picture::Picture,
    report::SpoolTally,
    stage::LevelEncoder,
};

mod folder;
mod record;

/// Frames from the disk that may be on their way at once.
pub(crate) const SPOOLED_IN_FLIGHT: usize = 2;
/// Time in which a frame from the disk is to be answered.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause after a frame from the disk had no answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a server may fail on a frame before it is given up.
const ATTEMPTS: u32 = 5;
/// Time after which frames that are too old are looked for although none was stored or taken.
const LOOK: Duration = Duration::from_secs(60);

/// The way to the thread of the spool.
#[derive(Debug, Clone)]
pub(crate) struct SpoolWay {
    jobs: Sender<Job>,
    tally: Arc<SpoolTally>,
}

enum Job {
    /// Keep a frame and end it, with this outcome where it has an answer.
    Store(Box<(Frame<Encoded>, Outcome)>),
    /// Give out the oldest frame.
    Take(oneshot::Sender<Option<Frame<Encoded>>>),
    /// A frame that was given out has ended.
    Ended(u64, End),
    /// No frame will come any more.
    Close,
}

/// The thread of the spool.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: Folder,
    jobs: Receiver<Job>,
    /// Its own way, until no frame will come any more.
    way: Option<SpoolWay>,
    /// For frames whose level is not chosen, and the level that they get.
    encoder: Option<(LevelEncoder, LevelId)>,
    /// Where frames end, until no frame will come any more.
    finished: Option<SyncSender<Frame<Finished>>>,
    places: Arc<Semaphore>,
    resting_until: Instant,
    tally: Arc<SpoolTally>,
}

impl Spool {
    /// Opens the folder for the frames of `bundle`, the first digits of its identity. Nothing ends before [`Spool::run`].
    ///
    /// # Errors
    /// [`Error::Output`] with the folder.
    pub(crate) fn open(
        settings: SpoolSettings,
        bundle: String,
        encoder: Option<(LevelEncoder, LevelId)>,
        tally: Arc<SpoolTally>,
    ) -> Result<Self, Error> {
        let place = format!("--spool {}", crate::name::Escaped(&settings.folder));
        let folder = Folder::open(settings, bundle);
        let folder = folder.map_err(|source: io::Error| Error::Output { place, source })?;
        let (sender, jobs) = channel();
        let way = Some(SpoolWay { jobs: sender, tally: Arc::clone(&tally) });
        let places = Arc::new(Semaphore::new(SPOOLED_IN_FLIGHT));
        let resting_until = Instant::now();
        let mut spool = Spool { folder, jobs, way, encoder, finished: None, places, resting_until, tally };
        spool.account(Gone::default());
        let (_, others) = spool.folder.waiting();
        if others > 0 {
            tracing::warn!(
                "--spool: {others} frames of another bundle are kept until a head with that bundle runs, or they age"
            );
        }
        Ok(spool)
    }

    /// A way to this thread.
    pub(crate) fn way(&self) -> Option<SpoolWay> {
        self.way.clone()
    }

    /// Works until no frame can come any more and those that were given out have ended. Frames end at `finished`.
    pub(crate) fn run(mut self, finished: SyncSender<Frame<Finished>>) {
        self.finished = Some(finished);
        loop {
            match self.jobs.recv_timeout(LOOK) {
                Ok(Job::Store(stored)) => self.store(*stored),
                Ok(Job::Take(reply)) => {
                    let frame = self.take();
                    // It is given back where nobody waits for it any more.
                    drop(reply.send(frame));
                }
                Ok(Job::Ended(number, End::Settled)) => {
                    self.folder.remove(number);
                    self.tally.lock().settled += 1;
                    self.account(Gone::default());
                }
                Ok(Job::Ended(number, end)) => {
                    self.folder.give_back(number, end == End::Failed);
                    self.resting_until = Instant::now() + PAUSE;
                }
                Ok(Job::Close) => (self.way, self.finished) = (None, None),
                Err(RecvTimeoutError::Timeout) => {
                    let mut gone = Gone::default();
                    self.folder.drop_aged(now_ms(), &mut gone);
                    self.account(gone);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn store(&mut self, (mut frame, outcome): (Frame<Encoded>, Outcome)) {
        let mut gone = Gone::default();
        let stored = self.record(&mut frame).and_then(|record| {
            self.folder.store(&record, now_ms(), &mut gone).map_err(|error| {
                let mut tally = self.tally.lock();
                match &error {
                    StoreError::Full { .. } => tally.dropped_full += 1,
                    _ => tally.unwritten += 1,
                }
                tally.trouble = Some(Chain(&error).to_string());
                Chain(&error).to_string()
            })
        });
        self.account(gone);
        let reason = match &outcome {
            Outcome::Failed(reason) => Some(reason.clone()),
            Outcome::Refused { refusal, traffic } => {
                Some(format!("the server at {}: {refusal}", traffic.server))
            }
            // This device has answered it.
            _ => None,
        };
        let outcome = match (stored, reason) {
            (Ok(number), reason) => {
                let mut tally = self.tally.lock();
                tally.stored += 1;
                tally.trouble = None;
                frame.spooled = Some(Spooled::stored(number));
                reason.map_or(outcome, Outcome::Spooled)
            }
            (Err(error), Some(reason)) => Outcome::Failed(format!("{reason}; --spool: {error}")),
            (Err(_), None) => outcome,
        };
        self.finish(frame, outcome);
    }

    fn finish(&self, frame: Frame<Encoded>, outcome: Outcome) {
        if let Some(finished) = &self.finished {
            // The channel has room for every frame that can exist.
            finished.send(frame.finish(outcome)).ok();
        }
    }

    /// What is put on disk of a frame; its level is chosen here if it is not yet.
    fn record(&mut self, frame: &mut Frame<Encoded>) -> Result<Record, String> {
        if let Load::Latent(latent) = &frame.stage.load {
            let (encoder, level) = self.encoder.as_mut().ok_or("the frame has no level")?;
            let packet = encoder.encode(latent, *level).map_err(|error| Chain(&error).to_string())?;
            let stats = &mut frame.stage.stats;
            (stats.packet_bytes, stats.level, stats.coding) =
                (packet.packet.len(), Some(*level), Some(packet.mode));
            frame.stage.load = Load::Payload(Payload::Packet(packet.packet));
        }
        let Load::Payload(payload) = &frame.stage.load else {
            return Err("the frame has no packet".to_owned());
        };
        let (level, coding) = (frame.stage.stats.level, frame.stage.stats.coding);
        let sent = match frame.plan.path {
            FramePath::Split { geometry, .. } => Sent::Packet {
                geometry: geometry.0,
                level: level.map_or(0, |level| level.0),
                coding: coding.map(|mode| mode.to_string()),
            },
            FramePath::Image { geometry, encoding, framing } => Sent::Image {
                geometry: geometry.0,
                webp: encoding.format == Format::Webp,
                quality: encoding.quality,
                full_chroma: encoding.chroma == Chroma::Full,
                original: framing == Framing::Original,
            },
            FramePath::Local => return Err("the frame was not to be sent".to_owned()),
        };
        let (sequence, replaced) = match frame.origin {
            Origin::Camera { sequence, replaced, .. } => (Some(sequence), replaced),
            Origin::File { .. } => (None, 0),
        };
        let description = Description {
            frame: frame.id.0,
            captured_ms: millis(frame.captured_on),
            camera: frame.origin.source().map(str::to_owned),
            sequence,
            replaced,
            file: frame.origin.file().map(|file| {
                use std::os::unix::ffi::OsStrExt;
                file.as_os_str().as_bytes().to_vec()
            }),
            sent,
        };
        Ok(Record { description, tasks: frame.plan.tasks.to_vec(), payload: payload.clone() })
    }

    fn take(&mut self) -> Option<Frame<Encoded>> {
        if Instant::now() < self.resting_until {
            return None;
        }
        let mut gone = Gone::default();
        let taken = loop {
            let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else { break None };
            let Some((number, attempts, record)) = self.folder.take(now_ms(), &mut gone) else { break None };
            let Some(way) = self.way.clone() else { break None };
            let spooled = Spooled::sent(number, move |end| {
                // The thread ends after every frame.
                way.jobs.send(Job::Ended(number, end)).ok();
            });
            let mut frame = frame_of(record, permit);
            frame.spooled = Some(spooled);
            if attempts < ATTEMPTS {
                break Some(frame);
            }
            self.finish(
                frame,
                Outcome::Failed(format!("given up: the server failed on it {attempts} times")),
            );
        };
        self.account(gone);
        taken
    }

    fn account(&mut self, gone: Gone) {
        let (waiting, others) = self.folder.waiting();
        let oldest = self.folder.oldest_ms().map(|oldest| now_ms().saturating_sub(oldest) as f64 / 1e3);
        let mut tally = self.tally.lock();
        (tally.waiting, tally.of_other_bundles, tally.bytes) = (waiting, others, self.folder.bytes());
        tally.oldest_s = oldest;
        tally.dropped_full += gone.full;
        tally.dropped_aged += gone.aged;
        tally.damaged += gone.damaged;
    }
}

impl SpoolWay {
    /// Has a frame kept on disk and ended: as spooled, or with its answer where this device has given one.
    pub(super) fn store(&self, frame: Frame<Encoded>, outcome: Outcome) {
        // The thread ends after every frame.
        self.jobs.send(Job::Store(Box::new((frame, outcome)))).ok();
    }

    /// Asks for the oldest frame. `None` if there is none at present.
    pub(super) fn take(&self) -> oneshot::Receiver<Option<Frame<Encoded>>> {
        let (reply, taken) = oneshot::channel();
        self.jobs.send(Job::Take(reply)).ok();
        taken
    }

    /// Whether frames wait to be sent.
    pub(super) fn has_frames(&self) -> bool {
        self.tally.lock().waiting > 0
    }

    /// Takes note that no frame will come any more.
    pub(crate) fn close(self) {
        self.jobs.send(Job::Close).ok();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Store(_) => "Store",
            Job::Take(_) => "Take",
            Job::Ended(..) => "Ended",
            Job::Close => "Close",
        })
    }
}

/// Whether a frame with this outcome is worth another attempt later.
pub(super) fn may_be_sent_later(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) => true,
        Outcome::Refused { refusal, .. } => matches!(
            refusal.code,
            RefusalCode::Busy | RefusalCode::Expired | RefusalCode::Internal | RefusalCode::TooManyInFlight
        ),
        _ => false,
    }
}

/// The frame of a record, ready to be sent.
fn frame_of(record: Record, permit: tokio::sync::OwnedSemaphorePermit) -> Frame<Encoded> {
    let Record { description, tasks, payload } = record;
    let now = Instant::now();
    let file: Option<PathBuf> = description.path();
    let name: Arc<str> = description.camera.clone().unwrap_or_default().into();
    let origin = match (description.sequence, file) {
        (Some(sequence), file) => Origin::Camera { name, sequence, replaced: description.replaced, file },
        (None, Some(file)) => Origin::File { file, source: description.camera.is_some().then_some(name) },
        (None, None) => Origin::Camera { name, sequence: 0, replaced: 0, file: None },
    };
    let (path, level, coding) = match description.sent {
        Sent::Packet { geometry, level, coding } => {
            let mode = Mode::ALL.into_iter().find(|mode| Some(mode.to_string()) == coding);
            let level = LevelId(level);
            let path = FramePath::Split { geometry: GeometryId(geometry), level: Level::Fixed(level) };
            (path, Some(level), mode)
        }
        Sent::Image { geometry, webp, quality, full_chroma, original } => {
            let format = if webp { Format::Webp } else { Format::Jpeg };
            let chroma = if full_chroma { Chroma::Full } else { Chroma::Half };
            let encoding = Encoding { format, quality, chroma };
            let framing = if original { Framing::Original } else { Framing::Fitted };
            (FramePath::Image { geometry: GeometryId(geometry), encoding, framing }, None, None)
        }
    };
    let capture = Capture {
        origin,
        picture_name: None,
        captured_at: now,
        captured_on: SystemTime::UNIX_EPOCH + Duration::from_millis(description.captured_ms),
        decode: Duration::ZERO,
        picture: Ok(Picture::Image(RgbImage::new(0, 0))),
        can_reload: false,
    };
    let deadline = now + ANSWER;
    let plan = FramePlan { path, tasks: tasks.into(), deadline, draw: false, keep_picture: false };
    let (timings, packet_bytes) = (Timings::default(), payload.size());
    let stats = EncodeStats { packet_bytes, level, coding, timings, encoded_at: now };
    let encoded = Encoded { load: Load::Payload(payload), stats, picture: None };
    Frame::begin(FrameId(description.frame), capture, plan, permit).0.with(encoded)
}

fn now_ms() -> u64 {
    millis(SystemTime::now())
}

fn millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
