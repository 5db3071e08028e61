//! Arbitrary tables files. With those that are accepted a feature is encoded and decoded in every mode that they support, by
//! portable and by vector code, with the same bytes.

use narrows_codec::{Choice, Decoder, Encoder, Feature, GeometryId, LevelId, Mode, Shape, Tables};

/// Reads the bytes as `tables.bin`.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let Ok(tables) = Tables::parse(data) else { return false };
    let shape = Shape::new(tables.channels(), 3, 7).expect("as many channels as tables may have");
    let (mut packet, mut portable_packet, mut symbols) = (Vec::new(), Vec::new(), Vec::new());
    let mut encoder = Encoder::new().truncatable(true);
    let mut portable = Encoder::portable().truncatable(true);
    for level in 0..tables.levels() {
        let mut values = Vec::new();
        for table in tables.level(LevelId(level as u8)).expect("a level of the tables") {
            let sum: u32 = table.frequencies().iter().map(|&frequency| u32::from(frequency)).sum();
            assert_eq!(sum, 1 << tables.precision());
            let regular = table.frequencies().len() as i16 - 1;
            // Regular symbols including both ends, the symbols just outside of them, and one far away.
            let around =
                [0, 1, regular / 2, regular - 1, regular, -1, 17_000].map(|o| table.low().wrapping_add(o));
            values.extend(around.iter().cycle().take(shape.plane()));
        }
        let feature = Feature::new(shape, values).expect("symbols of the shape");
        for mode in Mode::ALL.into_iter().filter(|mode| mode.is_coded()) {
            if !tables.supports(mode) {
                continue;
            }
            let choice = Choice::Only(mode);
            encoder
                .encode(&tables, GeometryId(0), LevelId(level as u8), choice, &feature, &mut packet)
                .expect("a feature");
            portable
                .encode(&tables, GeometryId(0), LevelId(level as u8), choice, &feature, &mut portable_packet)
                .expect("a feature");
            assert_eq!(packet, portable_packet);
            Decoder::new()
                .decode_into(&tables, &[shape], &packet, &mut symbols)
                .expect("a packet of the encoder");
            assert_eq!(symbols, feature.symbols());
        }
    }
    true
}
