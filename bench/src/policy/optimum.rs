//! The most that any sender could earn on a recorded link, if it knew the link's future.

use std::time::Duration;

use narrows_netsim::Trace;
use narrows_policy::Ladder;

use super::scene::Scene;

/// The highest sum of values over the frames of `scene`.
///
/// All frames have the same budget, so sending them in the order of their captures is optimal, and one state suffices: the
/// first packet of the link that is not used yet. A dynamic programme over frames and packets is exact.
pub(super) fn optimum(trace: &Trace, ladder: &Ladder, scene: &Scene) -> f64 {
    let options = options(ladder, scene);
    // The best sum from the frame after this one on, by the first free packet; the packet of the first entry.
    let (mut later, mut later_first) = (vec![0.0], 0);
    for frame in (0..scene.frames).rev() {
        let first = trace.first_at(scene.captured(frame));
        let end = trace.first_at(scene.last_departure(frame) + Duration::from_nanos(1)).max(first);
        let best_after = |free: u64| {
            let index = free.saturating_sub(later_first).min(later.len() as u64 - 1);
            later[index as usize]
        };
        let best = |free: u64| {
            let sent = options.iter().filter(|(packets, _)| free + packets <= end);
            let sent = sent.map(|&(packets, value)| value + best_after(free + packets));
            sent.fold(best_after(free), f64::max)
        };
        (later, later_first) = ((first..=end).map(best).collect(), first);
    }
    later[0]
}

/// Every place where a packet of any level may end: packets of the link up to it, and the answer's value.
fn options(ladder: &Ladder, scene: &Scene) -> Vec<(u64, f64)> {
    let cut_points = ladder.rungs().iter().flat_map(|rung| rung.cut_points());
    cut_points.map(|end| (u64::from(end.bytes.div_ceil(scene.packet_bytes)), end.value)).collect()
}

#[cfg(test)]
mod tests {
    use narrows_policy::{CutPoint, Rung};

    use super::*;

    #[test]
    fn the_programme_finds_what_trying_everything_finds() {
        let mut random = fastrand::Rng::with_seed(7);
        let rung = |level, cut_points: [(u32, f64); 2]| {
            Rung::new(level, cut_points.map(|(bytes, value)| CutPoint { bytes, value }).into()).unwrap()
        };
        let ladder = [[(2600, 0.5), (5000, 0.7)], [(1300, 0.45), (2500, 0.6)], [(600, 0.2), (900, 0.4)]];
        let rungs = ladder.iter().zip(0..).map(|(cut_points, level)| rung(level, *cut_points));
        let ladder = Ladder::new(rungs.collect()).unwrap();
        for _ in 0..200 {
            let mut times: Vec<u64> = (0..12).map(|_| random.u64(0..500)).collect();
            times.sort_unstable();
            times.push(1000);
            let text: Vec<String> = times.iter().map(u64::to_string).collect();
            let trace = Trace::parse(&text.join("\n")).unwrap();
            let scene = Scene { frames: 4, packet_bytes: 1300, ..Scene::example() };
            let found = optimum(&trace, &ladder, &scene);
            let all = try_everything(&trace, &ladder, &scene, 0, 0);
            assert!((found - all).abs() < 1e-12, "{times:?}: {found} {all}");
        }
    }

    fn try_everything(trace: &Trace, ladder: &Ladder, scene: &Scene, frame: u64, free: u64) -> f64 {
        if frame == scene.frames {
            return 0.0;
        }
        let start = free.max(trace.first_at(scene.captured(frame)));
        let mut best = try_everything(trace, ladder, scene, frame + 1, free);
        for (packets, value) in options(ladder, scene) {
            let next = start + packets;
            if trace.time(next - 1) <= scene.last_departure(frame) {
                best = best.max(value + try_everything(trace, ladder, scene, frame + 1, next));
            }
        }
        best
    }
}
