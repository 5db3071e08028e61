//! What is compared, over what, how often and in which order; pure.

use anyhow::{Result, ensure};
use narrows_eval::local_f32::Weights;
use narrows_models::Bundle;

use super::report::{Method, NO_LINK, Variant};

/// Frames of a run that come first and are not counted: they pay for caches, and for QUIC's look for the path's size.
pub const WARM_UP: usize = 2;

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Links for tasks that classify.
    pub links: Vec<String>,
    /// Links for tasks that segment, whose frames are larger.
    pub frame_links: Vec<String>,
    /// Qualities of JPEG.
    pub jpeg: Vec<u8>,
    /// Qualities of WebP.
    pub webp: Vec<u8>,
    /// Whether every level is also sent raw, or only the bundle's default.
    pub raw_everywhere: bool,
    /// How often every cell has its run.
    pub rounds: usize,
    /// Rounds in which frames also go several at a time.
    pub pipelined_rounds: usize,
    /// Most frames in a run.
    pub frames: usize,
    /// Seconds that the frames of a run should not take longer than.
    pub run_seconds: f64,
    /// Labelled photos for the accuracy.
    pub photos: usize,
    /// Labelled frames for the accuracy.
    pub scenes: usize,
}

impl Scope {
    /// A quarter of an hour on two cores.
    pub fn reduced() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Scope {
            links: names(&["loopback", "wifi-poor", "lte", "narrowband"]),
            frame_links: names(&["lte", "narrowband"]),
            jpeg: vec![30, 50, 75, 90],
            webp: vec![50, 80],
            raw_everywhere: false,
            rounds: 2,
            pipelined_rounds: 1,
            frames: 12,
            run_seconds: 2.5,
            photos: 100,
            scenes: 16,
        }
    }

    /// Every link, more qualities, more rounds, all photos.
    pub fn full(every_link: Vec<String>) -> Self {
        Scope {
            frame_links: every_link.clone(),
            links: every_link,
            jpeg: vec![10, 20, 30, 50, 75, 90, 95],
            webp: vec![20, 50, 80, 95],
            raw_everywhere: true,
            rounds: 5,
            pipelined_rounds: 2,
            frames: 24,
            run_seconds: 8.0,
            photos: usize::MAX,
            scenes: usize::MAX,
        }
    }

    /// Everything that the head can be told to do with `bundle`.
    pub fn variants(&self, bundle: &Bundle) -> Vec<Variant> {
        let mut variants = Vec::new();
        let mut add = |name: String, group, setting: String, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            variants.push(Variant { name, group, setting, flags });
        };
        for level in 0..bundle.levels().len() {
            let level = level.to_string();
            let flags = ["--path", "split", "--level", &level, "--coding", "auto"];
            add(format!("split {level}"), Method::Split, level.clone(), &flags);
        }
        for level in 0..bundle.levels().len() {
            if self.raw_everywhere || level == bundle.default_level() {
                let level = level.to_string();
                let flags = ["--path", "split", "--level", &level, "--coding", "raw"];
                add(format!("raw {level}"), Method::Raw, level.clone(), &flags);
            }
        }
        for (qualities, title, format, group) in
            [(&self.jpeg, "JPEG", "jpeg", Method::Jpeg), (&self.webp, "WebP", "webp", Method::Webp)]
        {
            for quality in qualities {
                let quality = quality.to_string();
                let flags = ["--path", "image", "--format", format, "--quality", &quality];
                add(format!("{title} {quality}"), group, quality.clone(), &flags);
            }
        }
        if bundle.local().is_some() {
            add("local int8".into(), Method::Local, "int8".into(), &["--path", "local"]);
        }
        if Weights::of(bundle).is_some() {
            add("local f32".into(), Method::Reference, "f32".into(), &[]);
        }
        variants
    }
}

/// One run to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRun {
    /// The round, from 0.
    pub round: usize,
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// Place in the list of variants.
    pub variant: usize,
    /// Frames under way at once.
    pub in_flight: usize,
}

/// What the order of runs is made from.
pub struct Cells<'a> {
    /// For each task, the links that it goes over.
    pub tasks: &'a [(String, Vec<String>)],
    /// What can be done; a variant that answers on the device needs no link.
    pub variants: &'a [Variant],
    /// The tasks that a variant can answer.
    pub answers: &'a dyn Fn(&Variant, &str) -> bool,
}

impl Cells<'_> {
    /// Every cell once in every round, each round in an order of its own: `seed` decides it.
    ///
    /// # Errors
    /// When there is nothing to do.
    pub fn order(
        &self,
        rounds: usize,
        pipelined_rounds: usize,
        in_flight: usize,
        seed: u64,
    ) -> Result<Vec<PlannedRun>> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut order = Vec::new();
        for round in 0..rounds {
            let mut due = Vec::new();
            for (task, links) in self.tasks {
                for (variant, of) in self.variants.iter().enumerate() {
                    if !(self.answers)(of, task) {
                        continue;
                    }
                    let alone = [NO_LINK.to_owned()];
                    let links = if of.group.is_local() { &alone[..] } else { links };
                    for link in links {
                        let single = PlannedRun {
                            round,
                            link: link.clone(),
                            task: task.clone(),
                            variant,
                            in_flight: 1,
                        };
                        if round < pipelined_rounds && in_flight > 1 && !of.group.is_local() {
                            due.push(PlannedRun { in_flight, ..single.clone() });
                        }
                        due.push(single);
                    }
                }
            }
            random.shuffle(&mut due);
            order.extend(due);
        }
        ensure!(!order.is_empty(), "nothing to compare: no rounds, no tasks, no links or no variants");
        Ok(order)
    }
}

/// How many frames a run has when one takes `ms` on its link: at least three, at most `most`.
pub fn frames(most: usize, seconds: f64, ms: f64) -> usize {
    ((1e3 * seconds / ms.max(1e-3)) as usize).clamp(3.min(most), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, group: Method) -> Variant {
        Variant { name: name.into(), group, setting: String::new(), flags: Vec::new() }
    }

    #[test]
    fn every_cell_has_one_turn_in_every_round_in_an_order_that_the_seed_decides() {
        let tasks = [
            ("classify".to_owned(), vec!["lte".to_owned(), "lora".to_owned()]),
            ("segment".to_owned(), vec!["lte".to_owned()]),
        ];
        let variants = [
            variant("split 1", Method::Split),
            variant("JPEG 50", Method::Jpeg),
            variant("local", Method::Local),
        ];
        let cells = Cells {
            tasks: &tasks,
            variants: &variants,
            answers: &|variant, task| variant.group != Method::Local || task == "classify",
        };
        let order = cells.order(3, 1, 4, 1).unwrap();
        // Six cells over links and one without, three times; the six once more with several frames at a time.
        assert_eq!(order.len(), 3 * 7 + 6);
        let round = |round: usize| -> Vec<PlannedRun> {
            let due = order.iter().filter(|due| due.round == round && due.in_flight == 1);
            due.map(|due| PlannedRun { round: 0, ..due.clone() }).collect()
        };
        let sorted = |mut due: Vec<PlannedRun>| {
            due.sort_by_key(|due| format!("{due:?}"));
            due
        };
        assert_ne!(round(0), round(1));
        assert_eq!(sorted(round(0)), sorted(round(1)));
        assert_eq!(order, cells.order(3, 1, 4, 1).unwrap());
        assert_ne!(order, cells.order(3, 1, 4, 2).unwrap());
        assert!(cells.order(0, 0, 4, 1).is_err());
    }

    #[test]
    fn slow_links_get_fewer_frames() {
        assert_eq!(frames(12, 3.0, 20.0), 12);
        assert_eq!(frames(12, 3.0, 500.0), 6);
        assert_eq!(frames(12, 3.0, 9000.0), 3);
        assert_eq!(frames(1, 3.0, 9000.0), 1);
    }
}
