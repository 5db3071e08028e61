use super::*;
use crate::{ErrorKind, Fit, TaskKind};

/// The example of BUNDLE.md, with every part listed.
fn example() -> String {
    let spec = include_str!("../../BUNDLE.md");
    let toml = spec.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let digest = Digest::of(b"").to_string();
    let parts = [
        "tables.bin",
        "tail-classify.onnx",
        "labels-classify.tsv",
        "reference-classify.onnx",
        "vectors/photo-0.png",
        "vectors/photo-0.symbols",
        "vectors/photo-0.packet",
        "vectors/photo-0.classify",
        "local.onnx",
        "reference-local.onnx",
        "vectors/local-photo-0.png",
        "vectors/local-photo-0.logits",
    ];
    let listed: String = parts.iter().map(|part| format!("\"{part}\" = \"{digest}\"\n")).collect();
    let toml = toml.replace("64 hexadecimal digits", &digest) + &listed;
    // The document shows one level of several and a default that is not the first.
    toml.replace("[[task]]", "[[level]]\ngain = 0.5\nstep = 1.42\nbytes = 4100\n\n[[task]]")
}

#[test]
fn reads_the_example_of_the_document() {
    let manifest = Manifest::parse(&example()).expect("the example is good");
    assert_eq!(manifest.name(), "lite2");
    assert_eq!(manifest.geometries()[0].fit, Fit::Crop { short_side: 288 });
    assert_eq!(manifest.geometries()[1].fit, Fit::Stretch);
    assert_eq!(manifest.geometries()[1].latent(manifest.head().stride), (45, 60));
    assert_eq!(manifest.tasks()[0].kind, TaskKind::Classify);
    assert_eq!(manifest.vectors()[0].outputs[0].task, 0);
    assert_eq!(manifest.digests().len(), 13);
    let local = manifest.local().expect("the example has one");
    assert_eq!((local.task, local.geometry.width, local.vectors.len()), (0, 224, 1));
    assert_eq!(local.geometry.fit, Fit::Crop { short_side: 256 });
    let exit = local.exit.as_ref().expect("the example has one");
    assert_eq!((exit.threshold, exit.photos, exit.curve.len()), (0.1, 200, 3));
    assert_eq!((exit.curve[1].kept, exit.curve[2].bytes), (0.97, 4773.4));
}

#[test]
fn the_local_network_may_be_absent() {
    let text = example();
    let (before, rest) = text.split_once("[local]").expect("the example has one");
    let after = rest.find("[digests]").expect("digests come last");
    let manifest = Manifest::parse(&format!("{before}{}", &rest[after..])).expect("the rest is good");
    assert!(manifest.local().is_none());
}

#[test]
fn the_local_network_must_have_a_task_of_kind_classify() {
    let text = example().replace("kind = \"classify\"", "kind = \"segment\"");
    match Manifest::parse(&text) {
        Err(Error::Field { field, .. }) => assert_eq!(field, "local.task"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_the_field_that_breaks_a_rule() {
    for (from, to, field) in [
        ("name = \"lite2\"", "name = \"Lite 2\"", "name"),
        ("default_level = 1", "default_level = 2", "default_level"),
        ("channels = 24", "channels = 0", "head.channels"),
        ("stride = 8", "stride = 0", "head.stride"),
        ("width = 256", "width = 257", "geometry[0].width"),
        ("short_side = 288", "short_side = 255", "geometry[0].short_side"),
        ("name = \"frame\"", "name = \"photo\"", "geometry"),
        ("filter = \"bicubic\"  ", "filter = \"lanczos\"  ", "geometry[0].filter"),
        ("gain = 1.0", "gain = nan", "level[0].gain"),
        ("gain = 0.5", "gain = 1.5", "level[1].gain"),
        ("gain = 1.0", "gain = 0.25", "level"),
        ("step = 0.71", "step = inf", "level[0].step"),
        ("kind = \"classify\"", "kind = \"detect\"", "task[0].kind"),
        ("geometry = \"photo\"   ", "geometry = \"square\"   ", "task[0].geometry"),
        ("tail = \"tail-classify.onnx\"", "tail = \"other.onnx\"", "task[0].tail"),
        ("level = 1\nimage", "level = 9\nimage", "vector[0].level"),
        ("task = \"classify\"", "task = \"segment\"", "vector[0].output[0].task"),
        ("stride = 1\n", "stride = 0\n", "vector[0].output[0].stride"),
        ("task = \"classify\"      ", "task = \"segment\"      ", "local.task"),
        ("width = 224", "width = 0", "local.width"),
        ("short_side = 256", "short_side = 223", "local.short_side"),
        ("filter = \"bicubic\"\nmacs", "filter = \"lanczos\"\nmacs", "local.filter"),
        ("file = \"local.onnx\"", "file = \"other.onnx\"", "local.file"),
        ("file = \"reference-local.onnx\"", "file = \"other.onnx\"", "local.reference.file"),
        ("logits = \"vectors/local-photo-0.logits\"", "logits = \"no\"", "local.vector[0].logits"),
        ("threshold = 0.1  ", "threshold = 0.6  ", "local.exit.threshold"),
        ("photos = 200", "photos = 0", "local.exit.photos"),
        ("threshold = 0.0, kept = 1.0", "threshold = 0.1, kept = 1.0", "local.exit.curve"),
        ("threshold = 0.0, kept = 1.0", "threshold = nan, kept = 1.0", "local.exit.curve[0].threshold"),
        ("kept = 1.0", "kept = 1.5", "local.exit.curve[0].kept"),
        ("kept = 1.0", "kept = 0.5", "local.exit.curve"),
        ("agreement = 0.71", "agreement = -0.71", "local.exit.curve[0].agreement"),
        ("bytes = 130.0", "bytes = inf", "local.exit.curve[1].bytes"),
        ("bytes = 130.0", "bytes = 9000", "local.exit.curve"),
        ("format = 3", "format = 2", "task[0].ladder"),
        ("[1400, 2600, 4100]", "[0, 2600, 4100]", "task[0].ladder[1].bytes"),
        ("[1400, 2600, 4100]", "[1400, 2600, 2600]", "task[0].ladder[1].bytes"),
        ("[1400, 2600, 4100]", "[1400, 2600]", "task[0].ladder[1].value"),
        ("[0.30, 0.72, 0.89]", "[0.30, 0.72, 0.71]", "task[0].ladder[1].value"),
        ("[0.30, 0.72, 0.89]", "[0.30, 0.72, 1.1]", "task[0].ladder[1].value"),
        ("  { bytes = [1400, 2600, 4100], value = [0.30, 0.72, 0.89] },\n", "", "task[0].ladder"),
        (
            "[1400, 2600, 4100], value = [0.30, 0.72, 0.89]",
            "[1400, 2600], value = [0.30, 0.72]",
            "task.ladder",
        ),
        ("\"head.onnx\" =", "\"../head.onnx\" =", "digests.\"../head.onnx\""),
        ("\"head.onnx\" =", "\"/head.onnx\" =", "digests.\"/head.onnx\""),
        ("\"head.onnx\" = \"e", "\"head.onnx\" = \"E", "digests.\"head.onnx\""),
    ] {
        let text = example();
        assert!(text.contains(from), "{from} is not in the example");
        match Manifest::parse(&text.replacen(from, to, 1)) {
            Err(Error::Field { field: found, .. }) => assert_eq!(found, field, "{to}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn refuses_another_format_before_it_reads_the_other_keys() {
    for format in [1, 4] {
        let text = format!("format = {format}\nsomething = \"new\"");
        let error = Manifest::parse(&text).expect_err("the format is unknown");
        assert_eq!(error.kind(), ErrorKind::Version);
        let message = "is not supported, this build reads formats 2 to 3";
        assert_eq!(error.to_string(), format!("manifest.toml: format {format} {message}"));
    }
}

#[test]
fn reads_a_bundle_of_format_2() {
    let text = example();
    let (before, rest) = text.split_once("[local.exit]").expect("the example has one");
    let after = rest.find("[digests]").expect("digests come last");
    let older = format!("{before}{}", &rest[after..]).replace("format = 3", "format = 2");
    assert!(Manifest::parse(&older).expect_err("it has a ladder").to_string().contains("task[0].ladder"));
    let (ladder, end) =
        (older.find("ladder = [").expect("it has one"), older.find("\n]\n").expect("its end"));
    let older = format!("{}{}", &older[..ladder], &older[end + 3..]);
    let exit = format!("[local.exit]{}[digests]", &rest[..after]);
    let error = Manifest::parse(&older.replace("[digests]", &exit)).expect_err("it has an exit").to_string();
    assert!(error.contains("local.exit: only bundles from format 3 on"), "{error}");
    let manifest = Manifest::parse(&older).expect("format 2 has neither exit nor ladder");
    assert_eq!(manifest.local().map(|local| &local.exit), Some(&None));
}

#[test]
fn refuses_unknown_keys_and_broken_syntax() {
    for text in [
        example().replace("licence =", "license ="),
        example().replace("[head]", "[head]\nfast = true"),
        example().replace("format = 3", "format = \"3\""),
        example().replace("photos = 200", "photos = 200\nlevel = 1"),
        "format =".to_owned(),
        String::new(),
    ] {
        let error = Manifest::parse(&text).expect_err("not a manifest");
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
}
