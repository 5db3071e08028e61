//! The planner over links that behave in any way.

use std::{collections::BTreeMap, time::Duration};

use narrows_policy::{
    CutPoint, DropReason, FrameInfo, Ladder, Link, LinkConfig, Planner, PlannerConfig, Rung, Step, Waiting,
};
use proptest::prelude::*;

const DATAGRAM: u32 = 1300;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Levels 0 to 3 with a cut point at a third and two thirds of each packet.
fn ladder() -> Ladder {
    let levels = [(20_000, 0.71), (9_000, 0.69), (4_000, 0.64), (1_300, 0.5)];
    let rungs = levels.iter().enumerate().map(|(level, &(bytes, value))| {
        let cut_points = [(bytes / 3, 0.4), (2 * bytes / 3, 0.8), (bytes, 1.0)];
        Rung::new(level as u8, cut_points.map(|(bytes, part)| CutPoint { bytes, value: part * value }).into())
            .expect("a fixed ladder")
    });
    Ladder::new(rungs.collect()).expect("a fixed ladder")
}

/// How a frame ended, as far as the planner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sent(u8),
    Cut,
    Dropped(DropReason),
}

/// A link with a round trip of 40 ms and a line that takes `service(n)` for its n-th datagram.
struct Run {
    planner: Planner,
    link: Link,
    ends: BTreeMap<u64, End>,
    sent: Vec<(Duration, u64)>,
    /// Bytes of each frame's last attempt.
    progress: BTreeMap<u64, (u32, u32)>,
    longest_queue: Duration,
    /// The cut points of the packets of each level, where they are not the ladder's.
    sizes: Option<fn(u8) -> Vec<u32>>,
    /// Sources that capture in turn.
    sources: usize,
}

impl Run {
    fn new(waiting: Waiting) -> Self {
        Run {
            planner: Planner::new(PlannerConfig { waiting, ..PlannerConfig::default() }),
            link: Link::new(LinkConfig { datagram: DATAGRAM, ..LinkConfig::default() }),
            ends: BTreeMap::new(),
            sent: Vec::new(),
            progress: BTreeMap::new(),
            longest_queue: Duration::ZERO,
            sizes: None,
            sources: 1,
        }
    }

    /// Captures `frames` frames, one each `interval`, due `budget` later.
    fn go(&mut self, frames: u64, interval: Duration, budget: Duration, service: impl Fn(usize) -> Duration) {
        let mut on_the_way: Vec<(Duration, Duration, u32)> = Vec::new();
        let (mut free, mut captured, mut count) = (Duration::ZERO, 0, 0);
        loop {
            let capture = (captured < frames).then(|| {
                // The sources capture one right after the other.
                let (round, source) = (captured as usize / self.sources, captured as usize % self.sources);
                interval * round as u32 + ms(source as u64)
            });
            let delivery = on_the_way.first().map(|datagram| datagram.0);
            let Some(now) = [capture, delivery].into_iter().flatten().min() else { break };
            if delivery == Some(now) {
                let (_, sent, bytes) = on_the_way.remove(0);
                self.link.on_delivered(now, sent, bytes);
            } else {
                let source = captured as usize % self.sources;
                let due = now + budget;
                self.planner.capture(
                    now,
                    FrameInfo { id: captured, source, due, computed: ms(20), ladder: ladder() },
                );
                captured += 1;
            }
            loop {
                match self.planner.next(now, &self.link) {
                    Step::Encode { frame, attempt, level } => {
                        let before = self.progress.insert(frame, (attempt, 0));
                        assert_eq!(
                            attempt,
                            before.map_or(0, |(attempt, _)| attempt + 1),
                            "attempts count up"
                        );
                        if let Some(sizes) = self.sizes {
                            self.planner.encoded(&sizes(level));
                        }
                    }
                    Step::Send(chunk) => {
                        let (attempt, bytes) = self.progress.get_mut(&chunk.frame).expect("it was encoded");
                        assert_eq!(chunk.attempt, *attempt);
                        assert_eq!(chunk.offset, *bytes, "a packet is sent in order");
                        assert!(chunk.bytes > 0 && chunk.bytes <= DATAGRAM);
                        *bytes += chunk.bytes;
                        self.sent.push((now, chunk.frame));
                        self.link.on_sent(now, chunk.bytes);
                        self.longest_queue = self.longest_queue.max(free.saturating_sub(now));
                        free = free.max(now) + service(count);
                        count += 1;
                        on_the_way.push((free + ms(40), now, chunk.bytes));
                        if chunk.last {
                            self.end(chunk.frame, End::Sent(chunk.level));
                        }
                    }
                    Step::Cut { frame, bytes } => {
                        assert_eq!(bytes, self.progress[&frame].1);
                        self.end(frame, End::Cut);
                    }
                    Step::Drop { frame, reason } => {
                        assert!(!self.progress.contains_key(&frame), "only what was not begun is dropped");
                        self.end(frame, End::Dropped(reason));
                    }
                    Step::Idle { until } => {
                        assert_eq!(until.is_some(), self.planner.is_busy());
                        break;
                    }
                }
            }
        }
        // The deadlines of what is left pass.
        let late = interval * frames as u32 + budget;
        while self.planner.is_busy() {
            match self.planner.next(late, &self.link) {
                Step::Cut { frame, .. } => self.end(frame, End::Cut),
                Step::Drop { frame, reason } => self.end(frame, End::Dropped(reason)),
                step => panic!("after every deadline: {step:?}"),
            }
        }
    }

    fn end(&mut self, frame: u64, end: End) {
        assert_eq!(self.ends.insert(frame, end), None, "frame {frame} ends once");
    }

    fn levels(&self) -> Vec<u8> {
        let levels = self.ends.values().filter_map(|end| match end {
            End::Sent(level) => Some(*level),
            _ => None,
        });
        levels.collect()
    }
}

#[test]
fn a_steady_link_settles_at_the_level_that_it_carries() {
    // One datagram each 2, 12, 30 and 90 ms; frames each 100 ms.
    for (service, right) in [(2, 0), (12, 1), (25, 2), (90, 3)] {
        let mut run = Run::new(Waiting::Newest);
        run.go(200, ms(100), ms(300), |_| ms(service));
        let levels = run.levels();
        let settled = &levels[levels.len() / 2..];
        let share = settled.iter().filter(|&&level| level == right).count() as f64 / settled.len() as f64;
        assert!(share > 0.8, "{service} ms: {levels:?}");
        assert!(run.ends.len() == 200 && levels.len() > 160, "{service} ms: {:?}", run.ends);
    }
}

#[test]
fn a_packet_has_the_size_that_its_encoder_found() {
    let sizes = |level: u8| vec![3_001 - 500 * u32::from(level), 6_007 - 1000 * u32::from(level)];
    for (sizes, whole) in
        [(sizes as fn(u8) -> Vec<u32>, 6_007), (|_| vec![2_222], 2_222), (|_| vec![5, 4], 20_000)]
    {
        let mut run = Run::new(Waiting::Newest);
        run.sizes = Some(sizes);
        run.go(20, ms(1000), ms(900), |_| ms(1));
        let last = run.progress.values().last().expect("a frame was sent");
        assert_eq!(last.1, whole, "{:?}", run.progress);
    }
}

#[test]
fn the_queue_of_a_steady_link_stays_short() {
    let mut run = Run::new(Waiting::Newest);
    // 5 Mbit/s; a frame each 20 ms is more than it carries at the finest level.
    run.go(500, ms(20), ms(300), |_| Duration::from_micros(2080));
    assert!(run.longest_queue < ms(50), "{:?}", run.longest_queue);
}

#[test]
fn frames_that_wait_are_replaced_or_kept_as_asked() {
    let slow = |_: usize| ms(60);
    let mut newest = Run::new(Waiting::Newest);
    newest.go(100, ms(50), ms(1000), slow);
    let mut all = Run::new(Waiting::All);
    all.go(100, ms(50), ms(1000), slow);
    let replaced =
        |run: &Run| run.ends.values().filter(|end| **end == End::Dropped(DropReason::Replaced)).count();
    assert!(replaced(&newest) > 20, "{:?}", newest.ends);
    assert_eq!(replaced(&all), 0);
    for run in [&newest, &all] {
        let order: Vec<u64> = run.sent.iter().map(|(_, frame)| *frame).collect();
        assert!(order.is_sorted(), "no frame is sent after a newer one");
    }
}

#[test]
fn a_frame_is_replaced_by_newer_ones_of_its_source_alone() {
    let mut run = Run::new(Waiting::Newest);
    run.sources = 2;
    // The link does not carry what the sources capture, even at the coarsest level.
    run.go(400, ms(100), ms(1000), |_| ms(90));
    let mut sent = [0; 2];
    for (frame, end) in &run.ends {
        sent[*frame as usize % 2] += usize::from(matches!(end, End::Sent(_) | End::Cut));
    }
    assert!(sent[0] > sent[1] / 2 && sent[1] > sent[0] / 2, "{sent:?}");
}

#[test]
fn a_link_that_returns_is_found_again() {
    // The 200th datagram takes five seconds.
    let mut run = Run::new(Waiting::Newest);
    run.go(300, ms(100), ms(300), |count| if count == 200 { ms(5000) } else { ms(8) });
    let last: Vec<&End> = run.ends.values().rev().take(50).collect();
    let sent = last.iter().filter(|end| matches!(end, End::Sent(_))).count();
    assert!(sent > 40, "{last:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_ends_once_whatever_the_link_does(
        services in proptest::collection::vec(prop_oneof![0u64..5, 0u64..60, 300u64..3000], 1..40),
        interval in 5u64..400,
        budget in 20u64..1500,
        all in any::<bool>(),
    ) {
        let waiting = if all { Waiting::All } else { Waiting::Newest };
        let mut run = Run::new(waiting);
        run.go(60, ms(interval), ms(budget), |count| ms(services[count % services.len()]));
        prop_assert_eq!(run.ends.len(), 60);
        let due = |frame: u64| ms(interval * frame + budget);
        prop_assert!(run.sent.iter().all(|(at, frame)| *at < due(*frame)));
    }
}
