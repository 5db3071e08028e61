//! Counters by stage, kept in memory and logged when the server drains; and what one frame cost (pure).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use narrows_wire::{Path, Timings};

/// Counters of one server, from its start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections whose handshake and hello succeeded.
    pub connections: Count,
    /// Handshakes that failed: no certificate, a foreign one, a timeout.
    pub handshakes_failed: Count,
    /// Connections turned away for lack of room.
    pub turned_away: Count,
    /// Hellos refused.
    pub hellos_refused: Count,
    /// Connections closed since the peer broke the protocol.
    pub violations: Count,
    /// Frames accepted.
    pub frames: Count,
    /// Frames answered, at least in part.
    pub answered: Count,
    /// Frames refused after they were accepted.
    pub refused: Count,
    /// Requests refused before they were accepted.
    pub not_accepted: Count,
    /// Frames whose peer left or gave them up.
    pub abandoned: Count,
    /// Packets and images that did not decode.
    pub undecoded: Count,
    /// Work dropped since its budget was spent.
    pub expired: Count,
    /// Runs of a network.
    pub runs: Count,
    /// Frames in those runs.
    pub run_frames: Count,
    /// Frames of the largest run.
    pub largest_run: Count,
    /// Runs that failed.
    pub runs_failed: Count,
    /// Bytes of answers.
    pub bytes_out: Count,
    /// Frames that came as packets.
    pub split: PathMetrics,
    /// Frames that came as images.
    pub image: PathMetrics,
}

/// Counters of one path.
#[derive(Debug, Default)]
pub struct PathMetrics {
    /// Frames accepted.
    pub frames: Count,
    /// Bytes of their requests.
    pub bytes_in: Count,
    /// Frames answered, at least in part.
    pub answered: Count,
    /// Microseconds of answered frames by stage.
    pub decode: Count,
    /// As above: waiting.
    pub queue: Count,
    /// As above: in the network.
    pub infer: Count,
    /// As above: softmax, class map.
    pub answer: Count,
}

/// A counter that many threads may raise.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    /// Keeps the largest.
    pub fn max(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Metrics {
    /// The counters of a path.
    pub fn path(&self, path: Path) -> &PathMetrics {
        if path == Path::Image { &self.image } else { &self.split }
    }

    /// Adds an accepted frame and the bytes of its request.
    pub fn accepted(&self, path: Path, bytes: usize) {
        self.frames.add(1);
        self.path(path).frames.add(1);
        self.path(path).bytes_in.add(bytes as u64);
    }

    /// Adds an answered frame's stages.
    pub fn answered(&self, path: Path, timings: &Timings) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.answered.add(1);
        let path = self.path(path);
        path.answered.add(1);
        path.decode.add(micros(timings.decode));
        path.queue.add(micros(timings.queue));
        path.infer.add(micros(timings.infer));
        path.answer.add(micros(timings.answer));
    }

    /// Adds one run of a network.
    pub fn run(&self, frames: usize) {
        let frames = frames as u64;
        self.runs.add(1);
        self.run_frames.add(frames);
        self.largest_run.max(frames);
    }

    /// Writes everything to the log.
    pub fn log(&self) {
        tracing::info!(
            connections = self.connections.value(),
            handshakes_failed = self.handshakes_failed.value(),
            turned_away = self.turned_away.value(),
            hellos_refused = self.hellos_refused.value(),
            violations = self.violations.value(),
            "connections"
        );
        tracing::info!(
            accepted = self.frames.value(),
            answered = self.answered.value(),
            refused = self.refused.value(),
            not_accepted = self.not_accepted.value(),
            abandoned = self.abandoned.value(),
            undecoded = self.undecoded.value(),
            expired = self.expired.value(),
            bytes_out = self.bytes_out.value(),
            "frames"
        );
        tracing::info!(
            runs = self.runs.value(),
            frames = self.run_frames.value(),
            largest = self.largest_run.value(),
            failed = self.runs_failed.value(),
            "network runs"
        );
        for path in [Path::Split, Path::Image] {
            self.path(path).log(path);
        }
    }
}

impl PathMetrics {
    fn log(&self, path: Path) {
        if self.frames.value() == 0 {
            return;
        }
        let mean_ms = |total: &Count| total.value() as f64 / 1000.0 / self.answered.value().max(1) as f64;
        tracing::info!(
            %path,
            accepted = self.frames.value(),
            bytes_in = self.bytes_in.value(),
            answered = self.answered.value(),
            decode_ms = mean_ms(&self.decode),
            queue_ms = mean_ms(&self.queue),
            infer_ms = mean_ms(&self.infer),
            answer_ms = mean_ms(&self.answer),
            "frames of a path, mean stages of the answered"
        );
    }
}

/// When one task of a frame was where.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The network's run began.
    pub started: Instant,
    /// The network's run ended.
    pub inferred: Instant,
    /// The answer was ready.
    pub answered: Instant,
}

/// Splits a frame's time on the server into the stages of PROTOCOL.md section 5: from `arrived` to `end`, of which
/// `decode` went into its input, with the spans of its tasks. The stages add up to `end - arrived`.
pub fn stages(arrived: Instant, decode: Duration, spans: &[Span], end: Instant) -> Timings {
    let infer = union(spans.iter().map(|span| (span.started, span.inferred)));
    let busy = union(spans.iter().map(|span| (span.started, span.answered)));
    // What the answers cost while no task of the frame was in the network.
    let answer = busy.saturating_sub(infer);
    let total = end.saturating_duration_since(arrived).saturating_sub(decode);
    Timings { decode, queue: total.saturating_sub(infer).saturating_sub(answer), infer, answer }
}

/// The length of a union of intervals.
fn union(intervals: impl Iterator<Item = (Instant, Instant)>) -> Duration {
    let mut intervals: Vec<_> = intervals.collect();
    intervals.sort_unstable();
    let (mut length, mut reached) = (Duration::ZERO, None::<Instant>);
    for (start, end) in intervals {
        let start = reached.map_or(start, |reached| reached.max(start));
        length += end.saturating_duration_since(start);
        reached = Some(reached.map_or(end, |reached| reached.max(end)));
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
    fn at(epoch: &mut Option<Instant>, ms: u64) -> Instant {
        *epoch.get_or_insert_with(Instant::now) + Duration::from_millis(ms)
    }

    fn split(end: u64, spans: &[(u64, u64, u64)]) -> [u128; 4] {
        let mut epoch = None;
        let mut at = |ms| at(&mut epoch, ms);
        let (arrived, decode) = (at(0), Duration::from_millis(2));
        let span = |&(started, inferred, answered): &(u64, u64, u64)| Span {
            started: at(started),
            inferred: at(inferred),
            answered: at(answered),
        };
        let spans: Vec<_> = spans.iter().map(span).collect();
        let stages = stages(arrived, decode, &spans, at(end));
        let sum = stages.decode + stages.queue + stages.infer + stages.answer;
        assert_eq!(sum, Duration::from_millis(end));
        [stages.decode, stages.queue, stages.infer, stages.answer].map(|stage| stage.as_millis())
    }

    #[test]
    fn one_task_is_split_into_its_stages() {
        assert_eq!(split(20, &[(5, 15, 18)]), [2, 5, 10, 3]);
    }

    #[test]
    fn tasks_that_overlap_count_no_time_twice() {
        assert_eq!(split(30, &[(4, 14, 15), (4, 24, 28)]), [2, 4, 20, 4]);
        assert_eq!(split(30, &[(4, 10, 12), (16, 26, 28)]), [2, 8, 16, 4]);
    }

    #[test]
    fn an_answer_made_while_another_task_is_in_the_network_is_the_networks_time() {
        assert_eq!(split(20, &[(2, 6, 10), (2, 18, 19)]), [2, 1, 16, 1]);
    }

    #[test]
    fn the_paths_are_counted_apart() {
        let metrics = Metrics::default();
        let timings = Timings { decode: Duration::from_millis(3), ..Timings::default() };
        metrics.accepted(Path::Image, 900);
        metrics.answered(Path::Image, &timings);
        metrics.accepted(Path::Split, 40);
        assert_eq!((metrics.frames.value(), metrics.answered.value()), (2, 1));
        assert_eq!((metrics.image.bytes_in.value(), metrics.image.decode.value()), (900, 3000));
        assert_eq!((metrics.split.bytes_in.value(), metrics.split.answered.value()), (40, 0));
    }

    #[test]
    fn a_frame_without_any_run_only_waited() {
        assert_eq!(split(9, &[]), [2, 7, 0, 0]);
    }
}
