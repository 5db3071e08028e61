//! Damaged and hostile packets and tables are refused with errors that name the field, never with a panic or a wrong
//! feature.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod generate;
mod mutate;

use std::sync::LazyLock;

use narrows_codec::{
    Choice, Encoder, Error, ErrorKind, Feature, GeometryId, HEADER_BYTES, LevelId, Mode, Shape, TABLES_MAX,
    Tables, decode, packet_max, prefixes,
};

/// Tables of four channels, shapes of two geometries, and a feature with a few escapes.
fn small() -> &'static (Tables, [Shape; 2], Feature) {
    static SMALL: LazyLock<(Tables, [Shape; 2], Feature)> = LazyLock::new(|| {
        let tables = Tables::parse(&generate::tables(2, 4, 2, 12)).unwrap();
        let shapes = [Shape::new(4, 3, 5).unwrap(), Shape::new(4, 5, 3).unwrap()];
        (tables, shapes, generate::feature(8, shapes[0], 20))
    });
    &SMALL
}

fn packet(mode: Mode) -> Vec<u8> {
    let (tables, _, feature) = small();
    let mut packet = Vec::new();
    let mut encoder = Encoder::new().truncatable(true).lanes(2);
    encoder.encode(tables, GeometryId(0), LevelId(1), Choice::Only(mode), feature, &mut packet).unwrap();
    packet
}

#[test]
fn every_truncation_but_at_group_ends_is_refused() {
    let (tables, shapes, _) = small();
    for mode in generate::modes() {
        let packet = packet(mode);
        let ends: Vec<_> = prefixes(&packet).unwrap().collect();
        assert_eq!(ends.len(), if mode.is_coded() { 3 } else { 1 });
        for len in (0..packet.len()).step_by(generate::unless_miri(1, 5)) {
            match decode(tables, shapes, &packet[..len]) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Peer, "{mode} {len}: {error}"),
                Ok(found) => {
                    assert!(ends.contains(&len) && found.groups_decoded < found.groups, "{mode} {len}")
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (tables, shapes, feature) = small();
    for mode in generate::modes() {
        let packet = packet(mode);
        for bit in (0..8 * packet.len()).step_by(generate::unless_miri(1, 37)) {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if generate::unsupported_by_miri(&flipped) {
                continue;
            }
            match decode(tables, shapes, &flipped) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Peer, "{mode} {bit}: {error}"),
                // Some bits of a zstd frame have no effect.
                Ok(found) => {
                    assert_eq!(
                        (mode, found.level, found.geometry),
                        (Mode::Zstd, LevelId(1), GeometryId(0)),
                        "{bit}"
                    );
                    assert_eq!(found.feature, *feature);
                }
            }
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (tables, shapes, _) = small();
    for mode in generate::modes() {
        for tail in [&[0][..], &[0, 0], &[0; 7], &[0xff; 64]] {
            let packet = [&packet(mode), tail].concat();
            assert!(decode(tables, shapes, &packet).is_err(), "{mode} {tail:?}");
        }
    }
}

#[test]
fn mutated_packets_are_refused() {
    let report = mutate::run(generate::unless_miri(200_000, 60), 11);
    assert!(report.wrong * 10_000 <= report.packets, "{report:?}");
    assert!(generate::modes().all(|mode| report.per_mode[mode as usize] > 0), "{report:?}");
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn each_field_is_named() {
    let (tables, shapes, _) = small();
    let message = |mode: Mode, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet(mode);
        change(&mut packet);
        decode(tables, shapes, &packet).unwrap_err().to_string()
    };
    for (expected, found) in [
        ("version: 1", message(Mode::Static, &|p| p[0] = 0x11)),
        ("mode: unknown number 7", message(Mode::Static, &|p| p[0] = 0x27)),
        ("level: 2", message(Mode::Static, &|p| p[1] = 2)),
        ("geometry: 2", message(Mode::Static, &|p| p[1] = 0x21)),
        ("layout: 22 is not one of mode static", message(Mode::Static, &|p| p[2] = 2 << 3 | 6)),
        ("layout: 3 is not one of mode raw", message(Mode::Raw, &|p| p[2] = 3)),
        ("groups: 2, the tables have 3", message(Mode::Context, &|p| p[2] = 1 << 3 | 1)),
        ("table id", message(Mode::Static, &|p| p[3] ^= 1)),
        ("directory: a number", message(Mode::Static, &|p| p[4..6].copy_from_slice(&[0x80, 0]))),
        ("directory: the packet ends", message(Mode::Indexed, &|p| p.truncate(6))),
        ("states: the packet ends", message(Mode::Indexed, &|p| p.truncate(12))),
        ("words: group 0", message(Mode::Static, &|p| p[4] += 1)),
        ("check: ", message(Mode::Static, &|p| p[5] ^= 1)),
        ("words: 1 bytes left over", message(Mode::Static, &|p| p.push(0))),
        ("words: 2 bytes left over", message(Mode::Static, &|p| p.extend([0, 0]))),
        ("words: 6 bytes left over", message(Mode::Static, &|p| p.extend([0; 6]))),
        ("checksum", message(Mode::Raw, &|p| p[5] ^= 1)),
        ("symbols: the packet ends", message(Mode::Raw, &|p| p.truncate(p.len() - 1))),
        ("symbols: 1 bytes left over", message(Mode::Raw, &|p| p.push(0))),
        ("frame: not a whole frame", message(Mode::Zstd, &|p| p.truncate(p.len() - 1))),
        ("frame: 1 bytes left over", message(Mode::Zstd, &|p| p.push(0))),
        ("length: 865 bytes, at most 864", message(Mode::Raw, &|p| p.resize(865, 0))),
    ] {
        assert!(found.starts_with("packet: ") && found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn modes_without_a_section_are_refused() {
    let plain = b"NRWT\x02\x0c\x01\0\x01\x01\0\0\0\0\x01\xa0\x1f\x60";
    let tables = Tables::parse(plain).unwrap();
    let shape = Shape::new(1, 2, 2).unwrap();
    let feature = Feature::new(shape, vec![0; 4]).unwrap();
    for mode in [Mode::Indexed, Mode::Context, Mode::Columns, Mode::Rows] {
        let mut out = Vec::new();
        let error = Encoder::new()
            .encode(&tables, GeometryId(0), LevelId(0), Choice::Only(mode), &feature, &mut out)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Caller, "{error}");
        let error = decode(&tables, &[shape], &[0x20 | mode as u8, 0, 0, tables.id()[0], 0, 0]).unwrap_err();
        assert!(matches!(error, Error::Section { .. }), "{error}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "tries 65536 tables")]
fn the_checksum_detects_other_tables_even_where_their_id_begins_the_same() {
    let (tables, shapes, feature) = small();
    let bytes = generate::tables(2, 4, 2, 12);
    // Only biases of another level and mode differ, so that the symbols decode as before.
    let twin = (0..=255_u8).flat_map(|a| (0..=255).map(move |b| (a, b))).find_map(|(a, b)| {
        let mut bytes = bytes.clone();
        let at = bytes.len() - 60;
        (bytes[at], bytes[at + 1]) = (a, b);
        Tables::parse(&bytes).ok().filter(|t| t.id()[0] == tables.id()[0] && t.id() != tables.id())
    });
    let mut packet = Vec::new();
    for lanes in [1, 2, 4, 8, 16, 32] {
        let mut encoder = Encoder::new().lanes(lanes);
        encoder
            .encode(tables, GeometryId(0), LevelId(0), Choice::Only(Mode::Static), feature, &mut packet)
            .unwrap();
        let error = decode(twin.as_ref().unwrap(), shapes, &packet).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{lanes}: {error}");
    }
}

#[test]
fn a_geometry_of_the_same_size_is_not_taken_for_another() {
    let (tables, shapes, _) = small();
    for mode in [Mode::Raw, Mode::Static] {
        let mut packet = packet(mode);
        packet[1] |= 0x10;
        assert!(decode(tables, shapes, &packet).is_err());
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn a_frame_cannot_hold_more_or_less_than_the_symbols() {
    let (tables, shapes, _) = small();
    for content in [0, 1, 119, 121, 1 << 20] {
        let mut packet = packet(Mode::Zstd);
        packet.truncate(HEADER_BYTES + 4);
        packet.extend(zstd::bulk::compress(&vec![0; content], 3).unwrap());
        let error = decode(tables, shapes, &packet).unwrap_err();
        assert!(matches!(error, Error::Frame { .. }), "{content}: {error}");
    }
    let mut skippable = packet(Mode::Zstd);
    skippable.truncate(HEADER_BYTES + 4);
    skippable.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    assert!(matches!(decode(tables, shapes, &skippable), Err(Error::Frame { .. })));
    let sound = packet(Mode::Zstd);
    for bit in 0..5 {
        let mut marked = sound.clone();
        marked[HEADER_BYTES + 4 + 4] |= 1 << bit;
        assert!(decode(tables, shapes, &marked).is_err(), "{bit}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let (tables, shapes, feature) = small();
    let mut out = Vec::new();
    let mut refuse = |geometry, level, feature: &Feature| {
        Encoder::new()
            .encode(tables, GeometryId(geometry), LevelId(level), Choice::Auto, feature, &mut out)
            .unwrap_err()
    };
    assert!(matches!(refuse(16, 0, feature), Error::NoGeometry { found: 16, .. }));
    assert!(matches!(refuse(0, 2, feature), Error::NoLevel { found: 2, levels: 2 }));
    let other = Feature::new(Shape::new(3, 1, 1).unwrap(), vec![0; 3]).unwrap();
    assert!(matches!(refuse(0, 0, &other), Error::Channels { tables: 4, feature: 3 }));
    let error = decode(tables, &[Shape::new(3, 3, 5).unwrap()], &packet(Mode::Static)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bundle);
    assert!(packet(Mode::Static).len() <= packet_max(shapes[0]));
}

#[test]
#[cfg_attr(miri, ignore = "parses hundreds of tables")]
fn tables_outside_the_format_are_refused_by_name() {
    let good = generate::tables(2, 3, 2, 12);
    assert!(Tables::parse(&good).is_ok());
    let message = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = Tables::parse(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bundle);
        error.to_string()
    };
    // Offsets: 12 sizes of groups, 18 order, 24 the first table with low, count and frequencies.
    for (expected, found) in [
        ("magic", message(&|b| b[0] = b'X')),
        ("version: 1, expected 2", message(&|b| b[4] = 1)),
        ("precision: 13", message(&|b| b[5] = 13)),
        ("channels: 0", message(&|b| b[6] = 0)),
        ("channels: 1027", message(&|b| b[7] = 4)),
        ("levels: 0", message(&|b| b[8] = 0)),
        ("levels: 17", message(&|b| b[8] = 17)),
        ("groups: 4", message(&|b| b[9] = 4)),
        ("groups: 3, expected 1", message(&|b| b[10] = 6)),
        ("sections: 8", message(&|b| b[10] = 8)),
        ("reserved: 9", message(&|b| b[11] = 9)),
        ("sizes: 4", message(&|b| b[12] = 2)),
        ("order: ", message(&|b| b[18] = b[20])),
        ("order: ", message(&|b| b[18] = 3)),
        ("level 0, channel 0: count: 0", message(&|b| b[26] = 0)),
        (
            "level 0, channel 0: count: 0, expected a number",
            message(&|b| b[26..28].copy_from_slice(&[0x80, 0])),
        ),
        ("level 0, channel 0: count: ", message(&|b| b[24..26].copy_from_slice(&[0xff, 0x7f]))),
        ("bytes after the last section: 1", message(&|b| b.push(0))),
        ("bias: the file ends", message(&|b| b.truncate(b.len() - 1))),
        ("length", message(&|b| b.resize(TABLES_MAX + 1, 0))),
    ] {
        assert!(found.starts_with("tables: ") && found.contains(expected), "{expected}: {found}");
    }
    for len in (0..good.len()).step_by(generate::unless_miri(1, 397)) {
        assert!(Tables::parse(&good[..len]).is_err(), "{len}");
    }
    let random = &mut generate::Random::new(1);
    for _ in 0..generate::unless_miri(4000, 3) {
        let mut bytes = good.clone();
        let at = random.below(bytes.len());
        bytes[at] = random.below(256) as u8;
        drop(Tables::parse(&bytes));
    }
}
