//! Colours, marks, hatching, legends and axes.

use anyhow::Result;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::compare::report::Method;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Font of all text.
pub(super) const FONT: &str = "sans-serif";
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(222, 222, 222);
/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
/// Text that matters less.
pub(super) const FAINT: RGBColor = RGBColor(95, 95, 95);

// Okabe and Ito's palette.
pub(super) const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub(super) const SKY: RGBColor = RGBColor(86, 180, 233);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const YELLOW: RGBColor = RGBColor(240, 228, 66);
pub(super) const DEEP: RGBColor = RGBColor(0, 114, 178);
pub(super) const RUST: RGBColor = RGBColor(213, 94, 0);
pub(super) const PURPLE: RGBColor = RGBColor(204, 121, 167);

/// The colour of a path.
pub(super) fn colour(group: Method) -> RGBColor {
    match group {
        Method::Split => DEEP,
        Method::Raw => SKY,
        Method::Jpeg => RUST,
        Method::Webp => ORANGE,
        Method::Local => GREEN,
        Method::Reference => FAINT,
    }
}

/// Lines across a filled area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hatch {
    None,
    Rising,
    Falling,
    Crossed,
    Upright,
}

/// A blank picture: draws on it and returns the document.
pub(super) fn picture(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(svg)
}

/// Text of a size in pixels, its anchor given.
pub(super) fn text(
    area: &Area<'_>,
    what: &str,
    at: (i32, i32),
    size: i32,
    colour: &RGBColor,
    anchor: (HPos, VPos),
) -> Result<()> {
    // The backend draws text 1.24 times smaller than it is told to.
    let style = (FONT, f64::from(size) * 1.24).into_font().color(colour);
    area.draw_text(what, &style.pos(Pos::new(anchor.0, anchor.1)), at)?;
    Ok(())
}

/// The width of text in pixels, about.
pub(super) fn width(what: &str, size: i32) -> i32 {
    (what.chars().count() as f64 * f64::from(size) * 0.56).ceil() as i32
}

/// The mark of a path, with its middle at `at`.
pub(super) fn mark(area: &Area<'_>, group: Method, (x, y): (i32, i32), radius: i32) -> Result<()> {
    let (colour, r) = (colour(group), radius);
    let polygon = |points: &[(i32, i32)]| {
        let points: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        area.draw(&Polygon::new(points.clone(), colour.filled()))?;
        let outline: Vec<_> = points.iter().chain(&points[..1]).copied().collect();
        area.draw(&PathElement::new(outline, INK.stroke_width(1)))?;
        anyhow::Ok(())
    };
    match group {
        Method::Split => {
            area.draw(&Circle::new((x, y), r, colour.filled()))?;
            area.draw(&Circle::new((x, y), r, INK.stroke_width(1)))?;
        }
        Method::Raw => {
            area.draw(&Circle::new((x, y), r, WHITE.filled()))?;
            area.draw(&Circle::new((x, y), r, DEEP.stroke_width(2)))?;
        }
        Method::Jpeg => polygon(&[(-r, -r), (r, -r), (r, r), (-r, r)])?,
        Method::Webp => polygon(&[(0, -r - 1), (r + 1, r), (-r - 1, r)])?,
        Method::Local | Method::Reference => polygon(&[(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)])?,
    }
    Ok(())
}

/// Marks and their meaning in one line from `at` on; returns where it ends.
pub(super) fn legend(area: &Area<'_>, groups: &[Method], at: (i32, i32)) -> Result<i32> {
    let (mut x, y) = at;
    for &group in groups {
        mark(area, group, (x + 6, y), 5)?;
        text(area, group.title(), (x + 17, y), 13, &INK, (HPos::Left, VPos::Center))?;
        x += 17 + width(group.title(), 13) + 18;
    }
    Ok(x)
}

/// A filled rectangle from one corner to the other with lines across it.
pub(super) fn block(area: &Area<'_>, corners: [(i32, i32); 2], colour: RGBColor, hatch: Hatch) -> Result<()> {
    let [(left, top), (right, bottom)] = corners;
    if right <= left {
        return Ok(());
    }
    area.draw(&Rectangle::new(corners, colour.filled()))?;
    for [from, to] in hatching(corners, hatch) {
        area.draw(&PathElement::new(vec![from, to], INK.mix(0.55).stroke_width(1)))?;
    }
    if right - left > 2 {
        area.draw(&Rectangle::new([(left, top), (right, bottom)], INK.stroke_width(1)))?;
    }
    Ok(())
}

/// The lines of a hatching, cut to the rectangle.
fn hatching([(left, top), (right, bottom)]: [(i32, i32); 2], hatch: Hatch) -> Vec<[(i32, i32); 2]> {
    const APART: i32 = 6;
    let (wide, high) = (right - left, bottom - top);
    let mut lines = Vec::new();
    // A line of slope one that meets the lower edge `offset` to the right of the corner; mirrored when falling.
    let mut slanted = |falling: bool| {
        let mut offset = APART / 2 - high;
        while offset < wide {
            let (from, to) = (offset.max(0), (offset + high).min(wide));
            if from < to {
                let y = |x: i32| if falling { top + (x - offset) } else { bottom - (x - offset) };
                lines.push([(left + from, y(from)), (left + to, y(to))]);
            }
            offset += APART;
        }
    };
    match hatch {
        Hatch::None => {}
        Hatch::Rising => slanted(false),
        Hatch::Falling => slanted(true),
        Hatch::Crossed => {
            slanted(false);
            slanted(true);
        }
        Hatch::Upright => {
            let mut x = left + APART / 2;
            while x < right {
                lines.push([(x, top), (x, bottom)]);
                x += APART;
            }
        }
    }
    lines
}

/// Round values (1, 2 and 5 times powers of ten) within a range, for a logarithmic axis.
pub(super) fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let ticks = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    ticks.filter(|tick| (low..=high).contains(tick)).collect()
}

/// A number with three significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// An axis label: what adding up steps has left behind the sixth decimal is not shown.
pub(super) fn round(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

/// Milliseconds with three digits, at least a tenth.
pub(in crate::compare) fn millis(value: f64) -> String {
    if value.abs() >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hatching_stays_inside() {
        for hatch in [Hatch::Rising, Hatch::Falling, Hatch::Crossed, Hatch::Upright] {
            for wide in 1..40 {
                let corners = [(10, 20), (10 + wide, 36)];
                let lines = hatching(corners, hatch);
                assert!(wide < 7 || !lines.is_empty());
                for (x, y) in lines.into_iter().flatten() {
                    assert!((10..=10 + wide).contains(&x) && (20..=36).contains(&y), "{hatch:?} {x} {y}");
                }
            }
        }
        assert!(hatching([(0, 0), (9, 9)], Hatch::None).is_empty());
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(log_ticks(800.0, 30_000.0), [1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0]);
        assert!(log_ticks(3.0, 4.0).is_empty());
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            ["0.12", "1.23", "12.3", "123", "1235"],
            [0.123, 1.234, 12.34, 123.4, 1234.6].map(short).each_ref().map(String::as_str)
        );
        assert_eq!(round(3.0 * 0.05), "0.15");
        assert_eq!(
            (millis(0.04).as_str(), millis(99.94).as_str(), millis(99.96).as_str()),
            ("0.0", "99.9", "100")
        );
    }
}
