//! Images from the real head to the real tail: the answers are those of the bundle's unsplit networks, and hostile files are
//! refused.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use image::{ImageFormat as File, RgbImage};
use narrows_eval::{pipeline::UnsplitNetworks, scores::argmax};
use narrows_head::{
    encoding::{Chroma, Encoding, Format},
    image::{decode, fit},
};
use narrows_models::{Bundle, Geometry, Parts};
use narrows_pair::Pair;
use narrows_tail::engine::Runtime;
use narrows_tests::{Client, bundle, changed_bundle, lines, photos, root, runtime, said};
use narrows_wire::{FrameReply, Framing, Image, ImageFormat, Path, Payload, RefusalCode};
use serde_json::Value;

const SOME_UNANSWERED: i32 = 1;
const WRONG_USAGE: i32 = 2;
const BAD_BUNDLE: i32 = 3;

fn start(more: &[&str]) -> Result<Pair> {
    let runtime = runtime().display().to_string();
    let args = ["--device", "cpu", "--runtime", &runtime];
    Pair::start(&bundle(), &[&args, more].concat())
}

fn open() -> Result<Bundle> {
    Ok(Bundle::open(bundle(), Parts::All)?)
}

/// The output lines of a head that sends all photos with these flags, in the order of the photos, and its exit code.
fn send(pair: &Pair, flags: &[&str]) -> Result<(Vec<Value>, Option<i32>)> {
    let output = pair.head(&bundle()).arg("--source").arg(photos()).args(flags).output()?;
    let mut lines = lines(&output)?;
    ensure!(!lines.is_empty(), "{}", said(&output));
    lines.sort_by_key(|line| line["frame"].as_u64());
    Ok((lines, output.status.code()))
}

fn photo(line: &Value) -> Result<RgbImage> {
    let file: PathBuf = line["file"].as_str().context("a line names its file")?.into();
    Ok(decode(&fs::read(file)?)?)
}

/// The logits of a task that the unsplit network computes from an image after it was encoded and decoded.
fn reference(
    unsplit: &mut UnsplitNetworks,
    task: usize,
    image: &RgbImage,
    geometry: &Geometry,
    encoding: Encoding,
    framing: Framing,
) -> Result<Vec<f32>> {
    let through_file = |pixels: &[u8], width: usize, height: usize| -> Result<RgbImage> {
        Ok(decode(&encoding.encode(pixels, width, height)?)?)
    };
    let seen = match framing {
        Framing::Original => {
            fit(&through_file(image, image.width() as usize, image.height() as usize)?, geometry)
        }
        _ => through_file(&fit(image, geometry), geometry.width, geometry.height)?.into_raw(),
    };
    unsplit.run(task, &seen, (geometry.width, geometry.height))
}

#[test]
fn answers_to_images_are_those_of_the_unsplit_network() -> Result<()> {
    let (pair, bundle) = (start(&["--offload"])?, open()?);
    let mut unsplit = UnsplitNetworks::open(&bundle, &Runtime::open(Some(&runtime()))?)?;
    let jpeg = Encoding { format: Format::Jpeg, quality: 60, chroma: Chroma::Full };
    let webp = Encoding { format: Format::Webp, quality: 40, chroma: Chroma::Half };
    for (flags, encoding, framing) in [
        (&["--quality", "60", "--subsampling", "444"][..], jpeg, Framing::Fitted),
        (&["--quality", "60", "--subsampling", "444", "--send", "original"], jpeg, Framing::Original),
        (&["--format", "webp", "--quality", "40"], webp, Framing::Fitted),
    ] {
        let (lines, code) = send(&pair, &[&["--path", "image"], flags].concat())?;
        assert_eq!(code, Some(0), "{flags:?}");
        for line in lines {
            assert_eq!((&line["path"], &line["format"]), (&"image".into(), &encoding.format.name().into()));
            assert_eq!(line["quality"], encoding.quality, "{line}");
            assert_eq!(line["level"], Value::Null, "{line}");
            assert!(line["bytes"]["packet"].as_u64() > Some(1000), "{line}");
            let image = photo(&line)?;
            let geometry = bundle.geometries().iter().find(|geometry| line["geometry"] == geometry.name);
            let geometry = geometry.context("a geometry of the bundle")?;
            let mut logits_of = |task| reference(&mut unsplit, task, &image, geometry, encoding, framing);
            let logits = logits_of(bundle.task("classify").context("classify")?.0)?;
            let best = argmax(&logits);
            let sum: f64 = logits.iter().map(|logit| f64::from(logit - logits[best]).exp()).sum();
            let guess = &line["classify"][0];
            assert_eq!(guess["index"], best, "{flags:?} {line}");
            let off = guess["probability"].as_f64().context("a probability")? - 1.0 / sum;
            assert!(off.abs() < 2e-3, "{off} {line}");
            let (task, spec) = bundle.task("segment").context("segment")?;
            let logits = logits_of(task)?;
            let plane = logits.len() / spec.labels.len();
            let class =
                |at: usize| argmax(&logits.iter().skip(at).step_by(plane).copied().collect::<Vec<_>>());
            let mut counts = vec![0usize; spec.labels.len()];
            (0..plane).for_each(|at| counts[class(at)] += 1);
            for share in line["segment"]["classes"].as_array().context("classes of the map")? {
                let index = share["index"].as_u64().context("an index")? as usize;
                let off = share["share"].as_f64().context("a share")? - counts[index] as f64 / plane as f64;
                assert!(off.abs() < 1e-3, "class {index}: {off} {line}");
            }
        }
    }
    pair.drain()
}

#[test]
fn both_paths_are_answered_by_one_tail_and_without_entropy_coding_alike() -> Result<()> {
    let (pair, bundle) = (start(&["--offload"])?, open()?);
    let (coded, _) = send(&pair, &["--tasks", "classify"])?;
    let (raw, code) = send(&pair, &["--tasks", "classify", "--coding", "raw"])?;
    let (images, _) = send(&pair, &["--tasks", "classify", "--path", "image", "--in-flight", "16"])?;
    assert_eq!(code, Some(0));
    let (rows, columns) = bundle.geometries()[0].latent(bundle.head().stride);
    for ((coded, raw), image) in coded.iter().zip(&raw).zip(&images) {
        assert_eq!((&coded["coding"], &raw["coding"]), (&"context".into(), &"raw".into()));
        assert_eq!((&raw["path"], &image["path"]), (&"split".into(), &"image".into()));
        assert_eq!(coded["classify"], raw["classify"], "the same symbols");
        let symbols = (bundle.head().channels * rows * columns) as u64;
        let packet = raw["bytes"]["packet"].as_u64().context("bytes")?;
        assert_eq!(
            packet,
            symbols + narrows_codec::HEADER_BYTES as u64 + 4,
            "a byte per symbol, and the checksum"
        );
        assert!(coded["bytes"]["packet"].as_u64() < Some(packet));
    }
    pair.drain()
}

#[tokio::test]
async fn hostile_images_are_refused_and_the_connection_stays_open() -> Result<()> {
    let pair = start(&["--offload", "--decoders", "1"])?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let cat = decode(&fs::read(photos().join("cat.png"))?)?;
    let fitted = fit(&cat, &open()?.geometries()[0]);
    let encode = |format| Encoding { format, quality: 50, chroma: Chroma::Half }.encode(&fitted, 224, 224);
    let (jpeg, webp) = (encode(Format::Jpeg)?, encode(Format::Webp)?);
    let good = Image { geometry: 0, format: ImageFormat::Jpeg, framing: Framing::Fitted, file: jpeg.clone() };
    let mut id = 0;
    let mut classify = async |image: Image| {
        id += 1;
        client.classify_payload(id, Payload::Image(image)).await
    };
    let answered =
        |reply: &FrameReply| matches!(reply, FrameReply::Answered(reply) if reply.path == Path::Image);
    assert!(answered(&classify(good.clone()).await?));

    let file = |file: Vec<u8>| Image { file, ..good.clone() };
    let as_webp = |file: Vec<u8>| Image { file, format: ImageFormat::WebP, ..good.clone() };
    let mut hostile = vec![
        ("garbage", file(vec![7; 3000]), "cannot be decoded"),
        ("another format", file(webp.clone()), "cannot be decoded"),
        ("a PNG", file(png(&cat)?), "cannot be decoded"),
        ("another size", Image { file: small()?, ..good.clone() }, "8×8"),
        ("no such geometry", Image { geometry: 9, ..good.clone() }, "geometry 9"),
        ("a bomb of pixels", file(with_huge_size(&jpeg)?), "65500×65500"),
        ("a bomb of scans", file(with_empty_scans(&jpeg)), "scans"),
        ("half a WebP", as_webp(webp[..webp.len() / 2].to_vec()), ""),
    ];
    for length in (1..jpeg.len()).step_by(jpeg.len() / 20) {
        hostile.push(("a cut JPEG", file(jpeg[..length].to_vec()), ""));
    }
    for (name, image, words) in hostile {
        match classify(image).await? {
            FrameReply::Refused { refusal, .. } => {
                assert_eq!(refusal.code, RefusalCode::BadImage, "{name}: {refusal}");
                assert!(refusal.to_string().contains(words), "{name}: {refusal}");
            }
            FrameReply::Answered(_) => panic!("{name} was answered"),
        }
        assert!(answered(&classify(good.clone()).await?), "after {name}");
    }
    for bit in (0..8 * jpeg.len()).step_by(8 * jpeg.len() / 100) {
        let mut flipped = jpeg.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reply = classify(file(flipped)).await?;
        let bad =
            matches!(&reply, FrameReply::Refused { refusal, .. } if refusal.code == RefusalCode::BadImage);
        assert!(bad || answered(&reply), "bit {bit}: {reply:?}");
    }
    assert!(answered(&classify(good).await?));
    pair.drain()
}

#[tokio::test]
async fn only_packets_are_answered_where_no_unsplit_network_is_served() -> Result<()> {
    let pair = start(&[])?;
    let (lines, code) = send(&pair, &["--path", "image", "--tasks", "classify"])?;
    assert_eq!(code, Some(SOME_UNANSWERED));
    for line in lines {
        assert_eq!((&line["status"], &line["code"]), (&"refused".into(), &28.into()), "{line}");
        let error = line["error"].as_str().context("a refused line says why")?;
        assert!(error.contains("whole network not served") && error.contains("classify"), "{line}");
    }
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let image = Image { geometry: 0, format: ImageFormat::Jpeg, framing: Framing::Original, file: small()? };
    let refused = client.classify_payload(1, Payload::Image(image)).await?;
    assert!(
        matches!(&refused, FrameReply::Refused { refusal, .. } if refusal.code == RefusalCode::UnsplitNotServed),
        "{refused:?}"
    );
    let bundle = open()?;
    let packet = bundle.read(&bundle.vectors().first().context("the bundle has vectors")?.packet)?;
    assert!(matches!(client.classify(2, &packet).await?, FrameReply::Answered(_)));
    pair.drain()
}

#[test]
fn a_bundle_without_unsplit_networks_cannot_be_served_with_offload() -> Result<()> {
    let bare = changed_bundle("manifest.toml", false, |manifest| {
        let text = String::from_utf8_lossy(manifest);
        let kept = text.lines().filter(|line| !line.starts_with("reference"));
        *manifest = kept.map(|line| format!("{line}\n")).collect::<String>().into_bytes();
    })?;
    let certs = tempfile::tempdir()?;
    assert!(narrows_pair::tail().args(["certs", "init", "--dir"]).arg(certs.path()).status()?.success());
    let mut tail = narrows_pair::tail();
    tail.args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--offload", "--bundle"]);
    tail.arg(bare.path()).arg("--identity").arg(certs.path().join("server"));
    let output = tail.arg("--runtime").arg(runtime()).output()?;
    assert_eq!(output.status.code(), Some(BAD_BUNDLE), "{}", said(&output));
    assert!(said(&output).contains("without --offload"), "{}", said(&output));
    Ok(())
}

#[test]
fn flags_of_the_other_path_are_refused_by_name() -> Result<()> {
    for (flags, words) in [
        (&["--path", "image", "--level", "1"][..], ["--level", "--path split"]),
        (&["--path", "image", "--coding", "raw"], ["--coding", "--path split"]),
        (&["--quality", "50"], ["--quality", "--path image"]),
        (&["--path", "image", "--quality", "0"], ["--quality", "1..=100"]),
        (&["--path", "image", "--format", "webp", "--subsampling", "444"], ["--subsampling", "WebP"]),
    ] {
        let mut head = narrows_pair::head();
        head.args(["run", "--server", "127.0.0.1:9", "--identity", "none", "--source", "none", "--bundle"]);
        let output = head.arg(bundle()).args(flags).current_dir(root()).output()?;
        assert_eq!(output.status.code(), Some(WRONG_USAGE), "{flags:?}: {}", said(&output));
        assert!(words.iter().all(|word| said(&output).contains(word)), "{flags:?}: {}", said(&output));
    }
    Ok(())
}

/// A JPEG of 8 × 8 pixels.
fn small() -> Result<Vec<u8>> {
    Ok(Encoding { format: Format::Jpeg, quality: 50, chroma: Chroma::Half }.encode(&[90; 192], 8, 8)?)
}

fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, File::Png)?;
    Ok(bytes.into_inner())
}

/// The JPEG with a size of 65500 × 65500 pixels in its header.
fn with_huge_size(jpeg: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = jpeg.to_vec();
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).context("a baseline JPEG")?;
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    Ok(bytes)
}

/// The JPEG with ten thousand empty scans at its end.
fn with_empty_scans(jpeg: &[u8]) -> Vec<u8> {
    let scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00";
    [&jpeg[..jpeg.len() - 2], &scan.repeat(10_000), b"\xff\xd9"].concat()
}
