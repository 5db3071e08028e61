//! Who wins on which link; pure.

use super::report::{Cell, LinkSummary, Method, Place, Report, Winner};

/// Points that a winner may lose to the unsplit network.
pub const MOST_LOST: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// The fastest variant of each path for each link, task and loss, from the report's cells and accuracies.
pub fn winners(report: &Report) -> Vec<Winner> {
    let mut winners = Vec::new();
    for task in report.tasks() {
        let measured =
            |rung: &&LinkSummary| report.cells.iter().any(|cell| cell.link == rung.name && cell.task == task);
        for rung in report.links.iter().filter(measured) {
            for most_lost in MOST_LOST {
                let able = places(report, &rung.name, task);
                let able: Vec<_> =
                    able.into_iter().filter(|(_, place)| at_most(place.drop, most_lost)).collect();
                let mut fastest: Vec<(Method, Place)> = Vec::new();
                for (group, place) in able {
                    match fastest.iter_mut().find(|(other, _)| *other == group) {
                        Some((_, best)) if place.p50 < best.p50 => *best = place,
                        Some(_) => {}
                        None => fastest.push((group, place)),
                    }
                }
                fastest.sort_by(|(_, a), (_, b)| a.p50.total_cmp(&b.p50));
                let mut fastest = fastest.into_iter().map(|(_, place)| place);
                winners.push(Winner {
                    link: rung.name.clone(),
                    task: task.into(),
                    most_lost,
                    best: fastest.next(),
                    others: fastest.collect(),
                });
            }
        }
    }
    winners
}

/// Whether points do not exceed others; differences of shares carry errors of rounding.
pub(super) fn at_most(points: f64, others: f64) -> bool {
    points <= others + 1e-6
}

/// Points, without a minus before nothing.
pub fn points(drop: f64) -> String {
    let drop = if drop.abs() < 0.05 { 0.0 } else { drop };
    format!("{drop:.1}")
}

/// The claims in one line each, for a terminal.
pub fn summary(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(because) = &report.provenance.incomplete_because {
        lines.push(format!("INCOMPLETE: {because}"));
    }
    for claim in &report.claims {
        let place =
            |place: &Place| format!("{} (loses {}) {:.1} ms", place.variant, points(place.drop), place.p50);
        let pair = match claim.pair() {
            Some(pair) => {
                format!("{} against {}, ratio {:.2}", place(&pair.split), place(&pair.offload), pair.ratio)
            }
            None => format!("{}, no image to hold it against", place(&claim.split)),
        };
        let verdict = claim.wanted.map(|wanted| format!("; {wanted:.1} asked: {}", claim.verdict().1));
        lines.push(format!("{:9} {:11} {pair}{}", claim.task, claim.link, verdict.unwrap_or_default()));
    }
    lines
}

/// Every variant that a device can choose, that answered over this link or without one, and whose accuracy is known.
pub(super) fn places(report: &Report, link: &str, task: &str) -> Vec<(Method, Place)> {
    let place = |cell: &Cell| {
        let group = report.variant(&cell.variant)?.group;
        if group == Method::Reference {
            return None;
        }
        let drop = report.accuracy(task, &cell.variant)?.drop;
        // What fails more often than not has no median worth the name.
        let counts = cell.frames > cell.failed;
        counts.then(|| (group, Place { variant: cell.variant.clone(), p50: cell.total.p50, drop }))
    };
    report.on(link, task).filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{self, four as report};

    #[test]
    fn the_fastest_that_is_accurate_enough_wins() {
        let report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        let winners = winners(&report);
        let best = |most: f64| {
            let winner = winners.iter().find(|winner| winner.most_lost == most).unwrap();
            winner.best.as_ref().map(|place| place.variant.as_str())
        };
        assert_eq!(best(1.0), Some("JPEG 75"));
        assert_eq!(best(2.0), Some("split 1"));
        assert_eq!(best(5.0), Some("split 2"));
        let others = &winners.iter().find(|winner| winner.most_lost == 5.0).unwrap().others;
        assert_eq!(others.iter().map(|place| place.variant.as_str()).collect::<Vec<_>>(), ["JPEG 50"]);
    }

    #[test]
    fn nobody_wins_where_all_lose_too_much() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        report.accuracy.iter_mut().for_each(|accuracy| accuracy.drop = 30.0);
        assert!(winners(&report).iter().all(|winner| winner.best.is_none() && winner.others.is_empty()));
    }

    #[test]
    fn local_answers_win_on_every_link_and_their_reference_nowhere() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        fixture::add_local(&mut report, "local int8", Method::Local, 0.5, 20.0);
        fixture::add_local(&mut report, "local f32", Method::Reference, 0.0, 10.0);
        assert!(winners(&report).iter().all(|winner| winner.best.as_ref().unwrap().variant == "local int8"));
    }
}
