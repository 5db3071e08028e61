//! A task's tables: verdicts, accuracies, winners, and the cells of every link.

use maud::{Markup, html};

use crate::compare::{
    claims::in_short,
    draw::millis,
    judge::{MOST_LOST, points},
    report::{Accuracy, Cell, Claim, Energy, LinkSummary, Place, Report, STAGES, UNSPLIT, Winner},
};

pub(super) fn claims(report: &Report, task: &str) -> Markup {
    let claims: Vec<&Claim> = report.claims.iter().filter(|claim| claim.task == task).collect();
    html! {
        @if !claims.is_empty() {
            h3 { "Split against image, at equal accuracy" }
            @if let Some(short) = in_short(&claims) { p { (short) } }
            table {
                thead { tr {
                    th { "link" } th { "split" } th.n { "lost" } th.n { "p50 ms" } th { "image" } th.n { "lost" }
                    th.n { "p50 ms" } th.n { "ratio" } th.n { "asked" } th { "verdict" }
                } }
                tbody { @for claim in claims {
                    tr {
                        th { (claim.link) }
                        td { (claim.split.variant) } td.n { (points(claim.split.drop)) }
                        td.n { (millis(claim.split.p50)) }
                        @match &claim.offload {
                            Some(image) => {
                                td { (image.variant) } td.n { (points(image.drop)) } td.n { (millis(image.p50)) }
                            }
                            None => { td colspan="3" { "none as accurate" } }
                        }
                        td.n { (claim.ratio.map_or("–".to_owned(), ratio)) }
                        td.n { (claim.wanted.map_or("–".to_owned(), |wanted| format!("≥ {wanted:.1}"))) }
                        td { (verdict(claim)) }
                    }
                    @if let (None, Some(pair)) = (&claim.offload, &claim.nearest) { tr.nearest {
                        th { span.faint { "nearest pair" } }
                        td { (pair.split.variant) } td.n { (points(pair.split.drop)) } td.n { (millis(pair.split.p50)) }
                        td { (pair.offload.variant) } td.n { (points(pair.offload.drop)) }
                        td.n { (millis(pair.offload.p50)) } td.n { (ratio(pair.ratio)) } td {} td {}
                    } }
                    tr.why { td {} td colspan="9" { (claim.why) } }
                } }
            }
        }
    }
}

fn verdict(claim: &Claim) -> Markup {
    match claim.verdict() {
        (None, verdict) => html! { (verdict) },
        (Some(true), verdict) => html! { span.pass { "✓ " (verdict) } },
        (Some(false), verdict) => html! { span.fail { "✗ " (verdict) } },
    }
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

pub(super) fn accuracies(report: &Report, task: &str) -> Markup {
    let shown: Vec<&Accuracy> = report.accuracy.iter().filter(|of| of.task == task).collect();
    html! {
        @if let Some(first) = shown.first() {
            table {
                thead { tr {
                    th { "variant" } th.n { "bytes" } th.n { (first.metric.title()) ", %" } th.n { "95 % interval" }
                    th.n { "points lost" } th.n { "95 % interval" } th.n { "of" }
                } }
                tbody { @for of in shown { tr {
                    th { (of.variant) }
                    td.n { (of.bytes.map_or("–".to_owned(), |bytes| format!("{bytes:.0}"))) }
                    td.n { (format!("{:.1}", 100.0 * of.value)) }
                    td.n { (format!("{:.1} to {:.1}", 100.0 * of.interval.0, 100.0 * of.interval.1)) }
                    @if of.variant == UNSPLIT {
                        td.n { "0" } td.n { "–" }
                    } @else {
                        td.n { (points(of.drop)) }
                        td.n { (format!("{} to {}", points(of.drop_interval.0), points(of.drop_interval.1))) }
                    }
                    td.n { (of.count) }
                } } }
            }
        }
    }
}

pub(super) fn winners(report: &Report, task: &str) -> Markup {
    let of = |link: &str| -> Vec<&Winner> {
        report.winners.iter().filter(|winner| winner.task == task && winner.link == link).collect()
    };
    let place = |place: &Place| html! { (place.variant) " " span.faint { (millis(place.p50)) " ms" } };
    html! {
        table {
            thead { tr { th { "link" } @for most in MOST_LOST { th { "≤ " (most) " points" } } } }
            tbody { @for rung in report.links.iter().filter(|rung| !of(&rung.name).is_empty()) { tr {
                th { (rung.name) }
                @for winner in of(&rung.name) { td {
                    @match &winner.best {
                        None => { span.faint { "none" } }
                        Some(best) => {
                            strong { (place(best)) }
                            @for other in &winner.others { br; (place(other)) }
                        }
                    }
                } }
            } } }
        }
        p.faint { "Bold: the fastest. Below it the fastest of every other path that loses no more." }
    }
}

pub(super) fn cells(report: &Report, rung: &LinkSummary, task: &str) -> Markup {
    html! {
        div.wide { table {
            thead { tr {
                th { "variant" } th.n { "frames" } th.n { "p50, 95 % interval" } th.n { "p95" } th.n { "p99 ms" }
                th.n { "frames/s" } th.n { "packet" } th.n { "request, reply" } th.n { "wire up, down" }
                th.n { "lost" } th { "mJ/frame" }
            } }
            tbody { @for cell in report.on(&rung.name, task) { tr {
                th { (cell.variant) }
                td.n { (cell.frames) @if cell.failed > 0 { " (" (cell.failed) " failed)" } }
                @if cell.frames > 0 {
                    td.n {
                        strong { (millis(cell.total.p50)) }
                        // Of a single run there is none.
                        @if cell.p50_interval.0 < cell.p50_interval.1 {
                            ", " (millis(cell.p50_interval.0)) "–" (millis(cell.p50_interval.1))
                        }
                    }
                    td.n { (millis(cell.total.p95)) } td.n { (millis(cell.total.p99)) }
                } @else { td.n { "–" } td.n { "–" } td.n { "–" } }
                td.n { (cell.pipelined.map_or("–".to_owned(), |of| format!("{:.1}", of.rate))) }
                td.n { (whole(cell.packet)) } td.n { (pair(cell.request)) } td.n { (pair(cell.wire)) }
                td.n { (report.accuracy(task, &cell.variant).map_or("–".to_owned(), |of| points(of.drop))) }
                td { (joules(cell)) }
            } } }
        } }
    }
}

/// Every stage of every cell on a link.
pub(super) fn stages(report: &Report, rung: &LinkSummary, task: &str) -> Markup {
    html! {
        details {
            summary { "Every stage over " (rung.name) ": p50 / p95 / p99, in ms" }
            div.wide { table {
                thead { tr { th { "variant" } @for stage in STAGES { th.n { (stage.replace('_', " ")) } } } }
                tbody { @for cell in report.on(&rung.name, task).filter(|cell| cell.frames > 0) { tr {
                    th { (cell.variant) }
                    @for stage in STAGES { td.n {
                        @match cell.stages.get(stage) {
                            Some(at) => { (millis(at.p50)) " / " (millis(at.p95)) " / " (millis(at.p99)) }
                            None => { "–" }
                        }
                    } }
                } } }
            } }
        }
    }
}

/// Why joules are not known, once for all cells that say the same.
pub(super) fn unknown_joules(report: &Report, task: &str) -> Markup {
    let mut reasons: Vec<&str> = Vec::new();
    for cell in report.cells.iter().filter(|cell| cell.task == task) {
        match &cell.energy {
            Energy::Unknown { why, .. } if !reasons.contains(&why.as_str()) => reasons.push(why),
            _ => {}
        }
    }
    html! {
        @if !reasons.is_empty() { p.faint { "Joules that are unknown, and why: " (reasons.join("; ")) "." } }
    }
}

fn joules(cell: &Cell) -> Markup {
    html! {
        @match &cell.energy {
            Energy::Measured { gross, net, source, .. } => {
                span title=(source) { (format!("{:.1} gross, {:.1} net", 1e3 * gross, 1e3 * net)) }
            }
            Energy::Unknown { why, .. } => { span.faint title=(why) { "unknown" } }
        }
        @if let Some(radio) = cell.energy.radio() {
            " + " span title=(radio.source) { (format!("{:.0} modelled", 1e3 * radio.joules)) }
        }
    }
}

fn pair(values: Option<(f64, f64)>) -> String {
    values.map_or("–".to_owned(), |(up, down)| format!("{up:.0}, {down:.0}"))
}

fn whole(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.0}"))
}
