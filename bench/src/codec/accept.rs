//! What the codec promises (sizes and speed), held against what was measured.

use serde::Serialize;

use super::{sizes::Sizes, speed::Speed};

/// Bytes from which a packet counts as large.
const LARGE: f64 = 2048.0;

/// One promise.
#[derive(Debug, Serialize)]
pub(super) struct Mark {
    line: u8,
    promise: String,
    found: String,
    /// Nothing where it was not measured.
    kept: Option<bool>,
}

pub(super) fn marks(sizes: &[Sizes], speed: &[Speed]) -> Vec<Mark> {
    let mut marks = Vec::new();
    // Of what the static tables say the symbols cost; of the header's bytes at most six do not count.
    for (what, limit, large) in [("2 KB and more", 0.5, true), ("below 2 KB", 1.5, false)] {
        let over = sizes
            .iter()
            .filter(|set| (set.entropy_bytes >= LARGE) == large)
            .filter_map(|set| Some((set.of("static")?.over_static_entropy, set.set.as_str())));
        let worst = over.max_by(|a, b| a.0.total_cmp(&b.0));
        marks.push(Mark {
            line: 1,
            promise: format!("static, {what}: at most {limit} % over the cross-entropy"),
            found: worst.map_or_else(nothing, |(over, set)| format!("{over:+.2} % at worst ({set})")),
            kept: worst.map(|(over, _)| over <= limit),
        });
    }
    let saved = sizes.iter().filter(|set| set.real).filter_map(|set| {
        let best = ["context", "indexed"].into_iter().filter_map(|mode| Some(set.of(mode)?.bytes));
        let best = best.min_by(f64::total_cmp)?;
        Some((100.0 * (1.0 - best / set.of("static")?.bytes), set.set.as_str()))
    });
    let least = saved.min_by(|a, b| a.0.total_cmp(&b.0));
    marks.push(Mark {
        line: 1,
        promise: "context or indexed: at least 3 % smaller than static on latents".to_owned(),
        found: least.map_or_else(nothing, |(saved, set)| format!("{saved:.1} % at least ({set})")),
        kept: least.map(|(saved, _)| saved >= 3.0),
    });
    let saved = sizes.iter().filter_map(|set| {
        Some((100.0 * (1.0 - set.of("auto")?.bytes / set.of("zstd -1")?.bytes), set.set.as_str()))
    });
    let least = saved.min_by(|a, b| a.0.total_cmp(&b.0));
    marks.push(Mark {
        line: 1,
        promise: "auto: at least 12 % smaller than zstd -1".to_owned(),
        found: least.map_or_else(nothing, |(saved, set)| format!("{saved:.1} % at least ({set})")),
        kept: least.map(|(saved, _)| saved >= 12.0),
    });
    for coder in ["zstd -19", "brotli 11"] {
        let larger: usize = sizes.iter().filter_map(|set| set.of(coder)).map(|size| size.beats_auto).sum();
        let features: usize = sizes.iter().map(|set| set.features).sum();
        marks.push(Mark {
            line: 1,
            promise: format!("auto: never larger than {coder}"),
            found: format!("larger in {larger} of {features} packets"),
            kept: Some(larger == 0),
        });
    }
    for (name, limit) in [
        ("static encode to constriction", 4.0),
        ("static decode to constriction", 1.7),
        ("static encode to CompressAI", 10.0),
        ("static decode to CompressAI", 4.0),
        ("context encode to constriction", 1.0),
        ("context decode to constriction", 1.0),
        ("static decode, 16 bundles to one", 0.9),
        ("context decode, 16 bundles to one", 0.9),
    ] {
        let ratios = speed.iter().filter_map(|speed| Some((speed.ratio(name)?, speed.set.as_str())));
        let worst = ratios.min_by(|a, b| a.0.total_cmp(&b.0));
        marks.push(Mark {
            line: 2,
            promise: format!("{name}: at least {limit} times"),
            found: worst.map_or_else(nothing, |(ratio, set)| format!("{ratio:.2} at worst ({set})")),
            kept: worst.map(|(ratio, _)| ratio >= limit),
        });
    }
    marks
}

fn nothing() -> String {
    "not measured".to_owned()
}

pub(super) fn print(marks: &[Mark]) {
    println!("\nWhat was promised");
    for Mark { line, promise, found, kept } in marks {
        let mark = match kept {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "-",
        };
        println!("  {line}  {mark:4}  {promise:64}  {found}");
    }
}
