//! The watts that computing adds on this device, measured by its own sensors before the first frame.
#![expect(clippy::disallowed_methods, reason = "spans are waited for and measured here")]

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use narrows_codec::GeometryId;
use narrows_models::Bundle;
use narrows_power::{Places, Plan, Sampler, Source, Window, discover, total};

use crate::stage::Head;

/// Time of doing nothing, and time of computing: some values of the slowest sensors.
const SPAN: Duration = Duration::from_secs(2);

/// Runs the head of a bundle on a grey input for two seconds, after two seconds of doing nothing; returns the difference in watts,
/// and by which rails it was measured. `None` where no sensor tells.
pub(super) fn measured(bundle: &Bundle, geometry: GeometryId) -> Option<(f64, String)> {
    let sensors = discover(&Places::default());
    if sensors.sources.is_empty() {
        return None;
    }
    let head = Head::open(bundle.clone()).ok()?;
    let input = head.input(geometry).ok()?;
    let grey = vec![127; input.width * input.height * 3];
    added(sensors.sources, SPAN, || {
        // A network that fails draws no power, and the run says so.
        head.latent(&grey, geometry).ok();
    })
}

/// The watts that repeating `work` adds to doing nothing, and the names of the rails.
fn added(sources: Vec<Box<dyn Source>>, span: Duration, mut work: impl FnMut()) -> Option<(f64, String)> {
    let sampler = Sampler::start(sources).ok()?;
    let idle = sampler.mark().ok()?;
    sleep(span);
    let from = sampler.mark().ok()?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        work();
    }
    let run = Window::new(from, sampler.mark().ok()?);
    let plan = Plan { idle_before: Some(Window::new(idle, from)), ..Plan::of(run) };
    let total = total(&sampler.stop().ok()?.over(&plan)).ok().filter(|total| total.complete)?;
    let watts = total.net_joules? / run.length().as_secs_f64();
    (watts.is_finite() && watts > 0.0).then(|| (watts, total.rails.join(" + ")))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use narrows_power::{Error, Method, Quality, Rail, Scope};

    use super::*;

    /// A sensor of a device that draws 2 W, and 3 W more while it computes.
    struct Sensor {
        rail: Rail,
        computes: Arc<AtomicBool>,
    }

    impl Source for Sensor {
        fn rails(&self) -> &[Rail] {
            std::slice::from_ref(&self.rail)
        }

        fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
            readings.push(if self.computes.load(Relaxed) { 5.0 } else { 2.0 });
            Ok(())
        }
    }

    #[test]
    fn computing_adds_what_the_sensors_show_beyond_doing_nothing() {
        let computes = Arc::new(AtomicBool::new(false));
        let rail = Rail {
            name: "VDD_IN".to_owned(),
            covers: "everything".to_owned(),
            scope: Scope::Device,
            part_of: None,
            sensor: "test".to_owned(),
            method: Method::Power,
            quality: Quality::Measured,
            interval: Duration::from_millis(20),
            trust: None,
        };
        let sensor = Sensor { rail, computes: Arc::clone(&computes) };
        let (watts, rails) = added(vec![Box::new(sensor)], Duration::from_millis(400), || {
            computes.store(true, Relaxed);
            sleep(Duration::from_millis(5));
        })
        .unwrap();
        // The sensor is read each 20 ms, so the edge between the two lies somewhere in that.
        assert!((2.0..=3.5).contains(&watts), "{watts}");
        assert_eq!(rails, "VDD_IN");
        assert!(added(Vec::new(), Duration::from_millis(10), || ()).is_none());
    }
}
