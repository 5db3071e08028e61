//! What the numbers rest on: the links, the floor, the machine.

use maud::{Markup, html};

use crate::compare::{
    draw::millis,
    report::{Cell, Floor, LinkSummary, NO_LINK, Report},
};

pub(super) fn links(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Links" }
            p {
                "Each link is a UDP relay between head and tail. What it was asked for and what was measured of it before "
                "the run; a rate may be 3 % off, a delay 1 ms or 2 %, and losses lie within three deviations of the "
                "binomial (wider where they come in runs). "
                @match &report.provenance.cross_check_skipped {
                    None => {
                        "The kernel's own shaping (tbf between network namespaces) was asked for the same rates, and may "
                        "be 5 % off the relay's."
                    }
                    Some(why) => { "The rates were not held against tbf: " (why) "." }
                }
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

pub(super) fn floors(report: &Report) -> Markup {
    let held: Vec<&Cell> =
        report.cells.iter().filter(|cell| cell.floor.is_some() && cell.frames > 0).collect();
    let good = held.iter().filter(|cell| cell.floor.is_some_and(|floor| floor.holds)).count();
    let links = report.links.iter().filter_map(|rung| Some((rung, worst(report, rung)?)));
    html! {
        @if !held.is_empty() {
            section {
                h2 { "Does the runtime add anything?" }
                p {
                    "The median of the total against the sum of the median of its stages, its bytes at the link's rate and "
                    "one round trip; at most 10 % + 2 ms more passes. " (good) " of " (held.len()) " cells pass."
                }
                table {
                    thead { tr {
                        th { "link" } th.n { "cells" } th.n { "pass" } th { "of them the nearest to the bound" }
                        th.n { "sum" } th.n { "at most" } th.n { "p50 ms" } th { "" }
                    } }
                    tbody { @for (rung, worst) in links { tr {
                        th { (rung.name) } td.n { (worst.cells) } td.n { (worst.pass) }
                        td { (worst.cell.task) " " (worst.cell.variant) }
                        td.n { (millis(worst.floor.sum())) } td.n { (millis(worst.floor.bound())) }
                        td.n { (millis(worst.cell.total.p50)) }
                        td { (mark(worst.cell, &worst.floor)) }
                    } } }
                }
                details { summary { "Every cell" } div.wide { table {
                    thead { tr {
                        th { "link" } th { "task" } th { "variant" } th.n { "stages" } th.n { "bytes/rate" }
                        th.n { "round trip" } th.n { "sum" } th.n { "at most" } th.n { "p50 ms" } th { "" }
                    } }
                    tbody { @for cell in held { @if let Some(floor) = &cell.floor { tr {
                        th { (cell.link) } td { (cell.task) } td { (cell.variant) }
                        td.n { (millis(floor.stages)) } td.n { (millis(floor.bytes)) } td.n { (millis(floor.rtt)) }
                        td.n { (millis(floor.sum())) } td.n { (millis(floor.bound())) }
                        td.n { (millis(cell.total.p50)) }
                        td { (mark(cell, floor)) }
                    } } } }
                } } }
            }
        }
    }
}

/// How the cells of a link stand to their floors.
struct Worst<'a> {
    cells: usize,
    pass: usize,
    /// The one with the least room, or the furthest over.
    cell: &'a Cell,
    floor: Floor,
}

fn worst<'a>(report: &'a Report, rung: &LinkSummary) -> Option<Worst<'a>> {
    let cells = report.cells.iter().filter(|cell| cell.link == rung.name && cell.frames > 0);
    let held: Vec<(&Cell, Floor)> = cells.filter_map(|cell| Some((cell, cell.floor?))).collect();
    let over = |(cell, floor): &(&Cell, Floor)| cell.total.p50 / floor.bound();
    let (cell, floor) = held.iter().copied().max_by(|a, b| over(a).total_cmp(&over(b)))?;
    let pass = held.iter().filter(|(_, floor)| floor.holds).count();
    Some(Worst { cells: held.len(), pass, cell, floor })
}

fn mark(cell: &Cell, floor: &Floor) -> Markup {
    html! {
        @if floor.holds { span.pass { "✓" } }
        @else { span.fail { "✗ +" (millis(cell.total.p50 - floor.sum())) } }
    }
}

pub(super) fn provenance_section(report: &Report) -> Markup {
    let provenance = &report.provenance;
    let runs = report.runs.iter().map(|run| format!("{} {} {}", run.link, run.task, run.variant));
    html! {
        section {
            h2 { "What the numbers rest on" }
            table.provenance { tbody {
                tr { th { "command" } td { code { (provenance.command) } } }
                tr { th { "bundle" } td { (provenance.bundle) } }
                tr { th { "started" } td { (utc(provenance.started)) ", lasted " (format!("{:.0} s", provenance.seconds)) } }
                tr { th { "rounds" } td {
                    (provenance.rounds) " rounds; in each every cell had one run, in an order drawn with seed " (provenance.seed)
                } }
                @for (name, value) in &provenance.machine { tr { th { (name) } td { (value) } } }
                @for data in &provenance.data { tr { th { "data" } td { (data) } } }
            } }
            details {
                summary { "The " (report.runs.len()) " runs, in their order" }
                ol.runs { @for run in runs { li { (run) } } }
            }
            p.faint {
                "Raw rows: rows.csv; every figure of this page: report.json; what they mean: bench/REPORT.md. "
                "Percentiles are samples, not interpolated; " (NO_LINK) " is the link of what sends nothing."
            }
        }
    }
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

    #[test]
    fn days_are_counted_right() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59 UTC");
    }
}
