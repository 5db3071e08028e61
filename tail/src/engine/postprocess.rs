//! From logits to predictions: softmax and the most probable classes, or a class per pixel (pure).

use ndarray::{ArrayD, ArrayView1, ArrayView2, ArrayView3, Axis};

/// The number of classes that a class map can hold, which has one byte per pixel.
pub(super) const MAP_CLASSES: usize = 256;

/// The number of classes that [`Class::index`] can hold.
pub(super) const CLASSES: usize = 1 << 16;

/// What a task predicts for one frame.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Prediction {
    /// The most probable classes, most probable first.
    Classes(Vec<Class>),
    /// A class per pixel.
    Map(ClassMap),
    /// The network's output: \[classes\], or \[classes, height, width\].
    Scores(ArrayD<f32>),
}

/// A class and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// The class: the line of the task's label file, counted from 0.
    pub index: u16,
    /// Its probability, 0 to 1: the softmax over all classes.
    pub probability: f32,
}

/// A class per pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `width * height` classes, row by row. A class is the line of the task's label file, counted from 0.
    pub classes: Vec<u8>,
}

/// The `top_k` most probable classes, most probable first; of equally probable ones the lower class first. Probabilities
/// are the softmax over all classes, summed in f64. `None` if a logit is not finite or there are none.
pub(super) fn classes(logits: ArrayView1<'_, f32>, top_k: usize) -> Option<Vec<Class>> {
    if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let (best, sum) = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let by_logit = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let top_k = top_k.min(order.len());
    if top_k < order.len() {
        order.select_nth_unstable_by(top_k, by_logit);
        order.truncate(top_k);
    }
    order.sort_unstable_by(by_logit);
    let class = |index: usize| {
        let probability = (f64::from(logits[index] - best).exp() / sum) as f32;
        Some(Class { index: u16::try_from(index).ok()?, probability })
    };
    order.into_iter().map(class).collect()
}

/// The probability of every class: the softmax over all, summed in f64. `None` if a logit is not finite or there are none.
pub(crate) fn probabilities(logits: ArrayView1<'_, f32>) -> Option<Vec<f32>> {
    if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let (best, sum) = softmax(logits);
    Some(logits.iter().map(|&logit| (f64::from(logit - best).exp() / sum) as f32).collect())
}

/// The largest logit, and the sum of the exponentials of the differences from it.
fn softmax(logits: ArrayView1<'_, f32>) -> (f32, f64) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (best, logits.iter().map(|&logit| f64::from(logit - best).exp()).sum())
}

/// The most probable class of every pixel, at the size of the logits or at `size` (width, height), where each pixel takes
/// the nearest of the logits' pixels. `logits` are \[classes, height, width\]; of equally probable classes the lower one
/// wins.
pub(crate) fn class_map(logits: ArrayView3<'_, f32>, size: Option<(usize, usize)>) -> ClassMap {
    let (_, rows, columns) = logits.dim();
    let (width, height) = size.unwrap_or((columns, rows));
    ClassMap { width, height, classes: most_probable(logits, width, height) }
}

fn most_probable(logits: ArrayView3<'_, f32>, width: usize, height: usize) -> Vec<u8> {
    let (classes, rows, columns) = logits.dim();
    if classes == 0 || rows == 0 || columns == 0 {
        return vec![0; width * height];
    }
    let mut map = Vec::with_capacity(width * height);
    let (mut best, mut winner, mut row) = (vec![0f32; columns], vec![0u32; columns], vec![0u8; columns]);
    let mut done = None;
    for y in 0..height {
        let source = nearest(y, height, rows);
        if done != Some(source) {
            argmax_row(logits.index_axis(Axis(1), source), &mut best, &mut winner);
            row.iter_mut().zip(&winner).for_each(|(row, &winner)| *row = winner as u8);
            done = Some(source);
        }
        if width == columns {
            map.extend_from_slice(&row);
        } else {
            map.extend((0..width).map(|x| row[nearest(x, width, columns)]));
        }
    }
    map
}

/// Writes the most probable class of every pixel of one row to `winner`. `logits` are \[classes, columns\]; `best` is a
/// buffer. It makes one pass per class over two short buffers. Both selections use a mask: an `if` would become a branch
/// that noisy logits mispredict (3 to 7 times slower), masks become vector instructions.
fn argmax_row(logits: ArrayView2<'_, f32>, best: &mut [f32], winner: &mut [u32]) {
    best.fill(f32::NEG_INFINITY);
    winner.fill(0);
    for (class, plane) in (0u32..).zip(logits.outer_iter()).take(MAP_CLASSES) {
        let plane = plane.as_standard_layout();
        // Iteration over a slice becomes vector instructions, ndarray's own iterator does not.
        let plane = plane.as_slice().unwrap_or_default();
        for ((&value, best), winner) in plane.iter().zip(best.iter_mut()).zip(winner.iter_mut()) {
            let better = u32::from(value > *best).wrapping_neg();
            *best = f32::from_bits((value.to_bits() & better) | (best.to_bits() & !better));
            *winner = (class & better) | (*winner & !better);
        }
    }
}

/// The index of the source pixel, of `source`, under the centre of pixel `at`, of `size`.
fn nearest(at: usize, size: usize, source: usize) -> usize {
    (2 * at + 1) * source / (2 * size)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array3, arr1};

    use super::*;

    #[test]
    fn the_best_classes_come_first_with_their_softmax() {
        let logits = arr1(&[1.0, 3.0, 2.0, -5.0]);
        let top = classes(logits.view(), 2).unwrap();
        assert_eq!(top.iter().map(|class| class.index).collect::<Vec<_>>(), [1, 2]);
        let sum: f64 = [1.0f64, 3.0, 2.0, -5.0].iter().map(|logit| logit.exp()).sum();
        assert!((f64::from(top[0].probability) - 3f64.exp() / sum).abs() < 1e-7);
        let all = classes(logits.view(), 100).unwrap();
        assert_eq!(all.len(), 4);
        assert!((all.iter().map(|class| class.probability).sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn equal_logits_go_to_the_lower_class() {
        let top = classes(Array1::from_elem(1000, 0.25).view(), 3).unwrap();
        assert_eq!(top.iter().map(|class| class.index).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn huge_logits_do_not_overflow_and_broken_ones_give_no_answer() {
        let top = classes(arr1(&[1e30, 0.0]).view(), 1).unwrap();
        assert_eq!(top[0].probability, 1.0);
        assert!(classes(arr1(&[f32::NAN, 0.0]).view(), 1).is_none());
        assert!(classes(arr1(&[f32::INFINITY, 0.0]).view(), 1).is_none());
        assert!(classes(Array1::zeros(0).view(), 1).is_none());
    }

    /// Three classes, two rows, three columns; the winner of each pixel is known.
    fn logits() -> Array3<f32> {
        let winners = [[0, 1, 2], [2, 1, 0]];
        Array3::from_shape_fn((3, 2, 3), |(class, y, x)| if winners[y][x] == class { 1.0 } else { 0.0 })
    }

    #[test]
    fn the_map_has_the_size_of_the_logits_unless_another_is_requested() {
        let map = class_map(logits().view(), None);
        assert_eq!((map.width, map.height), (3, 2));
        assert_eq!(map.classes, [0, 1, 2, 2, 1, 0]);
        let map = class_map(logits().view(), Some((6, 4)));
        let doubled = [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0, 2, 2, 1, 1, 0, 0];
        assert_eq!(map.classes, doubled);
        let map = class_map(logits().view(), Some((1, 1)));
        assert_eq!(map.classes, [1]);
    }

    #[test]
    fn the_map_does_not_depend_on_the_memory_layout() {
        let standard = logits();
        let permuted = standard.view().permuted_axes([2, 1, 0]).to_owned();
        let strided = permuted.view().permuted_axes([2, 1, 0]);
        assert_eq!(class_map(strided, None), class_map(standard.view(), None));
    }

    #[test]
    fn equal_pixels_go_to_the_lower_class_and_nan_never_wins() {
        let mut logits = Array3::zeros((3, 1, 2));
        logits[[1, 0, 1]] = f32::NAN;
        logits[[2, 0, 1]] = 0.5;
        assert_eq!(class_map(logits.view(), None).classes, [0, 2]);
    }

    #[test]
    fn the_nearest_pixel_is_the_one_under_the_centre() {
        let picks = |size, source| (0..size).map(|at| nearest(at, size, source)).collect::<Vec<_>>();
        assert_eq!(picks(4, 4), [0, 1, 2, 3]);
        assert_eq!(picks(2, 4), [1, 3]);
        assert_eq!(picks(3, 2), [0, 1, 1]);
        assert_eq!(picks(1, 5), [2]);
        assert_eq!(picks(5, 1), [0; 5]);
    }
}
