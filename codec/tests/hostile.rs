//! Broken and hostile packets and tables are errors that name the field, never a panic and never a wrong feature.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use narrows_codec::{
    Choice, Error, Feature, HEADER_BYTES, Kind, Mode, Shape, TABLES_MAX, Tables, decode, encode, packet_max,
};

const MODES: [Mode; 3] = [Mode::Raw, Mode::Static, Mode::Zstd];

fn file(levels: &[&[(i16, &[u16])]]) -> Vec<u8> {
    let mut bytes = b"NRWT\x01\x0c".to_vec();
    bytes.extend((levels[0].len() as u16).to_le_bytes());
    bytes.extend([levels.len() as u8, 0, 0, 0]);
    for (low, frequencies) in levels.iter().copied().flatten() {
        bytes.extend(low.to_le_bytes());
        bytes.extend((frequencies.len() as u16 - 1).to_le_bytes());
        bytes.extend(frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()));
    }
    bytes
}

/// Two levels of two channels, and a feature of two escapes.
fn small() -> (Tables, [Shape; 2], Feature) {
    let level: &[(i16, &[u16])] = &[(-1, &[1024, 2048, 1000, 24]), (0, &[4000, 96])];
    let tables = Tables::parse(&file(&[level, level])).unwrap();
    let shapes = [Shape::new(2, 3, 5).unwrap(), Shape::new(2, 5, 3).unwrap()];
    let mut symbols: Vec<i16> = (0..30).map(|i| if i < 15 { i % 3 - 1 } else { 0 }).collect();
    (symbols[4], symbols[20]) = (700, -3);
    (tables, shapes, Feature::new(shapes[0], symbols).unwrap())
}

fn packet(mode: Mode) -> Vec<u8> {
    let (tables, _, feature) = small();
    let mut packet = Vec::new();
    encode(&tables, 0, 1, Choice::Only(mode), &feature, &mut packet).unwrap();
    packet
}

#[test]
fn every_truncation_is_refused() {
    let (tables, shapes, _) = small();
    for mode in MODES {
        let packet = packet(mode);
        for len in 0..packet.len() {
            let error = decode(&tables, &shapes, &packet[..len]).unwrap_err();
            assert_eq!(error.kind(), Kind::Peer, "{mode} {len}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (tables, shapes, feature) = small();
    for mode in MODES {
        let packet = packet(mode);
        for bit in 0..8 * packet.len() {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decode(&tables, &shapes, &flipped) {
                Err(error) => assert_eq!(error.kind(), Kind::Peer, "{mode} {bit}: {error}"),
                // A zstd frame has bits that change nothing.
                Ok(found) => {
                    assert_eq!((mode, found.level, found.geometry), (Mode::Zstd, 1, 0), "{bit}");
                    assert_eq!(found.feature, feature);
                }
            }
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (tables, shapes, _) = small();
    for mode in MODES {
        for tail in [&[0][..], &[0, 0], &[0; 7], &[0xff; 64]] {
            let packet = [&packet(mode), tail].concat();
            assert!(decode(&tables, &shapes, &packet).is_err(), "{mode} {tail:?}");
        }
    }
}

#[test]
fn each_field_is_named() {
    let (tables, shapes, _) = small();
    let name = |mode: Mode, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet(mode);
        change(&mut packet);
        decode(&tables, &shapes, &packet).unwrap_err().to_string()
    };
    for (expected, message) in [
        ("version: 2", name(Mode::Static, &|p| p[0] = 0x21)),
        ("mode: unknown number 4", name(Mode::Static, &|p| p[0] = 0x14)),
        ("level: 2", name(Mode::Static, &|p| p[1] = 2)),
        ("level: 200", name(Mode::Static, &|p| p[1] = 200)),
        ("geometry: 2", name(Mode::Static, &|p| p[2] = 2)),
        ("layout: 3", name(Mode::Static, &|p| p[3] = 3)),
        ("layout: 4 is not one of mode raw", name(Mode::Raw, &|p| p[3] = 4)),
        ("table id", name(Mode::Static, &|p| p[4] ^= 1)),
        ("check", name(Mode::Raw, &|p| p[8] ^= 1)),
        ("states: lane 0", name(Mode::Static, &|p| p[15] = 0x80)),
        ("states: lane 0", name(Mode::Static, &|p| p[12..16].copy_from_slice(&[0xff, 0x7f, 0, 0]))),
        ("words: lane 0", name(Mode::Static, &|p| p[12] ^= 1)),
        ("words: 1 bytes left over", name(Mode::Static, &|p| p.push(0))),
        ("escapes: 2 bytes left over", name(Mode::Static, &|p| p.extend([0, 0]))),
        ("escapes: the packet ends", name(Mode::Static, &|p| p.truncate(p.len() - 2))),
        ("escapes: -1 is a regular symbol", {
            name(Mode::Static, &|p| {
                let at = p.len() - 4;
                p[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            })
        }),
        ("symbols: the packet ends", name(Mode::Raw, &|p| p.truncate(p.len() - 1))),
        ("symbols: 1 bytes left over", name(Mode::Raw, &|p| p.push(0))),
        ("frame: not a whole frame", name(Mode::Zstd, &|p| p.truncate(p.len() - 1))),
        ("frame: 1 bytes left over", name(Mode::Zstd, &|p| p.push(0))),
        ("frame: damaged", name(Mode::Zstd, &|p| p[3] = 1)),
        ("length: 165 bytes, at most 164", name(Mode::Raw, &|p| p.resize(165, 0))),
    ] {
        assert!(message.starts_with("packet: ") && message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_geometry_of_the_same_size_does_not_pass_for_another() {
    let (tables, shapes, _) = small();
    let mut packet = packet(Mode::Raw);
    packet[2] = 1;
    assert!(matches!(decode(&tables, &shapes, &packet), Err(Error::Check { .. })));
}

#[test]
fn a_frame_cannot_hold_more_or_less_than_the_symbols() {
    let (tables, shapes, _) = small();
    for content in [0, 1, 59, 61, 1 << 20] {
        let mut bomb = packet(Mode::Zstd);
        bomb.truncate(HEADER_BYTES);
        bomb.extend(zstd::bulk::compress(&vec![0; content], 3).unwrap());
        let error = decode(&tables, &shapes, &bomb).unwrap_err();
        assert!(matches!(error, Error::Frame { .. }), "{content}: {error}");
    }
    let mut skippable = packet(Mode::Zstd);
    skippable.truncate(HEADER_BYTES);
    skippable.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    assert!(matches!(decode(&tables, &shapes, &skippable), Err(Error::Frame { .. })));
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let (tables, shapes, feature) = small();
    let mut out = Vec::new();
    let mut refuse = |geometry, level, feature: &Feature| {
        encode(&tables, geometry, level, Choice::Auto, feature, &mut out).unwrap_err()
    };
    assert!(matches!(refuse(16, 0, &feature), Error::NoGeometry { found: 16, .. }));
    assert!(matches!(refuse(0, 2, &feature), Error::NoLevel { found: 2, levels: 2 }));
    let other = Feature::new(Shape::new(3, 1, 1).unwrap(), vec![0; 3]).unwrap();
    assert!(matches!(refuse(0, 0, &other), Error::Channels { tables: 2, feature: 3 }));
    let error = decode(&tables, &[Shape::new(3, 3, 5).unwrap()], &packet(Mode::Static)).unwrap_err();
    assert_eq!(error.kind(), Kind::Bundle);
    assert!(packet(Mode::Static).len() <= packet_max(shapes[0]));
}

#[test]
fn tables_outside_the_format_are_refused_by_name() {
    let good = file(&[&[(-1, &[1024, 2048, 1000, 24]), (0, &[4000, 96])]]);
    assert!(Tables::parse(&good).is_ok());
    let name = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = Tables::parse(&bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Bundle);
        error.to_string()
    };
    for (expected, message) in [
        ("magic", name(&|b| b[0] = b'X')),
        ("version: 2", name(&|b| b[4] = 2)),
        ("precision: 14", name(&|b| b[5] = 14)),
        ("channels: 0", name(&|b| b[6] = 0)),
        ("channels: 1026", name(&|b| b[7] = 4)),
        ("levels: 0", name(&|b| b[8] = 0)),
        ("levels: 17", name(&|b| b[8] = 17)),
        ("reserved: 9", name(&|b| b[10] = 9)),
        ("level 0, channel 0: count: 0", name(&|b| b[14] = 0)),
        ("level 0, channel 0: count: 4099", name(&|b| b[15] = 16)),
        (
            "level 0, channel 0: count: 3, expected no regular",
            name(&|b| b[12..14].copy_from_slice(&[0xfe, 0x7f])),
        ),
        ("level 0, channel 0: frequency: 0", name(&|b| b[17] = 0)),
        ("level 0, channel 1: sum of frequencies: 4097", name(&|b| b[28] += 1)),
        ("bytes after the last table: 1", name(&|b| b.push(0))),
        ("frequencies: the file ends", name(&|b| b.truncate(b.len() - 1))),
        ("low: the file ends", name(&|b| b[8] = 2)),
        ("length", name(&|b| b.resize(TABLES_MAX + 1, 0))),
    ] {
        assert!(message.starts_with("tables: ") && message.contains(expected), "{expected}: {message}");
    }
    for len in 0..good.len() {
        assert!(Tables::parse(&good[..len]).is_err(), "{len}");
    }
}
