//! The fastest variants of a link within a bound on the loss, and whether the sample shows that they are.

use super::{
    cells::ROUNDS_FOR_INTERVAL,
    report::{Accuracy, Candidate, Cell, Fastest, Method, Report},
};

/// The bounds on the loss, in points.
pub const MOST_LOST: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// For each task, link and bound: the fastest variant of each method whose measured loss is within the bound.
///
/// Variants of which the loss is not known are left out.
#[must_use]
pub fn fastest(report: &Report) -> Vec<Fastest> {
    let mut all = Vec::new();
    for task in report.tasks() {
        for link in report.links.iter().filter(|link| report.covers(&link.name, task)) {
            let variants = known(report, &link.name, task);
            all.extend(MOST_LOST.map(|most_lost| within(&variants, &link.name, task, most_lost)));
        }
    }
    all
}

/// A variant with what is known of it.
struct Known<'a> {
    method: Method,
    cell: &'a Cell,
    accuracy: &'a Accuracy,
    drop: f64,
}

fn known<'a>(report: &'a Report, link: &str, task: &'a str) -> Vec<Known<'a>> {
    let known = |cell: &'a Cell| {
        let method = report.variant(&cell.variant)?.method;
        let accuracy = report.accuracy(task, &cell.variant)?;
        // The median of a variant that fails more often than not says little about it.
        let usable = cell.frames > cell.failed;
        Some(Known { method, cell, accuracy, drop: accuracy.drop.filter(|_| usable)? })
    };
    let mut variants: Vec<Known<'_>> = report.on(link, task).into_iter().filter_map(known).collect();
    variants.sort_by(|a, b| a.cell.total.p50.total_cmp(&b.cell.total.p50));
    variants
}

/// `variants` are sorted by their medians.
fn within(variants: &[Known<'_>], link: &str, task: &str, most_lost: f64) -> Fastest {
    // Differences of shares carry rounding errors.
    let is_within = |points: f64| points <= most_lost + 1e-6;
    let mut methods = Vec::new();
    let mut candidates: Vec<&Known<'_>> = variants.iter().filter(|of| is_within(of.drop)).collect();
    candidates.retain(|of| {
        let first = !methods.contains(&of.method);
        methods.push(of.method);
        first
    });
    let undecided = candidates.first().and_then(|best| {
        let name = &best.cell.variant;
        let Some((_, slowest)) = best.cell.p50_interval else {
            return Some(format!(
                "{} of {ROUNDS_FOR_INTERVAL} rounds that an interval needs",
                best.cell.rounds
            ));
        };
        match best.accuracy.drop_interval {
            None => {
                return Some(format!("too few frames ({}) for an interval of the loss", best.accuracy.count));
            }
            Some((_, most)) if !is_within(most) => {
                return Some(format!("{name} may lose up to {} points", points(most)));
            }
            Some(_) => {}
        }
        let may_be_within =
            |of: &&Known<'_>| of.accuracy.drop_interval.is_none_or(|(least, _)| is_within(least));
        let may_be_faster =
            |of: &&Known<'_>| of.cell.p50_interval.is_none_or(|(fastest, _)| fastest <= slowest);
        let others = variants.iter().filter(|of| of.cell.variant != *name);
        let others: Vec<&str> =
            others.filter(may_be_within).filter(may_be_faster).map(|of| of.cell.variant.as_str()).collect();
        (!others.is_empty()).then(|| format!("{} may be within the bound and faster", others.join(", ")))
    });
    let candidates = candidates.into_iter().map(|of| Candidate {
        variant: of.cell.variant.clone(),
        p50: of.cell.total.p50,
        drop: of.drop,
    });
    Fastest { link: link.into(), task: task.into(), most_lost, candidates: candidates.collect(), undecided }
}

/// Points with one decimal, without a minus sign before zero.
#[must_use]
pub fn points(drop: f64) -> String {
    let drop = if drop.abs() < 0.05 { 0.0 } else { drop };
    format!("{drop:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{self, four as report};

    fn of(report: &Report, most_lost: f64) -> Fastest {
        fastest(report).into_iter().find(|of| of.most_lost == most_lost).unwrap()
    }

    fn names(of: &Fastest) -> Vec<&str> {
        of.candidates.iter().map(|candidate| candidate.variant.as_str()).collect()
    }

    #[test]
    fn each_method_is_represented_by_its_fastest_variant_within_the_bound() {
        let report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        assert_eq!(names(&of(&report, 1.0)), ["JPEG 75"]);
        assert_eq!(names(&of(&report, 2.0)), ["split 1", "JPEG 75"]);
        assert_eq!(names(&of(&report, 5.0)), ["split 2", "JPEG 50"]);
    }

    #[test]
    fn a_clear_lead_is_concluded() {
        // Losses are known to one point, medians to two per cent.
        assert_eq!(of(&report(6e6, [80.0, 70.0, 85.0, 95.0]), 5.0).undecided, None);
    }

    #[test]
    fn nothing_is_concluded_where_intervals_overlap() {
        let undecided = |p50, most| of(&report(6e6, p50), most).undecided;
        let close = undecided([80.0, 70.0, 72.0, 95.0], 5.0);
        assert_eq!(close.as_deref(), Some("JPEG 50 may be within the bound and faster"));
        let loss = undecided([80.0, 70.0, 85.0, 95.0], 2.0);
        assert_eq!(loss.as_deref(), Some("split 1 may lose up to 2.5 points"));
    }

    #[test]
    fn nothing_is_concluded_from_samples_without_intervals() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        report.accuracy.iter_mut().for_each(|of| of.drop_interval = None);
        let reason = of(&report, 5.0).undecided.unwrap();
        assert!(reason.contains("too few frames (500)"), "{reason}");
        report.cells.iter_mut().for_each(|cell| (cell.p50_interval, cell.rounds) = (None, 2));
        assert_eq!(of(&report, 5.0).undecided.as_deref(), Some("2 of 5 rounds that an interval needs"));
    }

    #[test]
    fn two_points_are_two_points_whatever_rounding_leaves() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        // 90 of 100 and 88 of 100.
        let drop = 100.0 * (0.9 - 0.88);
        assert!(drop > 2.0);
        report.accuracy.iter_mut().find(|of| of.variant == "split 1").unwrap().drop = Some(drop);
        assert_eq!(names(&of(&report, 2.0))[0], "split 1");
    }

    #[test]
    fn there_is_no_fastest_where_all_lose_too_much_or_losses_are_unknown() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        report.accuracy.iter_mut().for_each(|accuracy| accuracy.drop = Some(30.0));
        assert!(fastest(&report).iter().all(|of| of.candidates.is_empty() && of.undecided.is_none()));
        report.accuracy.iter_mut().for_each(|accuracy| accuracy.drop = None);
        assert!(fastest(&report).iter().all(|of| of.candidates.is_empty()));
    }

    #[test]
    fn local_answers_count_on_every_link() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        fixture::add_local(&mut report, "local int8", Method::Local, 0.5, 20.0);
        assert!(fastest(&report).iter().all(|of| names(of)[0] == "local int8"));
    }
}
