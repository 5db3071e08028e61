//! From logits to answers: softmax and the most probable classes, or a class per pixel (pure).

use narrows_wire::{Class, ClassMap, Error};
use ndarray::{ArrayView1, ArrayView2, ArrayView3, Axis};

/// Classes that a map's byte per pixel can tell apart.
pub const MAP_CLASSES: usize = 256;

/// The `top_k` most probable classes, best first, of equal ones the lower class first. Probabilities are the
/// softmax over all classes, summed in f64. Logits that are not finite give no answer.
pub fn classes(logits: ArrayView1<'_, f32>, top_k: usize) -> Option<Vec<Class>> {
    if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - best).exp()).sum();
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

/// The most probable class of every pixel, at the resolution asked for (nearest pixel), packed for the wire.
/// `logits` are [classes, height, width]; of equal classes the lower one wins.
pub fn class_map(logits: ArrayView3<'_, f32>, size: Option<(u16, u16)>) -> Result<ClassMap, Error> {
    let (_, rows, columns) = logits.dim();
    let own = || Some((u16::try_from(columns).ok()?, u16::try_from(rows).ok()?));
    let unfit = Error::Invalid { field: "map size", reason: "the tail's own resolution is over 65535" };
    let (width, height) = size.or_else(own).ok_or(unfit)?;
    ClassMap::pack(width, height, &pixels(logits, width.into(), height.into()))
}

fn pixels(logits: ArrayView3<'_, f32>, width: usize, height: usize) -> Vec<u8> {
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

/// The class of every pixel of one row; `logits` are [classes, columns]. One pass per class over two short
/// buffers. Both choices are made with a mask: written as `if`, they become branches that noisy logits mispredict
/// (3 to 7 times slower), written so, they become vector instructions.
fn argmax_row(logits: ArrayView2<'_, f32>, best: &mut [f32], winner: &mut [u32]) {
    best.fill(f32::NEG_INFINITY);
    winner.fill(0);
    for (class, plane) in (0u32..).zip(logits.outer_iter()).take(MAP_CLASSES) {
        let plane = plane.as_standard_layout();
        // A slice: ndarray's own iterator does not become vector instructions.
        let plane = plane.as_slice().unwrap_or_default();
        for ((&value, best), winner) in plane.iter().zip(best.iter_mut()).zip(winner.iter_mut()) {
            let better = u32::from(value > *best).wrapping_neg();
            *best = f32::from_bits((value.to_bits() & better) | (best.to_bits() & !better));
            *winner = (class & better) | (*winner & !better);
        }
    }
}

/// The source pixel under the centre of pixel `at` of `size`.
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
    fn the_map_is_the_tails_own_size_unless_another_is_asked_for() {
        let map = class_map(logits().view(), None).unwrap();
        assert_eq!((map.width(), map.height()), (3, 2));
        assert_eq!(map.unpack().unwrap(), [0, 1, 2, 2, 1, 0]);
        let map = class_map(logits().view(), Some((6, 4))).unwrap();
        let doubled = [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0, 2, 2, 1, 1, 0, 0];
        assert_eq!(map.unpack().unwrap(), doubled);
        let map = class_map(logits().view(), Some((1, 1))).unwrap();
        assert_eq!(map.unpack().unwrap(), [1]);
    }

    #[test]
    fn the_map_does_not_depend_on_the_memory_layout() {
        let standard = logits();
        let turned = standard.view().permuted_axes([2, 1, 0]).to_owned();
        let strided = turned.view().permuted_axes([2, 1, 0]);
        assert_eq!(class_map(strided, None).unwrap(), class_map(standard.view(), None).unwrap());
    }

    #[test]
    fn equal_pixels_go_to_the_lower_class_and_nan_never_wins() {
        let mut logits = Array3::zeros((3, 1, 2));
        logits[[1, 0, 1]] = f32::NAN;
        logits[[2, 0, 1]] = 0.5;
        assert_eq!(class_map(logits.view(), None).unwrap().unpack().unwrap(), [0, 2]);
    }

    #[test]
    fn a_map_over_the_limit_is_refused() {
        assert!(class_map(logits().view(), Some((4096, 4096))).is_err());
        assert!(class_map(logits().view(), Some((0, 3))).is_err());
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
