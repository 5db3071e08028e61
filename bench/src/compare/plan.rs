//! What is compared, over which links, how often and in which order.

use anyhow::{Result, ensure};
use narrows_models::Bundle;

use super::report::{Method, NO_LINK, Variant};

/// Frames at the start of a run that are not counted: they fill caches, and QUIC finds the path's packet size meanwhile.
pub const WARM_UP: usize = 2;

/// How much is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Links for tasks that classify.
    pub links: Vec<String>,
    /// Links for tasks that segment, whose photos are larger.
    pub frame_links: Vec<String>,
    /// Qualities of JPEG.
    pub jpeg: Vec<u8>,
    /// Qualities of WebP.
    pub webp: Vec<u8>,
    /// Whether every level is also sent raw, or only the bundle's default.
    pub raw_everywhere: bool,
    /// Rounds: in each, every variant has one run on every link.
    pub rounds: usize,
    /// Rounds in which frames also go several at a time.
    pub pipelined_rounds: usize,
    /// Most counted frames in a run.
    pub frames: usize,
    /// Seconds that the frames of a run may take together.
    pub run_seconds: f64,
    /// Labelled photos for the accuracy.
    pub photos: usize,
    /// Labelled frames for the accuracy.
    pub scenes: usize,
}

impl Scope {
    /// About twenty minutes on two cores.
    #[must_use]
    pub fn reduced() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Scope {
            links: names(&["loopback", "wifi-poor", "lte", "narrowband"]),
            frame_links: names(&["lte", "narrowband"]),
            jpeg: vec![30, 50, 75, 90],
            webp: vec![50, 80],
            raw_everywhere: false,
            rounds: 5,
            pipelined_rounds: 1,
            frames: 8,
            run_seconds: 1.2,
            photos: 100,
            scenes: 30,
        }
    }

    /// Every link, more qualities, more frames, all photos: hours.
    #[must_use]
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

    /// Every variant that `bundle` allows.
    #[must_use]
    pub fn variants(&self, bundle: &Bundle) -> Vec<Variant> {
        let mut variants = Vec::new();
        let mut add = |name: String, method, setting: String, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            variants.push(Variant { name, method, setting, flags });
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
        for (qualities, title, format, method) in
            [(&self.jpeg, "JPEG", "jpeg", Method::Jpeg), (&self.webp, "WebP", "webp", Method::Webp)]
        {
            for quality in qualities {
                let quality = quality.to_string();
                let flags = ["--path", "image", "--format", format, "--quality", &quality];
                add(format!("{title} {quality}"), method, quality.clone(), &flags);
            }
        }
        if bundle.local().is_some() {
            add("local int8".into(), Method::Local, "int8".into(), &["--path", "local"]);
        }
        variants
    }
}

/// A run to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRun {
    /// The round, from 0.
    pub round: usize,
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// Index of the variant.
    pub variant: usize,
    /// Frames under way at once.
    pub in_flight: usize,
}

/// What the runs of a round are made from.
pub struct Schedule<'a> {
    /// The tasks by name, each with its links.
    pub tasks: &'a [(String, Vec<String>)],
    /// The variants. Local ones need no link.
    pub variants: &'a [Variant],
    /// Whether a variant can answer a task.
    pub answers: &'a dyn Fn(&Variant, &str) -> bool,
}

impl Schedule<'_> {
    /// Every run of every round. Each round has a random order of its own, which `seed` decides, so that what the machine does
    /// meanwhile meets all variants alike.
    ///
    /// # Errors
    /// When there is nothing to run.
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
            let mut runs = Vec::new();
            for (task, links) in self.tasks {
                for (variant, of) in self.variants.iter().enumerate() {
                    if !(self.answers)(of, task) {
                        continue;
                    }
                    let alone = [NO_LINK.to_owned()];
                    let links = if of.method == Method::Local { &alone[..] } else { links };
                    for link in links {
                        let single = PlannedRun {
                            round,
                            link: link.clone(),
                            task: task.clone(),
                            variant,
                            in_flight: 1,
                        };
                        if round < pipelined_rounds && in_flight > 1 && of.method != Method::Local {
                            runs.push(PlannedRun { in_flight, ..single.clone() });
                        }
                        runs.push(single);
                    }
                }
            }
            random.shuffle(&mut runs);
            order.extend(runs);
        }
        ensure!(!order.is_empty(), "nothing to compare: no rounds, no tasks, no links or no variants");
        Ok(order)
    }
}

/// Counted frames of a run when one takes `ms` on its link: at least three, at most `most`.
#[must_use]
pub fn frames(most: usize, seconds: f64, ms: f64) -> usize {
    ((1e3 * seconds / ms.max(1e-3)) as usize).clamp(3.min(most), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, method: Method) -> Variant {
        Variant { name: name.into(), method, setting: String::new(), flags: Vec::new() }
    }

    #[test]
    fn every_variant_has_one_run_in_every_round_in_an_order_that_the_seed_decides() {
        let tasks = [
            ("classify".to_owned(), vec!["lte".to_owned(), "lora".to_owned()]),
            ("segment".to_owned(), vec!["lte".to_owned()]),
        ];
        let variants = [
            variant("split 1", Method::Split),
            variant("JPEG 50", Method::Jpeg),
            variant("local", Method::Local),
        ];
        let schedule = Schedule {
            tasks: &tasks,
            variants: &variants,
            answers: &|variant, task| variant.method != Method::Local || task == "classify",
        };
        let order = schedule.order(3, 1, 4, 1).unwrap();
        // Six runs over links and one without, three times; the six once more with several frames under way.
        assert_eq!(order.len(), 3 * 7 + 6);
        let round = |round: usize| -> Vec<PlannedRun> {
            let runs = order.iter().filter(|run| run.round == round && run.in_flight == 1);
            runs.map(|run| PlannedRun { round: 0, ..run.clone() }).collect()
        };
        let sorted = |mut runs: Vec<PlannedRun>| {
            runs.sort_by_key(|run| format!("{run:?}"));
            runs
        };
        assert_ne!(round(0), round(1));
        assert_eq!(sorted(round(0)), sorted(round(1)));
        assert_eq!(order, schedule.order(3, 1, 4, 1).unwrap());
        assert_ne!(order, schedule.order(3, 1, 4, 2).unwrap());
        assert!(schedule.order(0, 0, 4, 1).is_err());
    }

    #[test]
    fn slow_links_get_fewer_frames() {
        assert_eq!(frames(12, 3.0, 20.0), 12);
        assert_eq!(frames(12, 3.0, 500.0), 6);
        assert_eq!(frames(12, 3.0, 9000.0), 3);
        assert_eq!(frames(1, 3.0, 9000.0), 1);
    }
}
