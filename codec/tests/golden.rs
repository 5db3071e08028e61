//! Packets equal, byte for byte, those of `codec/reference`, the second implementation of FORMAT.md.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use narrows_codec::{
    Choice, Decoder, Encoder, Feature, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Shape, Tables,
    decode, prefixes,
};

struct Golden {
    tables: Tables,
    geometry: GeometryId,
    level: LevelId,
    truncatable: bool,
    lanes: u8,
    feature: Feature,
    packets: Vec<(Mode, Vec<u8>)>,
}

const NAMES: [&str; 10] =
    ["example", "one", "bytes", "sooner", "lanes1", "lanes2", "lanes4", "lanes8", "lanes16", "lanes32"];

fn path(name: &str, part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.{part}"))
}

fn golden(name: &str) -> Golden {
    let tables = Tables::parse(&fs::read(path(name, "tables")).unwrap()).unwrap();
    let text = fs::read_to_string(path(name, "shape")).unwrap();
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [channels, height, width, geometry, level, truncatable, lanes] = numbers[..] else {
        panic!("{name}")
    };
    let shape = Shape::new(channels, height, width).unwrap();
    let bytes = fs::read(path(name, "symbols")).unwrap();
    let symbols = bytes.as_chunks().0.iter().map(|&pair| i16::from_le_bytes(pair)).collect();
    let packets =
        Mode::ALL.into_iter().filter_map(|mode| Some((mode, fs::read(path(name, &mode.to_string())).ok()?)));
    Golden {
        tables,
        geometry: GeometryId(geometry as u8),
        level: LevelId(level as u8),
        truncatable: truncatable == 1,
        lanes: lanes as u8,
        feature: Feature::new(shape, symbols).unwrap(),
        packets: packets.collect(),
    }
}

#[test]
fn packets_equal_the_reference() {
    for encoder in [Encoder::new, Encoder::portable] {
        for name in NAMES {
            let golden = golden(name);
            let mut encoder = encoder().truncatable(golden.truncatable).lanes(golden.lanes);
            for (mode, expected) in &golden.packets {
                let mut packet = Vec::new();
                let used = encoder
                    .encode(
                        &golden.tables,
                        golden.geometry,
                        golden.level,
                        Choice::Only(*mode),
                        &golden.feature,
                        &mut packet,
                    )
                    .unwrap();
                assert_eq!(used, *mode);
                assert!(fixed(*mode, &packet) == fixed(*mode, expected), "{name}.{mode} differs");
            }
        }
    }
}

/// What FORMAT.md fixes of a packet: all of it, but in mode zstd only what stands before the frame, whose bytes are the
/// compressor's choice.
fn fixed(mode: Mode, packet: &[u8]) -> &[u8] {
    if mode == Mode::Zstd { &packet[..HEADER_BYTES + 4] } else { packet }
}

#[test]
fn every_mode_has_a_golden_packet() {
    let cases: Vec<Golden> = NAMES.into_iter().map(golden).collect();
    for mode in Mode::ALL {
        assert!(cases.iter().any(|case| case.packets.iter().any(|(found, _)| *found == mode)), "{mode}");
    }
}

/// The frames of the reference hold stored blocks; here libzstd 1.5.7 has compressed one.
#[test]
fn a_compressed_frame_of_a_fixed_version_decodes() {
    let golden = golden("lanes8");
    let shapes = vec![golden.feature.shape(); golden.geometry.index() + 1];
    let packet = decode(&golden.tables, &shapes, &fs::read(path("lanes8", "compressed")).unwrap()).unwrap();
    assert_eq!((packet.mode, packet.level), (Mode::Zstd, golden.level));
    assert_eq!(packet.feature, golden.feature);
}

#[test]
fn packets_of_the_reference_decode() {
    let mut seen = Vec::new();
    for name in NAMES {
        let golden = golden(name);
        let shapes = vec![golden.feature.shape(); golden.geometry.index() + 1];
        for (mode, bytes) in &golden.packets {
            for mut decoder in [Decoder::new(), Decoder::portable()] {
                let mut symbols = Vec::new();
                let found = decoder.decode_into(&golden.tables, &shapes, bytes, &mut symbols).unwrap();
                assert_eq!((found.header.geometry, found.header.level), (golden.geometry, golden.level));
                assert_eq!((found.header.mode, found.groups_decoded), (*mode, found.header.groups()));
                assert!(symbols == golden.feature.symbols(), "{name}.{mode} differs");
                seen.push((*mode, found.header.lanes(), found.groups_decoded > 1));
            }
        }
    }
    for mode in Mode::ALL.into_iter().filter(|mode| mode.is_coded()) {
        assert!(
            [1, 2, 4, 8, 16, 32].iter().all(|lanes| seen.iter().any(|s| (s.0, s.1) == (mode, *lanes))),
            "{mode}"
        );
        assert!(seen.iter().any(|s| (s.0, s.2) == (mode, true)), "{mode}");
    }
}

#[test]
fn prefixes_of_the_reference_decode_to_medians_beyond_them() {
    let golden = golden("lanes4");
    let shapes = [golden.feature.shape()];
    let groups: Vec<Vec<u16>> = golden.tables.order().map(<[u16]>::to_vec).collect();
    let level = golden.tables.level(golden.level).unwrap();
    for (mode, bytes) in golden.packets.iter().filter(|(mode, _)| mode.is_coded()) {
        let ends: Vec<_> = prefixes(bytes).unwrap().collect();
        assert_eq!(ends.len(), Header::parse(bytes).unwrap().groups());
        for (groups_decoded, end) in (1..).zip(ends) {
            let packet = decode(&golden.tables, &shapes, &bytes[..end]).unwrap();
            assert_eq!((packet.groups_decoded, packet.groups), (groups_decoded, groups.len()), "{mode}");
            for (group, channels) in groups.iter().enumerate() {
                for channel in channels.iter().map(|&channel| usize::from(channel)) {
                    let found = packet.feature.plane(channel);
                    if group < groups_decoded {
                        assert_eq!(found, golden.feature.plane(channel), "{mode} {channel}");
                    } else {
                        assert!(
                            found.iter().all(|symbol| *symbol == level[channel].median()),
                            "{mode} {channel}"
                        );
                    }
                }
            }
        }
    }
}

/// The bytes in FORMAT.md's worked example are those of the golden files.
#[test]
fn the_worked_example_of_the_document_equals_the_golden_files() {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/FORMAT.md")).unwrap();
    let example = &document[document.find("## 7.").unwrap()..];
    let hex = |block: &str| -> Vec<u8> {
        let bytes = |line: &str| -> Vec<u8> {
            let code = line.split("   ").next().unwrap_or_default();
            code.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        block.lines().flat_map(bytes).collect()
    };
    let blocks: Vec<Vec<u8>> =
        example.split("```").skip(1).step_by(2).map(|b| hex(&b["text".len()..])).collect();
    for (block, part) in blocks.iter().zip(["tables", "static", "raw"]) {
        assert_eq!(*block, fs::read(path("example", part)).unwrap(), "{part}");
    }
}
