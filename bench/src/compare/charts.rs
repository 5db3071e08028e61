//! The report's charts: the Vega-Lite specifications of the folder `charts` with figures of the report as their data.

use serde_json::{Value, json};

use super::report::{Energy, LinkSummary, Report};

const OVERVIEW: &str = include_str!("charts/overview.vl.json");
const ACCURACY: &str = include_str!("charts/accuracy.vl.json");
const LATENCY: &str = include_str!("charts/latency.vl.json");
const ENERGY: &str = include_str!("charts/energy.vl.json");

/// The stages that the latency chart shows as one part, in order.
const PARTS: [(&str, &[&str]); 5] = [
    ("read, resize", &["decode", "resize"]),
    ("head or encoder", &["head", "encode"]),
    ("network", &["network"]),
    ("tail: decode, queue", &["tail_decode", "tail_queue"]),
    ("tail: infer, answer", &["tail_infer", "tail_answer"]),
];

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Name of its file without the ending, for example `latency-classify-lte`.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub caption: String,
    /// The Vega-Lite specification with its data.
    pub spec: Value,
}

/// Every chart that the report has figures for.
#[must_use]
pub fn charts(report: &Report) -> Vec<Chart> {
    let of_task = |task| {
        let of_link = move |link| [latency(report, link, task), energy(report, link, task)];
        let links = report.links.iter().flat_map(of_link);
        [overview(report, task), accuracy(report, task)].into_iter().chain(links).flatten()
    };
    report.tasks().into_iter().flat_map(of_task).collect()
}

/// Milliseconds with three significant digits where there are so many, and at most one decimal.
#[must_use]
pub fn millis(value: f64) -> String {
    if value.abs() >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The chart of a specification, or `None` without values. Numbers are rounded to four decimals.
fn chart(name: String, caption: String, specification: &str, mut values: Vec<Value>) -> Option<Chart> {
    for field in values.iter_mut().filter_map(Value::as_object_mut).flat_map(|value| value.values_mut()) {
        if let Some(number) = field.as_f64().filter(|_| field.is_f64()) {
            *field = json!((number * 1e4).round() / 1e4);
        }
    }
    let mut spec: Value = serde_json::from_str(specification).expect("the shipped specifications are JSON");
    spec["description"] = json!(caption);
    spec["data"]["values"] = json!(values);
    (!values.is_empty()).then_some(Chart { name, caption, spec })
}

fn title(report: &Report, variant: &str) -> &'static str {
    report.variant(variant).map_or("unsplit network", |variant| variant.method.title())
}

/// The median of every variant on every link. What needs no link is shown on each of them.
fn overview(report: &Report, task: &str) -> Option<Chart> {
    let links = report.links.iter().filter(|link| report.covers(&link.name, task));
    let cells = links.flat_map(|link| report.on(&link.name, task).into_iter().map(move |cell| (link, cell)));
    let values = cells.filter(|(_, cell)| cell.frames > 0).map(|(link, cell)| {
        json!({
            "link": link.name,
            "variant": cell.variant,
            "method": title(report, &cell.variant),
            "p50": cell.total.p50,
            "low": cell.p50_interval.map(|(low, _)| low),
            "high": cell.p50_interval.map(|(_, high)| high),
            "drop": report.accuracy(task, &cell.variant).and_then(|of| of.drop),
            "bytes": cell.packet,
        })
    });
    let caption = format!(
        "{task}: median latency of every variant on every link, one frame at a time; lines are 95 % intervals where there \
         are five rounds or more. Local variants need no link and stand on each."
    );
    chart(format!("overview-{task}"), caption, OVERVIEW, values.collect())
}

/// Bytes against accuracy, or against agreement with the unsplit network.
fn accuracy(report: &Report, task: &str) -> Option<Chart> {
    let shown: Vec<_> = report.accuracy.iter().filter(|of| of.task == task).collect();
    let metric = shown.iter().find(|of| of.bytes.is_some())?.metric;
    let percent = |share: f64| 100.0 * share;
    // Without labels the unsplit network agrees with itself, and another network's agreement says nothing.
    let values = shown.iter().filter(|of| metric.has_labels() || of.bytes.is_some()).map(|of| {
        json!({
            "variant": of.variant,
            "method": title(report, &of.variant),
            "setting": report.variant(&of.variant).map(|variant| &variant.setting),
            "bytes": of.bytes,
            "value": percent(of.value),
            "low": of.interval.map(|(low, _)| percent(low)),
            "high": of.interval.map(|(_, high)| percent(high)),
        })
    });
    let caption = format!(
        "{task}: {} against bytes per frame, {} photos or frames, with 95 % intervals where the sample carries one. \
         Numbers beside points are rate levels and qualities{}.",
        metric.title(),
        shown.iter().map(|of| of.count).max().unwrap_or_default(),
        if metric.has_labels() { "; dashed lines send nothing" } else { "" }
    );
    let mut chart = chart(format!("accuracy-{task}"), caption, ACCURACY, values.collect())?;
    chart.spec["layer"][2]["encoding"]["y"]["title"] = json!(format!("{}, %", metric.title()));
    Some(chart)
}

/// The median of each part of the latency on one link, and the median of the whole.
fn latency(report: &Report, link: &LinkSummary, task: &str) -> Option<Chart> {
    let mut values = Vec::new();
    if !report.covers(&link.name, task) {
        return None;
    }
    for cell in report.on(&link.name, task).into_iter().filter(|cell| cell.frames > 0) {
        for (order, (part, stages)) in PARTS.iter().enumerate() {
            let ms: f64 = stages.iter().filter_map(|stage| cell.stages.get(*stage)).map(|of| of.p50).sum();
            values.push(json!({"variant": cell.variant, "stage": part, "order": order, "ms": ms}));
        }
        let median = millis(cell.total.p50);
        let label = match cell.p50_interval {
            Some((low, high)) => format!("{median} ({} to {})", millis(low), millis(high)),
            None => median,
        };
        values.push(json!({
            "variant": cell.variant,
            "p50": cell.total.p50,
            "p95": cell.total.p95,
            "floor": cell.floor.map(|floor| floor.sum()),
            "label": label,
        }));
    }
    let caption = format!(
        "{task} over {} ({}): the bar is the median of each part of the latency; the upright mark and the number are the \
         median of the whole, with its 95 % interval where there are five rounds or more; the thin line ends at the 95th \
         percentile; the triangle is the sum of stages, bytes at the link's rate and one round trip.",
        link.name, link.about
    );
    chart(format!("latency-{task}-{}", link.name), caption, LATENCY, values)
}

/// Energy per frame on one link, where any is known.
fn energy(report: &Report, link: &LinkSummary, task: &str) -> Option<Chart> {
    let mut values = Vec::new();
    for cell in report.on(&link.name, task).into_iter().filter(|_| report.covers(&link.name, task)) {
        let mut part = |order: usize, part: &str, joules: f64| {
            values.push(json!({"variant": cell.variant, "part": part, "order": order, "mj": 1e3 * joules}));
        };
        if let Some(radio) = cell.energy.radio() {
            part(1, "radio, modelled", radio.joules);
        }
        if let Energy::Measured { gross, net, .. } = cell.energy {
            part(0, "measured, above idle", net.max(0.0));
            values.push(json!({"variant": cell.variant, "gross": 1e3 * gross}));
        }
    }
    let caption = format!(
        "{task} over {}: millijoules per frame on the device. The upright mark is the gross figure where a sensor was \
         read. The radio's part is modelled, not measured.",
        link.name
    );
    chart(format!("energy-{task}-{}", link.name), caption, ENERGY, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        fixture::{self, Case},
        report::{Method, Radio},
    };

    fn report() -> Report {
        let mut report = fixture::report(
            fixture::link("lte", 6e6, 50.0),
            &[
                Case::new("split 1", Method::Split, 6000.0, 1.5, 80.0),
                Case::new("raw 1", Method::Raw, 24600.0, 1.5, 110.0),
                Case::new("JPEG 75", Method::Jpeg, 14000.0, 1.0, 95.0),
            ],
        );
        fixture::add_local(&mut report, "local int8", Method::Local, 4.0, 30.0);
        report
    }

    fn values<'a>(chart: &'a Chart, of: &str) -> Vec<&'a Value> {
        chart.spec["data"]["values"].as_array().unwrap().iter().filter(|value| !value[of].is_null()).collect()
    }

    #[test]
    fn charts_hold_the_figures_of_the_report() {
        let charts = charts(&report());
        let names: Vec<&str> = charts.iter().map(|chart| chart.name.as_str()).collect();
        assert_eq!(names, ["overview-classify", "accuracy-classify", "latency-classify-lte"]);
        let [overview, accuracy, latency] = &charts[..] else { panic!("three charts") };
        assert_eq!(values(overview, "p50").len(), 4);
        assert_eq!(values(accuracy, "bytes").len(), 3);
        assert_eq!(accuracy.spec["layer"][2]["encoding"]["y"]["title"], "top-1 accuracy, %");
        let medians = values(latency, "p50");
        assert_eq!((&medians[0]["p50"], &medians[0]["label"]), (&json!(80.0), &json!("80.0 (78.4 to 81.6)")));
        // 60 ms of network: 80 ms less 20 ms of other stages.
        let network = |value: &&&Value| value["stage"] == "network" && value["variant"] == "split 1";
        assert_eq!(values(latency, "stage").iter().find(network).unwrap()["ms"], 60.0);
    }

    #[test]
    fn energy_is_shown_where_any_is_known() {
        let mut report = report();
        report.cells[0].energy = Energy::Unknown {
            why: String::new(),
            radio: Some(Radio { joules: 0.05, source: "paper".into() }),
        };
        let charts = charts(&report);
        let energy = charts.iter().find(|chart| chart.name == "energy-classify-lte").unwrap();
        assert_eq!(values(energy, "part")[0]["mj"], 50.0);
    }

    #[test]
    fn every_field_that_a_specification_shows_is_in_the_data() {
        let mut report = report();
        report.cells[0].energy =
            Energy::Measured { gross: 0.2, net: 0.1, source: String::new(), radio: None };
        for chart in charts(&report) {
            let text = chart.spec["layer"].to_string() + &chart.spec["encoding"].to_string();
            for field in text.split("\"field\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let known = |value: &Value| value.get(field).is_some();
                assert!(chart.spec["data"]["values"].as_array().unwrap().iter().any(known), "{field}");
            }
        }
    }

    #[test]
    fn a_report_without_figures_has_no_charts() {
        assert_eq!(charts(&fixture::report(fixture::link("lte", 6e6, 50.0), &[])), []);
    }

    #[test]
    fn milliseconds_have_three_digits() {
        assert_eq!([0.04, 99.94, 99.96, 1234.6].map(millis), ["0.0", "99.9", "100", "1235"]);
    }
}
