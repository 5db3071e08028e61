//! How right each variant is, measured through the real head and tail: pixels and answers do not depend on the link.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use narrows_eval::{
    confusion::Confusion,
    pipeline::UnsplitNetworks,
    scores::{argmax, pixelwise_argmax},
    stats::{bootstrap, mean, wilson},
};
use narrows_head::{
    image::{decode, fit},
    report::Line,
};
use narrows_models::{Bundle, TaskKind};
use serde::Serialize;

use super::{
    dataset::{Dataset, Label},
    report::{Accuracy, Metric, UNSPLIT},
};

/// What was answered to one item, and what it took.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer itself.
    pub prediction: Prediction,
    /// Bytes of the packet or image file; `None` where nothing is sent.
    pub bytes: Option<usize>,
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Prediction {
    /// The most probable class.
    Class(usize),
    /// The class of every pixel, rows of this width and height.
    Map(Vec<usize>, (usize, usize)),
}

/// How right an answer was.
#[derive(Debug, Clone)]
enum Score {
    Right(bool),
    Counts(Confusion),
}

/// Answers of one variant to a set, item by item, held against the label.
#[derive(Debug, Clone)]
pub struct Scores {
    variant: String,
    scores: Vec<Score>,
    bytes: Vec<f64>,
}

/// One item's line in accuracy.csv.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemScore {
    /// Name of the task.
    pub task: String,
    /// Name of the variant.
    pub variant: String,
    /// The photo's file name.
    pub file: String,
    /// 1 and 0 for right and wrong classes, the frame's mean intersection over union for maps.
    pub right: f64,
    /// Bytes of the packet or image file.
    pub bytes: Option<usize>,
}

/// What the network in one piece says to the pixels that the head would see.
pub fn unsplit(
    bundle: &Bundle,
    set: &Dataset,
    network: &mut UnsplitNetworks,
    step: impl Fn(),
) -> Result<Vec<Answer>> {
    let task = &bundle.tasks()[set.task];
    let geometry = &bundle.geometries()[task.geometry];
    let size = (geometry.width, geometry.height);
    let answers = set.items.iter().map(|item| {
        let place = || item.file.display().to_string();
        let pixels = fit(&decode(&fs::read(&item.file).with_context(place)?).with_context(place)?, geometry);
        let logits = network.run(set.task, &pixels, size)?;
        step();
        let prediction = match task.kind {
            TaskKind::Classify => Prediction::Class(argmax(&logits)),
            TaskKind::Segment => Prediction::Map(pixelwise_argmax(&logits, task.labels.len()), size),
        };
        Ok(Answer { prediction, bytes: None })
    });
    answers.collect()
}

/// The answer in a head's line. Maps are read from the mask that the head wrote.
pub fn answer(line: &Line, kind: TaskKind) -> Result<Answer> {
    let bytes = line.bytes.map(|bytes| bytes.packet);
    let prediction = match kind {
        TaskKind::Classify => {
            let best = line.classify.as_ref().and_then(|guesses| guesses.first());
            Prediction::Class(usize::from(best.context("an answer without classes")?.index))
        }
        TaskKind::Segment => {
            let segment = line.segment.as_ref().context("an answer without a class map")?;
            let mask = segment.mask.as_deref().context("a class map without its file")?;
            let map = indices(mask).with_context(|| mask.display().to_string())?;
            Prediction::Map(map, (segment.width.into(), segment.height.into()))
        }
    };
    Ok(Answer { prediction, bytes })
}

/// The pixels of a PNG with a palette, as they are: classes, not colours.
fn indices(file: &Path) -> Result<Vec<usize>> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(file)?));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().context("a mask too large for memory")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    ensure!(
        (frame.color_type, frame.bit_depth) == (png::ColorType::Indexed, png::BitDepth::Eight),
        "not a mask of one byte a pixel"
    );
    pixels.truncate(frame.buffer_size());
    Ok(pixels.into_iter().map(usize::from).collect())
}

impl Scores {
    /// Holds `answers` against the labels of `set`, or against the unsplit network's answers where it has none.
    ///
    /// # Errors
    /// When an answer is not of the task's kind.
    pub fn of(
        variant: &str,
        set: &Dataset,
        answers: &[Answer],
        unsplit: &[Answer],
        classes: usize,
    ) -> Result<Self> {
        ensure!(
            answers.len() == set.items.len(),
            "{variant}: {} answers to {}",
            answers.len(),
            set.items.len()
        );
        let mut scores = Vec::new();
        for ((item, answer), unsplit) in set.items.iter().zip(answers).zip(unsplit) {
            let right = |class: &usize, label: usize| Score::Right(*class == label);
            scores.push(match (&answer.prediction, &item.label, &unsplit.prediction) {
                (Prediction::Class(class), Some(Label::Class(label)), _) => right(class, *label),
                (Prediction::Class(class), None, Prediction::Class(label)) => right(class, *label),
                (Prediction::Map(map, size), label, other) => {
                    let label = match (label, other) {
                        (Some(Label::Map(label)), _) => label.clone(),
                        (None, Prediction::Map(label, (width, height))) => grey(label, *width, *height)?,
                        _ => bail!("{variant}: a map where a class was asked for"),
                    };
                    let mut counts = Confusion::new(classes);
                    counts.add_frame(&label, map, *size);
                    Score::Counts(counts)
                }
                _ => bail!("{variant}: a class where a map was asked for"),
            });
        }
        let bytes = answers.iter().filter_map(|answer| answer.bytes).map(|bytes| bytes as f64).collect();
        Ok(Scores { variant: variant.to_owned(), scores, bytes })
    }

    /// The mean over these items, repeats and all.
    fn value(&self, items: &[usize]) -> f64 {
        let mut sum: Option<Confusion> = None;
        let mut right = 0;
        for &item in items {
            match &self.scores[item] {
                Score::Right(hit) => right += usize::from(*hit),
                Score::Counts(counts) => match &mut sum {
                    Some(sum) => sum.add_all(counts),
                    None => sum = Some(counts.clone()),
                },
            }
        }
        sum.map_or(right as f64 / items.len().max(1) as f64, |sum| sum.mean_iou())
    }

    /// The accuracy and what is lost to `unsplit`, with their intervals. The same items are drawn for both.
    pub fn accuracy(&self, set: &Dataset, unsplit: &Scores, seed: u64) -> Accuracy {
        let count = self.scores.len();
        let all: Vec<usize> = (0..count).collect();
        let drop = |items: &[usize]| 100.0 * (unsplit.value(items) - self.value(items));
        let (metric, interval) = match (set.kind, set.labelled()) {
            (TaskKind::Classify, labelled) => {
                let hits = self.scores.iter().filter(|score| matches!(score, Score::Right(true))).count();
                (if labelled { Metric::Top1 } else { Metric::Agreement }, wilson(hits, count))
            }
            (TaskKind::Segment, labelled) => (
                if labelled { Metric::MeanIou } else { Metric::MapAgreement },
                bootstrap(count, seed, |items| self.value(items)),
            ),
        };
        let alone = self.variant == UNSPLIT;
        Accuracy {
            task: set.name.clone(),
            variant: self.variant.clone(),
            metric,
            count,
            value: self.value(&all),
            interval,
            drop: if alone { 0.0 } else { drop(&all) },
            drop_interval: if alone { (0.0, 0.0) } else { bootstrap(count, seed, drop) },
            bytes: (!self.bytes.is_empty()).then(|| mean(&self.bytes)),
        }
    }

    /// A line of accuracy.csv for every item.
    pub fn lines<'a>(
        &'a self,
        set: &'a Dataset,
        answers: &'a [Answer],
    ) -> impl Iterator<Item = ItemScore> + 'a {
        set.items.iter().zip(answers).zip(&self.scores).map(|((item, answer), score)| ItemScore {
            task: set.name.clone(),
            variant: self.variant.clone(),
            file: item.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            right: match score {
                Score::Right(right) => f64::from(u8::from(*right)),
                Score::Counts(counts) => counts.mean_iou(),
            },
            bytes: answer.bytes,
        })
    }
}

fn grey(map: &[usize], width: usize, height: usize) -> Result<image::GrayImage> {
    let pixels = map.iter().map(|class| u8::try_from(*class)).collect::<Result<_, _>>()?;
    let (width, height) = (u32::try_from(width)?, u32::try_from(height)?);
    image::GrayImage::from_raw(width, height, pixels).context("a map of another size than it says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::dataset::Item;

    fn set(kind: TaskKind, truths: Vec<Option<Label>>) -> Dataset {
        let items = truths.into_iter().map(|label| Item { file: "a.jpg".into(), label });
        let (name, folder, about) = ("task".into(), "folder".into(), String::new());
        Dataset { task: 0, name, kind, folder, items: items.collect(), about }
    }

    fn class(class: usize) -> Answer {
        Answer { prediction: Prediction::Class(class), bytes: Some(100 * (class + 1)) }
    }

    #[test]
    fn classes_are_held_against_labels() {
        let truths = (0..100).map(|_| Some(Label::Class(1))).collect();
        let set = set(TaskKind::Classify, truths);
        let unsplit: Vec<Answer> = (0..100).map(|i| class(usize::from(i < 90))).collect();
        let split: Vec<Answer> = (0..100).map(|i| class(usize::from(i < 84))).collect();
        let reference = Scores::of(UNSPLIT, &set, &unsplit, &unsplit, 10).unwrap();
        let scores = Scores::of("split 1", &set, &split, &unsplit, 10).unwrap();
        let accuracy = scores.accuracy(&set, &reference, 1);
        assert_eq!((accuracy.metric, accuracy.value, accuracy.count), (Metric::Top1, 0.84, 100));
        assert_eq!(accuracy.bytes, Some(184.0));
        assert!((accuracy.drop - 6.0).abs() < 1e-9);
        // The six items that differ are drawn for both: far narrower than of two independent samples.
        let (low, high) = accuracy.drop_interval;
        assert!((0.0..6.0).contains(&low) && (6.0..13.0).contains(&high), "{low} {high}");
        assert_eq!(reference.accuracy(&set, &reference, 1).drop, 0.0);
    }

    #[test]
    fn without_labels_the_unsplit_network_is_right() {
        let set = set(TaskKind::Classify, vec![None; 4]);
        let unsplit = [3, 4, 5, 6].map(class);
        let scores = Scores::of("split 1", &set, &[3, 4, 0, 6].map(class), &unsplit, 10).unwrap();
        let reference = Scores::of(UNSPLIT, &set, &unsplit, &unsplit, 10).unwrap();
        let accuracy = scores.accuracy(&set, &reference, 1);
        assert_eq!((accuracy.metric, accuracy.value, accuracy.drop), (Metric::Agreement, 0.75, 25.0));
    }

    #[test]
    fn maps_add_up_over_frames() {
        let label =
            |classes: [u8; 4]| Some(Label::Map(image::GrayImage::from_raw(2, 2, classes.to_vec()).unwrap()));
        let set = set(TaskKind::Segment, vec![label([0, 0, 1, 1]), label([0, 0, 0, 255])]);
        let map = |classes: [usize; 4]| Answer {
            prediction: Prediction::Map(classes.to_vec(), (2, 2)),
            bytes: Some(10),
        };
        let answers = [map([0, 0, 1, 0]), map([0, 0, 0, 1])];
        let scores = Scores::of("split 1", &set, &answers, &answers, 2).unwrap();
        // Class 0: 5 of 6 pixels. Class 1: 1 of 2.
        let accuracy = scores.accuracy(&set, &scores, 1);
        assert!((accuracy.value - (5.0 / 6.0 + 0.5) / 2.0).abs() < 1e-9);
        assert_eq!(accuracy.metric, Metric::MeanIou);
        assert!(Scores::of("split 1", &set, &[class(0), class(0)], &answers, 2).is_err());
    }

    #[test]
    fn masks_are_read_as_classes_and_not_as_colours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mask.png");
        let mut encoder = png::Encoder::new(fs::File::create(&file).unwrap(), 3, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette([9u8; 768].to_vec());
        encoder.write_header().unwrap().write_image_data(&[0, 7, 255]).unwrap();
        assert_eq!(indices(&file).unwrap(), [0, 7, 255]);
    }
}
