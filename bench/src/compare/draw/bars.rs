//! Latency stacked by stage and energy, one bar for each variant on a link.

use anyhow::Result;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

use super::{
    Picture,
    parts::{self, DEEP, FAINT, GREEN, GRID, Hatch, INK, ORANGE, PURPLE, RUST, SKY, YELLOW},
};
use crate::compare::report::{Cell, Energy, LinkSummary, Method, Report};

const WIDE: u32 = 860;
/// Pixels of one bar and the space below it.
const ROW: i32 = 25;
/// Pixels of names, left of the bars.
const NAMES: i32 = 110;
/// Pixels of the legend above and the axis below the bars.
const TOP: i32 = 46;
const BOTTOM: i32 = 52;

/// One part of a bar: what it is called, how it looks, how long it is.
struct Part {
    title: &'static str,
    colour: RGBColor,
    hatch: Hatch,
    length: f64,
}

/// One bar.
struct Bar {
    name: String,
    parts: Vec<Part>,
    /// Beyond the parts: where a thin line ends.
    whisker: Option<f64>,
    /// A mark across the bar.
    tick: Option<f64>,
    /// At the right of the bar.
    text: String,
}

/// Medians of each stage on one link.
pub(super) fn latency(report: &Report, rung: &LinkSummary, task: &str) -> Result<Option<Picture>> {
    let bars = ordered(report, rung, task, |cell| cell.frames > 0).into_iter().map(|cell| {
        let stage = |names: &[&str]| -> f64 {
            names.iter().filter_map(|name| cell.stages.get(*name)).map(|stage| stage.p50).sum()
        };
        let part = |title, colour, hatch, names: &[&str]| Part { title, colour, hatch, length: stage(names) };
        Bar {
            name: cell.variant.clone(),
            parts: vec![
                part("read, resize", YELLOW, Hatch::None, &["decode", "resize"]),
                part("head or encoder", DEEP, Hatch::Rising, &["head", "encode"]),
                part("network", SKY, Hatch::None, &["network"]),
                part("tail: decode, wait", ORANGE, Hatch::Falling, &["tail_decode", "tail_queue"]),
                part("tail: infer, answer", GREEN, Hatch::Crossed, &["tail_infer", "tail_answer"]),
            ],
            whisker: Some(cell.total.p95),
            tick: cell.floor.map(|floor| floor.sum()),
            text: parts::millis(cell.total.p50),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    if bars.is_empty() {
        return Ok(None);
    }
    Ok(Some(Picture {
        name: format!("latency-{task}-{}", rung.name),
        caption: format!(
            "{task} over {}: median milliseconds of each stage, one frame at a time; the number is the median of the \
             total, the thin line ends at the 95th percentile, the upright mark is stages + bytes/rate + round trip.",
            rung.about
        ),
        svg: bar_chart(&bars, "milliseconds")?,
    }))
}

/// Joules per frame on one link, where any are known.
pub(super) fn energy(report: &Report, rung: &LinkSummary, task: &str) -> Result<Option<Picture>> {
    let known = |cell: &Cell| matches!(cell.energy, Energy::Measured { .. }) || cell.energy.radio().is_some();
    let bars = ordered(report, rung, task, known).into_iter().map(|cell| {
        let (net, gross) = match &cell.energy {
            Energy::Measured { net, gross, .. } => (net.max(0.0), Some(*gross)),
            Energy::Unknown { .. } => (0.0, None),
        };
        let radio = cell.energy.radio().map_or(0.0, |radio| radio.joules);
        Bar {
            name: cell.variant.clone(),
            parts: vec![
                Part { title: "measured, above idle", colour: RUST, hatch: Hatch::None, length: 1e3 * net },
                Part { title: "radio, modelled", colour: PURPLE, hatch: Hatch::Upright, length: 1e3 * radio },
            ],
            whisker: gross.map(|gross| 1e3 * gross),
            tick: None,
            text: format!("{} mJ", parts::short(1e3 * (net + radio))),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    if bars.is_empty() {
        return Ok(None);
    }
    Ok(Some(Picture {
        name: format!("energy-{task}-{}", rung.name),
        caption: format!(
            "{task} over {}: millijoules per frame on the device above idle; the thin line ends at the gross figure where \
             a sensor was read. Hatched parts are modelled, not measured.",
            rung.about
        ),
        svg: bar_chart(&bars, "millijoules per frame")?,
    }))
}

/// The cells of a link by path, then by setting.
fn ordered<'a>(
    report: &'a Report,
    rung: &'a LinkSummary,
    task: &'a str,
    shown: impl Fn(&Cell) -> bool,
) -> Vec<&'a Cell> {
    let place = |cell: &Cell| {
        let index = report.variants.iter().position(|variant| variant.name == cell.variant)?;
        let group = report.variants[index].group;
        Some((Method::ALL.iter().position(|other| *other == group)?, index))
    };
    let mut cells: Vec<&Cell> = report.on(&rung.name, task).filter(|cell| shown(cell)).collect();
    cells.sort_by_key(|cell| place(cell));
    cells
}

fn bar_chart(bars: &[Bar], unit: &str) -> Result<String> {
    let high = TOP + ROW * bars.len() as i32 + BOTTOM;
    let length = |bar: &Bar| -> f64 { bar.parts.iter().map(|part| part.length).sum() };
    let most =
        bars.iter().map(|bar| length(bar).max(bar.whisker.unwrap_or(0.0)).max(bar.tick.unwrap_or(0.0)));
    let most = most.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    parts::picture((WIDE, high as u32), |area| {
        let mut x = NAMES;
        let shown = |title: &str| {
            bars.iter().flat_map(|bar| &bar.parts).any(|part| part.title == title && part.length > 0.0)
        };
        for part in bars[0].parts.iter().filter(|part| shown(part.title)) {
            let y = 20;
            parts::block(area, [(x, y - 7), (x + 24, y + 7)], part.colour, part.hatch)?;
            parts::text(area, part.title, (x + 30, y), 13, &INK, (HPos::Left, VPos::Center))?;
            x += 30 + parts::width(part.title, 13) + 12;
        }
        let mut chart = ChartBuilder::on(area)
            .margin_top(TOP)
            .margin_bottom(8)
            .margin_right(70)
            .x_label_area_size(BOTTOM - 8)
            .set_label_area_size(LabelAreaPosition::Left, NAMES)
            .build_cartesian_2d(0.0..1.02 * most, 0.0..bars.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_labels(8)
            .x_label_formatter(&|value| parts::round(*value))
            .label_style((parts::FONT, 14).into_font().color(&INK))
            .axis_desc_style((parts::FONT, 16).into_font().color(&INK))
            .x_desc(unit)
            .draw()?;
        let column = |value: f64| chart.backend_coord(&(value, 0.0)).0;
        for (index, bar) in bars.iter().enumerate() {
            let top = TOP + ROW * index as i32 + 4;
            let (bottom, middle) = (top + ROW - 9, top + (ROW - 9) / 2);
            let name = (NAMES - 8, middle);
            parts::text(area, &bar.name, name, 13, &INK, (HPos::Right, VPos::Center))?;
            let mut from = 0.0;
            for part in &bar.parts {
                let corners = [(column(from), top), (column(from + part.length), bottom)];
                parts::block(area, corners, part.colour, part.hatch)?;
                from += part.length;
            }
            let mut end = column(from);
            if let Some(whisker) = bar.whisker.filter(|whisker| *whisker > from) {
                let to = column(whisker);
                area.draw(&PathElement::new(vec![(end, middle), (to, middle)], INK.stroke_width(1)))?;
                area.draw(&PathElement::new(vec![(to, middle - 4), (to, middle + 4)], INK.stroke_width(1)))?;
                end = to;
            }
            if let Some(tick) = bar.tick {
                let x = column(tick);
                area.draw(&PathElement::new(vec![(x, top - 3), (x, bottom + 3)], INK.stroke_width(3)))?;
                end = end.max(x);
            }
            parts::text(area, &bar.text, (end + 6, middle), 12, &FAINT, (HPos::Left, VPos::Center))?;
        }
        Ok(())
    })
}
