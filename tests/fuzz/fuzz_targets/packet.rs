//! Arbitrary packets against fixed tables. After an even first byte the header is made whole, so that the payload's
//! reader is reached; a packet that only fails its check is given the right one and must then pass.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows_codec::{Choice, Error, Mode, Shape, Tables, decode, encode, packet_max};

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let mut bytes = b"NRWT\x01\x0c\x04\0\x02\0\0\0".to_vec();
    for (low, regular) in
        [(-1, 3), (-20, 41), (0, 1), (-150, 300), (-8, 17), (-32768, 2), (32766, 2), (-128, 256)]
    {
        let mut frequencies = vec![1_u16; regular + 1];
        let spare = 4096 - frequencies.len() as u16;
        frequencies[regular / 2] += spare - spare / 3;
        frequencies[regular / 3] += spare / 3;
        bytes.extend(i16::to_le_bytes(low));
        bytes.extend((regular as u16).to_le_bytes());
        bytes.extend(frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()));
    }
    Tables::parse(&bytes).expect("tables made here")
});

fuzz_target!(|data: &[u8]| {
    let shapes = [(4, 5), (1, 1), (17, 9)].map(|(h, w)| Shape::new(4, h, w).expect("a shape made here"));
    let mut packet = data.to_vec();
    if data.len() >= 12 && data[0] & 1 == 0 {
        let layouts: &[u8] = if data[0] >> 1 & 3 == 1 { &[1, 2, 4, 8] } else { &[1, 2] };
        packet[0] = 0x10 | (data[0] >> 1 & 3);
        packet[1] = data[1] % 2;
        packet[2] = data[2] % 3;
        packet[3] = layouts[usize::from(data[3]) % layouts.len()];
        packet[4..8].copy_from_slice(&TABLES.id());
    }
    let mut found = decode(&TABLES, &shapes, &packet);
    if let Err(Error::Check { expected, .. }) = found {
        packet[8..12].copy_from_slice(&expected.to_le_bytes());
        found = decode(&TABLES, &shapes, &packet);
    }
    let Ok(found) = found else { return };
    let feature = &found.feature;
    assert_eq!(feature.shape(), shapes[usize::from(found.geometry)]);
    assert!(packet.len() <= packet_max(feature.shape()));
    let mut again = Vec::new();
    for choice in
        [Choice::Auto, Choice::Only(Mode::Raw), Choice::Only(Mode::Static), Choice::Only(Mode::Zstd)]
    {
        let mode =
            encode(&TABLES, found.geometry, found.level, choice, feature, &mut again).expect("a feature");
        // One feature has one static packet for a number of lanes, and one raw packet for a width.
        if mode == found.mode && mode != Mode::Zstd && again[3] == packet[3] {
            assert_eq!(again, packet);
        }
        assert_eq!(decode(&TABLES, &shapes, &again).expect("our own packet").feature, *feature);
    }
});
