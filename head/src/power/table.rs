//! Sensors and joules as tables.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use narrows_power::{Absent, Measured, Quality, Rail};

use super::report::Report;

/// The rails that can be measured, and the sensors that cannot be read.
pub(super) fn listing(board: Option<&str>, rails: &[&Rail], absent: &[Absent]) -> String {
    let mut text = board.map(|board| format!("{board}\n")).unwrap_or_default();
    if rails.is_empty() {
        text += "No power sensor can be read on this device.\n";
    } else {
        let mut table = table(&["rail", "covers", "sensor", "every", "quality"]);
        for rail in rails {
            let name = match &rail.part_of {
                Some(whole) => format!("{}, in {whole}", rail.name),
                None => rail.name.clone(),
            };
            let every = format!("{} ms", rail.interval.as_millis());
            table.add_row([name, rail.covers.clone(), rail.sensor.clone(), every, quality(rail).to_owned()]);
        }
        let _ = writeln!(text, "{table}");
    }
    add_absent(&mut text, absent);
    text
}

/// Joules per rail, the total, and the reasons to rely less on them.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    if !report.rails.is_empty() {
        let mut table = table(&["rail", "gross J", "net J", "mean W", "idle W", "missing s", "quality"]);
        for column in 1..=5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for one in &report.rails {
            table.add_row([
                one.rail.name.clone(),
                one.watts.map_or_else(unknown, |_| figure(one.gross.joules)),
                one.net_joules.map_or_else(unknown, figure),
                one.watts.map_or_else(unknown, figure),
                one.idle.map_or_else(unknown, |idle| figure(idle.watts)),
                figure(one.gross.missing_s),
                quality(&one.rail).to_owned(),
            ]);
        }
        let _ = writeln!(text, "{table}");
    }
    match (&report.total, &report.unknown) {
        (Some(total), _) => {
            let net =
                total.net_joules.map_or_else(String::new, |net| format!(", {} J net of idle", figure(net)));
            let rails = total.rails.join(" + ");
            let _ =
                writeln!(text, "{rails}: {} J in {:.2} s{net}", figure(total.gross_joules), report.seconds);
        }
        (None, why) => {
            let why = why.as_deref().unwrap_or("nothing was read");
            let _ = writeln!(text, "joules unknown in {:.2} s: {why}", report.seconds);
        }
    }
    for one in &report.rails {
        add_remarks(&mut text, one);
    }
    if !report.throttled.is_empty() {
        let _ = writeln!(
            text,
            "throttled meanwhile, so not the joules of this board at full speed: {}",
            report.throttled.join(", ")
        );
    }
    for remark in &report.remarks {
        let _ = writeln!(text, "{remark}");
    }
    if let Some(cost) = &report.sampler {
        let share =
            cost.share().map_or_else(|| "unknown".to_owned(), |share| format!("{:.2} %", share * 1e2));
        let _ = writeln!(text, "sampling: {} reads, {share} of one core", cost.reads);
    }
    for failure in &report.failures {
        let _ = writeln!(text, "{failure}");
    }
    add_absent(&mut text, &report.absent);
    if report.interrupted {
        text += "interrupted: these figures are of what was done until then\n";
    }
    text
}

fn add_remarks(text: &mut String, one: &Measured) {
    let name = &one.rail.name;
    for gap in &one.gross.gaps {
        let what = if gap.counted { "counted all the same" } else { "not in the joules" };
        let _ = writeln!(text, "{name}: no readings from {:.2} s to {:.2} s, {what}", gap.from_s, gap.to_s);
    }
    for remark in &one.remarks {
        let _ = writeln!(text, "{name}: {remark}");
    }
}

fn add_absent(text: &mut String, absent: &[Absent]) {
    for absent in absent {
        let _ = writeln!(text, "{}: {}", absent.sensor, absent.reason);
        if let Some(remedy) = &absent.remedy {
            let _ = writeln!(text, "    {remedy}");
        }
    }
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(heads);
    table
}

fn quality(rail: &Rail) -> &'static str {
    match rail.quality {
        Quality::Measured => "measured",
        Quality::Estimated => "estimated",
    }
}

fn figure(value: f64) -> String {
    // A rounded zero has no minus sign.
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    format!("{value:.2}")
}

fn unknown() -> String {
    "unknown".to_owned()
}
