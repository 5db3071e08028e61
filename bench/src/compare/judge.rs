//! Who wins, and whether splitting beats sending the image; pure.

use super::report::{Cell, Claim, Group, Place, Report, Rung, Winner};

/// Points that a winner may lose to the unsplit network.
pub const MOST_LOST: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// Points that the split of a claim may lose.
const CLAIM_LOSES: f64 = 2.0;
/// Fastest uplink that claims are made for, LTE's, in bits per second.
const LTE: f64 = 6e6;
/// Uplink from which on the larger ratio is asked for.
const NARROW: f64 = 250e3;
/// Ratio of medians that is asked for.
const WANTED: f64 = 1.5;
/// The same on narrow links.
const WANTED_NARROW: f64 = 3.0;

/// The fastest variant of each path for each link, task and loss, from the report's cells and accuracies.
pub fn winners(report: &Report) -> Vec<Winner> {
    let mut winners = Vec::new();
    for task in report.tasks() {
        for rung in &report.links {
            for most_lost in MOST_LOST {
                let able = places(report, &rung.name, task);
                let able: Vec<_> = able.into_iter().filter(|(_, place)| place.drop <= most_lost).collect();
                let mut fastest: Vec<(Group, Place)> = Vec::new();
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

/// Split against offload on every link; a ratio is asked for at or below LTE's rate.
pub fn claims(report: &Report) -> Vec<Claim> {
    let mut claims = Vec::new();
    for task in report.tasks() {
        claims.extend(report.links.iter().filter_map(|rung| claim(report, rung, task)));
    }
    claims
}

/// The claims in one line each, for a terminal.
pub fn summary(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(because) = &report.story.incomplete_because {
        lines.push(format!("INCOMPLETE: {because}"));
    }
    for claim in &report.claims {
        let (split, ms) = (&claim.split, claim.split.p50);
        let image = match (&claim.offload, claim.ratio) {
            (Some(image), Some(ratio)) => format!("{} {:.1} ms, ratio {ratio:.2}", image.variant, image.p50),
            _ => "no image as accurate".to_owned(),
        };
        let verdict = match claim.wanted {
            None => String::new(),
            Some(wanted) if claim.holds => format!(", {wanted:.1} asked: holds"),
            Some(wanted) => format!(", {wanted:.1} asked: does not hold"),
        };
        let (task, link, lost) = (&claim.task, &claim.link, split.drop);
        lines.push(format!(
            "{task:9} {link:11} {} (-{lost:.1} points) {ms:.1} ms against {image}{verdict}",
            split.variant
        ));
    }
    lines
}

/// The ratio of medians that is asked for on a link.
fn wanted(rung: &Rung) -> Option<f64> {
    let up = rung.up.filter(|up| *up <= LTE)?;
    Some(if up <= NARROW { WANTED_NARROW } else { WANTED })
}

fn claim(report: &Report, rung: &Rung, task: &str) -> Option<Claim> {
    let places = places(report, &rung.name, task);
    let splits = || places.iter().filter(|(group, _)| *group == Group::Split).map(|(_, place)| place);
    let fastest = |a: &&Place, b: &&Place| a.p50.total_cmp(&b.p50);
    // The level that loses at most two points and is the fastest of those; else the one that loses least.
    let within = splits().filter(|place| place.drop <= CLAIM_LOSES).min_by(fastest);
    let least = |a: &&Place, b: &&Place| a.drop.total_cmp(&b.drop).then(a.p50.total_cmp(&b.p50));
    let split = within.or_else(|| splits().min_by(least))?;
    let images = || places.iter().filter(|(group, _)| group.is_offload()).map(|(_, place)| place);
    let equal = images().filter(|place| place.drop <= split.drop).min_by(fastest);
    let wanted = wanted(rung);
    let ratio = equal.map(|offload| offload.p50 / split.p50);
    let mut claim = Claim {
        link: rung.name.clone(),
        task: task.into(),
        split: split.clone(),
        offload: equal.cloned(),
        ratio,
        wanted,
        holds: within.is_some() && ratio.is_some_and(|ratio| ratio >= wanted.unwrap_or(1.0)),
        why: String::new(),
    };
    claim.why =
        why(report, rung, &claim, within.is_some(), images().min_by(|a, b| a.drop.total_cmp(&b.drop)));
    Some(claim)
}

/// The claim in words.
fn why(report: &Report, rung: &Rung, claim: &Claim, within: bool, best_image: Option<&Place>) -> String {
    let mut why = String::new();
    if !within {
        why += &format!(
            "No level loses 2 points or less; {} loses least, {:.1} points. ",
            claim.split.variant, claim.split.drop
        );
    }
    let (Some(offload), Some(ratio)) = (&claim.offload, claim.ratio) else {
        return why
            + &match best_image {
                Some(best) => format!(
                    "No offload that was tried is as accurate: {} comes closest, losing {:.1} points in {:.2} times \
                 the split's latency.",
                    best.variant,
                    best.drop,
                    best.p50 / claim.split.p50
                ),
                None => "No offload was measured.".to_owned(),
            };
    };
    let cell = |variant: &str| {
        report
            .cells
            .iter()
            .find(|cell| cell.link == rung.name && cell.task == claim.task && cell.variant == variant)
    };
    let (Some(split), Some(image)) = (cell(&claim.split.variant), cell(&offload.variant)) else {
        return why;
    };
    let bytes = |cell: &Cell| cell.packet.unwrap_or_default();
    why += &format!(
        "{:.0} bytes against {:.0} at {} answers in {:.1} ms against {:.1} ms. ",
        bytes(split),
        bytes(image),
        offload.variant,
        split.total.p50,
        image.total.p50
    );
    let (Some(floor), Some(image_floor)) = (&split.floor, &image.floor) else { return why };
    let Some(wanted) = claim.wanted.filter(|_| !claim.holds) else { return why.trim_end().to_owned() };
    // With no bytes at all the split would still take its stages and the round trip.
    let fixed = floor.stages + floor.rtt;
    let most = image.total.p50 / fixed;
    why += &if most < wanted {
        format!(
            "The round trip ({:.0} ms) and the computing ({:.1} ms) are in both: a split of no bytes at all \
             would reach {most:.2}.",
            floor.rtt, floor.stages
        )
    } else if image_floor.bytes / floor.bytes.max(1e-9) < wanted {
        format!(
            "On this link the bytes decide, and the image needs only {:.2} times the split's at this accuracy.",
            image_floor.bytes / floor.bytes.max(1e-9)
        )
    } else if ratio < wanted {
        format!(
            "Bytes take {:.1} ms of the split's time and {:.1} ms of the image's; the round trip ({:.0} ms) and \
             the computing ({:.1} and {:.1} ms) dilute the difference.",
            floor.bytes, image_floor.bytes, floor.rtt, floor.stages, image_floor.stages
        )
    } else {
        format!("The latency asked for ({wanted:.1} times less) is reached, the accuracy is not.")
    };
    why.trim_end().to_owned()
}

/// Every variant that answered over this link, or without one, and whose accuracy is known.
fn places(report: &Report, link: &str, task: &str) -> Vec<(Group, Place)> {
    let place = |cell: &Cell| {
        let group = report.variant(&cell.variant)?.group;
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
    use crate::compare::fixture::{self, Case};

    /// Split 1 loses 1.5 points, split 2 four; JPEG 50 loses 3, JPEG 75 loses 1.
    fn report(up: f64, p50: [f64; 4]) -> Report {
        let [fine, coarse, q50, q75] = p50;
        fixture::report(
            fixture::rung("link", up, 50.0),
            &[
                Case::new("split 1", Group::Split, 6000.0, 1.5, fine),
                Case::new("split 2", Group::Split, 3000.0, 4.0, coarse),
                Case::new("JPEG 50", Group::Jpeg, 9000.0, 3.0, q50),
                Case::new("JPEG 75", Group::Jpeg, 14000.0, 1.0, q75),
            ],
        )
    }

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
    fn local_answers_win_on_every_link() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 95.0]);
        fixture::add_local(&mut report, 0.5, 20.0);
        assert!(winners(&report).iter().all(|winner| winner.best.as_ref().unwrap().variant == "local int8"));
    }

    #[test]
    fn a_claim_compares_at_equal_accuracy() {
        let claims = claims(&report(6e6, [80.0, 70.0, 85.0, 130.0]));
        assert_eq!(claims.len(), 1);
        let claim = &claims[0];
        // JPEG 50 is less accurate than split 1; split 2 loses more than two points.
        assert_eq!(claim.split.variant, "split 1");
        assert_eq!(claim.offload.as_ref().unwrap().variant, "JPEG 75");
        assert_eq!((claim.ratio, claim.wanted, claim.holds), (Some(1.625), Some(1.5), true));
    }

    #[test]
    fn narrow_links_ask_for_more_and_fast_ones_for_nothing() {
        let p50 = [300.0, 200.0, 400.0, 600.0];
        let narrow = claims(&report(250e3, p50));
        assert_eq!((narrow[0].wanted, narrow[0].holds), (Some(3.0), false));
        assert!(narrow[0].why.contains("300.0 ms against 600.0 ms"), "{}", narrow[0].why);
        assert_eq!(claims(&report(50e6, p50))[0].wanted, None);
    }

    #[test]
    fn a_claim_says_when_the_round_trip_bounds_it() {
        let claims = claims(&report(6e6, [80.0, 70.0, 85.0, 95.0]));
        assert!(!claims[0].holds);
        // Stages of 20 ms and 50 ms of round trip are fixed: 95 / 70.
        assert!(claims[0].why.contains("a split of no bytes at all would reach 1.36"), "{}", claims[0].why);
    }

    #[test]
    fn a_claim_says_when_no_level_is_accurate_enough() {
        let mut report = report(250e3, [200.0, 100.0, 400.0, 900.0]);
        report.accuracy.iter_mut().find(|accuracy| accuracy.variant == "split 1").unwrap().drop = 4.4;
        report.accuracy.iter_mut().find(|accuracy| accuracy.variant == "split 2").unwrap().drop = 9.0;
        let claims = claims(&report);
        assert_eq!(claims[0].split.variant, "split 1");
        assert_eq!(claims[0].offload.as_ref().unwrap().variant, "JPEG 50");
        assert!(!claims[0].holds);
        assert!(claims[0].why.starts_with("No level loses 2 points or less"), "{}", claims[0].why);
    }

    #[test]
    fn a_claim_says_when_no_offload_is_as_accurate() {
        let mut report = report(250e3, [200.0, 100.0, 400.0, 900.0]);
        report.accuracy.iter_mut().find(|accuracy| accuracy.variant == "JPEG 75").unwrap().drop = 2.5;
        let claims = claims(&report);
        assert_eq!((claims[0].offload.is_none(), claims[0].holds), (true, false));
        assert!(claims[0].why.contains("JPEG 75 comes closest"), "{}", claims[0].why);
    }
}
