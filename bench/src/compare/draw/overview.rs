//! Every link in one picture: the split, the image at equal accuracy, and the device alone.

use anyhow::Result;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

use super::{
    Picture,
    parts::{self, GRID, INK},
};
use crate::compare::{
    judge::points,
    report::{Claim, Method, NO_LINK, Pair, Report},
};

const WIDE: u32 = 860;
/// Pixels of one link.
const ROW: i32 = 38;
/// Pixels of names, left of the marks.
const NAMES: i32 = 170;
/// Pixels of the legend above and the axis below.
const TOP: i32 = 64;
const BOTTOM: i32 = 52;

/// A task's overview, unless there is nothing to compare.
pub(super) fn draw(report: &Report, task: &str) -> Result<Option<Picture>> {
    let claims: Vec<&Claim> = report.claims.iter().filter(|claim| claim.task == task).collect();
    if claims.is_empty() {
        return Ok(None);
    }
    let group = |variant: &str| report.variant(variant).map(|variant| variant.group);
    let local: Vec<(&str, f64)> = report
        .on(NO_LINK, task)
        .filter(|cell| cell.frames > 0)
        .map(|cell| (cell.variant.as_str(), cell.total.p50))
        .collect();
    let split = |claim: &Claim| claim.pair().map_or_else(|| claim.split.clone(), |pair| pair.split);
    // The same symbols, eight bits each: the same level's raw cell.
    let raw = |claim: &Claim| {
        let setting = &report.variant(&split(claim).variant)?.setting;
        let raw = report
            .variants
            .iter()
            .find(|variant| variant.group == Method::Raw && variant.setting == *setting)?;
        let cell = report
            .cells
            .iter()
            .find(|cell| cell.link == claim.link && cell.task == task && cell.variant == raw.name)?;
        (cell.frames > 0).then_some(cell.total.p50)
    };
    let all = claims
        .iter()
        .flat_map(|claim| [Some(split(claim).p50), claim.pair().map(|pair| pair.offload.p50), raw(claim)])
        .flatten()
        .chain(local.iter().map(|(_, p50)| *p50));
    let (least, most) =
        all.fold((f64::MAX, 0.0), |(least, most): (f64, f64), ms| (least.min(ms), most.max(ms)));
    let x = (0.7 * least, 1.4 * most);
    let high = TOP + ROW * claims.len() as i32 + BOTTOM;
    let svg = parts::picture((WIDE, high as u32), |area| {
        let shown = |group: Method| report.variants.iter().any(|variant| variant.group == group);
        let groups: Vec<Method> = [Method::Split, Method::Raw, Method::Jpeg, Method::Webp]
            .into_iter()
            .filter(|group| shown(*group))
            .collect();
        parts::legend(area, &groups, (NAMES, 20))?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(TOP)
            .margin_bottom(8)
            .margin_right(190)
            .x_label_area_size(BOTTOM - 8)
            .set_label_area_size(LabelAreaPosition::Left, NAMES)
            .build_cartesian_2d(
                (x.0..x.1).log_scale().with_key_points(parts::log_ticks(x.0, x.1)),
                0.0..claims.len() as f64,
            )?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_label_formatter(&|ms| format!("{ms}"))
            .label_style((parts::FONT, 14).into_font().color(&INK))
            .axis_desc_style((parts::FONT, 16).into_font().color(&INK))
            .x_desc("milliseconds per frame, median (logarithmic)")
            .draw()?;
        let column = |ms: f64| chart.backend_coord(&(ms, 0.0)).0;
        let (top, bottom) = (TOP, TOP + ROW * claims.len() as i32);
        let mut taken: Option<i32> = None;
        for (name, p50) in &local {
            let x = column(*p50);
            let mut y = top;
            while y < bottom {
                let dash = vec![(x, y), (x, (y + 6).min(bottom))];
                let colour = group(name).map_or(INK, parts::colour);
                area.draw(&PathElement::new(dash, colour.stroke_width(2)))?;
                y += 10;
            }
            let wide = parts::width(name, 12) / 2;
            let row = if taken.is_some_and(|end| x - wide < end) { top - 20 } else { top - 7 };
            taken = Some(x + wide + 6);
            parts::text(area, name, (x, row), 12, &INK, (HPos::Center, VPos::Center))?;
        }
        for (index, claim) in claims.iter().enumerate() {
            let y = TOP + ROW * index as i32 + ROW / 2;
            let about = report.links.iter().find(|rung| rung.name == claim.link);
            let name = about.map_or(claim.link.as_str(), |rung| rung.name.as_str());
            parts::text(area, name, (NAMES - 10, y), 13, &INK, (HPos::Right, VPos::Center))?;
            let split = column(split(claim).p50);
            let edge = column(x.1) + 8;
            let verdict = match claim.pair() {
                Some(Pair { offload, ratio, .. }) => {
                    let image = column(offload.p50);
                    area.draw(&PathElement::new(vec![(split, y), (image, y)], INK.stroke_width(1)))?;
                    if let Some(group) = group(&offload.variant) {
                        parts::mark(area, group, (image, y), 7)?;
                    }
                    match claim.verdict() {
                        (None, _) => format!("\u{d7}{ratio:.2}"),
                        (_, verdict) => format!("\u{d7}{ratio:.2}  {verdict}"),
                    }
                }
                None => "no image".to_owned(),
            };
            if let Some(raw) = raw(claim) {
                parts::mark(area, Method::Raw, (column(raw), y), 6)?;
            }
            parts::mark(area, Method::Split, (split, y), 7)?;
            parts::text(area, &verdict, (edge, y), 13, &INK, (HPos::Left, VPos::Center))?;
        }
        Ok(())
    })?;
    let lost = points(claims.iter().map(|claim| split(claim).drop).fold(f64::MIN, f64::max));
    Ok(Some(Picture {
        name: format!("overview-{task}"),
        caption: format!(
            "{task}: the fastest split that loses at most two points (else the one that loses least), the fastest image \
             that is at least as accurate (else the nearest pair), and the device alone (dashed); the splits shown lose \
             {lost} points or less. The number is the image's latency over the split's; the table below tells which pair \
             it is, and why it does not hold where it does not."
        ),
        svg,
    }))
}
