//! A task's tables: verdicts, accuracies, winners, and the cells of every link.

use maud::{Markup, html};

use crate::compare::{
    draw::millis,
    report::{Accuracy, Cell, Claim, Energy, Place, Report, Rung, UNSPLIT, Winner},
};

pub(super) fn claims(report: &Report, task: &str) -> Markup {
    let claims: Vec<&Claim> = report.claims.iter().filter(|claim| claim.task == task).collect();
    html! {
        @if !claims.is_empty() {
            h3 { "Split against image, at equal accuracy" }
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
                        td.n { (claim.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))) }
                        td.n { (claim.wanted.map_or("–".to_owned(), |wanted| format!("≥ {wanted:.1}"))) }
                        td { (verdict(claim)) }
                    }
                    tr.why { td {} td colspan="9" { (claim.why) } }
                } }
            }
        }
    }
}

fn verdict(claim: &Claim) -> Markup {
    match (claim.wanted, claim.holds) {
        (None, _) => html! { "nothing asked" },
        (Some(_), true) => html! { span.pass { "✓ holds" } },
        (Some(_), false) => html! { span.fail { "✗ does not hold" } },
    }
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
    let floors: Vec<f64> = report
        .links
        .first()
        .map(|rung| of(&rung.name))
        .unwrap_or_default()
        .iter()
        .map(|winner| winner.most_lost)
        .collect();
    let place = |place: &Place| html! { (place.variant) " " span.faint { (millis(place.p50)) " ms" } };
    html! {
        table {
            thead { tr { th { "link" } @for floor in &floors { th { "≤ " (floor) " points" } } } }
            tbody { @for rung in &report.links { tr {
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

pub(super) fn cells(report: &Report, rung: &Rung, task: &str) -> Markup {
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
                        strong { (millis(cell.total.p50)) } ", " (millis(cell.p50_interval.0)) "–"
                        (millis(cell.p50_interval.1))
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

fn points(drop: f64) -> String {
    // No "-0.0".
    let drop = if drop.abs() < 0.05 { 0.0 } else { drop };
    format!("{drop:.1}")
}

fn pair(values: Option<(f64, f64)>) -> String {
    values.map_or("–".to_owned(), |(up, down)| format!("{up:.0}, {down:.0}"))
}

fn whole(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.0}"))
}
