//! The chart of what rate control earns on each link.

use serde_json::{Value, json};

use super::report::Report;

/// The Vega-Lite specification without its data.
const SPECIFICATION: &str = include_str!("chart.vl.json");

/// The specification with the figures of a report: a point for each link, each budget, and each choice of frames that wait.
pub(super) fn chart(report: &Report) -> Value {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let points = report.runs.iter().flat_map(|run| {
        let name = run.trace.trim_end_matches(".up");
        let (link, budget) = (format!("{name}, {:.1} Mbit/s", run.mbit), format!("{} ms", run.budget_ms));
        [("newest", &run.newest), ("all", &run.all)].map(|(waiting, figures)| {
            json!({"link": link, "budget": budget, "waiting": waiting, "percent": round(figures.percent)})
        })
    });
    let mut specification: Value =
        serde_json::from_str(SPECIFICATION).expect("the shipped specification is JSON");
    specification["data"]["values"] = points.collect();
    specification["description"] =
        json!("Value earned by rate control on recorded links, per cent of the optimum");
    specification
}
