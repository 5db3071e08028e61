//! Confusion matrix of pixels, and mean intersection over union.

use image::GrayImage;

/// Number of pixels by true and predicted class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    pixels: Vec<u64>,
}

impl Confusion {
    /// A matrix of `classes` classes without pixels.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Confusion { classes, pixels: vec![0; classes * classes] }
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts one pixel. A pixel whose true class is not one of the classes is unlabelled and not counted.
    ///
    /// # Panics
    /// When `predicted` is not one of the classes.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        assert!(predicted < self.classes, "class {predicted} of {}", self.classes);
        if truth < self.classes {
            self.pixels[truth * self.classes + predicted] += 1;
        }
    }

    /// Counts every pixel of `truth` with the class that `map`, of this width and height, predicts at its place. A map of
    /// another size than `truth` is read at the nearest pixel.
    pub fn add_frame(&mut self, truth: &GrayImage, map: &[usize], (width, height): (usize, usize)) {
        for (x, y, class) in truth.enumerate_pixels() {
            let column = x as usize * width / truth.width() as usize;
            let row = y as usize * height / truth.height() as usize;
            self.add(usize::from(class.0[0]), map[row * width + column]);
        }
    }

    /// Adds the counts of another matrix of as many classes.
    pub fn add_all(&mut self, other: &Confusion) {
        debug_assert_eq!(self.classes, other.classes, "counts of different classes");
        self.pixels.iter_mut().zip(&other.pixels).for_each(|(sum, more)| *sum += more);
    }

    /// Intersection over union of each class; `None` for a class that neither occurs nor was predicted.
    #[must_use]
    pub fn iou(&self) -> Vec<Option<f64>> {
        let at = |truth: usize, predicted: usize| self.pixels[truth * self.classes + predicted];
        (0..self.classes)
            .map(|class| {
                let intersection = at(class, class);
                let labelled: u64 = (0..self.classes).map(|other| at(class, other)).sum();
                let predicted: u64 = (0..self.classes).map(|other| at(other, class)).sum();
                let union = labelled + predicted - intersection;
                (union > 0).then(|| intersection as f64 / union as f64)
            })
            .collect()
    }

    /// The mean of [`Confusion::iou`] over the classes that have one; 0 without pixels.
    #[must_use]
    pub fn mean_iou(&self) -> f64 {
        let known: Vec<f64> = self.iou().into_iter().flatten().collect();
        known.iter().sum::<f64>() / known.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_is_intersection_over_union() {
        let mut confusion = Confusion::new(3);
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (9, 0)] {
            confusion.add(truth, predicted);
        }
        // Class 0: 2 of 3. Class 1: 1 of 2. Class 2 does not occur. Truth 9 is unlabelled.
        assert_eq!(confusion.iou(), [Some(2.0 / 3.0), Some(0.5), None]);
        assert!((confusion.mean_iou() - 7.0 / 12.0).abs() < 1e-12);
    }

    #[test]
    fn frames_are_counted_at_the_nearest_pixel_and_add_up() {
        let truth = GrayImage::from_raw(4, 2, vec![0, 0, 1, 1, 0, 0, 1, 255]).unwrap();
        let (mut once, mut twice) = (Confusion::new(2), Confusion::new(2));
        once.add_frame(&truth, &[0, 1], (2, 1));
        assert_eq!(once.iou(), [Some(1.0), Some(1.0)]);
        twice.add_all(&once);
        twice.add_all(&once);
        assert_eq!(twice.pixels, [8, 0, 0, 6]);
    }

    #[test]
    fn mean_iou_without_pixels_is_zero() {
        assert_eq!(Confusion::new(2).mean_iou(), 0.0);
    }
}
