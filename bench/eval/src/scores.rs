//! Predicted classes from the scores of a network.

/// The index of the largest value; the first one of equal values.
#[must_use]
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The most probable class of every pixel, from logits [classes, height, width].
#[must_use]
pub fn pixelwise_argmax(logits: &[f32], classes: usize) -> Vec<usize> {
    let plane = logits.len() / classes;
    let mut best = logits[..plane].to_vec();
    let mut map = vec![0; plane];
    for (class, logits) in logits.chunks_exact(plane).enumerate().skip(1) {
        for ((best, map), logit) in best.iter_mut().zip(&mut map).zip(logits) {
            if logit > best {
                (*best, *map) = (*logit, class);
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_returns_the_first_of_equal_values() {
        assert_eq!(argmax(&[0.0, 2.0, 2.0, -1.0]), 1);
        // Two classes, three pixels.
        assert_eq!(pixelwise_argmax(&[1.0, 0.0, 3.0, 0.5, 2.0, 3.0], 2), [0, 1, 0]);
    }
}
