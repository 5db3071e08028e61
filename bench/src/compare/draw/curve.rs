//! Bytes against accuracy.

use anyhow::Result;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

use super::{
    Picture,
    parts::{self, FAINT, GRID, INK},
};
use crate::compare::report::{Accuracy, Method, Report, UNSPLIT};

const SIZE: (u32, u32) = (760, 460);
/// Pixels of the legend's line.
const TOP: i32 = 44;

/// A task's curve, unless nothing that sends bytes was measured.
pub(super) fn draw(report: &Report, task: &str) -> Result<Option<Picture>> {
    let of = |group: Method| {
        let mut points: Vec<(&Accuracy, f64, &str)> = report
            .variants
            .iter()
            .filter(|variant| variant.group == group)
            .filter_map(|variant| {
                let accuracy = report.accuracy(task, &variant.name)?;
                Some((accuracy, accuracy.bytes?, variant.setting.as_str()))
            })
            .collect();
        points.sort_by(|a, b| a.1.total_cmp(&b.1));
        points
    };
    let sending = [Method::Split, Method::Raw, Method::Jpeg, Method::Webp];
    let curves: Vec<(Method, Vec<_>)> = sending
        .map(|group| (group, of(group)))
        .into_iter()
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let flat: Vec<(&Accuracy, String)> = report
        .accuracy
        .iter()
        .filter(|accuracy| accuracy.task == task && accuracy.bytes.is_none())
        .map(|accuracy| (accuracy, accuracy.variant.clone()))
        .collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let Some(metric) = points().next().map(|(accuracy, ..)| accuracy.metric) else { return Ok(None) };

    let bytes = points().map(|(_, bytes, _)| *bytes);
    let (least, most) =
        bytes.fold((f64::MAX, 0.0), |(least, most): (f64, f64), b| (least.min(b), most.max(b)));
    let x = (0.8 * least, 1.3 * most);
    let shown = points().map(|(accuracy, ..)| *accuracy).chain(flat.iter().map(|(accuracy, _)| *accuracy));
    let (low, high) = shown.fold((1.0, 0.0), |(low, high): (f64, f64), accuracy| {
        (low.min(accuracy.interval.0), high.max(accuracy.interval.1))
    });
    let y = (100.0 * (low - 0.02).max(0.0), 100.0 * (high + 0.02).min(1.0));

    let svg = parts::picture(SIZE, |area| {
        let groups: Vec<Method> = curves.iter().map(|(group, _)| *group).collect();
        parts::legend(area, &groups, (70, 20))?;
        let axis = (parts::FONT, 14).into_font().color(&INK);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_top(TOP)
            .margin_right(118)
            .x_label_area_size(46)
            .y_label_area_size(56)
            .build_cartesian_2d(
                (x.0..x.1).log_scale().with_key_points(parts::log_ticks(x.0, x.1)),
                y.0..y.1,
            )?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(axis.clone())
            .axis_desc_style((parts::FONT, 16).into_font().color(&INK))
            .x_desc("bytes per frame (logarithmic)")
            .y_desc(format!("{}, %", metric.title()))
            .x_label_formatter(&|bytes| match *bytes {
                b if b >= 1000.0 => format!("{} k", b / 1000.0),
                b => format!("{b}"),
            })
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        // What sends nothing: a level across the picture, named at the right where there is room.
        let mut taken: Vec<i32> = Vec::new();
        let right = chart.backend_coord(&(x.1, y.0)).0;
        for (accuracy, name) in &flat {
            let value = 100.0 * accuracy.value;
            let group = report.variant(name).map(|variant| variant.group);
            let colour = group.map_or(INK, parts::colour);
            let ends = [(x.0, value), (x.1, value)];
            if name == UNSPLIT {
                chart.draw_series(LineSeries::new(ends, colour.stroke_width(1)))?;
            } else {
                chart.draw_series(DashedLineSeries::new(ends, 6, 4, colour.stroke_width(2)))?;
            }
            let mut row = chart.backend_coord(&ends[1]).1;
            while let Some(other) = taken.iter().find(|other| (row - **other).abs() < 15) {
                row = other + 15;
            }
            taken.push(row);
            let text = format!("{name} {}", parts::short(value));
            parts::text(area, &text, (right + 6, row), 12, &INK, (HPos::Left, VPos::Center))?;
        }
        for (group, points) in &curves {
            let line = points.iter().map(|(accuracy, bytes, _)| (*bytes, 100.0 * accuracy.value));
            chart.draw_series(LineSeries::new(line, parts::colour(*group).stroke_width(2)))?;
        }
        for (group, points) in &curves {
            for (accuracy, bytes, setting) in points {
                let pixel = |value: f64| chart.backend_coord(&(*bytes, 100.0 * value));
                let (at, low, high) =
                    (pixel(accuracy.value), pixel(accuracy.interval.0), pixel(accuracy.interval.1));
                area.draw(&PathElement::new(vec![low, high], parts::colour(*group).stroke_width(1)))?;
                for (x, y) in [low, high] {
                    let cap = vec![(x - 3, y), (x + 3, y)];
                    area.draw(&PathElement::new(cap, parts::colour(*group).stroke_width(1)))?;
                }
                parts::mark(area, *group, at, 5)?;
                // Curves rise to the right: room is above a split's points and below a JPEG's.
                let (offset, anchor) = match group {
                    Method::Split => ((-6, -6), (HPos::Right, VPos::Bottom)),
                    Method::Webp => ((7, -5), (HPos::Left, VPos::Bottom)),
                    Method::Raw => ((0, 20), (HPos::Center, VPos::Center)),
                    _ => ((7, 6), (HPos::Left, VPos::Top)),
                };
                let at = (at.0 + offset.0, at.1 + offset.1);
                parts::text(area, setting, at, 12, &FAINT, anchor)?;
            }
        }
        Ok(())
    })?;
    let count = points().map(|(accuracy, ..)| accuracy.count).max().unwrap_or_default();
    Ok(Some(Picture {
        name: format!("accuracy-{task}"),
        caption: format!(
            "{task}: {} against bytes per frame, {count} photos or frames, 95 % intervals. Numbers beside points are \
             rate levels and qualities.",
            metric.title()
        ),
        svg,
    }))
}
