//! The metrics that the server exposes: names, meanings and labels. docs/METRICS.md says the same to people.
//!
//! Names follow Prometheus (base units, `_total` for counters) and, after the prefix, Triton's `nv_inference_…`.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    /// Its name; that of a counter is exposed with `_total` behind it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

const BUNDLE_LABELS: &[&str] = &["bundle", "version"];
const FRAME: &[&str] = &["bundle", "version", "task", "path", "device"];
const NETWORK: &[&str] = &["bundle", "version", "task", "path"];
const PACKET: &[&str] = &["bundle", "version", "device"];

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(
            pub(super) const $constant: Definition =
                Definition { name: $name, kind: Kind::$kind, labels: $labels, help: $help };
        )*

        /// All metrics, in the order in which they are exposed.
        #[cfg(test)]
        pub(super) const ALL: &[Definition] = &[$($constant),*];
    };
}

metrics! {
    READY = Gauge "narrows_ready" &[], "1 while the server answers frames, 0 before and while it drains.";
    BUILD = Gauge "narrows_build_info" &["version"], "1, with the version of the server.";
    BUNDLE = Gauge "narrows_bundle_info" &["bundle", "version", "digest"], "1 for each bundle that is served.";

    BUNDLE_LOADED = Gauge "narrows_bundle_loaded" BUNDLE_LABELS, "1 while the networks of a bundle are in memory, else 0.";
    BUNDLE_LEAVING = Gauge "narrows_bundle_leaving" BUNDLE_LABELS,
        "1 for a bundle that is served only as long as something uses it, else 0.";
    BUNDLE_FAULT = Gauge "narrows_bundle_fault" BUNDLE_LABELS,
        "1 while what is in the folder of a bundle cannot be loaded, else 0.";
    BUNDLE_MEMORY = Gauge "narrows_bundle_memory_bytes" BUNDLE_LABELS,
        "Memory that the networks of a bundle take when they are loaded, estimated by the size of their files.";
    BUNDLE_LOADS = Counter "narrows_bundle_loads" &["outcome"], "Bundles that were loaded, by outcome.";
    BUNDLE_UNLOADS = Counter "narrows_bundle_unloads" &["reason"], "Bundles that were unloaded, by reason.";

    CONNECTIONS = Gauge "narrows_connections" &[], "Open connections.";
    CONNECTION_LIMIT = Gauge "narrows_connection_limit" &[], "Connections that may be open at once.";
    CONNECTIONS_OPENED = Counter "narrows_connections_opened" &[], "Connections whose handshake and hello succeeded.";
    CONNECTIONS_REFUSED = Counter "narrows_connections_refused" &["reason"], "Hellos that were refused, by cause.";
    CONNECTIONS_CLOSED = Counter "narrows_connections_closed" &["reason"],
        "Connections that the server closed before their peers did, by cause.";
    HANDSHAKES = Counter "narrows_handshakes" &["outcome"], "QUIC handshakes by outcome.";
    DEVICES = Gauge "narrows_devices" &[], "Certificate names that are remembered.";
    DEVICE_CONNECTIONS = Gauge "narrows_device_connections" &["device"], "Open connections of a device.";
    DEVICE_SEEN = Gauge "narrows_device_last_seen_timestamp_seconds" &["device"],
        "When a device connected or sent a request last, in seconds since 1970.";
    DEVICE_CERTIFICATE = Gauge "narrows_device_certificate_expiry_timestamp_seconds" &["device"],
        "End of the certificate that a device showed last, in seconds since 1970.";
    CERTIFICATE = Gauge "narrows_certificate_expiry_timestamp_seconds" &["file"],
        "End of a certificate of the server, in seconds since 1970.";

    ACCEPTED = Counter "narrows_inference_accepted" &["path", "device"], "Requests that were accepted.";
    REQUESTS = Counter "narrows_inference_requests" &["outcome", "reason", "device"],
        "Requests that ended, by outcome and by the cause of a refusal.";
    IN_FLIGHT = Gauge "narrows_inference_in_flight" &[], "Requests that were accepted and have not ended.";
    REQUEST_BYTES = Counter "narrows_inference_request_bytes" &["path", "device"], "Bytes of accepted requests.";
    RESPONSE_BYTES = Counter "narrows_inference_response_bytes" &["device"], "Bytes of replies and refusals.";
    REQUEST_DURATION = Histogram "narrows_inference_request_duration_seconds" FRAME,
        "Time from the arrival of a whole request to its answer.";
    DECODE_DURATION = Histogram "narrows_inference_decode_duration_seconds" FRAME,
        "Time from a packet to integer features, or from an image file to pixels.";
    QUEUE_DURATION = Histogram "narrows_inference_queue_duration_seconds" FRAME,
        "Time that a frame waited for a worker and for other frames of its batch.";
    INFER_DURATION = Histogram "narrows_inference_infer_duration_seconds" FRAME,
        "Time in which a frame was in a network.";
    ANSWER_DURATION = Histogram "narrows_inference_answer_duration_seconds" FRAME,
        "Time from the output of a network to the answer.";
    BATCH_SIZE = Histogram "narrows_inference_batch_size" NETWORK, "Frames that shared an inference run.";
    RUN_FAILURES = Counter "narrows_inference_run_failures" NETWORK, "Inference runs that failed.";
    PENDING = Gauge "narrows_inference_pending_requests" NETWORK, "Frames that wait for a network.";
    QUEUE_LIMIT = Gauge "narrows_inference_queue_limit" &[], "Frames that may wait for one network.";
    EXPIRED = Counter "narrows_inference_expired" &[],
        "Pieces of work that were dropped because their deadline passed before a run began.";
    SCHEDULER_REFUSALS = Counter "narrows_scheduler_refusals" &["reason"],
        "Frames or pieces of work that the scheduler did not admit or dropped, by reason.";
    DECODE_FAILURES = Counter "narrows_inference_decode_failures" &[], "Packets and images that could not be decoded.";
    IMAGES_BUSY = Counter "narrows_inference_images_busy" &[],
        "Images that were refused because too many waited for a decoder.";

    PACKETS_TRUNCATED = Counter "narrows_packets_truncated" PACKET, "Frames answered from a part of their packet.";
    GROUPS_ANSWERED = Counter "narrows_packet_groups_answered" PACKET,
        "Channel groups that answers to truncatable packets are from.";
    GROUPS_ENCODED = Counter "narrows_packet_groups_encoded" PACKET,
        "Channel groups that those packets were encoded with.";

    MEMORY = Gauge "narrows_request_memory_bytes" &[], "Memory that requests and replies take.";
    MEMORY_LIMIT = Gauge "narrows_request_memory_limit_bytes" &[], "Memory that requests and replies may take.";
    MEMORY_REFUSALS = Counter "narrows_request_memory_refusals" &[],
        "Requests and replies that were refused because that memory was used up.";
    UNREAD = Counter "narrows_responses_unread" &[],
        "Replies and refusals that were dropped because the peer did not read them in time.";

    PROCESS_START = Gauge "process_start_time_seconds" &[], "Start of the process, in seconds since 1970.";
    PROCESS_CPU = Counter "process_cpu_seconds" &[], "User and system processor time of the process.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" &[], "Resident memory of the process.";
    PROCESS_FILES = Gauge "process_open_fds" &[], "Open file descriptors of the process.";
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use narrows_wire::RefusalCode;

    use super::*;
    use crate::frontend::metrics::reason;

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)).unwrap()
    }

    fn exposed(definition: &Definition) -> String {
        let suffix = if definition.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{suffix}", definition.name)
    }

    #[test]
    fn the_document_lists_every_metric_with_its_kind_and_labels() {
        let document = read("docs/METRICS.md");
        let mut rows = BTreeMap::new();
        for row in document.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            rows.insert(cells[1].to_owned(), (cells[2].to_owned(), cells[3].replace('`', "")));
        }
        let code = ALL.iter().map(|own| {
            let kind = format!("{:?}", own.kind).to_lowercase();
            (exposed(own), (kind, own.labels.join(", ")))
        });
        let metrics: BTreeMap<_, _> = rows
            .iter()
            .filter(|(_, (kind, _))| ["counter", "gauge", "histogram"].contains(&&**kind))
            .collect();
        let code: BTreeMap<_, _> = code.collect();
        assert_eq!(metrics, code.iter().collect());
        for code in RefusalCode::KNOWN {
            // A hello is refused for the codes below 16; they are connections and no requests.
            let named = document.contains(&format!("`{}`", reason(*code)));
            assert_eq!(named, u16::from(*code) >= 16, "{code}");
        }
    }

    #[test]
    fn dashboard_and_rules_name_metrics_that_exist() {
        let known: Vec<String> = ALL.iter().map(exposed).collect();
        for file in ["deploy/grafana/narrows-tail.json", "deploy/prometheus/narrows-tail.rules.yml"] {
            let text = read(file);
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<&str> =
                words.filter(|word| word.starts_with("narrows_") || word.starts_with("process_")).collect();
            assert!(names.len() > 5, "{file}");
            for name in names {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(
                    known.iter().any(|known| known == base.unwrap_or(name) || known == name),
                    "{file}: {name}"
                );
            }
        }
    }
}
