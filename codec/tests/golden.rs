//! Packets equal, byte for byte, those that `reference.py`, the second implementation of FORMAT.md, has written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use narrows_codec::{Choice, Feature, Mode, Shape, Tables, decode, encode};

struct Golden {
    tables: Tables,
    geometry: u8,
    level: u8,
    feature: Feature,
}

const NAMES: [&str; 6] = ["example", "one", "lanes1", "lanes2", "lanes4", "lanes8"];

fn path(name: &str, part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.{part}"))
}

fn golden(name: &str) -> Golden {
    let tables = Tables::parse(&fs::read(path(name, "tables")).unwrap()).unwrap();
    let text = fs::read_to_string(path(name, "shape")).unwrap();
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let shape = Shape::new(numbers[0], numbers[1], numbers[2]).unwrap();
    let bytes = fs::read(path(name, "symbols")).unwrap();
    let symbols = bytes.as_chunks().0.iter().map(|&pair| i16::from_le_bytes(pair)).collect();
    Golden {
        tables,
        geometry: numbers[3] as u8,
        level: numbers[4] as u8,
        feature: Feature::new(shape, symbols).unwrap(),
    }
}

#[test]
fn packets_equal_the_reference() {
    for name in NAMES {
        let golden = golden(name);
        for (mode, part) in [(Mode::Static, "static"), (Mode::Raw, "raw")] {
            let expected = fs::read(path(name, part)).unwrap();
            let mut packet = Vec::new();
            let choice = Choice::Only(mode);
            let taken =
                encode(&golden.tables, golden.geometry, golden.level, choice, &golden.feature, &mut packet)
                    .unwrap();
            assert_eq!(taken, mode);
            assert!(packet == expected, "{name}.{part} differs");
        }
    }
}

#[test]
fn packets_of_the_reference_decode() {
    for name in NAMES {
        let golden = golden(name);
        for part in ["static", "raw"] {
            let shapes = vec![golden.feature.shape(); usize::from(golden.geometry) + 1];
            let packet = decode(&golden.tables, &shapes, &fs::read(path(name, part)).unwrap()).unwrap();
            assert_eq!((packet.geometry, packet.level), (golden.geometry, golden.level));
            assert_eq!(packet.feature, golden.feature, "{name}.{part}");
        }
    }
}

/// The compressor may choose other bytes in another version, so only the way back is fixed.
#[test]
fn a_zstd_packet_made_once_still_decodes() {
    let golden = golden("lanes1");
    let packet = fs::read(path("lanes1", "zstd")).unwrap();
    let shapes = [golden.feature.shape(); 2];
    let packet = decode(&golden.tables, &shapes, &packet).unwrap();
    assert_eq!((packet.mode, packet.feature), (Mode::Zstd, golden.feature));
}

/// The bytes in FORMAT.md's worked example are those of the golden files.
#[test]
fn the_worked_example_of_the_document_is_golden() {
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
