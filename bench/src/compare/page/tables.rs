//! The tables of the page.

use maud::{Markup, html};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::compare::{
    cells::{FRAMES_FOR_P95, FRAMES_FOR_P99, ROUNDS_FOR_INTERVAL},
    charts::millis,
    fastest::{MOST_LOST, points},
    report::{Accuracy, Candidate, Cell, Energy, LinkSummary, Report, STAGES, UNSPLIT},
};

/// Stands for a figure that there is none of.
const NONE: &str = "–";

/// Text with `code` between backticks.
pub(super) fn text(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A table that scrolls inside its box. The first column names the row; a `#` in front marks a column of numbers. Columns
/// without any figure are left out.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Markup {
    let rows: Vec<Vec<String>> = rows.collect();
    let shown = |index: &usize| *index == 0 || rows.iter().any(|row| row[*index] != NONE);
    let shown: Vec<usize> = (0..columns.len()).filter(shown).collect();
    let number = |index: usize| columns[index].starts_with('#');
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { @for &index in &shown { th.n[number(index)] { (columns[index].trim_start_matches('#')) } } } }
            tbody { @for row in &rows { tr { @for &index in &shown {
                @if index == 0 { th { (text(&row[0])) } } @else { td.n[number(index)] { (text(&row[index])) } }
            } } } }
        } }
    }
}

fn or_none<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| NONE.into(), show)
}

fn range(interval: Option<(f64, f64)>, show: fn(f64) -> String) -> String {
    or_none(interval, |(low, high)| format!("{} to {}", show(low), show(high)))
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The fastest variants of every link within each bound on the loss.
pub(super) fn fastest(report: &Report, task: &str) -> Markup {
    let labels = report.accuracy.iter().any(|of| of.task == task && of.metric.has_labels());
    let candidate = |of: &Candidate| format!("{} {} ms", of.variant, millis(of.p50));
    html! {
        h3 { "The fastest within a bound on the loss" }
        div.scroll tabindex="0" { table {
            thead { tr { th { "link" } @for most in MOST_LOST {
                th { "at most " (most) @if !labels { " % of answers changed" } @else if most == 1.0 { " point lost" } @else { " points lost" } }
            } } }
            tbody { @for link in report.links.iter().filter(|link| report.covers(&link.name, task)) { tr {
                th { (link.name) }
                @for of in report.fastest.iter().filter(|of| of.task == task && of.link == link.name) { td {
                    @match &of.candidates[..] {
                        [] => span.faint { "none" },
                        [best, others @ ..] => {
                            @if of.undecided.is_none() { strong { (candidate(best)) } } @else { (candidate(best)) }
                            @for other in others { br; span.faint { (candidate(other)) } }
                            @if let Some(reason) = &of.undecided {
                                div.undecided { "cannot be concluded: " (reason) }
                            }
                        }
                    }
                } }
            } } }
        } }
        p.faint {
            "Each box lists the fastest variant of every method whose measured loss against the unsplit network is within "
            "the bound, by its median. Bold: the 95 % intervals of medians and losses show that the first is the fastest "
            "within the bound. Otherwise the box says why this sample cannot show it."
            @if !labels { " Local networks are left out: without labels their loss is not known." }
        }
    }
}

/// Bytes and accuracy, or agreement, of every variant.
pub(super) fn accuracy(report: &Report, task: &str, chart: &Markup) -> Markup {
    let shown: Vec<&Accuracy> = report.accuracy.iter().filter(|of| of.task == task).collect();
    let Some(metric) = shown.first().map(|of| of.metric) else { return Markup::default() };
    let labels = metric.has_labels();
    let value = format!("#{}, %", metric.title());
    let lost = if labels { "#points lost" } else { "#changed, points" };
    let columns =
        ["variant", "#bytes", &value, "#95 % interval", lost, "#95 % interval", "#photos or frames"];
    let rows = shown.iter().map(|of| {
        let drop = of.drop.filter(|_| of.variant != UNSPLIT);
        vec![
            of.variant.clone(),
            or_none(of.bytes, whole),
            percent(of.value),
            range(of.interval, percent),
            or_none(drop, points),
            range(of.drop_interval.filter(|_| drop.is_some()), points),
            of.count.to_string(),
        ]
    });
    html! {
        h3 { @if labels { "Bytes and accuracy" } @else { "Bytes and agreement with the unsplit network" } }
        (chart)
        (table(&columns, rows))
        @if !labels { p.faint {
            "There are no labels, so this is not accuracy: it says how often a variant's answer is the unsplit network's. "
            "A local network is another network; its disagreement is no loss."
        } }
    }
}

/// The figures of every variant on a link.
pub(super) fn cells(report: &Report, link: &LinkSummary, task: &str) -> Markup {
    let columns = [
        "variant",
        "#frames",
        "#rounds",
        "#p50 ms",
        "#95 % interval",
        "#p95 ms",
        "#p99 ms",
        "#frames/s",
        "#packet",
        "#request",
        "#wire up",
        "#reply",
        "#wire down",
        "#lost",
        "#mJ gross",
        "#mJ net",
        "#mJ radio, modelled",
    ];
    let rows = report.on(&link.name, task).into_iter().map(|cell| {
        let frames = match cell.failed {
            0 => cell.frames.to_string(),
            failed => format!("{} ({failed} failed)", cell.frames),
        };
        let (gross, net) = match cell.energy {
            Energy::Measured { gross, net, .. } => (Some(gross), Some(net)),
            Energy::Unknown { .. } => (None, None),
        };
        let millijoules = |joules: Option<f64>| or_none(joules, |joules| format!("{:.1}", 1e3 * joules));
        vec![
            cell.variant.clone(),
            frames,
            cell.rounds.to_string(),
            or_none((cell.frames > 0).then_some(cell.total.p50), millis),
            range(cell.p50_interval, millis),
            or_none(cell.total.p95, millis),
            or_none(cell.total.p99, millis),
            or_none(cell.pipelined, |of| format!("{:.1}", of.rate)),
            or_none(cell.packet, whole),
            or_none(cell.request, |(up, _)| whole(up)),
            or_none(cell.wire, |(up, _)| whole(up)),
            or_none(cell.request, |(_, down)| whole(down)),
            or_none(cell.wire, |(_, down)| whole(down)),
            or_none(report.accuracy(task, &cell.variant).and_then(|of| of.drop), points),
            millijoules(gross),
            millijoules(net),
            millijoules(cell.energy.radio().map(|radio| radio.joules)),
        ]
    });
    html! {
        (table(&columns, rows))
        p.faint {
            "Bytes are means per frame. " (NONE) " or no column: not measured, or the sample is too small; an interval "
            "takes " (ROUNDS_FOR_INTERVAL) " rounds, p95 " (FRAMES_FOR_P95) " frames, p99 " (FRAMES_FOR_P99) "."
        }
    }
}

/// Where energies come from, or why they are not known; once for all cells that say the same.
pub(super) fn unknown_energy(report: &Report, task: &str) -> Markup {
    let mut sentences: Vec<String> = Vec::new();
    for cell in report.cells.iter().filter(|cell| cell.task == task) {
        let measured = match &cell.energy {
            Energy::Measured { source, .. } => format!("Energy is measured: {source}."),
            Energy::Unknown { why, .. } => format!("Energy is unknown: {why}."),
        };
        let radio =
            cell.energy.radio().map(|radio| format!("The radio's energy is modelled: {}.", radio.source));
        sentences.extend([Some(measured), radio].into_iter().flatten());
    }
    let mut seen = Vec::new();
    sentences.retain(|sentence| {
        !seen.contains(sentence) && {
            seen.push(sentence.clone());
            true
        }
    });
    html! { @if !sentences.is_empty() { p.faint { (text(&sentences.join(" "))) } } }
}

/// The median of every stage of every variant on a link.
pub(super) fn stages(report: &Report, link: &LinkSummary, task: &str) -> Markup {
    let names: Vec<String> = STAGES.iter().map(|stage| format!("#{}", stage.replace('_', " "))).collect();
    let columns: Vec<&str> = ["variant"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let shown = report.on(&link.name, task).into_iter().filter(|cell| cell.frames > 0);
    let rows = shown.map(|cell| {
        let stage = |stage: &&str| {
            or_none(cell.stages.get(*stage), |of| match of.p95 {
                Some(p95) => format!("{} / {}", millis(of.p50), millis(p95)),
                None => millis(of.p50),
            })
        };
        [cell.variant.clone()].into_iter().chain(STAGES.iter().map(stage)).collect()
    });
    html! { details { summary { "Every stage over " (link.name) ": p50 / p95, ms" } (table(&columns, rows)) } }
}

/// The median latency of every cell against the sum of what a frame cannot avoid.
pub(super) fn floors(report: &Report) -> Markup {
    let over = |cell: &Cell| Some(cell.total.p50 - cell.floor.filter(|_| cell.frames > 0)?.sum());
    let rows = report.links.iter().filter_map(|link| {
        let cells = report.cells.iter().filter(|cell| cell.link == link.name);
        let mut differences: Vec<f64> = cells.filter_map(over).collect();
        differences.sort_by(f64::total_cmp);
        let (least, most) = (*differences.first()?, *differences.last()?);
        let median = differences[(differences.len() - 1) / 2];
        let ms = [least, median, most].map(millis);
        Some([link.name.clone(), differences.len().to_string()].into_iter().chain(ms).collect())
    });
    let every = report.cells.iter().filter_map(|cell| {
        let (floor, over) = cell.floor.zip(over(cell))?;
        let parts = [floor.stages, floor.bytes, floor.rtt, floor.sum(), cell.total.p50, over].map(millis);
        let names = [&cell.link, &cell.task, &cell.variant].map(String::clone);
        Some(names.into_iter().chain(parts).collect())
    });
    let columns =
        ["link", "task", "variant", "#stages", "#bytes/rate", "#round trip", "#sum", "#p50", "#difference"];
    html! {
        section {
            h2 { "What is not explained by computing and the link" }
            p {
                "The median latency less the median of the computing stages, the bytes at the link's rate and one round "
                "trip, in ms. Queues, acknowledgements, losses and scheduling make the difference."
            }
            (table(&["link", "#variants", "#least", "#median", "#most"], rows))
            details { summary { "Every variant, ms" } (table(&columns, every)) }
        }
    }
}

/// Where, when and with what the figures were measured.
pub(super) fn provenance(report: &Report) -> Markup {
    let of = &report.provenance;
    let mut facts: Vec<(&str, String)> = vec![
        ("command", format!("`{}`", of.command)),
        ("bundle", of.bundle.clone()),
        ("started", format!("{}, lasted {:.0} s", date(of.started), of.seconds)),
        (
            "rounds",
            format!(
                "{}; in each every variant has one run, in an order drawn from seed {}",
                of.rounds, of.seed
            ),
        ),
    ];
    facts.extend(of.machine.iter().map(|(name, value)| (name.as_str(), value.clone())));
    facts.extend(of.data.iter().map(|data| ("data", data.clone())));
    html! {
        section {
            h2 { "Where the figures come from" }
            (table(&["fact", "value"], facts.into_iter().map(|(name, value)| vec![name.to_owned(), value])))
            details {
                summary { "The " (report.runs.len()) " runs of the head, in their order" }
                ol.runs { @for run in &report.runs { li { (run.link) " " (run.task) " " (run.variant) } } }
            }
            p.faint {
                "Raw rows: rows.csv and accuracy.csv; every figure of this page: report.json; what they mean: "
                "bench/REPORT.md. Percentiles are samples, not interpolations."
            }
        }
    }
}

/// Seconds since 1970 as a date and time in UTC.
pub(super) fn date(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "at an unknown time".into())
}
