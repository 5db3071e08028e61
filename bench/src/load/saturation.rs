//! The search for the highest rate that a server sustains (pure): doubling or halving until a sustained and an
//! unsustained rate are known, then bisection between them.

/// Bisection steps: each halves the gap on a logarithmic scale, so that four leave 4.4 %.
const BISECTIONS: usize = 4;
/// Times that a first rate that is not sustained is halved.
const HALVINGS: usize = 6;

/// The state of a search.
#[derive(Debug)]
pub(super) struct SaturationSearch {
    rate: f64,
    sustained: Option<f64>,
    unsustained: Option<f64>,
    bisections: usize,
    halvings: usize,
}

impl SaturationSearch {
    /// A search that begins at `rate`.
    pub(super) fn new(rate: f64) -> Self {
        SaturationSearch { rate, sustained: None, unsustained: None, bisections: 0, halvings: 0 }
    }

    /// The rate to try; `None` when the search has ended.
    pub(super) fn next(&self) -> Option<f64> {
        (self.bisections <= BISECTIONS && self.halvings <= HALVINGS).then_some(self.rate)
    }

    /// Takes in whether the server sustained the rate that [`SaturationSearch::next`] returned.
    pub(super) fn learn(&mut self, sustained: bool) {
        match sustained {
            true => self.sustained = Some(self.rate),
            false => self.unsustained = Some(self.rate),
        }
        self.rate = match (self.sustained, self.unsustained) {
            (Some(sustained), None) => sustained * 2.0,
            (None, Some(unsustained)) => {
                self.halvings += 1;
                unsustained / 2.0
            }
            (Some(sustained), Some(unsustained)) => {
                self.bisections += 1;
                (sustained * unsustained).sqrt()
            }
            (None, None) => self.rate,
        };
    }

    /// The highest rate that was sustained.
    pub(super) fn found(&self) -> Option<f64> {
        self.sustained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches with a server that sustains rates up to `limit`; the result and the number of steps.
    fn search(start: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = SaturationSearch::new(start);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.learn(rate <= limit);
            steps += 1;
        }
        (search.found(), steps)
    }

    #[test]
    fn the_highest_sustained_rate_is_found_from_below_and_from_above() {
        for start in [1.0, 16.0] {
            let (found, steps) = search(start, 5.3);
            let found = found.unwrap();
            assert!(found <= 5.3 && found > 5.3 / 1.045, "{found}");
            assert!(steps <= 9, "{steps}");
        }
    }

    #[test]
    fn a_server_that_sustains_no_rate_ends_the_search() {
        assert_eq!(search(1.0, 0.0), (None, 7));
    }
}
