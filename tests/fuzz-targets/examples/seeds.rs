//! Writes the seed corpus of the fuzz targets from shipped files: golden packets, tables and messages, the bundle's manifest
//! and tables, small pictures of a shipped photo, and recordings as meters write them.
//!
//! ```text
//! make seeds
//! ```

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use image::{DynamicImage, imageops::FilterType};
use jpeg_encoder::{ColorType, SamplingFactor};
use narrows_codec::{Choice, Encoder, GeometryId, LevelId, Mode, Tables};
use narrows_wire::{
    EnrolmentCode,
    enrol::{EnrolmentReply, EnrolmentRequest, Token, TokenId},
    identity::Fingerprint,
};

#[path = "../../../codec/tests/generate/mod.rs"]
mod generate;

fn main() -> Result<()> {
    let to = std::env::args().nth(1).context("seeds FOLDER: where to write the corpus")?;
    let seeds = Seeds { root: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), to: to.into() };
    seeds.messages()?;
    seeds.enrolments()?;
    seeds.manifests()?;
    seeds.meters()?;
    seeds.packets()?;
    seeds.tables()?;
    seeds.images()?;
    seeds.streams()
}

struct Seeds {
    /// The folder of the project.
    root: PathBuf,
    /// The folder of the corpus.
    to: PathBuf,
}

impl Seeds {
    fn write(&self, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let folder = self.to.join(target);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        fs::write(folder.join(name), bytes).with_context(|| format!("{target}/{name}"))
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        fs::read(self.root.join(file)).with_context(|| file.to_owned())
    }

    /// Golden messages of the protocol.
    fn messages(&self) -> Result<()> {
        let names = [
            "hello",
            "hello-refusal",
            "welcome",
            "bundle-notice",
            "request",
            "image",
            "truncatable",
            "reply",
            "groups-reply",
            "map",
            "refusal",
        ]
        .into_iter();
        for name in names {
            let connection = ["hello", "hello-refusal", "welcome", "bundle-notice"];
            let target = if connection.contains(&name) { "hello" } else { "frame" };
            let text = String::from_utf8(self.read(&format!("wire/tests/golden/{name}.hex"))?)?;
            let digits: String = text.lines().flat_map(|line| line.split('#').next()).collect();
            let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
            let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
            self.write(target, name, &digits.chunks(2).map(byte).collect::<Result<Vec<u8>>>()?)?;
        }
        Ok(())
    }

    /// Every message of an enrolment, and a token.
    fn enrolments(&self) -> Result<()> {
        let token = Token::new(TokenId([1; 8]), [2; 16], Fingerprint([3; 32]));
        let (id, secret, request) = (token.id(), *token.secret(), vec![0x30; 40].into());
        let named = Some("pi-kitchen".to_owned());
        let enrol = EnrolmentRequest::Enrol { token: id, secret, name: named, request };
        let renew = EnrolmentRequest::Renew { request: vec![0x30; 40].into() };
        let issued = EnrolmentReply::Issued { now: 1_800_000_000, chain: vec![vec![0x30; 40].into(); 2] };
        let pending = EnrolmentReply::Pending { retry: Duration::from_secs(3) };
        let refused =
            EnrolmentReply::Refused { code: EnrolmentCode::Used, text: "by another key".to_owned() };
        self.write("enrolment", "enrol", &enrol.encode()?)?;
        self.write("enrolment", "renew", &renew.encode()?)?;
        self.write("enrolment", "issued", &issued.encode()?)?;
        self.write("enrolment", "pending", &pending.encode()?)?;
        self.write("enrolment", "refused", &refused.encode()?)?;
        self.write("enrolment", "token", token.to_string().as_bytes())
    }

    /// The shipped manifest, whole and without parts that a manifest may lack.
    fn manifests(&self) -> Result<()> {
        let whole = String::from_utf8(self.read("models/bundles/lite2/manifest.toml")?)?;
        self.write("manifest", "whole", whole.as_bytes())?;
        let without = |table: &str, part: &str| -> String {
            let mut kept = String::new();
            let mut inside = false;
            for line in whole.split_inclusive('\n') {
                if line.starts_with('[') {
                    inside = line.starts_with(table);
                }
                if !inside && !line.contains(part) {
                    kept.push_str(line);
                }
            }
            kept
        };
        self.write("manifest", "no-vectors", without("[[vector", "\"vectors/p").as_bytes())?;
        self.write(
            "manifest",
            "no-local",
            without("[local", "local").replace("[[local.vector]]\n", "").as_bytes(),
        )?;
        self.write("manifest", "no-digests", without("[digests", "\0").as_bytes())
    }

    /// Recordings of meters in the columns that are read, and the shipped coefficients of radios.
    fn meters(&self) -> Result<()> {
        self.write("meter", "radio", &self.read("head/power/radio.toml")?)?;
        let headings = ["time,volts,amps", "Time(ms), Voltage(V), Current(mA)", "elapsed [s],power_w"];
        for (name, heading) in ["plain", "units", "watts"].into_iter().zip(headings) {
            let mut text = format!("{heading}\n");
            for step in 0..240 {
                // Two markers of high power, and work between them, as `narrows-head power` makes them.
                let time = f64::from(step) / 8.0;
                let watts = if (1.0..2.0).contains(&time) || (8.0..20.0).contains(&time) { 9.0 } else { 3.0 };
                text += &match name {
                    "plain" => format!("{time},5,{}\n", watts / 5.0),
                    "units" => format!("{},5,{}\n", 1e3 * time, 200.0 * watts),
                    _ => format!("{time},{watts}\n"),
                };
            }
            self.write("meter", name, text.as_bytes())?;
        }
        Ok(())
    }

    /// A packet of every mode with each of the target's tables, whole and truncatable, in several shapes and lanes.
    fn packets(&self) -> Result<()> {
        let mut number = 0;
        for (table, tables) in narrows_fuzz_targets::packet::tables().iter().enumerate() {
            for (index, mode) in Mode::ALL.into_iter().enumerate() {
                for truncatable in [false, true] {
                    let (geometry, level, lanes) = (number % 3, number % 2, [1, 4, 32][number / 2 % 3]);
                    let shape = narrows_fuzz_targets::packet::shapes()[geometry];
                    let feature = generate::feature(number as u64, shape, 40);
                    let mut encoder = Encoder::new().lanes(lanes).truncatable(truncatable);
                    let (geometry_id, level_id) = (GeometryId(geometry as u8), LevelId(level as u8));
                    let mut packet = Vec::new();
                    encoder.encode(
                        tables,
                        geometry_id,
                        level_id,
                        Choice::Only(mode),
                        &feature,
                        &mut packet,
                    )?;
                    self.write("packet", &format!("plain-{number}"), &packet)?;
                    // The bytes that the target turns into this header.
                    let layout = packet[2];
                    packet[0] = 2 * index as u8;
                    packet[1] = (0..=255)
                        .find(|byte| usize::from(byte % 3) == geometry && usize::from(byte >> 4) % 2 == level)
                        .context("a byte for geometry and level")?;
                    packet[2] = match mode.is_coded() {
                        true => (layout & 7) << 1 | u8::from(layout >> 3 > 0),
                        false => layout - 1,
                    };
                    packet[3] = table as u8;
                    self.write("packet", &format!("header-{number}"), &packet)?;
                    number += 1;
                }
            }
        }
        Ok(())
    }

    /// The bundle's tables, the golden ones, and generated ones with every section.
    fn tables(&self) -> Result<()> {
        self.write("tables", "lite2", &self.read("models/bundles/lite2/tables.bin")?)?;
        for name in ["bytes", "example", "lanes1", "lanes4", "lanes32", "one", "sooner"] {
            self.write("tables", name, &self.read(&format!("codec/tests/golden/{name}.tables"))?)?;
        }
        for (seed, precision) in [(1, 12), (2, 14)] {
            let bytes = generate::tables(seed, 3, 1, precision);
            ensure!(Tables::parse(&bytes).is_ok(), "generated tables are accepted");
            self.write("tables", &format!("generated-{precision}"), &bytes)?;
        }
        Ok(())
    }

    /// A shipped photo, small, in the kinds of files that cameras and libraries write.
    fn images(&self) -> Result<()> {
        let photo = image::load_from_memory(&self.read("bench/photos/road/street.jpg")?)?;
        let small = photo.resize_exact(72, 56, FilterType::CatmullRom);
        for (name, sampling, progressive, restart) in [
            ("jpeg-420", SamplingFactor::F_2_2, false, 0),
            ("jpeg-444", SamplingFactor::F_1_1, false, 0),
            ("jpeg-422-restart", SamplingFactor::F_2_1, false, 3),
            ("jpeg-progressive", SamplingFactor::F_2_2, true, 0),
        ] {
            let mut file = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut file, 60);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(progressive);
            if restart > 0 {
                encoder.set_restart_interval(restart);
            }
            encoder.encode(small.to_rgb8().as_raw(), 72, 56, ColorType::Rgb)?;
            self.write("image", name, &file)?;
            if name == "jpeg-420" {
                self.write("image", "jpeg-truncated", &file[..file.len() / 2])?;
                self.write("image", "jpeg-no-end-marker", &file[..file.len() - 2])?;
                self.write("image", "jpeg-no-tables", &without_tables(&file))?;
            }
        }
        let mut grey = Vec::new();
        jpeg_encoder::Encoder::new(&mut grey, 60).encode(
            small.to_luma8().as_raw(),
            72,
            56,
            ColorType::Luma,
        )?;
        self.write("image", "jpeg-grey", &grey)?;
        let (rgb, rgba) = (small.to_rgb8(), clear_corner(&small));
        let tiny = small.resize_exact(24, 24, FilterType::CatmullRom).to_rgb8();
        for (name, format) in [("png", image::ImageFormat::Png), ("bmp", image::ImageFormat::Bmp)] {
            let mut file = Cursor::new(Vec::new());
            tiny.write_to(&mut file, format)?;
            self.write("image", name, file.get_ref())?;
        }
        self.write("image", "webp-lossy", &webp::Encoder::from_rgb(&rgb, 72, 56).encode(60.0))?;
        self.write("image", "webp-alpha", &webp::Encoder::from_rgba(&rgba, 72, 56).encode(60.0))?;
        self.write("image", "webp-lossless", &webp::Encoder::from_rgb(&tiny, 24, 24).encode_lossless())
    }

    /// Streams of small pictures, as cameras and their programs write them.
    fn streams(&self) -> Result<()> {
        let photo = image::load_from_memory(&self.read("bench/photos/road/street.jpg")?)?;
        let small = photo.resize_exact(40, 32, FilterType::CatmullRom).to_rgb8();
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, 40).encode(small.as_raw(), 40, 32, ColorType::Rgb)?;
        let bare = without_tables(&file);
        self.write("stream", "mjpeg", &[&file[..], &bare, &bare].concat())?;
        let header = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n";
        self.write("stream", "multipart", &[header, &bare[..], b"\r\n", header, &bare].concat())?;
        let cut = &bare[..bare.len() - 2];
        self.write("stream", "mjpeg-cut", &[cut, &bare, &file[..200], &bare, cut].concat())?;
        for (name, tags, size) in [
            ("y4m-420", "W6 H4 F30:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=FULL", 36),
            ("y4m-422", "W5 H3 C422", 15 + 18),
            ("y4m-444", "W4 H3 C444", 36),
            ("y4m-mono", "W4 H3 Cmono", 12),
            ("y4m-interlaced", "W4 H3 It C420", 12),
        ] {
            let frame: Vec<u8> = (0..size).map(|place| (place * 37 % 256) as u8).collect();
            let frames = [b"FRAME\n", &frame[..], b"FRAME Ip\n", &frame].concat();
            self.write("stream", name, &[format!("YUV4MPEG2 {tags}\n").as_bytes(), &frames].concat())?;
        }
        Ok(())
    }
}

/// A JPEG without its Huffman tables, as webcams write it: the encoder uses the standard ones.
fn without_tables(file: &[u8]) -> Vec<u8> {
    let (mut kept, mut at) = (file[..2].to_vec(), 2);
    // Segments up to the first scan: a marker, and a length that counts itself.
    while file[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] != 0xc4 {
            kept.extend(&file[at..end]);
        }
        at = end;
    }
    kept.extend(&file[at..]);
    kept
}

/// The image with a transparent corner.
fn clear_corner(image: &DynamicImage) -> image::RgbaImage {
    let mut image = image.to_rgba8();
    image.enumerate_pixels_mut().filter(|(x, y, _)| x + y < 40).for_each(|(_, _, pixel)| pixel.0[3] = 0);
    image
}
