//! Annotated pictures of the newest answers, drawn only while somebody wants them.
#![expect(clippy::disallowed_methods, reason = "pictures are spaced out in time")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use narrows_models::Geometry;
use tokio::sync::watch;

use super::overlay::{self, Map};
use crate::{
    Error,
    canvas::Colour,
    demand::{Demand, Wanted},
    encoding::{Chroma, Encoding, Format},
    error::{Chain, caught},
    picture::Picture as Photo,
    report::{ClassScore, Share},
};

/// How pictures are encoded.
const JPEG: Encoding = Encoding { format: Format::Jpeg, quality: 80, chroma: Chroma::Half };

/// Least time between two pictures of a camera: more than ten a second would take a small board's time for little.
const EVERY: Duration = Duration::from_millis(100);

/// The newest picture of each camera, for every sink that shows pictures: drawn and encoded once.
#[derive(Debug)]
pub(crate) struct Gallery {
    /// Tells the policy to keep the pixels of frames.
    demand: Demand,
    cameras: Mutex<BTreeMap<String, Arc<Shelf>>>,
    drafts: Mutex<Drafts>,
    drafted: Condvar,
}

/// What is kept of one camera.
#[derive(Debug)]
struct Shelf {
    /// Viewers of this camera.
    demand: Demand,
    newest: watch::Sender<Option<Arc<Picture>>>,
    /// When the next frame may be drawn.
    due_at: Mutex<Option<Instant>>,
}

/// The frames that wait to be drawn: one for each camera, so that each camera has its turn.
#[derive(Debug, Default)]
struct Drafts {
    waiting: VecDeque<(String, Draft)>,
    is_closed: bool,
}

/// A picture of an answer.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Position of the frame within the run, from 1.
    pub(super) number: u64,
    pub(super) drawn_at: Instant,
    /// The picture as JPEG.
    pub(super) jpeg: Vec<u8>,
}

/// What is needed to draw the answer to a frame.
#[derive(Debug)]
pub(super) struct Draft {
    /// Position of the frame within the run, from 1.
    pub(super) number: u64,
    pub(super) photo: Photo,
    pub(super) geometry: Geometry,
    /// Stands above the picture.
    pub(super) title: String,
    pub(super) scores: Vec<ClassScore>,
    pub(super) map: Option<DraftMap>,
}

/// The class map of a [`Draft`].
#[derive(Debug)]
pub(super) struct DraftMap {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<u8>,
    pub(super) colours: Box<[Colour; 256]>,
    pub(super) shares: Vec<Share>,
}

/// Sees the pictures of a camera, which are drawn as long as this exists.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) newest: watch::Receiver<Option<Arc<Picture>>>,
    _wanted: [Wanted; 2],
}

impl Gallery {
    /// A gallery that has frames keep their pixels by `demand`.
    pub(crate) fn new(demand: Demand) -> Self {
        Gallery { demand, cameras: Mutex::default(), drafts: Mutex::default(), drafted: Condvar::new() }
    }

    /// Begins to view a camera.
    pub(super) fn view(&self, camera: &str) -> Viewer {
        let shelf = self.shelf(camera);
        // What was drawn for an earlier viewer counts as seen.
        let newest = shelf.newest.subscribe();
        Viewer { newest, _wanted: [self.demand.want(), shelf.demand.want()] }
    }

    /// Whether a frame of the camera is to be drawn at `now`: somebody views it, and the last one was long enough ago.
    pub(super) fn wants(&self, camera: &str, now: Instant) -> bool {
        if !self.demand.exists() {
            return false;
        }
        let shelf = self.shelf(camera);
        let mut due_at = lock(&shelf.due_at);
        let wants = shelf.demand.exists() && due_at.is_none_or(|due_at| due_at <= now);
        if wants {
            *due_at = Some(now + EVERY);
        }
        wants
    }

    /// Has the answer to a frame drawn; a draft of the same camera that still waits gives up its place to it.
    pub(super) fn submit(&self, camera: &str, draft: Draft) {
        let mut drafts = lock(&self.drafts);
        let place = drafts.waiting.iter().position(|(name, _)| name == camera);
        match place {
            Some(place) => drafts.waiting[place].1 = draft,
            None => drafts.waiting.push_back((camera.to_owned(), draft)),
        }
        drop(drafts);
        self.drafted.notify_one();
    }

    /// Draws what is submitted until the gallery is closed.
    pub(super) fn run(&self) {
        loop {
            let idle = |drafts: &mut Drafts| drafts.waiting.is_empty() && !drafts.is_closed;
            let drafts = self.drafted.wait_while(lock(&self.drafts), idle);
            let mut drafts = drafts.unwrap_or_else(PoisonError::into_inner);
            if drafts.is_closed {
                return;
            }
            let Some((camera, draft)) = drafts.waiting.pop_front() else { continue };
            drop(drafts);
            match caught("a picture cannot be drawn", || draft.draw()).flatten() {
                Ok(picture) => {
                    self.shelf(&camera).newest.send_replace(Some(Arc::new(picture)));
                }
                Err(error) => tracing::warn!("{camera}: {}", Chain(&error)),
            }
        }
    }

    /// Ends [`Gallery::run`].
    pub(super) fn close(&self) {
        lock(&self.drafts).is_closed = true;
        self.drafted.notify_all();
    }

    fn shelf(&self, camera: &str) -> Arc<Shelf> {
        let mut cameras = lock(&self.cameras);
        if let Some(shelf) = cameras.get(camera) {
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf {
            demand: Demand::default(),
            newest: watch::Sender::new(None),
            due_at: Mutex::default(),
        });
        cameras.insert(camera.to_owned(), Arc::clone(&shelf));
        shelf
    }
}

impl Draft {
    fn draw(&self) -> Result<Picture, Error> {
        let map = self.map.as_ref().map(|map| Map {
            width: map.width,
            height: map.height,
            pixels: &map.pixels,
            colours: &map.colours,
            shares: &map.shares,
        });
        let picture = overlay::draw(&*self.photo.image()?, &self.geometry, &self.title, &self.scores, map);
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Ok(Picture {
            number: self.number,
            drawn_at: Instant::now(),
            jpeg: JPEG.encode(picture.as_raw(), width, height)?,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic elsewhere leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_drawn_only_while_it_is_viewed() {
        let demand = Demand::default();
        let gallery = Gallery::new(demand.clone());
        let (begun, later) = (Instant::now(), Duration::from_secs(1));
        assert!(!gallery.wants("front", begun));
        let viewer = gallery.view("front");
        assert!(gallery.wants("front", begun) && demand.exists() && !gallery.wants("back", begun));
        assert!(!gallery.wants("front", begun + EVERY / 2) && gallery.wants("front", begun + EVERY));
        drop(viewer);
        assert!(!gallery.wants("front", begun + later) && !demand.exists());
    }

    #[test]
    fn a_newer_frame_takes_the_place_of_one_that_waits_and_no_camera_that_of_another() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        let bundle = narrows_models::Bundle::open(folder, narrows_models::Parts::Head).unwrap();
        let draft = |number| Draft {
            number,
            photo: Photo::Image(image::RgbImage::new(1, 1)),
            geometry: bundle.geometries()[0].clone(),
            title: String::new(),
            scores: Vec::new(),
            map: None,
        };
        let gallery = Gallery::new(Demand::default());
        for (camera, number) in [("yard", 1), ("front", 2), ("yard", 3)] {
            gallery.submit(camera, draft(number));
        }
        let drafts = lock(&gallery.drafts);
        let waiting: Vec<_> =
            drafts.waiting.iter().map(|(name, draft)| (name.as_str(), draft.number)).collect();
        assert_eq!(waiting, [("yard", 3), ("front", 2)]);
    }
}
