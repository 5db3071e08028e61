//! The report's pictures, as SVG: colours that the colour-blind can tell apart (Okabe and Ito), and marks or hatching
//! beside every colour, so that they can be read in print.

mod bars;
mod curve;
mod overview;
mod parts;

use anyhow::Result;
pub(super) use parts::millis;

use super::report::Report;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// File name without its ending.
    pub name: String,
    /// What it shows, one sentence.
    pub caption: String,
    /// The SVG document.
    pub svg: String,
}

/// Every picture that the report has data for.
pub fn pictures(report: &Report) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for task in report.tasks() {
        pictures.extend(overview::draw(report, task)?);
        pictures.extend(curve::draw(report, task)?);
        for rung in &report.links {
            pictures.extend(bars::latency(report, rung, task)?);
        }
        for rung in &report.links {
            pictures.extend(bars::energy(report, rung, task)?);
        }
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        claims,
        fixture::{self, Case},
        report::Method,
    };

    fn report() -> Report {
        let mut report = fixture::report(
            fixture::rung("lte", 6e6, 50.0),
            &[
                Case::new("split 1", Method::Split, 6000.0, 1.5, 80.0),
                Case::new("split 2", Method::Split, 3000.0, 4.0, 70.0),
                Case::new("raw 1", Method::Raw, 24600.0, 1.5, 110.0),
                Case::new("JPEG 75", Method::Jpeg, 14000.0, 1.0, 95.0),
                Case::new("WebP 75", Method::Webp, 10000.0, 1.2, 99.0),
            ],
        );
        fixture::add_local(&mut report, "local int8", Method::Local, 4.0, 30.0);
        report.claims = claims::claims(&report);
        report
    }

    #[test]
    fn every_picture_is_one_svg_document_with_the_numbers_in_it() {
        let report = report();
        let pictures = pictures(&report).unwrap();
        let names: Vec<&str> = pictures.iter().map(|picture| picture.name.as_str()).collect();
        assert_eq!(names, ["overview-classify", "accuracy-classify", "latency-classify-lte"]);
        for picture in &pictures {
            assert!(picture.svg.starts_with("<svg ") && picture.svg.trim_end().ends_with("</svg>"));
            assert!(!picture.svg.contains("NaN") && !picture.svg.contains("href"), "{}", picture.name);
        }
        // Medians, levels, qualities.
        for text in ["80.0", "110", "95.0"] {
            assert!(pictures[2].svg.contains(&format!(">\n{text}\n<")), "{text}");
        }
        assert!(pictures[0].svg.contains("\u{d7}1.19"), "the ratio of JPEG 75 to split 1");
    }

    #[test]
    fn stages_are_told_apart_without_colour() {
        let pictures = pictures(&report()).unwrap();
        // Hatching is lines; the plain stages have none.
        assert!(pictures[2].svg.matches("<line").count() > 50);
    }

    #[test]
    fn a_report_of_nothing_has_no_pictures() {
        let report = fixture::report(fixture::rung("lte", 6e6, 50.0), &[]);
        assert_eq!(pictures(&report).unwrap(), []);
    }
}
