//! The accuracy of each variant, measured through the real head and tail over loopback: a link changes no answer.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use narrows_eval::{
    confusion::Confusion,
    pipeline::UnsplitNetworks,
    scores::{argmax, pixelwise_argmax},
    stats::{bootstrap, mean, paired_difference, wilson},
};
use narrows_head::{
    image::{decode, fit},
    report::Line,
};
use narrows_models::{Bundle, TaskKind};

use super::{
    dataset::{Dataset, Label},
    report::{Accuracy, Method, Metric, UNSPLIT, Variant},
};

/// Frames below which a mean intersection over union has no interval.
const FRAMES_FOR_INTERVAL: usize = 30;

/// What was answered to one photo or frame.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The class or the class map.
    pub prediction: Prediction,
    /// Bytes of the packet or image file; `None` where nothing is sent.
    pub bytes: Option<usize>,
}

/// A class or a class map.
#[derive(Debug, Clone)]
pub enum Prediction {
    /// The most probable class.
    Class(usize),
    /// The class of every pixel in rows, and width and height.
    Map(Vec<usize>, (usize, usize)),
}

/// One answer compared with its label.
#[derive(Debug, Clone)]
enum Score {
    Right(bool),
    Counts(Confusion),
}

/// The answers of one variant to a data set, compared with labels or with the unsplit network's answers.
#[derive(Debug, Clone)]
pub struct Scores {
    variant: String,
    /// Whether the variant answers with a network of its own, and not with the one that `unsplit` runs in one piece.
    other_network: bool,
    scores: Vec<Score>,
    bytes: Vec<f64>,
}

/// The columns of accuracy.csv, one line per photo or frame and variant. `value` is 1 or 0 for classes; for maps it is the
/// mean intersection over union of this frame alone.
pub const COLUMNS: [&str; 6] = ["task", "variant", "metric", "file", "value", "bytes"];

/// The unsplit network's answers to the pixels that the head would see; `step` is called after each.
///
/// # Errors
/// When a photo cannot be read or the network fails.
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

/// The answer in a line of the head. Class maps are read from the mask that the head wrote.
///
/// # Errors
/// When the line has no answer of this kind, or the mask cannot be read.
pub fn answer(line: &Line, kind: TaskKind) -> Result<Answer> {
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
    Ok(Answer { prediction, bytes: line.bytes.map(|bytes| bytes.packet) })
}

/// The palette indices of a PNG: classes, not colours.
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
    /// Compares `answers` with the labels of `set`, or with the answers `unsplit` where it has none. `variant` is `None`
    /// for the unsplit network itself.
    ///
    /// # Errors
    /// When an answer is missing or is not of the task's kind.
    pub fn of(
        variant: Option<&Variant>,
        set: &Dataset,
        answers: &[Answer],
        unsplit: &[Answer],
        classes: usize,
    ) -> Result<Self> {
        let name = variant.map_or(UNSPLIT, |variant| &variant.name);
        let items = &set.items;
        ensure!(answers.len() == items.len(), "{name}: {} answers to {} photos", answers.len(), items.len());
        let mut scores = Vec::new();
        for ((item, answer), unsplit) in items.iter().zip(answers).zip(unsplit) {
            scores.push(match (&answer.prediction, &item.label, &unsplit.prediction) {
                (Prediction::Class(class), Some(Label::Class(label)), _)
                | (Prediction::Class(class), None, Prediction::Class(label)) => Score::Right(class == label),
                (Prediction::Map(map, size), label, other) => {
                    let label = match (label, other) {
                        (Some(Label::Map(label)), _) => label.clone(),
                        (None, Prediction::Map(label, (width, height))) => grey(label, *width, *height)?,
                        _ => bail!("{name}: a map where a class was expected"),
                    };
                    let mut counts = Confusion::new(classes);
                    counts.add_frame(&label, map, *size);
                    Score::Counts(counts)
                }
                _ => bail!("{name}: a class where a map was expected"),
            });
        }
        Ok(Scores {
            variant: name.to_owned(),
            other_network: variant.is_some_and(|variant| variant.method == Method::Local),
            scores,
            bytes: answers.iter().filter_map(|answer| answer.bytes).map(|bytes| bytes as f64).collect(),
        })
    }

    /// The share of right answers or the mean intersection over union of these items, repeats included.
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

    fn hits(&self) -> impl Iterator<Item = bool> {
        self.scores.iter().map(|score| matches!(score, Score::Right(true)))
    }

    /// The accuracy and the loss against `unsplit`, with their 95 % intervals.
    ///
    /// For classes: Wilson's interval, and Agresti and Min's for the difference of paired shares. For maps: bootstraps
    /// that draw the same frames for both networks, from 30 frames on.
    #[must_use]
    pub fn accuracy(&self, set: &Dataset, unsplit: &Scores, seed: u64) -> Accuracy {
        let count = self.scores.len();
        let all: Vec<usize> = (0..count).collect();
        let drop = |items: &[usize]| 100.0 * (unsplit.value(items) - self.value(items));
        let (interval, drop_interval) = match set.kind {
            TaskKind::Classify => (
                Some(wilson(self.hits().filter(|hit| *hit).count(), count)),
                Some(paired_difference(unsplit.hits().zip(self.hits()))),
            ),
            TaskKind::Segment if count < FRAMES_FOR_INTERVAL => (None, None),
            TaskKind::Segment => {
                (Some(bootstrap(count, seed, |items| self.value(items))), Some(bootstrap(count, seed, drop)))
            }
        };
        let itself = self.variant == UNSPLIT;
        let comparable = set.labelled() || !self.other_network;
        Accuracy {
            task: set.name.clone(),
            variant: self.variant.clone(),
            metric: metric(set),
            count,
            value: self.value(&all),
            interval,
            drop: comparable.then(|| drop(&all)),
            drop_interval: drop_interval.filter(|_| comparable && !itself),
            bytes: (!self.bytes.is_empty()).then(|| mean(&self.bytes)),
        }
    }

    /// Writes the lines of accuracy.csv.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(
        &self,
        set: &Dataset,
        answers: &[Answer],
        file: &mut csv::Writer<fs::File>,
    ) -> csv::Result<()> {
        for ((item, answer), score) in set.items.iter().zip(answers).zip(&self.scores) {
            let name = item.file.file_name().unwrap_or_default().to_string_lossy();
            let value = match score {
                Score::Right(right) => f64::from(u8::from(*right)),
                Score::Counts(counts) => counts.mean_iou(),
            };
            file.serialize((&set.name, &self.variant, metric(set), name, value, answer.bytes))?;
        }
        Ok(())
    }
}

fn metric(set: &Dataset) -> Metric {
    match (set.kind, set.labelled()) {
        (TaskKind::Classify, true) => Metric::Top1,
        (TaskKind::Classify, false) => Metric::Agreement,
        (TaskKind::Segment, true) => Metric::MeanIou,
        (TaskKind::Segment, false) => Metric::MapAgreement,
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

    fn variant(name: &str, method: Method) -> Variant {
        Variant { name: name.into(), method, setting: String::new(), flags: Vec::new() }
    }

    fn of(
        name: &str,
        set: &Dataset,
        answers: &[Answer],
        unsplit: &[Answer],
        classes: usize,
    ) -> Result<Scores> {
        Scores::of(Some(&variant(name, Method::Split)), set, answers, unsplit, classes)
    }

    fn class(class: usize) -> Answer {
        Answer { prediction: Prediction::Class(class), bytes: Some(100 * (class + 1)) }
    }

    #[test]
    fn classes_are_compared_with_labels() {
        let truths = (0..100).map(|_| Some(Label::Class(1))).collect();
        let set = set(TaskKind::Classify, truths);
        let unsplit: Vec<Answer> = (0..100).map(|i| class(usize::from(i < 90))).collect();
        let split: Vec<Answer> = (0..100).map(|i| class(usize::from(i < 84))).collect();
        let reference = Scores::of(None, &set, &unsplit, &unsplit, 10).unwrap();
        let scores = of("split 1", &set, &split, &unsplit, 10).unwrap();
        let accuracy = scores.accuracy(&set, &reference, 1);
        assert_eq!((accuracy.metric, accuracy.value, accuracy.count), (Metric::Top1, 0.84, 100));
        assert_eq!(accuracy.bytes, Some(184.0));
        assert!((accuracy.drop.unwrap() - 6.0).abs() < 1e-9);
        // Only the six items that differ count: far narrower than of two independent samples.
        let (low, high) = accuracy.drop_interval.unwrap();
        assert!((0.0..6.0).contains(&low) && (6.0..13.0).contains(&high), "{low} {high}");
        assert_eq!(reference.accuracy(&set, &reference, 1).drop, Some(0.0));
    }

    #[test]
    fn without_labels_answers_are_compared_with_the_unsplit_network() {
        let set = set(TaskKind::Classify, vec![None; 4]);
        let unsplit = [3, 4, 5, 6].map(class);
        let scores = of("split 1", &set, &[3, 4, 0, 6].map(class), &unsplit, 10).unwrap();
        let reference = Scores::of(None, &set, &unsplit, &unsplit, 10).unwrap();
        let accuracy = scores.accuracy(&set, &reference, 1);
        assert_eq!((accuracy.metric, accuracy.value, accuracy.drop), (Metric::Agreement, 0.75, Some(25.0)));
        // Another network's disagreement is no loss.
        let local =
            Scores::of(Some(&variant("local int8", Method::Local)), &set, &unsplit, &unsplit, 10).unwrap();
        let accuracy = local.accuracy(&set, &reference, 1);
        assert_eq!((accuracy.value, accuracy.drop, accuracy.drop_interval), (1.0, None, None));
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
        let scores = of("split 1", &set, &answers, &answers, 2).unwrap();
        // Class 0: 5 of 6 pixels. Class 1: 1 of 2.
        let accuracy = scores.accuracy(&set, &scores, 1);
        assert!((accuracy.value - (5.0 / 6.0 + 0.5) / 2.0).abs() < 1e-9);
        assert_eq!(accuracy.metric, Metric::MeanIou);
        assert_eq!((accuracy.interval, accuracy.drop_interval), (None, None), "two frames are too few");
        assert!(of("split 1", &set, &[class(0), class(0)], &answers, 2).is_err());
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
