//! Crates use each other in one direction, and a foreign library is named in one place of the workspace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The crates of the workspace that each crate may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("narrows-codec", &[]),
    ("narrows-models", &[]),
    ("narrows-wire", &[]),
    ("narrows-int8", &[]),
    (
        "narrows-head",
        &[
            "narrows-codec",
            "narrows-http",
            "narrows-int8",
            "narrows-models",
            "narrows-pixels",
            "narrows-policy",
            "narrows-power",
            "narrows-service",
            "narrows-video",
            "narrows-wire",
        ],
    ),
    ("narrows-http", &[]),
    ("narrows-scheduler", &[]),
    (
        "narrows-tail",
        &[
            "narrows-codec",
            "narrows-http",
            "narrows-models",
            "narrows-scheduler",
            "narrows-service",
            "narrows-wire",
        ],
    ),
    (
        "narrows-bench",
        &[
            "narrows-codec",
            "narrows-eval",
            "narrows-head",
            "narrows-int8",
            "narrows-models",
            "narrows-netsim",
            "narrows-pair",
            "narrows-pixels",
            "narrows-policy",
            "narrows-power",
            "narrows-scheduler",
            "narrows-tail",
            "narrows-video",
            "narrows-wire",
        ],
    ),
    ("narrows-demo", &["narrows-models", "narrows-pair", "narrows-tail"]),
    ("narrows-eval", &["narrows-codec", "narrows-head", "narrows-models", "narrows-tail"]),
    (
        "narrows-fuzz-targets",
        &[
            "narrows-codec",
            "narrows-models",
            "narrows-pixels",
            "narrows-power",
            "narrows-video",
            "narrows-wire",
        ],
    ),
    ("narrows-netsim", &[]),
    ("narrows-pair", &[]),
    ("narrows-pixels", &["narrows-models", "narrows-video"]),
    ("narrows-policy", &[]),
    ("narrows-power", &[]),
    ("narrows-service", &[]),
    ("narrows-structure", &[]),
    ("narrows-video", &[]),
    (
        "narrows-tests",
        &[
            "narrows-bench",
            "narrows-codec",
            "narrows-eval",
            "narrows-head",
            "narrows-int8",
            "narrows-models",
            "narrows-netsim",
            "narrows-pair",
            "narrows-power",
            "narrows-tail",
            "narrows-wire",
        ],
    ),
];

/// Names that only some files may use: a name, and the beginnings of the paths of those files.
const ALLOWED_IN: &[(&str, &[&str])] = &[
    ("tract_onnx", &["head/src/net", "bench/arm/tract/"]),
    ("use ort::", &["tail/src/engine/ort"]),
    ("ort::", &["tail/src/engine"]),
    // The engine of the tail knows no transport.
    (
        "narrows_wire",
        &[
            "wire/",
            "head/",
            "bench/",
            "tests/",
            "tail/src/signing.rs",
            "tail/src/certs",
            "tail/src/check.rs",
            "tail/src/config.rs",
            "tail/src/enrol",
            "tail/src/error.rs",
            "tail/src/frontend",
            "tail/src/serve",
            "tail/src/status",
        ],
    ),
    ("quinn::", &["wire/", "head/", "bench/", "tests/", "tail/src/frontend", "tail/src/serve.rs"]),
    ("rumqttc", &["head/src/sink/mqtt"]),
    ("httparse", &["http/src/request.rs"]),
    ("prometheus_client", &["tail/src/status"]),
    ("ureq::", &["head/src/sink/webhook.rs", "head/src/config/outputs.rs"]),
    ("nvml_wrapper", &["head/power/src/sources/gpu.rs"]),
    ("sd_notify", &["service/src/notify.rs"]),
    ("clap_mangen", &["service/src/manual.rs"]),
    ("clap_complete", &["service/src/manual.rs"]),
    ("x509_parser", &["wire/src/fault.rs", "wire/src/identity"]),
    ("TransportConfig", &["wire/src/quic.rs"]),
    ("unsafe {", &["head/int8/src/"]),
    ("anyhow", &["head/src/main.rs", "tail/src/main.rs", "bench/", "tests/"]),
];

#[test]
fn crates_depend_only_downstream() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo reads the workspace");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let ours = |name: &str| name.starts_with("narrows-");
    for package in packages {
        let name = package["name"].as_str().expect("a package has a name");
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} has no row in MAY_USE"));
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        let used: BTreeSet<&str> =
            dependencies.iter().filter_map(|dep| dep["name"].as_str()).filter(|name| ours(name)).collect();
        assert!(used.is_subset(allowed), "{name} uses {used:?}, may use {allowed:?}");
    }
    assert_eq!(packages.len(), MAY_USE.len());
}

#[test]
fn a_name_is_used_only_where_it_is_allowed() {
    let mut used = BTreeMap::<&str, usize>::new();
    for path in sources() {
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        for (name, places) in ALLOWED_IN {
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            if path.ends_with("tests/layers.rs") || !code.any(|line| names(line, name)) {
                continue;
            }
            let path = path.to_str().expect("a path of this project");
            assert!(places.iter().any(|place| path.starts_with(place)), "{path} uses `{name}`");
            *used.entry(name).or_default() += 1;
        }
    }
    for (name, _) in ALLOWED_IN {
        assert!(used.contains_key(name), "no file uses `{name}`: take its row out of ALLOWED_IN");
    }
}

#[test]
fn files_stay_readable() {
    for path in sources() {
        let lines = fs::read_to_string(root().join(&path)).expect("a source file").lines().count();
        assert!(lines <= 800, "{} has {lines} lines: split it", path.display());
    }
}

/// Whether `line` holds `name`, and not as the end of a longer name.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust file of the workspace, relative to its root.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["codec", "models", "wire", "head", "http", "service", "tail", "bench", "tests"]
            .iter()
            .map(PathBuf::from)
            .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the workspace") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() && !path.ends_with("target") && !path.ends_with("recipes") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 40, "only {} source files found", found.len());
    found
}
