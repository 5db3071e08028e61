//! Arbitrary packets, with fixed tables that have every section. When the first byte is even, a valid header replaces the
//! first four bytes, so that the payload is parsed. The portable and the vector decoder must agree.

use std::sync::LazyLock;

use narrows_codec::{Choice, Decoder, Encoder, Feature, Mode, Shape, Tables, packet_max};

use crate::generate;

static TABLES: LazyLock<[Tables; 2]> = LazyLock::new(|| {
    [12, 14].map(|precision| Tables::parse(&generate::tables(2, 4, 2, precision)).expect("generated tables"))
});

/// The tables of the packets, of which the last bit of the fourth byte chooses.
#[must_use]
pub fn tables() -> &'static [Tables; 2] {
    &TABLES
}

/// The shapes of the geometries of the packets.
///
/// # Panics
/// Never: the shapes are valid.
#[must_use]
pub fn shapes() -> [Shape; 3] {
    [(4, 5), (1, 1), (17, 9)].map(|(height, width)| Shape::new(4, height, width).expect("a valid shape"))
}

/// Decodes the bytes as a packet.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let shapes = shapes();
    let mut packet = data.to_vec();
    let tables = &TABLES[usize::from(data.get(3).is_some_and(|byte| byte & 1 == 1))];
    if data.len() >= 4 && data[0] & 1 == 0 {
        let mode = Mode::ALL[usize::from(data[0] >> 1) % Mode::ALL.len()];
        packet[0] = 0x20 | mode as u8;
        packet[1] = ((data[1] % 3) << 4) | ((data[1] >> 4) % 2);
        packet[2] = match mode.is_coded() {
            true => ((data[2] & 1) << 4) | ((data[2] >> 1) % 6),
            false => 1 + data[2] % 2,
        };
        packet[3] = tables.id()[0];
    }
    let (mut symbols, mut expected) = (Vec::new(), Vec::new());
    let found = Decoder::new().decode_into(tables, &shapes, &packet, &mut symbols);
    let portable = Decoder::portable().decode_into(tables, &shapes, &packet, &mut expected);
    assert_eq!(found.is_ok(), portable.is_ok());
    let Ok(found) = found else { return false };
    assert_eq!(symbols, expected);
    let shape = shapes[found.header.geometry.index()];
    assert!(symbols.len() == shape.symbols() && packet.len() <= packet_max(shape));
    let feature = Feature::new(shape, symbols).expect("symbols of the shape");
    let (geometry, level, mode) = (found.header.geometry, found.header.level, found.header.mode);
    let mut encoder = Encoder::new().lanes(found.header.lanes()).truncatable(found.header.groups() > 1);
    let mut again = Vec::new();
    encoder.encode(tables, geometry, level, Choice::Only(mode), &feature, &mut again).expect("a feature");
    // In these modes a feature has exactly one packet for a number of lanes and groups.
    let unique = !matches!(mode, Mode::Zstd | Mode::Indexed);
    if unique && found.groups_decoded == found.header.groups() && again[2] == packet[2] {
        assert_eq!(again, packet);
    }
    true
}
