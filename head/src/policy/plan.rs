//! The plan of each frame: which path it takes, with which settings and by when.

use std::{sync::Arc, time::Duration};

use narrows_models::{Task, TaskKind};
use narrows_wire::{Query, TaskRequest};

use crate::{
    config::{Config, Path, TOP_K},
    demand::Demand,
    frame::{Capture, FramePath, FramePlan},
};

/// Plans every frame alike, as the run's configuration says.
///
/// This is the only place where plans are made. Rate control belongs here: it would choose level and path from
/// observations of link, server and device.
#[derive(Debug, Clone)]
pub(crate) struct FixedPolicy {
    path: FramePath,
    tasks: Arc<[TaskRequest]>,
    budget: Duration,
    draw: bool,
    fallback: bool,
    /// Those who want pictures of answers beside those in the output folder.
    demand: Demand,
}

impl FixedPolicy {
    /// A policy for `config`, whose task indices refer to `tasks`. With `fallback` this device answers when the server
    /// is away.
    pub(crate) fn new(config: &Config, tasks: &[Task], fallback: bool, demand: Demand) -> Self {
        let geometry = config.geometry;
        let path = match config.path {
            Path::Split => FramePath::Split { geometry, level: config.level },
            Path::Image => FramePath::Image { geometry, encoding: config.encoding, framing: config.framing },
            Path::Local => FramePath::Local,
        };
        let request = |&task: &usize| TaskRequest {
            // A bundle has at most 16 tasks.
            task: task as u8,
            query: match tasks[task].kind {
                TaskKind::Classify => Query::Classify { top_k: TOP_K },
                TaskKind::Segment => Query::Segment { size: None },
            },
        };
        FixedPolicy {
            path,
            tasks: config.tasks.iter().map(request).collect(),
            budget: config.budget,
            draw: config.out.is_some(),
            fallback,
            demand,
        }
    }

    /// The plan of one frame.
    pub(crate) fn plan(&self, capture: &Capture) -> FramePlan {
        // A picture that was delivered before has been drawn before.
        let draw = self.draw && capture.picture_name.is_some();
        FramePlan {
            path: self.path,
            tasks: Arc::clone(&self.tasks),
            deadline: capture.captured_at + self.budget,
            draw,
            keep_picture: draw || self.demand.exists() || (self.fallback && !capture.can_reload),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use image::RgbImage;

    use super::*;
    use crate::{frame::Origin, picture::Picture};

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn capture(first_time: bool, can_reload: bool) -> Capture {
        Capture {
            origin: Origin::File { file: "cat.jpg".into(), source: None },
            picture_name: first_time.then(|| "cat".to_owned()),
            captured_at: Instant::now(),
            captured_on: SystemTime::UNIX_EPOCH,
            decode: Duration::ZERO,
            picture: Ok(Picture::Image(RgbImage::new(1, 1))),
            can_reload,
        }
    }

    fn policy(draw: bool, fallback: bool) -> FixedPolicy {
        let budget = Duration::from_millis(250);
        FixedPolicy {
            path: FramePath::Local,
            tasks: [].into(),
            budget,
            draw,
            fallback,
            demand: Demand::default(),
        }
    }

    #[test]
    fn the_budget_counts_from_the_capture() {
        let capture = capture(true, true);
        let plan = policy(false, false).plan(&capture);
        assert_eq!(plan.deadline - capture.captured_at, Duration::from_millis(250));
    }

    #[test]
    fn a_picture_is_drawn_once() {
        assert!(policy(true, false).plan(&capture(true, true)).draw);
        assert!(!policy(true, false).plan(&capture(false, true)).draw);
        assert!(!policy(false, false).plan(&capture(true, true)).draw);
    }

    #[test]
    fn a_picture_is_kept_while_somebody_wants_pictures() {
        let policy = policy(false, false);
        let wanted = policy.demand.want();
        assert!(policy.plan(&capture(true, true)).keep_picture);
        drop(wanted);
        assert!(!policy.plan(&capture(true, true)).keep_picture);
    }

    #[test]
    fn a_picture_is_kept_to_be_drawn_on_or_where_a_fallback_could_not_read_it_again() {
        let kept =
            |draw, fallback, can_reload| policy(draw, fallback).plan(&capture(true, can_reload)).keep_picture;
        assert!(kept(true, false, true) && kept(false, true, false));
        assert!(!kept(false, false, false) && !kept(false, true, true));
    }
}
