//! Rows and reports for tests.

use super::report::*;

/// A link with the same rate in both directions.
pub(crate) fn link(name: &str, rate: f64, rtt_ms: f64) -> LinkSummary {
    LinkSummary {
        name: name.into(),
        about: format!("the link {name}"),
        up: Some(rate),
        down: Some(rate),
        rtt_ms,
        loss: 0.0,
    }
}

/// An answered frame of 6,000 bytes whose stages but the network take 20 ms.
pub(crate) fn row(link: &str, variant: &str, frame: u64, total: f64) -> Row {
    Row {
        link: link.into(),
        variant: variant.into(),
        task: "classify".into(),
        in_flight: 1,
        frame,
        file: "cat.png".into(),
        answered: true,
        packet: Some(6000),
        sent: Some(6060),
        received: Some(310),
        decode: Some(4.0),
        resize: Some(1.0),
        head: Some(2.0),
        encode: Some(1.0),
        network: Some(total - 20.0),
        tail_decode: Some(0.5),
        tail_queue: Some(0.5),
        tail_infer: Some(10.0),
        tail_answer: Some(1.0),
        total: Some(total),
        at: total * frame as f64,
        ..Row::default()
    }
}

/// A run of `frames` frames, one at a time.
pub(crate) fn run(link: &str, variant: &str, frames: usize) -> Run {
    Run {
        link: link.into(),
        variant: variant.into(),
        task: "classify".into(),
        in_flight: 1,
        frames,
        seconds: 1.0,
        load: Some(0.5),
        mhz: Some(2400.0),
        ..Run::default()
    }
}

/// One variant over one link.
pub(crate) struct Case {
    name: &'static str,
    method: Method,
    bytes: f64,
    drop: f64,
    p50: f64,
}

impl Case {
    pub(crate) fn new(name: &'static str, method: Method, bytes: f64, drop: f64, p50: f64) -> Self {
        Case { name, method, bytes, drop, p50 }
    }
}

/// A report over one link, without [`Report::fastest`].
pub(crate) fn report(link: LinkSummary, cases: &[Case]) -> Report {
    let mut report = Report {
        schema: SCHEMA,
        provenance: Provenance {
            complete: true,
            incomplete_because: None,
            version: "0.0.0".into(),
            commit: "0123abc".into(),
            bundle: "toy 0.1.0 0123456789ab".into(),
            command: "narrows-bench compare".into(),
            started: 1_700_000_000,
            seconds: 60.0,
            seed: 1,
            rounds: 2,
            machine: vec![("processor".into(), "a <b> & c".into())],
            data: vec!["6 photos".into()],
            notes: Vec::new(),
        },
        links: vec![link],
        variants: Vec::new(),
        accuracy: vec![accuracy(UNSPLIT, 0.0, None)],
        cells: Vec::new(),
        fastest: Vec::new(),
        runs: Vec::new(),
    };
    let link = report.links[0].name.clone();
    for case in cases {
        add(&mut report, &link, case);
    }
    report
}

/// Split 1 loses 1.5 points, split 2 four; JPEG 50 loses 3, JPEG 75 loses 1; each is known to one point. A round trip
/// takes 50 ms.
pub(crate) fn four(up: f64, p50: [f64; 4]) -> Report {
    let [fine, coarse, q50, q75] = p50;
    report(
        link("link", up, 50.0),
        &[
            Case::new("split 1", Method::Split, 6000.0, 1.5, fine),
            Case::new("split 2", Method::Split, 3000.0, 4.0, coarse),
            Case::new("JPEG 50", Method::Jpeg, 9000.0, 3.0, q50),
            Case::new("JPEG 75", Method::Jpeg, 14000.0, 1.0, q75),
        ],
    )
}

/// Adds a variant that answers on the device.
pub(crate) fn add_local(report: &mut Report, name: &'static str, method: Method, drop: f64, p50: f64) {
    add(report, NO_LINK, &Case::new(name, method, 0.0, drop, p50));
    let cell = report.cells.last_mut().unwrap();
    (cell.packet, cell.floor) = (None, None);
    report.accuracy.last_mut().unwrap().bytes = None;
}

fn add(report: &mut Report, link: &str, case: &Case) {
    let summary = &report.links[0];
    let bytes = case.bytes * 8e3 / summary.up.unwrap();
    let floor = Floor { stages: 20.0, bytes, rtt: summary.rtt_ms };
    report.variants.push(Variant {
        name: case.name.into(),
        method: case.method,
        setting: case.name.rsplit(' ').next().unwrap().into(),
        flags: Vec::new(),
    });
    report.accuracy.push(accuracy(case.name, case.drop, Some(case.bytes)));
    let spread = |p50: f64| Percentiles { p50, p95: Some(1.1 * p50), p99: None };
    let stages = [4.0, 1.0, 2.0, 1.0, case.p50 - 20.0, 0.5, 0.5, 10.0, 1.0];
    let stages = STAGES.iter().zip(stages).map(|(name, p50)| ((*name).to_owned(), spread(p50)));
    report.cells.push(Cell {
        link: link.into(),
        variant: case.name.into(),
        task: "classify".into(),
        frames: 30,
        rounds: 5,
        failed: 0,
        total: spread(case.p50),
        p50_interval: Some((0.98 * case.p50, 1.02 * case.p50)),
        stages: stages.collect(),
        packet: Some(case.bytes),
        request: Some((case.bytes + 60.0, 310.0)),
        wire: Some((case.bytes + 300.0, 500.0)),
        pipelined: Some(Pipelined { in_flight: 4, frames: 20, rate: 2e3 / case.p50 }),
        energy: Energy::Unknown { why: "no sensor was found".into(), radio: None },
        floor: Some(floor),
    });
}

fn accuracy(variant: &str, drop: f64, bytes: Option<f64>) -> Accuracy {
    let value = 0.898 - drop / 100.0;
    Accuracy {
        task: "classify".into(),
        variant: variant.into(),
        metric: Metric::Top1,
        count: 500,
        value,
        interval: Some((value - 0.03, value + 0.03)),
        drop: Some(drop),
        drop_interval: Some((drop - 1.0, drop + 1.0)),
        bytes,
    }
}
