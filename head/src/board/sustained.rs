//! Frames one after the other without a pause: how many a second, while the board grows warm, and what they cost in joules.
#![expect(clippy::disallowed_methods, reason = "spans are waited for and measured here")]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use narrows_codec::{GeometryId, LevelId};
use narrows_models::Bundle;
use narrows_power::{
    Absent, Places, Plan, Quality, Recording, Sampler, Scope, Sensors, Window,
    thermal::{Thermal, ThermalReader},
    total,
};
use serde::Serialize;

use super::{machine, progress::progress, stages::Inputs};
use crate::{Error, Head};

/// Time between two readings of clock and temperature.
const EVERY: Duration = Duration::from_secs(1);
/// Time between two looks whether a wait has ended.
const STEP: Duration = Duration::from_millis(20);
/// Time between two messages on how far it is.
const TELL: usize = 15;
/// The first and the last part of the run whose rates are compared.
const PART: usize = 10;

/// How long to work, and how long to do nothing before and after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    pub(super) run: Duration,
    pub(super) idle: Duration,
}

/// What happened in the run.
#[derive(Debug, Serialize)]
pub(super) struct Sustained {
    pub(super) seconds: f64,
    pub(super) frames: u64,
    pub(super) frames_per_second: f64,
    /// The rate of the last ten seconds as a part of that of the first ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<f64>,
    /// Why the board was slowed down, each cause once; empty where nothing says that it was.
    pub(super) throttled: Vec<String>,
    /// By the second.
    pub(super) series: Vec<Second>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) energy: Option<Energy>,
    /// Why there are no joules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_energy: Option<String>,
    /// Sensors that exist and cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) absent: Vec<Absent>,
}

/// One reading.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Second {
    /// Seconds since the begin.
    at: f64,
    frames_per_second: f64,
    /// The clock of the fastest core.
    #[serde(skip_serializing_if = "Option::is_none")]
    mhz: Option<f64>,
    /// Of the zone nearest to its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_celsius: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    throttled: Vec<String>,
}

/// The joules of the run.
#[derive(Debug, Serialize)]
pub(super) struct Energy {
    /// What was measured, and by which rails.
    pub(super) scope: Scope,
    pub(super) rails: Vec<String>,
    pub(super) quality: Quality,
    pub(super) watts: f64,
    pub(super) joules_per_frame: f64,
    /// The same less what the board takes when idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) net_joules_per_frame: Option<f64>,
    /// Reasons to rely less on the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remarks: Vec<String>,
}

/// Works on `file`, a JPEG frame, as on one that a camera delivers: decoding, head and coder of the bundle's first task at its
/// default level, on one thread. Ends early where `stopped`.
///
/// # Errors
/// Those of the stages, and of a sensor or thread that fails.
pub(super) fn run(
    bundle: &Bundle,
    head: &mut Head,
    file: &[u8],
    sensors: Sensors,
    places: &Places,
    spans: Spans,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Sustained, Error> {
    // A bundle has at most 16 geometries and 16 levels.
    let geometry = GeometryId(bundle.tasks().first().map_or(0, |task| task.geometry) as u8);
    let level = LevelId(bundle.default_level() as u8);
    let view = &bundle.geometries()[geometry.index()];
    let Sensors { sources, absent, .. } = sensors;
    let sampler = if sources.is_empty() { None } else { Some(Sampler::start(sources)?) };
    let mark = || sampler.as_ref().map(Sampler::mark).transpose();
    progress(&format!("working without a pause for {} s", spans.run.as_secs()));
    let before = mark()?;
    wait(spans.idle, stopped);
    let from = mark()?;
    let (begin, frames) = (Instant::now(), AtomicU64::new(0));
    let is_over = || begin.elapsed() >= spans.run || stopped();
    let (worked, series) = thread::scope(|scope| {
        let series = scope.spawn(|| watch(places, begin, &frames, &is_over));
        let mut inputs = Inputs::default();
        let mut work = || -> Result<(), Error> {
            while !is_over() {
                let input = inputs.of_jpeg(file, view)?;
                head.encode_input(input, geometry, level)?;
                frames.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let worked = work();
        (worked, series.join().unwrap_or_default())
    });
    worked?;
    let seconds = begin.elapsed().as_secs_f64();
    let to = mark()?;
    wait(spans.idle, stopped);
    let after = mark()?;
    let frames = frames.into_inner();
    let mut throttled: Vec<String> = series.iter().flat_map(|second| second.throttled.clone()).collect();
    throttled.sort();
    throttled.dedup();
    let measured = match (sampler, before.zip(from).zip(to.zip(after))) {
        (Some(sampler), Some(((before, from), (to, after)))) => {
            let idle = |from, to| (!spans.idle.is_zero()).then(|| Window::new(from, to));
            let plan = Plan {
                run: Window::new(from, to),
                idle_before: idle(before, from),
                idle_after: idle(to, after),
            };
            let recording = sampler.stop()?;
            energy(&recording, &plan, seconds, frames, &throttled)
        }
        _ => Err("no power sensor can be read on this device".to_owned()),
    };
    let (energy, no_energy) = match measured {
        Ok(energy) => (Some(energy), None),
        Err(reason) => (None, Some(reason)),
    };
    Ok(Sustained {
        seconds: round(seconds),
        frames,
        frames_per_second: round(frames as f64 / seconds),
        kept: kept(&series),
        throttled,
        series,
        energy,
        no_energy,
        absent,
    })
}

/// Reads rate, clock and temperature each second until `is_over`.
fn watch(places: &Places, begin: Instant, frames: &AtomicU64, is_over: &dyn Fn() -> bool) -> Vec<Second> {
    let mut thermal = ThermalReader::new(places.clone());
    let (mut series, mut last) = (Vec::new(), (Duration::ZERO, 0));
    loop {
        let next = last.0 + EVERY;
        while !is_over() && begin.elapsed() < next {
            thread::sleep(STEP.min(next.saturating_sub(begin.elapsed())));
        }
        let (now, count) = (begin.elapsed(), frames.load(Relaxed));
        // What is left of the last second is too short for a rate.
        if now < next {
            return series;
        }
        let Thermal { zone, throttled } = thermal.read();
        let rate = (count - last.1) as f64 / (now - last.0).as_secs_f64();
        last = (now, count);
        series.push(Second {
            at: round(now.as_secs_f64()),
            frames_per_second: round(rate),
            mhz: machine::mhz(&places.sys),
            celsius: zone.as_ref().map(|zone| zone.celsius),
            limit_celsius: zone.map(|zone| zone.limit),
            throttled,
        });
        if series.len().is_multiple_of(TELL) {
            let heat = series.last().and_then(|second| second.celsius);
            let heat = heat.map_or_else(String::new, |celsius| format!(", {celsius:.0} °C"));
            progress(&format!("{:.0} s: {rate:.1} frames/s{heat}", now.as_secs_f64()));
        }
    }
}

/// The rate at the end as a part of that at the begin, where the two do not overlap.
fn kept(series: &[Second]) -> Option<f64> {
    if series.len() < 2 * PART {
        return None;
    }
    let mean =
        |part: &[Second]| part.iter().map(|second| second.frames_per_second).sum::<f64>() / PART as f64;
    let (first, last) = (mean(&series[..PART]), mean(&series[series.len() - PART..]));
    (first > 0.0).then(|| round(last / first))
}

/// The joules of a frame.
///
/// # Errors
/// Why there are none.
fn energy(
    recording: &Recording,
    plan: &Plan,
    seconds: f64,
    frames: u64,
    throttled: &[String],
) -> Result<Energy, String> {
    let measured = recording.over(plan);
    let total = total(&measured)?;
    if frames == 0 {
        return Err("no frame was finished".to_owned());
    }
    let chosen = measured.iter().filter(|one| total.rails.contains(&one.rail.name));
    let mut remarks: Vec<String> = chosen.flat_map(|one| one.remarks.clone()).collect();
    remarks.extend(recording.remarks.iter().cloned());
    if !total.complete {
        remarks.push("readings do not cover the whole run".to_owned());
    }
    if !throttled.is_empty() {
        remarks.push(format!("the board was throttled meanwhile: {}", throttled.join(", ")));
    }
    let each = |joules: f64| (joules / frames as f64 * 1e6).round() / 1e6;
    Ok(Energy {
        scope: total.scope,
        rails: total.rails,
        quality: total.quality,
        watts: round(total.gross_joules / seconds),
        joules_per_frame: each(total.gross_joules),
        net_joules_per_frame: total.net_joules.map(each),
        remarks,
    })
}

fn wait(span: Duration, stopped: &dyn Fn() -> bool) {
    let end = Instant::now() + span;
    while !stopped() && Instant::now() < end {
        thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
    }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use narrows_power::Recorder;

    use super::*;

    fn second(rate: f64) -> Second {
        let (mhz, celsius, limit_celsius) = (None, None, None);
        Second { at: 0.0, frames_per_second: rate, mhz, celsius, limit_celsius, throttled: Vec::new() }
    }

    #[test]
    fn the_rate_at_the_end_is_compared_with_that_at_the_begin() {
        let mut series = vec![second(20.0); 10];
        assert_eq!(kept(&series), None);
        series.extend(vec![second(99.0); 5]);
        series.extend(vec![second(15.0); 10]);
        assert_eq!(kept(&series), Some(0.75));
    }

    #[test]
    fn joules_without_a_sensor_have_a_reason() {
        let recording = Recorder::new(Vec::new(), Duration::ZERO).finish(None, 1.0);
        let plan = Plan::of(Window::new(Duration::ZERO, Duration::from_secs(1)));
        assert!(energy(&recording, &plan, 1.0, 5, &[]).unwrap_err().contains("no power sensor"));
    }
}
