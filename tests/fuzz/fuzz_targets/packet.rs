//! Arbitrary packets against fixed tables with every section. After an even first byte the header is made whole, so
//! that the payload's reader is reached. The portable decoder says the same as the fast one.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows_codec::{Decoder, Encoder, Choice, Feature, Mode, Shape, Tables, packet_max};

#[path = "../../../codec/tests/generate/mod.rs"]
mod generate;

static TABLES: LazyLock<[Tables; 2]> = LazyLock::new(|| {
    [12, 14].map(|precision| Tables::parse(&generate::tables(2, 4, 2, precision)).expect("tables made here"))
});

fuzz_target!(|data: &[u8]| {
    let shapes = [(4, 5), (1, 1), (17, 9)].map(|(h, w)| Shape::new(4, h, w).expect("a shape made here"));
    let mut packet = data.to_vec();
    let tables = &TABLES[usize::from(data.get(3).is_some_and(|byte| byte & 1 == 1))];
    if data.len() >= 4 && data[0] & 1 == 0 {
        let mode = Mode::ALL[usize::from(data[0] >> 1) % Mode::ALL.len()];
        packet[0] = 0x20 | mode as u8;
        packet[1] = data[1] % 3 << 4 | (data[1] >> 4) % 2;
        packet[2] = if mode.is_coded() { (data[2] & 1) * (2 << 3) | (data[2] >> 1) % 6 } else { 1 + data[2] % 2 };
        packet[3] = tables.id()[0];
    }
    let (mut symbols, mut expected) = (Vec::new(), Vec::new());
    let found = Decoder::new().decode_into(tables, &shapes, &packet, &mut symbols);
    let plain = Decoder::portable().decode_into(tables, &shapes, &packet, &mut expected);
    assert_eq!(found.is_ok(), plain.is_ok());
    let Ok(found) = found else { return };
    assert_eq!(symbols, expected);
    let shape = shapes[found.header.geometry.index()];
    assert!(symbols.len() == shape.symbols() && packet.len() <= packet_max(shape));
    let feature = Feature::new(shape, symbols).expect("symbols of the shape");
    let (geometry, level, mode) = (found.header.geometry, found.header.level, found.header.mode);
    let mut encoder = Encoder::new().lanes(found.header.lanes()).truncatable(found.header.groups() > 1);
    let mut again = Vec::new();
    encoder.encode(tables, geometry, level, Choice::Only(mode), &feature, &mut again).expect("a feature");
    // One feature has one packet of these modes for a number of lanes and groups.
    let one_form = !matches!(mode, Mode::Zstd | Mode::Indexed);
    if one_form && found.groups_decoded == found.header.groups() && again[2] == packet[2] {
        assert_eq!(again, packet);
    }
});
