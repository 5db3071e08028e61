//! The server's counters of connections, frames and stages, which are logged when the server has drained.

use std::time::Duration;

use narrows_wire::Path;

use crate::engine::{self, Counter, Timings};

/// Counters of the front end, from its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections whose handshake and hello succeeded.
    pub(crate) connections: Counter,
    /// Handshakes that failed: no certificate, a foreign one, a timeout.
    pub(crate) handshakes_failed: Counter,
    /// First packets that were answered with the demand to validate the source address (QUIC Retry).
    pub(crate) handshakes_retried: Counter,
    /// First packets of validated addresses that were dropped because too many connections were in memory.
    pub(crate) handshakes_ignored: Counter,
    /// Handshakes given up in favour of newer ones; they are among the failed.
    pub(crate) handshakes_evicted: Counter,
    /// Authenticated connections that were closed because their certificate is no longer accepted.
    pub(crate) revoked: Counter,
    /// Authenticated connections that ended without a hello.
    pub(crate) without_hello: Counter,
    /// Hellos refused because the limit of connections was reached.
    pub(crate) server_full: Counter,
    /// Hellos refused because the device had as many connections as it may have.
    pub(crate) device_full: Counter,
    /// Silent connections closed in favour of a newer one of the same device.
    pub(crate) connections_replaced: Counter,
    /// Hellos refused, for these and other reasons.
    pub(crate) hellos_refused: Counter,
    /// Connections closed because the peer broke the protocol.
    pub(crate) violations: Counter,
    /// Frames accepted.
    pub(crate) frames: Counter,
    /// Frames answered, at least in part.
    pub(crate) answered: Counter,
    /// Frames refused after they were accepted.
    pub(crate) refused: Counter,
    /// Requests refused before they were accepted.
    pub(crate) not_accepted: Counter,
    /// Requests and replies refused because the budget of memory was used up.
    pub(crate) no_memory: Counter,
    /// Replies and refusals dropped because the peer did not read them in time.
    pub(crate) unread: Counter,
    /// Frames that their peer gave up or whose peer left.
    pub(crate) abandoned: Counter,
    /// Bytes of replies and refusals.
    pub(crate) bytes_out: Counter,
    /// Frames that were sent as packets.
    pub(crate) split: PathMetrics,
    /// Frames that were sent as images.
    pub(crate) image: PathMetrics,
}

/// Counters of one path.
#[derive(Debug, Default)]
pub(crate) struct PathMetrics {
    /// Frames accepted.
    pub(crate) frames: Counter,
    /// Bytes of their requests.
    pub(crate) bytes_in: Counter,
    /// Frames answered, at least in part.
    pub(crate) answered: Counter,
    /// Microseconds that decoding took for the answered frames.
    pub(crate) decode: Counter,
    /// Microseconds that the answered frames waited.
    pub(crate) queue: Counter,
    /// Microseconds that the answered frames were in a network.
    pub(crate) infer: Counter,
    /// Microseconds from the networks' outputs to the answers.
    pub(crate) postprocess: Counter,
}

impl Metrics {
    /// The counters of one path.
    pub(crate) fn path(&self, path: Path) -> &PathMetrics {
        if path == Path::Image { &self.image } else { &self.split }
    }

    /// Counts an accepted frame and the bytes of its request.
    pub(crate) fn accepted(&self, path: Path, bytes: usize) {
        self.frames.add(1);
        self.path(path).frames.add(1);
        self.path(path).bytes_in.add(bytes as u64);
    }

    /// Counts an answered frame and the time of its stages.
    pub(crate) fn answered(&self, path: Path, timings: &Timings) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.answered.add(1);
        let path = self.path(path);
        path.answered.add(1);
        path.decode.add(micros(timings.decode));
        path.queue.add(micros(timings.queue));
        path.infer.add(micros(timings.infer));
        path.postprocess.add(micros(timings.postprocess));
    }

    /// Writes all counters, those of the engine included, to the log.
    pub(crate) fn log(&self, engine: &engine::Metrics) {
        tracing::info!(
            connections = self.connections.value(),
            replaced = self.connections_replaced.value(),
            without_hello = self.without_hello.value(),
            revoked = self.revoked.value(),
            hellos_refused = self.hellos_refused.value(),
            server_full = self.server_full.value(),
            device_full = self.device_full.value(),
            violations = self.violations.value(),
            "connections"
        );
        tracing::info!(
            failed = self.handshakes_failed.value(),
            evicted = self.handshakes_evicted.value(),
            retried = self.handshakes_retried.value(),
            ignored = self.handshakes_ignored.value(),
            "handshakes"
        );
        tracing::info!(
            accepted = self.frames.value(),
            answered = self.answered.value(),
            refused = self.refused.value(),
            not_accepted = self.not_accepted.value(),
            abandoned = self.abandoned.value(),
            no_memory = self.no_memory.value(),
            unread = self.unread.value(),
            images_busy = engine.images_busy.value(),
            decode_failures = engine.decode_failures.value(),
            expired = engine.expired.value(),
            bytes_out = self.bytes_out.value(),
            "frames"
        );
        tracing::info!(
            runs = engine.runs.value(),
            frames = engine.run_frames.value(),
            largest = engine.largest_run.value(),
            failed = engine.runs_failed.value(),
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
        let mean_ms = |total: &Counter| total.value() as f64 / 1000.0 / self.answered.value().max(1) as f64;
        tracing::info!(
            %path,
            accepted = self.frames.value(),
            bytes_in = self.bytes_in.value(),
            answered = self.answered.value(),
            decode_ms = mean_ms(&self.decode),
            queue_ms = mean_ms(&self.queue),
            infer_ms = mean_ms(&self.infer),
            answer_ms = mean_ms(&self.postprocess),
            "frames of a path, mean stages of the answered"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
