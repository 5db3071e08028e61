//! Arbitrary tables files. Accepted ones sum to 4096 and code a feature there and back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_codec::{Choice, Feature, Mode, Shape, Tables, decode, encode};

fuzz_target!(|data: &[u8]| {
    let Ok(tables) = Tables::parse(data) else { return };
    let shape = Shape::new(tables.channels(), 3, 7).expect("as many channels as tables may have");
    let mut packet = Vec::new();
    for level in 0..tables.levels() {
        let mut symbols = Vec::new();
        for table in tables.level(level).expect("a level of the tables") {
            assert_eq!(table.frequencies().iter().map(|&frequency| u32::from(frequency)).sum::<u32>(), 4096);
            let regular = table.frequencies().len() as i16 - 1;
            // Inside, at both ends, just outside on both sides, and far off.
            let around =
                [0, 1, regular / 2, regular - 1, regular, -1, 17_000].map(|o| table.low().wrapping_add(o));
            symbols.extend(around.iter().cycle().take(shape.plane()));
        }
        let feature = Feature::new(shape, symbols).expect("symbols of the shape");
        encode(&tables, 0, level as u8, Choice::Only(Mode::Static), &feature, &mut packet)
            .expect("a feature");
        assert_eq!(decode(&tables, &[shape], &packet).expect("our own packet").feature, feature);
    }
});
