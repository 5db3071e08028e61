//! Every target on its seed corpus, with any compiler.

use std::{fs, path::PathBuf};

use narrows_fuzz_targets::TARGETS;

/// Most bytes of the whole corpus: it lies in the repository.
const MAX_BYTES: usize = 300_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seed")
}

#[test]
fn every_target_runs_its_seeds_and_accepts_some() {
    let mut total = 0;
    for (name, run) in TARGETS {
        let folder = folder().join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let (mut seeds, mut accepted) = (0, 0);
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            total += bytes.len();
            seeds += 1;
            accepted += usize::from(run(&bytes));
        }
        assert!(seeds >= 3 && accepted >= seeds / 2, "{name}: {accepted} of {seeds} seeds are accepted");
    }
    assert!(total <= MAX_BYTES, "the seeds have {total} bytes");
}

#[test]
fn every_target_is_one_of_cargo_fuzz_and_has_seeds() {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let targets = TARGETS.map(|(name, _)| name);
    assert_eq!(names(folder().join("../fuzz_targets")), targets);
    assert_eq!(names(folder()), targets);
}

/// Damaged seeds reach what whole ones do not: every error path behind a valid beginning.
#[test]
fn damaged_seeds_are_no_panic() {
    for (name, run) in TARGETS {
        for file in fs::read_dir(folder().join(name)).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            for step in 0..64 {
                let at = step * bytes.len() / 64;
                run(&bytes[..at]);
                let mut flipped = bytes.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << (step % 8);
                }
                run(&flipped);
            }
        }
    }
}
