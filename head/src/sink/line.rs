//! The JSON line of a finished frame, from its plan and its outcome.
#![expect(clippy::disallowed_methods, reason = "a frame from the spool has waited by the calendar")]

use std::{
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use narrows_models::{Bundle, Task};
use narrows_wire::{Class, ClassMap, Outcome as TaskOutcome, Refusal, Reply, TaskAnswer};
use time::{OffsetDateTime, format_description::BorrowedFormatItem};

use crate::{
    frame::{Answer, EncodeStats, Finished, Frame, FramePath, Origin, Outcome, Timings, Traffic},
    policy::Spending,
    report::{
        Bytes, ClassScore, Exit, Groups, ImageSettings, Joules, Line, Millis, Moved, Segment, Share,
        SpoolPlace, Status, Unanswered,
    },
};

/// A line, and what pictures need beyond it.
pub(super) struct FinishedLine {
    pub(super) line: Line,
    /// Index of the segmentation task that was answered and its class map: a class per pixel, row by row.
    pub(super) map: Option<(usize, Vec<u8>)>,
}

/// Builds the line of a frame.
pub(super) fn line_of(frame: &Frame<Finished>, bundle: &Bundle, device: &str) -> FinishedLine {
    let mut finished = FinishedLine { line: failed_line(frame, bundle, device), map: None };
    let line = &mut finished.line;
    match &frame.stage.outcome {
        Outcome::Failed(reason) => line.error = Some(reason.clone()),
        Outcome::Dropped => {
            line.status = Status::Dropped;
            line.error = Some("a newer frame of its source was captured before it could be sent".to_owned());
        }
        Outcome::Spooled(reason) => {
            line.status = Status::Spooled;
            line.error = Some(reason.clone());
        }
        Outcome::Refused { refusal, traffic } => {
            line.status = Status::Refused;
            line.code = Some(refusal.code.into());
            line.error = Some(refusal.to_string());
            fill_traffic(frame, traffic, None, line);
        }
        Outcome::Answered { reply, traffic } => {
            line.path = Some(reply.path.to_string());
            line.groups = reply.groups.map(|groups| Groups { used: groups.used, total: groups.total });
            fill_traffic(frame, traffic, Some(reply), line);
            finished.map = fill_answers(reply, bundle, line);
        }
        Outcome::Local { classes, timings, answered_at, fallback } => {
            line.status = Status::Answered;
            line.path = Some("local".to_owned());
            line.fallback = fallback.as_deref().map(str::to_owned);
            (line.level, line.coding, line.image) = (None, None, None);
            line.ms = Some(local_times(frame, timings, *answered_at, fallback.is_some()));
            fill_local_answer(frame, classes, bundle, line);
        }
        Outcome::Kept { answer, timings, answered_at } => {
            line.status = Status::Answered;
            line.path = Some("kept".to_owned());
            (line.level, line.coding, line.image) = (None, None, None);
            line.ms = Some(local_times(frame, timings, *answered_at, false));
            match &**answer {
                Answer::Server(reply) => finished.map = fill_answers(reply, bundle, line),
                Answer::Device(classes) => fill_local_answer(frame, classes, bundle, line),
            }
        }
    }
    // The stages before the disk were timed in another line, and only the calendar knows how long that was ago.
    if let (Some(SpoolPlace { waited: Some(waited), .. }), Some(ms)) = (line.spool, &mut line.ms) {
        ms.total = waited * 1e3;
    }
    finished
}

/// The line of a frame that nobody answered, with what is known from its plan.
pub(super) fn failed_line(frame: &Frame<Finished>, bundle: &Bundle, device: &str) -> Line {
    let encoded = frame.stage.encoded.as_ref();
    let level = encoded.and_then(|encoded| encoded.level).or(frame.plan.path.level());
    let level = level.map(|level| level.index());
    let (geometry, level, image) = match frame.plan.path {
        FramePath::Split { geometry, .. } => (Some(geometry), level, None),
        FramePath::Image { geometry, encoding, framing } => {
            (Some(geometry), None, Some(ImageSettings::new(encoding, framing)))
        }
        FramePath::Local => (None, None, None),
    };
    let local = || bundle.local().map(|local| &local.geometry);
    let geometry = geometry.map_or_else(local, |geometry| bundle.geometries().get(geometry.index()));
    let coding = encoded.and_then(|encoded| encoded.coding);
    let (sequence, replaced) = match frame.origin {
        Origin::File { .. } => (None, 0),
        Origin::Camera { sequence, replaced, .. } => (Some(sequence), replaced),
    };
    Line {
        frame: frame.id.0,
        file: frame.origin.file().map(Path::to_owned),
        camera: frame.origin.source().map(str::to_owned),
        sequence,
        replaced,
        captured: rfc3339(frame.captured_on),
        device: device.to_owned(),
        bundle: bundle.digest().short(),
        status: Status::Failed,
        path: None,
        server: None,
        fallback: None,
        spool: frame.spooled.as_ref().map(|spooled| SpoolPlace {
            id: spooled.number,
            waited: spooled.is_sent().then(|| {
                let waited = SystemTime::now().duration_since(frame.captured_on);
                waited.unwrap_or_default().as_secs_f64()
            }),
        }),
        gate: frame.decisions.gate.map(Moved::from),
        exit: frame.decisions.exit.map(Exit::from),
        level,
        groups: None,
        coding: coding.map(|mode| mode.to_string()),
        image,
        geometry: geometry.map(|geometry| geometry.name.clone()).unwrap_or_default(),
        classify: None,
        segment: None,
        overlay: None,
        unanswered: Vec::new(),
        code: None,
        error: None,
        bytes: None,
        ms: None,
        joules: None,
    }
}

/// What a frame cost this device, by its model.
pub(super) fn joules_of(frame: &Frame<Finished>, spending: &Spending) -> Joules {
    let encoded = frame.stage.encoded.as_ref().map(|encoded| encoded.timings.sum()).unwrap_or_default();
    let computed = match &frame.stage.outcome {
        // The picture was decoded before.
        Outcome::Local { timings, fallback: Some(_), .. } => encoded + timings.resize + timings.head,
        Outcome::Local { timings, .. } | Outcome::Kept { timings, .. } => timings.sum(),
        _ => encoded,
    };
    Joules { computing: spending.computing(computed), sending: frame.decisions.sending }
}

/// Fills in the server's answers; returns the class map if there is one.
fn fill_answers(reply: &Reply, bundle: &Bundle, line: &mut Line) -> Option<(usize, Vec<u8>)> {
    let mut drawable = None;
    for TaskAnswer { task, outcome, .. } in &reply.answers {
        let index = usize::from(*task);
        let Some(task) = bundle.tasks().get(index) else { continue };
        match outcome {
            TaskOutcome::Classes(classes) => line.classify = Some(scores(task, classes)),
            TaskOutcome::Map(map) => match map.unpack() {
                Ok(pixels) => {
                    line.segment = Some(segment(task, map, &pixels));
                    drawable = Some((index, pixels));
                }
                Err(error) => {
                    line.unanswered.push(Unanswered {
                        task: task.name.clone(),
                        code: None,
                        error: error.to_string(),
                    });
                }
            },
            TaskOutcome::Refused(refusal) => line.unanswered.push(refused(task, refusal)),
            // The session rejects replies with any other outcome.
            _ => {}
        }
    }
    if line.classify.is_some() || line.segment.is_some() {
        line.status = Status::Answered;
    } else {
        line.error = Some("no task was answered".to_owned());
    }
    drawable
}

/// Fills in the answer of the local network, which answers one task.
fn fill_local_answer(frame: &Frame<Finished>, classes: &[Class], bundle: &Bundle, line: &mut Line) {
    let Some(local) = bundle.local() else { return };
    line.geometry = local.geometry.name.clone();
    for request in frame.plan.tasks.iter() {
        let index = usize::from(request.task);
        let Some(task) = bundle.tasks().get(index) else { continue };
        match index == local.task {
            true => line.classify = Some(scores(task, classes)),
            false => line.unanswered.push(Unanswered {
                task: task.name.clone(),
                code: None,
                error: "the local network does not answer it".to_owned(),
            }),
        }
    }
}

/// Fills in sizes and times of a frame that the server replied to.
fn fill_traffic(frame: &Frame<Finished>, traffic: &Traffic, reply: Option<&Reply>, line: &mut Line) {
    let Some(encoded) = &frame.stage.encoded else { return };
    let Traffic { ref server, sent, received, received_at } = *traffic;
    line.server = Some(server.to_string());
    line.bytes = Some(Bytes { packet: encoded.packet_bytes, sent, received });
    line.ms = Some(stage_times(frame.captured_at, encoded, received_at, reply));
}

fn stage_times(
    captured_at: Instant,
    encoded: &EncodeStats,
    received_at: Instant,
    reply: Option<&Reply>,
) -> Millis {
    let tail = reply.map(|reply| reply.timings).unwrap_or_default();
    let away = received_at.saturating_duration_since(encoded.encoded_at);
    Millis {
        decode: ms(encoded.timings.decode),
        resize: ms(encoded.timings.resize),
        head: ms(encoded.timings.head),
        encode: ms(encoded.timings.encode),
        exit: ms(encoded.timings.exit),
        network: ms(away.saturating_sub(tail.decode + tail.queue + tail.infer + tail.answer)),
        tail_queue: ms(tail.queue),
        tail_decode: ms(tail.decode),
        tail_infer: ms(tail.infer),
        tail_answer: ms(tail.answer),
        total: ms(received_at.saturating_duration_since(captured_at)),
    }
}

/// Times of a frame that this device answered. As a fallback, `network` is how long the server was waited for.
fn local_times(
    frame: &Frame<Finished>,
    timings: &Timings,
    answered_at: Instant,
    is_fallback: bool,
) -> Millis {
    let total = answered_at.saturating_duration_since(frame.captured_at);
    let work = timings.decode + timings.resize + timings.head + timings.exit;
    Millis {
        decode: ms(timings.decode),
        resize: ms(timings.resize),
        head: ms(timings.head),
        exit: ms(timings.exit),
        network: if is_fallback { ms(total.saturating_sub(work)) } else { 0.0 },
        total: ms(total),
        ..Millis::default()
    }
}

/// A moment as RFC 3339 in UTC with milliseconds.
fn rfc3339(moment: SystemTime) -> String {
    const FORMAT: &str = "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z";
    static PARSED: LazyLock<Option<Vec<BorrowedFormatItem<'static>>>> =
        LazyLock::new(|| time::format_description::parse_borrowed::<2>(FORMAT).ok());
    let text = PARSED.as_ref().and_then(|format| OffsetDateTime::from(moment).format(format).ok());
    text.unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn scores(task: &Task, classes: &[Class]) -> Vec<ClassScore> {
    let score = |class: &Class| ClassScore {
        index: class.index,
        label: label(task, class.index),
        probability: class.probability.into(),
    };
    classes.iter().map(score).collect()
}

fn segment(task: &Task, map: &ClassMap, pixels: &[u8]) -> Segment {
    let mut counts = [0usize; 256];
    for &class in pixels {
        counts[usize::from(class)] += 1;
    }
    let present = (0u16..).zip(counts).filter(|(_, count)| *count > 0);
    let mut classes: Vec<Share> = present
        .map(|(index, count)| Share {
            index,
            label: label(task, index),
            share: count as f64 / pixels.len() as f64,
        })
        .collect();
    classes.sort_by(|a, b| b.share.total_cmp(&a.share));
    Segment { mask: None, overlay: None, width: map.width(), height: map.height(), classes }
}

fn label(task: &Task, index: u16) -> String {
    let label = task.labels.get(usize::from(index));
    label.map_or_else(|| format!("class {index}"), |label| label.name.clone())
}

fn refused(task: &Task, refusal: &Refusal) -> Unanswered {
    Unanswered { task: task.name.clone(), code: Some(refusal.code.into()), error: refusal.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_milliseconds_and_the_zone_of_utc() {
        let moment = SystemTime::UNIX_EPOCH + Duration::new(1_772_366_400, 120_999_999);
        assert_eq!(rfc3339(moment), "2026-03-01T12:00:00.120Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
