//! The report as one page: no script, no network, every picture inside.

mod basis;
mod task;

use anyhow::Result;
use basis::{floors, links, provenance_section};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use task::{accuracies, cells, claims, stages, unknown_joules, winners};

use super::{draw::Picture, report::Report};

const STYLE: &str = include_str!("report.css");

/// The page.
pub fn page(report: &Report, pictures: &[Picture]) -> Result<String> {
    let picture = |name: &str| pictures.iter().find(|picture| picture.name == name).map(figure);
    let provenance = &report.provenance;
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
                    "network, between the real head and the real tail. " (short(&provenance.bundle)) ", narrows " (provenance.version)
                    ", commit " (provenance.commit) "."
                }
                @if !provenance.complete {
                    p.incomplete {
                        strong { "INCOMPLETE. " }
                        (provenance.incomplete_because.as_deref().unwrap_or("The run ended early."))
                        " What was measured until then is below."
                    }
                }
                @for note in &provenance.notes { p.note { (note) } }
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
                        (unknown_joules(report, task))
                        @for rung in &report.links {
                            @if report.cells.iter().any(|cell| cell.link == rung.name && cell.task == task) {
                                h3 { (rung.name) ": " (rung.about) }
                                (picture(&format!("latency-{task}-{}", rung.name)).unwrap_or_default())
                                (cells(report, rung, task))
                                (stages(report, rung, task))
                                (picture(&format!("energy-{task}-{}", rung.name)).unwrap_or_default())
                            }
                        }
                    }
                }
                (links(report))
                (floors(report))
                (provenance_section(report))
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

/// A name and a version with the start of their digest.
fn short(bundle: &str) -> &str {
    let digest = bundle.rfind(' ').map_or(bundle.len(), |space| space + 1 + 12);
    bundle.get(..digest).unwrap_or(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        claims, draw,
        fixture::{self, Case},
        judge,
        report::Method,
    };

    fn report() -> Report {
        let mut report = fixture::report(
            fixture::rung("lora", 37.5e3, 100.0),
            &[
                Case::new("split 1", Method::Split, 6000.0, 1.5, 1400.0),
                Case::new("JPEG 75", Method::Jpeg, 14000.0, 1.0, 3200.0),
            ],
        );
        report.winners = judge::winners(&report);
        report.claims = claims::claims(&report);
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
        assert!(page.contains("unknown, and why: no sensor was found."));
        assert!(page.contains("rates were not held against tbf: no root"));
        assert!(!page.contains("INCOMPLETE"));
    }

    #[test]
    fn an_interrupted_run_is_marked() {
        let mut report = report();
        report.provenance.complete = false;
        report.provenance.incomplete_because = Some("interrupted in round 2 of 3".into());
        let page = page(&report, &[]).unwrap();
        assert!(page.contains("INCOMPLETE") && page.contains("interrupted in round 2 of 3"));
    }
}
