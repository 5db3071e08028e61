//! The time of a job on the server, divided into stages (pure).

use std::time::{Duration, Instant};

/// The time that each stage took. The four add up to the time from the job's arrival to its answer: time in which some
/// task was in its network counts as `infer`, and where tasks of one job overlap, no time counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the packet to integer features, or from the image file to pixels.
    pub decode: Duration,
    /// Waiting for a worker, for other frames of a batch, and between threads.
    pub queue: Duration,
    /// At least one task of the job was in its network.
    pub infer: Duration,
    /// From a network's output to the task's answer, conversion by the front end included.
    pub postprocess: Duration,
}

/// The times at which one task of a job went through its stages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The inference run began.
    pub(super) started: Instant,
    /// The inference run ended.
    pub(super) inferred: Instant,
    /// The task's answer was complete.
    pub(super) answered: Instant,
}

/// Divides the time of a job from `arrived` to `end` into stages. `decode` is the time that its input took, `spans` holds
/// the times of its tasks that were answered. The stages add up to `end - arrived`.
pub(super) fn stages(arrived: Instant, decode: Duration, spans: &[Span], end: Instant) -> Timings {
    let infer = union(spans.iter().map(|span| (span.started, span.inferred)));
    let busy = union(spans.iter().map(|span| (span.started, span.answered)));
    // The time that the answers took while no task of the job was in a network.
    let postprocess = busy.saturating_sub(infer);
    let total = end.saturating_duration_since(arrived).saturating_sub(decode);
    Timings { decode, queue: total.saturating_sub(infer).saturating_sub(postprocess), infer, postprocess }
}

/// The length of the union of intervals.
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
        let sum = stages.decode + stages.queue + stages.infer + stages.postprocess;
        assert_eq!(sum, Duration::from_millis(end));
        [stages.decode, stages.queue, stages.infer, stages.postprocess].map(|stage| stage.as_millis())
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
    fn a_frame_without_any_run_only_waited() {
        assert_eq!(split(9, &[]), [2, 7, 0, 0]);
    }
}
