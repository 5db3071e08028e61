//! The report as one page that needs no network: tables, charts and the library that draws them are inside.

mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tables::{accuracy, cells, date, fastest, floors, provenance, stages, text, unknown_energy};

use super::{
    charts::Chart,
    report::{Provenance, Report},
};

const STYLE: &str = include_str!("report.css");
const VEGA: &str = include_str!("../../vendor/vega.min.js");
const VEGA_LITE: &str = include_str!("../../vendor/vega-lite.min.js");
const DRAW: &str = include_str!("page/charts.js");
/// Nothing but what is in the file itself may be loaded. Vega compiles its expressions to functions.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:";

/// The page.
#[must_use]
pub fn page(report: &Report, charts: &[Chart]) -> String {
    let chart = |name: String| charts.iter().find(|chart| chart.name == name).map(figure).unwrap_or_default();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "narrows: local, offload or split?" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (introduction(&report.provenance))
                @for task in report.tasks() {
                    section {
                        h2 { (task) }
                        (chart(format!("overview-{task}")))
                        (fastest(report, task))
                        (accuracy(report, task, &chart(format!("accuracy-{task}"))))
                        @for link in report.links.iter().filter(|link| report.covers(&link.name, task)) {
                            h3 { (task) " over " (link.name) ": " (link.about) }
                            (chart(format!("latency-{task}-{}", link.name)))
                            (cells(report, link, task))
                            (stages(report, link, task))
                            (chart(format!("energy-{task}-{}", link.name)))
                        }
                        (unknown_energy(report, task))
                    }
                }
                (floors(report))
                (provenance(report))
                @if !charts.is_empty() {
                    @for library in [VEGA, VEGA_LITE, DRAW] { script { (PreEscaped(without_source_map(library))) } }
                }
            }
        }
    };
    page.into_string()
}

fn introduction(provenance: &Provenance) -> Markup {
    let fact =
        |wanted: &str| provenance.machine.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    // Name and version of the bundle with the start of its digest.
    let digest = provenance.bundle.rfind(' ').map_or(usize::MAX, |space| space + 1 + 12);
    html! {
        h1 { "Local, offload or split?" }
        p.lead {
            "The same frames through the device alone, through images sent to a server and through a split network, with "
            "the real " code { "narrows-head" } " and " code { "narrows-tail" } " over emulated links. Bundle "
            (provenance.bundle.get(..digest).unwrap_or(&provenance.bundle)) ", narrows " (provenance.version) ", commit "
            (provenance.commit) ", " (date(provenance.started)) "."
        }
        p.note {
            strong { "The device is the processor that ran the comparison" }
            @if let Some(processor) = fact("processor") { " (" (processor) ")" }
            ", not an embedded board: head, server and link emulation shared its cores. Times of its stages do not carry "
            "over to another processor; bytes and accuracy do."
        }
        @if !provenance.complete {
            p.incomplete {
                strong { "INCOMPLETE. " }
                (text(provenance.incomplete_because.as_deref().unwrap_or("The run ended early.")))
                " What was measured until then is below."
            }
        }
        @for note in &provenance.notes { p.note { (text(note)) } }
    }
}

fn figure(chart: &Chart) -> Markup {
    // Inside a script element only `</script` and `<!--` end or change the text.
    let spec = chart.spec.to_string().replace('<', "\\u003c");
    html! {
        figure.chart id=(chart.name) {
            script type="application/json" { (PreEscaped(spec)) }
            div {}
            figcaption { (chart.caption) }
        }
    }
}

/// A script without the comment that makes a browser's tools look for another file.
fn without_source_map(script: &str) -> &str {
    script.split("//# sourceMappingURL=").next().unwrap_or(script)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        charts, fastest,
        fixture::{self, Case},
        report::{Method, Metric},
    };

    fn report() -> Report {
        let mut report = fixture::report(
            fixture::link("lora", 37.5e3, 100.0),
            &[
                Case::new("split 1", Method::Split, 6000.0, 0.5, 1400.0),
                Case::new("JPEG 75", Method::Jpeg, 14000.0, 1.0, 3200.0),
            ],
        );
        report.fastest = fastest::fastest(&report);
        report
    }

    /// The page without its scripts, which hold backticks and addresses of their own.
    fn markup(report: &Report) -> String {
        let page = page(report, &charts::charts(report));
        let parts = page.split("<script").enumerate();
        parts
            .filter_map(|(index, part)| if index == 0 { Some(part) } else { part.split("</script>").nth(1) })
            .collect()
    }

    #[test]
    fn the_page_stands_alone() {
        let report = report();
        let page = page(&report, &charts::charts(&report));
        assert!(page.contains("default-src 'none'") && !page.contains("sourceMappingURL"));
        // Three charts, their library in two parts and what starts it.
        assert_eq!(page.matches("<script").count(), 3 + 3);
        assert_eq!(page.matches("</script>").count(), 3 + 3);
        let markup = markup(&report);
        for outside in ["<link", "src=", "@import", "url("] {
            assert!(!markup.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_page_says_what_the_device_is_before_any_figure() {
        let markup = markup(&report());
        let device = markup.find("not an embedded board").unwrap();
        assert!(device < markup.find("<table").unwrap() && device < markup.find("<figure").unwrap());
        assert!(markup.contains("a &lt;b&gt; &amp; c"), "text is escaped");
        assert!(markup.contains("2023-11-14T22:13:20Z"));
    }

    #[test]
    fn backticks_become_code() {
        let mut report = report();
        report.provenance.notes = vec!["give `--data` for labels".into()];
        let markup = markup(&report);
        assert!(markup.contains("give <code>--data</code> for labels") && !markup.contains('`'));
    }

    #[test]
    fn agreement_is_not_called_accuracy() {
        let mut report = report();
        report.accuracy.iter_mut().for_each(|of| of.metric = Metric::Agreement);
        let markup = markup(&report);
        assert!(markup.contains("Bytes and agreement with the unsplit network"), "{markup}");
        assert!(!markup.contains("top-1 accuracy") && !markup.contains("Bytes and accuracy"));
    }

    #[test]
    fn what_cannot_be_concluded_is_said() {
        let mut report = report();
        assert!(markup(&report).contains("<strong>split 1 1400 ms</strong>"));
        report.cells.iter_mut().for_each(|cell| (cell.p50_interval, cell.rounds) = (None, 2));
        report.fastest = fastest::fastest(&report);
        let markup = markup(&report);
        assert!(markup.contains("cannot be concluded: 2 of 5 rounds") && !markup.contains("<strong>split 1"));
    }

    #[test]
    fn unknown_energy_says_why() {
        let markup = markup(&report());
        assert!(markup.contains("Energy is unknown: no sensor was found."));
        assert!(!markup.contains("INCOMPLETE"));
    }

    #[test]
    fn an_interrupted_run_is_marked() {
        let mut report = report();
        report.provenance.complete = false;
        report.provenance.incomplete_because = Some("interrupted in round 2 of 3".into());
        let markup = markup(&report);
        assert!(markup.contains("INCOMPLETE") && markup.contains("interrupted in round 2 of 3"));
    }
}
