//! Early exit: whether the local network's answer to a frame is used, so that the frame is not sent (SPINN, arXiv 2008.06402).

use narrows_policy::Stay;

/// How sure the local network was of a frame, and how sure it had to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Confidence {
    /// The probability of the local network's first class, from 0 to 1.
    pub(crate) confidence: f64,
    /// From where on its answer is used.
    pub(crate) threshold: f64,
}

impl Confidence {
    /// The figures that decide whether the local network's answer is used (models/BUNDLE.md, section 10).
    pub(crate) fn figures(self) -> Stay {
        Stay::Exit { confidence: self.confidence, threshold: self.threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_stays_from_the_threshold_on() {
        let stays = |confidence, threshold| Confidence { confidence, threshold }.figures().stays();
        assert!(stays(0.45, 0.45) && stays(0.9, 0.45) && stays(0.001, 0.0));
        assert!(!stays(0.4499, 0.45) && !stays(0.9999, 1.0));
        assert!(!stays(f64::NAN, 0.0), "a network that overflowed is not sure");
    }
}
