//! Whether splitting beats sending the image at equal accuracy, and why not; pure.

use super::{
    draw::millis,
    judge::{at_most, places, points},
    report::{Cell, Claim, Lack, LinkSummary, Method, Pair, Place, Report},
};

/// Points that the split of a claim may lose.
const LOSES: f64 = 2.0;
/// Fastest uplink that something is asked of, LTE's, in bits per second.
const LTE: f64 = 6e6;
/// Uplink from which on the larger ratio is asked for.
const NARROW: f64 = 250e3;
/// Ratio of medians that is asked for.
const WANTED: f64 = 1.5;
/// The same on narrow links.
const WANTED_NARROW: f64 = 3.0;

/// Split against offload on every link; a ratio is asked for at or below LTE's rate.
pub fn claims(report: &Report) -> Vec<Claim> {
    let of = |task| report.links.iter().filter_map(move |rung| claim(report, rung, task));
    report.tasks().into_iter().flat_map(of).collect()
}

/// What is asked of a task's claims, and on which links it holds; `None` where nothing is asked.
pub fn in_short(claims: &[&Claim]) -> Option<String> {
    let asked = claims.iter().filter(|claim| claim.wanted.is_some());
    let mut verdicts: Vec<(&str, Vec<&str>)> = Vec::new();
    for claim in asked {
        let (_, verdict) = claim.verdict();
        match verdicts.iter_mut().find(|(other, _)| *other == verdict) {
            Some((_, links)) => links.push(&claim.link),
            None => verdicts.push((verdict, vec![&claim.link])),
        }
    }
    let found: Vec<String> =
        verdicts.iter().map(|(verdict, links)| format!("{}: {verdict}", links.join(", "))).collect();
    (!found.is_empty()).then(|| {
        format!(
            "Asked of every link with LTE's uplink ({:.0} Mbit/s) or less: the fastest level that loses at most {LOSES:.0} \
             points answers {WANTED:.1} times as fast as the fastest image that is at least as accurate, {WANTED_NARROW:.0} \
             times at {:.0} kbit/s and less. Found: {}.",
            LTE / 1e6,
            NARROW / 1e3,
            found.join("; ")
        )
    })
}

/// The ratio of medians that is asked for on a link.
fn wanted(rung: &LinkSummary) -> Option<f64> {
    let up = rung.up.filter(|up| *up <= LTE)?;
    Some(if up <= NARROW { WANTED_NARROW } else { WANTED })
}

fn claim(report: &Report, rung: &LinkSummary, task: &str) -> Option<Claim> {
    let places = places(report, &rung.name, task);
    let of = |is: &dyn Fn(Method) -> bool| -> Vec<&Place> {
        places.iter().filter(|(group, _)| is(*group)).map(|(_, place)| place).collect()
    };
    let (splits, images) = (of(&|group| group == Method::Split), of(&|group| group.is_offload()));
    let within = fastest(splits.iter().copied().filter(|place| at_most(place.drop, LOSES)));
    let split = within.or_else(|| most_accurate(&splits))?;
    let offload = fastest(images.iter().copied().filter(|image| at_most(image.drop, split.drop)));
    let wanted = wanted(rung);
    let ratio = offload.map(|offload| offload.p50 / split.p50);
    let lacks = [(Lack::Level, within.is_none()), (Lack::Image, offload.is_none())];
    let lacks: Vec<Lack> = lacks.into_iter().filter(|(_, lacks)| *lacks).map(|(lack, _)| lack).collect();
    let mut claim = Claim {
        link: rung.name.clone(),
        task: task.into(),
        split: split.clone(),
        offload: offload.cloned(),
        ratio,
        wanted,
        holds: within.is_some() && ratio.is_some_and(|ratio| ratio >= wanted.unwrap_or(1.0)),
        lacks,
        nearest: if offload.is_none() { nearest(&splits, &images) } else { None },
        why: String::new(),
    };
    claim.why = why(report, rung, &claim, most_accurate(&images));
    Some(claim)
}

fn fastest<'a>(places: impl Iterator<Item = &'a Place>) -> Option<&'a Place> {
    places.min_by(|a, b| a.p50.total_cmp(&b.p50))
}

fn most_accurate<'a>(places: &[&'a Place]) -> Option<&'a Place> {
    places.iter().copied().min_by(|a, b| a.drop.total_cmp(&b.drop).then(a.p50.total_cmp(&b.p50)))
}

/// The most accurate level that an image reaches, and the fastest such image; where none reaches any, the fastest level
/// and the most accurate image.
fn nearest(splits: &[&Place], images: &[&Place]) -> Option<Pair> {
    let equal =
        |split: &Place| fastest(images.iter().copied().filter(|image| at_most(image.drop, split.drop)));
    let reached: Vec<&Place> = splits.iter().copied().filter(|split| equal(split).is_some()).collect();
    let (split, offload) = match most_accurate(&reached) {
        Some(split) => (split, equal(split)?),
        None => (fastest(splits.iter().copied())?, most_accurate(images)?),
    };
    Some(Pair { split: split.clone(), offload: offload.clone(), ratio: offload.p50 / split.p50 })
}

/// The claim in words.
fn why(report: &Report, rung: &LinkSummary, claim: &Claim, best_image: Option<&Place>) -> String {
    let mut said = Vec::new();
    let lost = |place: &Place| format!("{} ({} points lost)", place.variant, points(place.drop));
    if claim.lacks.contains(&Lack::Level) {
        said.push(format!(
            "No level that was measured here loses {LOSES:.0} points or less: {} loses least.",
            lost(&claim.split)
        ));
    }
    let offload = match (&claim.offload, best_image) {
        (Some(offload), _) => offload,
        (None, None) => return join(said, "No image was measured."),
        (None, Some(best)) => {
            said.push(format!(
                "No image that was tried is as accurate as {}: {} comes closest, in {:.2} times its latency.",
                lost(&claim.split),
                lost(best),
                best.p50 / claim.split.p50
            ));
            let Some(Pair { split, offload, ratio }) = &claim.nearest else { return said.join(" ") };
            let (ms, image_ms) = (millis(split.p50), millis(offload.p50));
            let nearest = match at_most(offload.drop, split.drop) {
                true => format!(
                    "The most accurate level that an image reaches is {}, in {ms} ms; {} takes {image_ms} ms, \
                     {ratio:.2} times that.",
                    lost(split),
                    lost(offload)
                ),
                false => format!(
                    "Every level is more accurate than every image; the fastest is {}, in {ms} ms, and {} takes \
                     {image_ms} ms, {ratio:.2} times that.",
                    lost(split),
                    offload.variant
                ),
            };
            return join(said, &nearest);
        }
    };
    let cell = |variant: &str| {
        let mut cells = report.on(&rung.name, &claim.task);
        cells.find(|cell| cell.variant == variant)
    };
    let (Some(split), Some(image)) = (cell(&claim.split.variant), cell(&offload.variant)) else {
        return said.join(" ");
    };
    let bytes = |cell: &Cell| cell.packet.unwrap_or_default();
    said.push(format!(
        "{:.0} bytes against {:.0} of {} answer in {} ms against {} ms.",
        bytes(split),
        bytes(image),
        offload.variant,
        millis(split.total.p50),
        millis(image.total.p50)
    ));
    match claim.wanted.filter(|_| !claim.holds) {
        Some(wanted) => join(said, &bounded(split, image, wanted)),
        None => said.join(" "),
    }
}

/// What keeps the ratio of two cells of one link below what is wanted.
fn bounded(split: &Cell, image: &Cell, wanted: f64) -> String {
    let (Some(floor), Some(image_floor)) = (&split.floor, &image.floor) else { return String::new() };
    // With no bytes at all the split would still take its stages and the round trip.
    let most = image.total.p50 / (floor.stages + floor.rtt);
    let bytes = image_floor.bytes / floor.bytes.max(1e-9);
    if image.total.p50 / split.total.p50 >= wanted {
        format!("The latency asked for ({wanted:.1} times less) is reached, the accuracy is not.")
    } else if most < wanted {
        format!(
            "The round trip ({:.0} ms) and the computing ({:.1} ms) are in both: a split of no bytes at all would \
             reach {most:.2}.",
            floor.rtt, floor.stages
        )
    } else if bytes < wanted {
        format!(
            "On this link the bytes decide, and the image needs only {bytes:.2} times the split's at this accuracy."
        )
    } else {
        format!(
            "Bytes take {:.1} ms of the split's time and {:.1} ms of the image's; the round trip ({:.0} ms) and the \
             computing ({:.1} and {:.1} ms) dilute the difference.",
            floor.bytes, image_floor.bytes, floor.rtt, floor.stages, image_floor.stages
        )
    }
}

fn join(mut said: Vec<String>, last: &str) -> String {
    said.push(last.to_owned());
    said.join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::four as report;

    fn lose(report: &mut Report, variant: &str, points: f64) {
        report.accuracy.iter_mut().find(|of| of.variant == variant).unwrap().drop = points;
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
        assert_eq!(
            (&claim.lacks[..], &claim.nearest, claim.verdict()),
            (&[][..], &None, (Some(true), "holds"))
        );
        let short = in_short(&[claim]).unwrap();
        assert!(short.ends_with("Found: link: holds."), "{short}");
    }

    #[test]
    fn two_points_are_two_points_whatever_rounding_leaves() {
        let mut report = report(6e6, [80.0, 70.0, 85.0, 130.0]);
        // 90 of 100 and 88 of 100.
        lose(&mut report, "split 1", 100.0 * (0.9 - 0.88));
        lose(&mut report, "JPEG 75", 100.0 * (0.92 - 0.9));
        assert!(report.accuracy("classify", "split 1").unwrap().drop > 2.0);
        assert_eq!(claims(&report)[0].verdict(), (Some(true), "holds"));
    }

    #[test]
    fn narrow_links_ask_for_more_and_fast_ones_for_nothing() {
        let p50 = [300.0, 200.0, 400.0, 600.0];
        let narrow = claims(&report(250e3, p50));
        assert_eq!((narrow[0].wanted, narrow[0].holds), (Some(3.0), false));
        assert!(narrow[0].why.contains("300 ms against 600 ms"), "{}", narrow[0].why);
        let fast = claims(&report(50e6, p50));
        assert_eq!((fast[0].wanted, fast[0].verdict()), (None, (None, "nothing asked")));
        assert_eq!(in_short(&[&fast[0]]), None);
    }

    #[test]
    fn a_claim_says_when_the_round_trip_bounds_it() {
        let claims = claims(&report(6e6, [80.0, 70.0, 85.0, 95.0]));
        assert_eq!(claims[0].verdict(), (Some(false), "does not hold"));
        // Stages of 20 ms and 50 ms of round trip are fixed: 95 / 70.
        assert!(claims[0].why.contains("a split of no bytes at all would reach 1.36"), "{}", claims[0].why);
    }

    #[test]
    fn a_claim_says_when_the_bytes_bound_it() {
        let claims = claims(&report(250e3, [300.0, 200.0, 400.0, 600.0]));
        // 14,000 bytes against 6,000.
        assert!(claims[0].why.contains("the image needs only 2.33 times the split's"), "{}", claims[0].why);
    }

    #[test]
    fn a_claim_says_when_no_level_is_accurate_enough() {
        let mut report = report(250e3, [200.0, 100.0, 400.0, 900.0]);
        lose(&mut report, "split 1", 4.4);
        lose(&mut report, "split 2", 9.0);
        let claim = &claims(&report)[0];
        assert_eq!(claim.split.variant, "split 1");
        assert_eq!(claim.offload.as_ref().unwrap().variant, "JPEG 50");
        assert_eq!(claim.verdict(), (Some(false), "no level qualifies"));
        assert!(
            claim.why.starts_with("No level that was measured here loses 2 points or less: split 1 (4.4"),
            "{}",
            claim.why
        );
        assert_eq!(claim.pair().unwrap().ratio, 2.0);
    }

    #[test]
    fn without_an_image_as_accurate_the_nearest_pair_is_told() {
        let mut report = report(250e3, [200.0, 100.0, 400.0, 900.0]);
        lose(&mut report, "JPEG 75", 2.5);
        let claim = &claims(&report)[0];
        assert_eq!((claim.offload.is_none(), claim.verdict()), (true, (Some(false), "no image qualifies")));
        // JPEG 50 loses 3 points and is faster than JPEG 75; split 2 loses 4.
        let pair = claim.pair().unwrap();
        assert_eq!((pair.split.variant.as_str(), pair.offload.variant.as_str()), ("split 2", "JPEG 50"));
        assert_eq!(pair.ratio, 4.0);
        for part in ["JPEG 75 (2.5 points lost) comes closest", "an image reaches is split 2", "4.00 times"] {
            assert!(claim.why.contains(part), "{part}: {}", claim.why);
        }
    }

    #[test]
    fn levels_that_no_image_reaches_at_all_are_told_too() {
        let mut report = report(250e3, [200.0, 100.0, 400.0, 900.0]);
        lose(&mut report, "JPEG 50", 12.0);
        lose(&mut report, "JPEG 75", 9.0);
        lose(&mut report, "split 1", 3.0);
        let claim = &claims(&report)[0];
        assert_eq!(claim.verdict(), (Some(false), "neither qualifies"));
        assert_eq!(claim.pair().unwrap().ratio, 9.0);
        assert!(claim.why.contains("Every level is more accurate than every image"), "{}", claim.why);
        report
            .variants
            .iter_mut()
            .filter(|of| of.group == Method::Jpeg)
            .for_each(|of| of.group = Method::Raw);
        let claim = &claims(&report)[0];
        assert!(claim.pair().is_none() && claim.why.ends_with("No image was measured."), "{}", claim.why);
    }
}
