//! The figures as text and as a page.

use std::fmt::Write as _;

use super::{
    report::Report,
    stages::Network,
    sustained::{Energy, Sustained},
};

/// The page, with `{figures}` where the report stands as JSON.
const HTML: &str = include_str!("board.html");

/// A page that needs no other file, with the report `json`.
pub(super) fn page(json: &str) -> String {
    // In a script, only `<` can end it.
    HTML.replace("{figures}", &json.replace('<', "\\u003c"))
}

/// The main figures as lines.
pub(super) fn summary(report: &Report) -> String {
    let mut text = report.checks.to_string();
    let _ = writeln!(text);
    for Network { name, input: (width, height), times, .. } in &report.networks {
        let (median, p95) = (times.median_ms, times.p95_ms);
        let _ = writeln!(text, "{name} ({width}×{height}): {median:.2} ms, p95 {p95:.2} ms");
    }
    for camera in &report.cameras {
        let ((width, height), jpeg, i420) = (camera.size, camera.jpeg.median_ms, camera.i420.median_ms);
        let _ = writeln!(
            text,
            "frame of {width}×{height} to the head's input: JPEG {jpeg:.2} ms, I420 {i420:.2} ms"
        );
    }
    if let Some(Sustained { seconds, frames_per_second, kept, throttled, energy, no_energy, .. }) =
        &report.sustained
    {
        let _ = write!(
            text,
            "without a pause on one thread: {frames_per_second:.1} frames/s over {seconds:.0} s"
        );
        if let Some(kept) = kept {
            let _ = write!(text, ", at the end {:.0} % of the rate at the begin", 100.0 * kept);
        }
        if !throttled.is_empty() {
            let _ = write!(text, "; throttled: {}", throttled.join(", "));
        }
        let _ = writeln!(text);
        match (energy, no_energy) {
            (Some(Energy { joules_per_frame, net_joules_per_frame, watts, rails, remarks, .. }), _) => {
                let net = net_joules_per_frame
                    .map_or_else(String::new, |net| format!(", {:.1} above idle", 1e3 * net));
                let joules = 1e3 * joules_per_frame;
                let rails = rails.join(" + ");
                let _ = writeln!(text, "energy: {joules:.1} mJ a frame{net}; {watts:.2} W ({rails})");
                for remark in remarks {
                    let _ = writeln!(text, "energy: {remark}");
                }
            }
            (None, Some(reason)) => {
                let _ = writeln!(text, "energy: {reason}");
            }
            (None, None) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_cannot_end_the_script_that_holds_them() {
        let page = page(r#"{"found":"</script><b>"}"#);
        assert!(page.contains(r"\u003c/script>\u003cb>") && !page.contains("{figures}"));
    }
}
