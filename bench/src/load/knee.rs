//! The search for the highest rate that holds (pure): doubling or halving until both sides are known, then between.

/// Steps between the bounds: each halves the gap on a logarithmic scale, four leave 4.4 %.
const BETWEEN: usize = 4;
/// A first rate that breaks is halved so often at most.
const DOWN: usize = 6;

/// What a step showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Breaks,
}

/// Which rate to try next.
#[derive(Debug)]
pub(super) struct Search {
    rate: f64,
    holds: Option<f64>,
    breaks: Option<f64>,
    between: usize,
    down: usize,
}

impl Search {
    /// A search that begins at `rate`.
    pub(super) fn new(rate: f64) -> Self {
        Search { rate, holds: None, breaks: None, between: 0, down: 0 }
    }

    /// The rate to try; `None` once the knee is known.
    pub(super) fn next(&self) -> Option<f64> {
        (self.between <= BETWEEN && self.down <= DOWN).then_some(self.rate)
    }

    /// What the rate that [`Search::next`] gave did.
    pub(super) fn learn(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Holds => self.holds = Some(self.rate),
            Verdict::Breaks => self.breaks = Some(self.rate),
        }
        self.rate = match (self.holds, self.breaks) {
            (Some(holds), None) => holds * 2.0,
            (None, Some(breaks)) => {
                self.down += 1;
                breaks / 2.0
            }
            (Some(holds), Some(breaks)) => {
                self.between += 1;
                (holds * breaks).sqrt()
            }
            (None, None) => self.rate,
        };
    }

    /// The highest rate that held.
    pub(super) fn found(&self) -> Option<f64> {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a tail that breaks above `knee`: what was found, and the steps.
    fn search(start: f64, knee: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(start);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.learn(if rate <= knee { Verdict::Holds } else { Verdict::Breaks });
            steps += 1;
        }
        (search.found(), steps)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for start in [1.0, 16.0] {
            let (found, steps) = search(start, 5.3);
            let found = found.unwrap();
            assert!(found <= 5.3 && found > 5.3 / 1.045, "{found}");
            assert!(steps <= 9, "{steps}");
        }
    }

    #[test]
    fn a_tail_that_never_holds_ends_the_search() {
        assert_eq!(search(1.0, 0.0), (None, 7));
    }
}
