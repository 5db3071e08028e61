//! Runs that a network does before it serves, so that the first frames do not wait for what a first run of each kind takes: memory,
//! and on a GPU the choice of an algorithm for each shape.
#![expect(clippy::disallowed_methods, reason = "runs are timed")]

use std::time::{Duration, Instant};

use narrows_models::Task;

use super::{
    bundle::OpenedBundle,
    error::Error,
    input::ModelInput,
    options::{Options, WarmUp},
    ort::{Provider, Session},
};

/// A run that was timed.
pub(super) struct Measured {
    /// The index of the geometry.
    pub(super) geometry: usize,
    /// The frames in the run.
    pub(super) size: usize,
    /// Its time.
    pub(super) took: Duration,
}

/// The geometries and sizes of the runs with which a network is warmed up. `used` are those that the version before it ran.
pub(super) fn runs(
    options: &Options,
    provider: Provider,
    used: &[(usize, usize)],
    geometries: usize,
) -> Vec<(usize, usize)> {
    let largest = options.batch.size.max(1);
    match options.bundles.warm_up {
        // A first run on the CPU takes hardly longer than a second one.
        WarmUp::Auto if provider == Provider::Cpu => {}
        WarmUp::Auto | WarmUp::All => {
            let sizes = || {
                let powers = (0..).map(|power| 1 << power).take_while(move |size| *size < largest);
                powers.chain([largest])
            };
            return (0..geometries).flat_map(|geometry| sizes().map(move |size| (geometry, size))).collect();
        }
        WarmUp::Used => {}
    }
    used.iter().copied().filter(|(_, size)| *size <= largest).collect()
}

/// Does these runs on blank inputs, each twice, and times the second.
///
/// # Errors
/// [`Error::Ort`] if one fails, for example because there is too little memory for it.
pub(super) fn run<I: ModelInput>(
    opened: &OpenedBundle,
    task: &Task,
    session: &mut Session,
    runs: &[(usize, usize)],
) -> Result<Vec<Measured>, Error> {
    let run = |&(geometry, size): &(usize, usize)| {
        let blank = I::blank(opened, geometry);
        let batch = vec![&blank; size];
        I::run(task, session, &batch)?;
        let began = Instant::now();
        I::run(task, session, &batch)?;
        Ok(Measured { geometry, size, took: began.elapsed() })
    };
    runs.iter().map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{BatchLimits, BundleOptions};

    #[test]
    fn every_geometry_and_size_is_run_on_a_gpu_and_those_in_use_on_a_cpu() {
        let options = |warm_up, size| Options {
            batch: BatchLimits { size, wait: Duration::ZERO },
            bundles: BundleOptions { warm_up, ..BundleOptions::default() },
            ..Options::default()
        };
        let used = [(0, 1), (1, 6), (1, 9)];
        let auto = options(WarmUp::Auto, 6);
        assert_eq!(runs(&auto, Provider::Cpu, &used, 2), [(0, 1), (1, 6)]);
        let all = [(0, 1), (0, 2), (0, 4), (0, 6), (1, 1), (1, 2), (1, 4), (1, 6)];
        assert_eq!(runs(&auto, Provider::Cuda, &used, 2), all);
        assert_eq!(runs(&options(WarmUp::All, 6), Provider::Cpu, &[], 2), all);
        assert_eq!(runs(&options(WarmUp::All, 1), Provider::Cpu, &[], 1), [(0, 1)]);
        assert_eq!(runs(&options(WarmUp::Used, 8), Provider::Cuda, &used, 2), [(0, 1), (1, 6)]);
    }
}
