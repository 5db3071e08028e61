//! A client in Python, written from wire/PROTOCOL.md alone (tests/python-client), against the real tail: it gets the answers
//! of the real head, and what it does against the protocol harms nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use image::{GenericImage, ImageFormat, RgbImage};
use narrows_pair::Pair;
use narrows_tests::{bundle, lines, output_within, python_with, root, runtime, said, skipped};

/// The time in which the client's tests end on the slowest machine.
const LONG: Duration = Duration::from_secs(600);

/// A Python with what the client needs.
fn python() -> Result<Option<PathBuf>> {
    let packages = ["aioquic>=1.2", "zstandard>=0.22", "pytest>=8"];
    python_with("python-client", (3, 10), "aioquic, zstandard, pytest", &packages)
}

#[test]
fn a_client_written_from_the_document_is_answered_as_the_head_and_its_faults_harm_nobody() -> Result<()> {
    let Some(python) = python()? else {
        skipped(
            "second_client",
            "python3 of version 3.10 or later with venv, and a package index for aioquic",
        );
        return Ok(());
    };
    let pair = Pair::start(
        &bundle(),
        &["--offload", "--device", "cpu", "--runtime", &runtime().display().to_string()],
    )?;
    for device in ["honest", "faulty"] {
        let made =
            narrows_pair::tail().args(["certs", "device", device, "--dir"]).arg(pair.certs()).output()?;
        ensure!(made.status.success(), "{}", said(&made));
    }
    // The photo of a test vector is the network's input as it is. With a border that the geometry of the bundle crops, the
    // head computes the same symbols from a file.
    let folder = tempfile::tempdir()?;
    let vector = image::open(bundle().join("vectors/photo-0.png"))?.to_rgb8();
    let mut photo = RgbImage::new(256, 256);
    photo.copy_from(&vector, 16, 16)?;
    let (file, jpeg) = (folder.path().join("photo.png"), folder.path().join("photo.jpg"));
    photo.save(&file)?;
    photo.save_with_format(&jpeg, ImageFormat::Jpeg)?;
    let out = folder.path().join("out");
    let mut head = pair.head(&bundle());
    head.args(["--level", "1", "--source"]).arg(&file).arg("--out").arg(&out);
    let answered = output_within(&mut head, LONG)?;
    let line = lines(&answered)?.pop().with_context(|| said(&answered))?;
    let mask = line["segment"]["mask"].as_str().context("the line names its mask")?;
    let map = folder.path().join("map");
    fs::write(&map, indices(Path::new(mask))?)?;
    let mut client = Command::new(python);
    client
        .args(["-m", "pytest", "--quiet", "--tb=short", "-p", "no:cacheprovider"])
        .current_dir(root().join("tests/python-client"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NARROWS_ADDRESS", pair.address())
        .env("NARROWS_CERTS", pair.certs())
        .env("NARROWS_BUNDLE", bundle())
        .env("NARROWS_HEAD", line.to_string())
        .env("NARROWS_MASK", &map)
        .env("NARROWS_JPEG", &jpeg)
        .env("NARROWS_TAIL_PID", pair.tail_pid().to_string());
    let tests = output_within(&mut client, LONG)?;
    let report = String::from_utf8_lossy(&tests.stdout);
    ensure!(tests.status.success(), "{report}\n{}\n{}", said(&tests), pair.log());
    ensure!(!report.contains("skipped"), "{report}");
    // The real head too is answered as before.
    let again = lines(&output_within(&mut head, LONG)?)?.pop().context("a line")?;
    assert_eq!((&again["classify"], &again["status"]), (&line["classify"], &line["status"]));
    assert!(!pair.log().contains("panicked"), "{}", pair.log());
    pair.drain()
}

/// The indices of a mask's pixels in its palette, row by row.
fn indices(file: &Path) -> Result<Vec<u8>> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(file)?));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("a picture of a possible size")?];
    let frame = reader.next_frame(&mut pixels)?;
    ensure!(frame.bit_depth == png::BitDepth::Eight, "a mask has a byte for each pixel");
    pixels.truncate(frame.buffer_size());
    Ok(pixels)
}
