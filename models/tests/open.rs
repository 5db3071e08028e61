//! Folders on disk: what `Bundle::open` takes and what it refuses.

use std::{fs, path::Path};

use narrows_models::{Bundle, Digest, Error, ErrorKind, Parts};

/// The parts of a small bundle: 2 channels at stride 8 on a 16×8 input, so a latent of 2×1×2.
fn parts() -> Vec<(&'static str, Vec<u8>)> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 0, 0, 16, 0, 0, 0, 8]);
    vec![
        ("head.onnx", network("head")),
        ("tables.bin", b"tables".to_vec()),
        ("tail-classify.onnx", network("tail")),
        ("labels-classify.tsv", b"cat\ndog".to_vec()),
        ("vectors/a.png", png),
        ("vectors/a.symbols", vec![0; 4]),
        ("vectors/a.packet", b"packet".to_vec()),
        ("vectors/a.classify", vec![0; 8]),
        ("local.onnx", network("local")),
        ("vectors/local.logits", vec![0; 8]),
    ]
}

/// An ONNX file that says who made it and nothing else.
fn network(producer: &str) -> Vec<u8> {
    [&[2 << 3 | 2, producer.len() as u8], producer.as_bytes()].concat()
}

fn write(dir: &Path, parts: &[(&str, Vec<u8>)]) {
    let mut manifest = r#"
format = 2
name = "small"
version = "1.0.0"
description = "a bundle for tests"
backbone = "none"
licence = "MIT"
default_level = 0
codec = { tables = "tables.bin" }
[head]
file = "head.onnx"
input = "image"
output = "latent"
channels = 2
stride = 8
macs = 1
parameters = 1
[[geometry]]
name = "wide"
width = 16
height = 8
filter = "box"
[[level]]
gain = 1.0
step = 1.0
bytes = 10
[[task]]
name = "classify"
kind = "classify"
tail = "tail-classify.onnx"
latent = "latent"
step = "step"
output = "logits"
geometry = "wide"
labels = "labels-classify.tsv"
[[vector]]
name = "a"
geometry = "wide"
level = 0
image = "vectors/a.png"
symbols = "vectors/a.symbols"
packet = "vectors/a.packet"
output = [{ task = "classify", file = "vectors/a.classify", stride = 1 }]
[local]
file = "local.onnx"
input = "image"
output = "logits"
task = "classify"
backbone = "none"
width = 16
height = 8
filter = "box"
macs = 1
parameters = 1
vector = [{ name = "a", image = "vectors/a.png", logits = "vectors/local.logits" }]
[digests]
"#
    .to_owned();
    fs::create_dir_all(dir.join("vectors")).expect("a folder for vectors");
    for (part, bytes) in parts {
        manifest += &format!("{part:?} = \"{}\"\n", Digest::of(bytes));
        fs::write(dir.join(part), bytes).expect("a part is written");
    }
    fs::write(dir.join("manifest.toml"), manifest).expect("the manifest is written");
}

fn changed(part: &str, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut parts = parts();
    parts.iter_mut().find(|(name, _)| *name == part).expect("a known part").1 = bytes.to_vec();
    parts
}

#[test]
fn opens_a_whole_bundle_and_knows_it_by_its_manifest() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &changed("labels-classify.tsv", b"cat\ndog\t#00ff00\n"));
    let bundle = Bundle::open(dir.path(), Parts::All).expect("the bundle is good");
    let manifest = fs::read(dir.path().join("manifest.toml")).expect("the manifest");
    assert_eq!(bundle.digest(), Digest::of(&manifest));
    let (index, task) = bundle.task("classify").expect("the task");
    assert_eq!((index, task.labels.len(), task.labels[1].colour), (0, 2, Some([0, 255, 0])));
    assert_eq!(bundle.read("tables.bin").expect("the tables"), b"tables");
}

#[test]
fn a_device_needs_no_tail_but_every_part_of_the_head() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &parts());
    for part in ["tail-classify.onnx", "vectors/a.png", "vectors/a.classify", "local.onnx"] {
        fs::remove_file(dir.path().join(part)).expect("the part was there");
    }
    Bundle::open(dir.path(), Parts::Head).expect("a head needs no tail");
    match Bundle::open(dir.path(), Parts::All) {
        Err(Error::Missing { part, .. }) => assert_eq!(part, "local.onnx"),
        other => panic!("{other:?}"),
    }
    for part in ["head.onnx", "tables.bin", "labels-classify.tsv"] {
        let bytes = fs::read(dir.path().join(part)).expect("the part");
        fs::remove_file(dir.path().join(part)).expect("the part was there");
        match Bundle::open(dir.path(), Parts::Head) {
            Err(Error::Missing { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{part}: {other:?}"),
        }
        fs::write(dir.path().join(part), bytes).expect("the part is back");
    }
}

#[test]
fn refuses_a_changed_part_by_name() {
    for (part, _) in parts() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), &parts());
        let path = dir.path().join(part);
        let mut bytes = fs::read(&path).expect("the part");
        bytes[0] ^= 1;
        fs::write(&path, bytes).expect("the part is changed");
        match Bundle::open(dir.path(), Parts::All) {
            Err(Error::Tampered { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn refuses_parts_that_do_not_fit_together() {
    let mut png = parts()[4].1.clone();
    png[19] = 8;
    for (part, bytes, kind) in [
        ("vectors/a.symbols", vec![0; 5], ErrorKind::Shape),
        ("vectors/a.classify", vec![0; 12], ErrorKind::Shape),
        ("vectors/local.logits", vec![0; 4], ErrorKind::Shape),
        ("vectors/a.png", png, ErrorKind::Shape),
        ("vectors/a.png", b"GIF89a".to_vec(), ErrorKind::Shape),
        ("labels-classify.tsv", b"cat\n\n".to_vec(), ErrorKind::Malformed),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), &changed(part, &bytes));
        let error = Bundle::open(dir.path(), Parts::All).expect_err("does not fit");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_was_digested_is_what_is_loaded() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &parts());
    let mut bundle = Bundle::open(dir.path(), Parts::Tail { unsplit: false }).expect("the bundle is good");
    let change = |part: &str| fs::write(dir.path().join(part), b"other").expect("the part is changed");
    change("tail-classify.onnx");
    fs::remove_file(dir.path().join("vectors/a.packet")).expect("the part was there");
    assert_eq!(bundle.read("tail-classify.onnx").expect("as digested"), network("tail"));
    assert_eq!(bundle.read("vectors/a.packet").expect("as digested"), b"packet");
    assert_eq!(bundle.take("tail-classify.onnx").expect("as digested"), network("tail"));
    // From here on the bytes of the tail are no longer in memory; those of the head never were.
    change("head.onnx");
    for part in ["tail-classify.onnx", "head.onnx"] {
        match bundle.read(part) {
            Err(Error::Tampered { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{part}: {other:?}"),
        }
    }
    bundle.release();
    assert!(matches!(bundle.read("vectors/a.packet"), Err(Error::Missing { .. })));
    assert!(bundle.has("vectors/a.packet"), "it was there");
    assert!(matches!(bundle.read("../other"), Err(Error::Missing { .. })), "no part of the bundle");
}

#[test]
fn a_network_whose_weights_lie_elsewhere_is_refused() {
    // A graph (7) with an initializer (5) of name `w` (8) in the file `weights.bin` (13), which is outside (14).
    let tensor = b"\x42\x01w\x6a\x17\x0a\x08location\x12\x0bweights.bin\x70\x01";
    let initializer = [&[5 << 3 | 2, tensor.len() as u8], &tensor[..]].concat();
    let model = [&[7 << 3 | 2, initializer.len() as u8], &initializer[..]].concat();
    for part in ["head.onnx", "tail-classify.onnx", "local.onnx"] {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), &changed(part, &model));
        fs::write(dir.path().join("weights.bin"), [0; 4]).expect("the weights are written");
        let error = Bundle::open(dir.path(), Parts::All).expect_err("no digest covers the weights");
        assert_eq!(error.kind(), ErrorKind::Tampered);
        let text = error.to_string();
        assert!([part, "`w`", "`weights.bin`"].iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn a_part_is_a_regular_file_of_bounded_size_behind_any_link() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &parts());
    let part = dir.path().join("head.onnx");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("blob");
    fs::rename(&part, &target).expect("the part is moved");
    symlink(&target, &part).expect("a link");
    Bundle::open(dir.path(), Parts::All).expect("the digest decides, not the place");
    let refused = || match Bundle::open(dir.path(), Parts::All) {
        Err(Error::Read { path, source }) => {
            assert_eq!(path, part);
            assert!(source.to_string().contains("not a regular file"), "{source}");
        }
        other => panic!("{other:?}"),
    };
    for other in ["/dev/zero", "/"] {
        fs::remove_file(&part).expect("the link was there");
        symlink(other, &part).expect("a link");
        refused();
    }
    fs::remove_file(&part).expect("the link was there");
    let _socket = UnixListener::bind(&part).expect("a socket");
    refused();
    fs::remove_file(&part).expect("the socket was there");
    let file = fs::File::create(&part).expect("a file");
    file.set_len((1 << 31) + 1).expect("a sparse file");
    let error = Bundle::open(dir.path(), Parts::All).expect_err("too long");
    assert!(error.to_string().contains("head.onnx: length in bytes is 2147483649"), "{error}");
}

#[test]
fn refuses_folders_that_are_no_bundle() {
    let dir = tempfile::tempdir().expect("a folder");
    match Bundle::open(dir.path(), Parts::All) {
        Err(Error::Missing { part, .. }) => assert_eq!(part, "manifest.toml"),
        other => panic!("{other:?}"),
    }
    for (text, kind) in [
        (&b"\xff\xfe"[..], ErrorKind::Malformed),
        (b"format = 9", ErrorKind::Version),
        (&[b'#'; (1 << 20) + 1], ErrorKind::Shape),
    ] {
        fs::write(dir.path().join("manifest.toml"), text).expect("a manifest");
        assert_eq!(Bundle::open(dir.path(), Parts::All).expect_err("no bundle").kind(), kind);
    }
}
