//! The report as one page: no script, no network, every picture inside.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    draw::Picture,
    report::{Accuracy, Cell, Claim, Energy, NO_LINK, Place, Report, Rung, UNSPLIT, Winner},
};

const STYLE: &str = include_str!("report.css");

/// The page.
pub fn page(report: &Report, pictures: &[Picture]) -> Result<String> {
    let picture = |name: &str| pictures.iter().find(|picture| picture.name == name).map(figure);
    let story = &report.story;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "narrows: local, offload or split?" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Local, offload or split?" }
                p.lead {
                    "The same frames through the device alone, through images sent to the server and through a split "
                    "network, between the real head and the real tail. " (short(&story.bundle)) ", narrows " (story.version)
                    ", commit " (story.commit) "."
                }
                @if !story.complete {
                    p.incomplete {
                        strong { "INCOMPLETE. " }
                        (story.incomplete_because.as_deref().unwrap_or("The run ended early."))
                        " What was measured until then is below."
                    }
                }
                @for note in &story.notes { p.note { (note) } }
                @for task in report.tasks() {
                    section {
                        h2 { (task) }
                        (picture(&format!("overview-{task}")).unwrap_or_default())
                        (claims(report, task))
                        h3 { "Bytes and accuracy" }
                        (picture(&format!("accuracy-{task}")).unwrap_or_default())
                        (accuracies(report, task))
                        h3 { "The fastest that loses no more than so much" }
                        (winners(report, task))
                        @for rung in &report.links {
                            @if report.cells.iter().any(|cell| cell.link == rung.name && cell.task == task) {
                                h3 { (rung.name) ": " (rung.about) }
                                (picture(&format!("latency-{task}-{}", rung.name)).unwrap_or_default())
                                (cells(report, rung, task))
                                (picture(&format!("energy-{task}-{}", rung.name)).unwrap_or_default())
                            }
                        }
                    }
                }
                (links(report))
                (physics(report))
                (story_of(report))
            }
        }
    };
    Ok(page.into_string())
}

fn figure(picture: &Picture) -> Markup {
    html! {
        figure id=(picture.name) {
            (PreEscaped(&picture.svg))
            figcaption { (picture.caption) }
        }
    }
}

fn claims(report: &Report, task: &str) -> Markup {
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

fn accuracies(report: &Report, task: &str) -> Markup {
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

fn winners(report: &Report, task: &str) -> Markup {
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

fn cells(report: &Report, rung: &Rung, task: &str) -> Markup {
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

fn links(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Links" }
            p {
                "Each link is a UDP relay between head and tail. What it was asked for and what was measured of it before "
                "the run:"
            }
            table {
                thead { tr {
                    th { "link" } th { "property" } th.n { "asked" } th.n { "measured" } th.n { "may be" } th { "" }
                } }
                tbody { @for rung in &report.links {
                    @if rung.fidelity.is_empty() {
                        tr { th { (rung.name) } td colspan="5" { (rung.about) ": nothing to hold it to" } }
                    }
                    @for of in &rung.fidelity { tr {
                        th { (rung.name) } td { (of.what) }
                        td.n { (number(of.asked)) } td.n { (number(of.found)) }
                        td.n { (number(of.bounds.0)) " to " (number(of.bounds.1)) }
                        td { @if of.holds { span.pass { "✓" } } @else { span.fail { "✗ outside" } } }
                    } }
                } }
            }
        }
    }
}

fn physics(report: &Report) -> Markup {
    let held: Vec<&Cell> =
        report.cells.iter().filter(|cell| cell.floor.is_some() && cell.frames > 0).collect();
    let good = held.iter().filter(|cell| cell.floor.is_some_and(|floor| floor.holds)).count();
    html! {
        @if !held.is_empty() {
            section {
                h2 { "Does the runtime add anything?" }
                p {
                    "The median of the total against the sum of the median of its stages, its bytes at the link's rate and "
                    "one round trip; at most 10 % + 2 ms more passes. " (good) " of " (held.len()) " cells pass."
                }
                div.wide { table {
                    thead { tr {
                        th { "link" } th { "task" } th { "variant" } th.n { "stages" } th.n { "bytes/rate" }
                        th.n { "round trip" } th.n { "sum" } th.n { "at most" } th.n { "p50 ms" } th { "" }
                    } }
                    tbody { @for cell in held { @if let Some(floor) = &cell.floor { tr {
                        th { (cell.link) } td { (cell.task) } td { (cell.variant) }
                        td.n { (millis(floor.stages)) } td.n { (millis(floor.bytes)) } td.n { (millis(floor.rtt)) }
                        td.n { (millis(floor.sum())) } td.n { (millis(floor.bound())) }
                        td.n { (millis(cell.total.p50)) }
                        td {
                            @if floor.holds { span.pass { "✓" } }
                            @else { span.fail { "✗ +" (millis(cell.total.p50 - floor.sum())) } }
                        }
                    } } } }
                } }
            }
        }
    }
}

fn story_of(report: &Report) -> Markup {
    let story = &report.story;
    let turns = report.turns.iter().map(|turn| format!("{} {} {}", turn.link, turn.task, turn.variant));
    html! {
        section {
            h2 { "What the numbers rest on" }
            table.story { tbody {
                tr { th { "command" } td { code { (story.command) } } }
                tr { th { "bundle" } td { (story.bundle) } }
                tr { th { "started" } td { (utc(story.started)) ", lasted " (format!("{:.0} s", story.seconds)) } }
                tr { th { "rounds" } td {
                    (story.rounds) " rounds; in each every cell had one turn, in an order drawn with seed " (story.seed)
                } }
                @for (name, value) in &story.machine { tr { th { (name) } td { (value) } } }
                @for data in &story.data { tr { th { "data" } td { (data) } } }
            } }
            details {
                summary { "The " (report.turns.len()) " turns, in their order" }
                ol.turns { @for turn in turns { li { (turn) } } }
            }
            p.faint {
                "Raw rows: rows.csv; every figure of this page: report.json; what they mean: bench/REPORT.md. "
                "Percentiles are samples, not interpolated; " (NO_LINK) " is the link of what sends nothing."
            }
        }
    }
}

/// A name and a version with the start of their digest.
fn short(bundle: &str) -> &str {
    let digest = bundle.rfind(' ').map_or(bundle.len(), |space| space + 1 + 12);
    bundle.get(..digest).unwrap_or(bundle)
}

fn points(drop: f64) -> String {
    // No "-0.0".
    let drop = if drop.abs() < 0.05 { 0.0 } else { drop };
    format!("{drop:.1}")
}

fn millis(value: f64) -> String {
    if value.abs() >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn pair(values: Option<(f64, f64)>) -> String {
    values.map_or("–".to_owned(), |(up, down)| format!("{up:.0}, {down:.0}"))
}

fn whole(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.0}"))
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Seconds since 1970 as a date and time (Hinnant's `civil_from_days`).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        draw,
        fixture::{self, Case},
        judge,
        report::Group,
    };

    fn report() -> Report {
        let mut report = fixture::report(
            fixture::rung("lora", 37.5e3, 100.0),
            &[
                Case::new("split 1", Group::Split, 6000.0, 1.5, 1400.0),
                Case::new("JPEG 75", Group::Jpeg, 14000.0, 1.0, 3200.0),
            ],
        );
        report.winners = judge::winners(&report);
        report.claims = judge::claims(&report);
        report
    }

    #[test]
    fn the_page_stands_alone_and_says_what_does_not_hold() {
        let report = report();
        let page = page(&report, &draw::pictures(&report).unwrap()).unwrap();
        for outside in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("✗ does not hold") && page.contains("2.29"));
        assert!(page.contains("a &lt;b&gt; &amp; c"), "text is escaped");
        assert!(page.contains("2023-11-14 22:13 UTC"));
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(!page.contains("INCOMPLETE"));
    }

    #[test]
    fn an_interrupted_run_is_marked() {
        let mut report = report();
        report.story.complete = false;
        report.story.incomplete_because = Some("interrupted in round 2 of 3".into());
        let page = page(&report, &[]).unwrap();
        assert!(page.contains("INCOMPLETE") && page.contains("interrupted in round 2 of 3"));
    }

    #[test]
    fn days_are_counted_right() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59 UTC");
    }
}
