//! What goes in comes out, for every mode, shape and table; and constriction agrees on the static model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use constriction::stream::model::ContiguousCategoricalEntropyModel;
use constriction::stream::stack::SmallAnsCoder;
use narrows_codec::{
    Choice, Feature, HEADER_BYTES, Header, Mode, Shape, Tables, decode, decode_into, encode, packet_max,
};
use proptest::collection::vec;
use proptest::prelude::*;

const MODES: [Mode; 3] = [Mode::Raw, Mode::Static, Mode::Zstd];

/// A table of the given regular symbols, whose frequencies follow the weights.
fn table(low: i16, weights: &[u16]) -> (i16, Vec<u16>) {
    let entries = weights.len().min((i32::from(i16::MAX) - i32::from(low) + 1) as usize).min(4095) + 1;
    let spare = 4096 - entries as u64;
    let sum: u64 = weights.iter().take(entries - 1).map(|&w| u64::from(w)).sum::<u64>().max(1);
    let mut frequencies: Vec<u16> = weights
        .iter()
        .take(entries - 1)
        .map(|&w| 1 + (spare * u64::from(w) / sum) as u16)
        .chain([1])
        .collect();
    let rest = 4096 - frequencies.iter().sum::<u16>();
    frequencies[0] += rest;
    (low, frequencies)
}

fn file(channels: usize, tables: &[(i16, Vec<u16>)]) -> Vec<u8> {
    let mut bytes = b"NRWT\x01\x0c".to_vec();
    bytes.extend((channels as u16).to_le_bytes());
    bytes.extend([(tables.len() / channels) as u8, 0, 0, 0]);
    for (low, frequencies) in tables {
        bytes.extend(low.to_le_bytes());
        bytes.extend((frequencies.len() as u16 - 1).to_le_bytes());
        bytes.extend(frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()));
    }
    bytes
}

fn goes_round(tables: &Tables, level: u8, choice: Choice, feature: &Feature) -> Vec<u8> {
    let mut packet = Vec::new();
    let mode = encode(tables, 0, level, choice, feature, &mut packet).unwrap();
    assert!(packet.len() <= packet_max(feature.shape()));
    let found = decode(tables, &[feature.shape()], &packet).unwrap();
    assert_eq!((found.level, found.geometry, found.mode), (level, 0, mode));
    assert_eq!(found.feature, *feature);
    packet
}

/// Tables of one or two levels, a level, and a feature whose symbols are near the tables, far from them, or both.
fn case() -> impl Strategy<Value = (Vec<u8>, u8, Feature)> {
    let weights = prop_oneof![4 => vec(0..1000_u16, 1..60), 1 => vec(0..9_u16, 200..600)];
    let low = prop_oneof![8 => -40..10_i16, 1 => Just(i16::MIN), 1 => Just(i16::MAX)];
    (1..5_usize, 1..3_usize, 1..24_usize, 1..24_usize).prop_flat_map(
        move |(channels, levels, height, width)| {
            let tables = vec((low.clone(), weights.clone()), channels * levels);
            let symbols = prop_oneof![Just(-5..6_i16), Just(-45..60), Just(i16::MIN..i16::MAX)]
                .prop_flat_map(move |range| vec(range, channels * height * width));
            (tables, 0..levels as u8, symbols).prop_map(move |(tables, level, symbols)| {
                let tables: Vec<_> = tables.iter().map(|(low, weights)| table(*low, weights)).collect();
                let shape = Shape::new(channels, height, width).unwrap();
                (file(channels, &tables), level, Feature::new(shape, symbols).unwrap())
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_feature_survives_every_mode((bytes, level, feature) in case()) {
        let tables = Tables::parse(&bytes).unwrap();
        let sizes = MODES.map(|mode| goes_round(&tables, level, Choice::Only(mode), &feature).len());
        let auto = goes_round(&tables, level, Choice::Auto, &feature);
        let expected = if sizes[1] <= sizes[0] { sizes[1] } else { sizes[0].min(sizes[2]) };
        prop_assert_eq!(auto.len(), expected);
    }

    #[test]
    fn arbitrary_payloads_are_refused(
        (bytes, level, feature) in case(), mode in 0..3_u8, layout in 0..4_u32, payload in vec(any::<u8>(), 0..200),
    ) {
        let tables = Tables::parse(&bytes).unwrap();
        let mut packet = Vec::from([0x10 | mode, level, 0, 1 << layout]);
        packet.extend(tables.id());
        packet.extend([0; 4]);
        packet.extend(payload);
        prop_assert!(decode(&tables, &[feature.shape()], &packet).is_err());
    }
}

#[test]
fn extreme_features_survive() {
    let narrow = table(-3, &[1, 5, 20, 60, 20, 5, 1]);
    let wide = table(-2000, &[1; 4000]);
    let edge = table(i16::MAX, &[7]);
    let start = table(i16::MIN, &[7]);
    let tables = Tables::parse(&file(4, &[narrow, wide, edge, start])).unwrap();
    for (height, width) in [(1, 1), (1, 2), (3, 85), (16, 16), (1, 257), (61, 67), (90, 91)] {
        let shape = Shape::new(4, height, width).unwrap();
        for values in
            [vec![0], vec![i16::MIN], vec![i16::MAX], vec![3], vec![4], vec![-4, 2000, 1, -32768, 32767]]
        {
            let symbols = values.iter().copied().cycle().take(shape.symbols()).collect();
            let feature = Feature::new(shape, symbols).unwrap();
            for choice in MODES.map(Choice::Only).into_iter().chain([Choice::Auto]) {
                goes_round(&tables, 0, choice, &feature);
            }
        }
    }
}

#[test]
fn the_largest_feature_survives() {
    let shape = Shape::new(1, 1024, 4096).unwrap();
    let tables = Tables::parse(&file(1, &[table(-3, &[1, 5, 20, 60, 20, 5, 1])])).unwrap();
    let feature =
        Feature::new(shape, (0..shape.symbols()).map(|i| (i * i % 8) as i16 - 3).collect()).unwrap();
    goes_round(&tables, 0, Choice::Only(Mode::Static), &feature);
}

#[test]
fn lanes_follow_the_number_of_symbols() {
    let tables = Tables::parse(&file(1, &[table(0, &[1])])).unwrap();
    for (symbols, lanes) in [(2047, 1), (2048, 2), (4095, 2), (4096 * 2, 4), (4096 * 4, 8)] {
        let (height, width) = if symbols > 4096 { (symbols / 4096, 4096) } else { (1, symbols) };
        let feature = Feature::new(Shape::new(1, height, width).unwrap(), vec![0; symbols]).unwrap();
        let packet = goes_round(&tables, 0, Choice::Only(Mode::Static), &feature);
        assert_eq!(Header::parse(&packet).unwrap().layout, lanes);
    }
}

#[test]
fn auto_leaves_static_only_for_something_smaller() {
    let tables = Tables::parse(&file(1, &[table(0, &[1, 1])])).unwrap();
    let shape = Shape::new(1, 20, 20).unwrap();
    let mut packet = Vec::new();
    let mut auto = |symbol: &dyn Fn(usize) -> i16| {
        let feature = Feature::new(shape, (0..400).map(symbol).collect()).unwrap();
        encode(&tables, 0, 0, Choice::Auto, &feature, &mut packet).unwrap()
    };
    assert_eq!(auto(&|i| (i % 2) as i16), Mode::Static);
    assert_eq!(auto(&|_| 77), Mode::Zstd);
    assert_eq!(auto(&|i| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as i16), Mode::Raw);
}

#[test]
fn buffers_are_used_again() {
    let tables = Tables::parse(&file(1, &[table(0, &[1, 1])])).unwrap();
    let shape = Shape::new(1, 20, 20).unwrap();
    let feature = Feature::new(shape, vec![1; 400]).unwrap();
    let (mut packet, mut symbols) = (vec![9; 5], vec![9; 5]);
    encode(&tables, 0, 0, Choice::Auto, &feature, &mut packet).unwrap();
    let header = decode_into(&tables, &[shape], &packet, &mut symbols).unwrap();
    assert_eq!(header, Header::parse(&packet).unwrap());
    assert_eq!(symbols, feature.symbols());
    let memory = (packet.as_ptr(), symbols.as_ptr());
    encode(&tables, 0, 0, Choice::Auto, &feature, &mut packet).unwrap();
    decode_into(&tables, &[shape], &packet, &mut symbols).unwrap();
    assert_eq!(memory, (packet.as_ptr(), symbols.as_ptr()));
}

/// constriction codes the same entries with the same frequencies into as many bytes, up to what lanes cost.
#[test]
fn constriction_needs_as_many_bytes() {
    let tables: Vec<_> = (1..9_u16)
        .map(|scale| {
            let weights: Vec<u16> = (-20..=20_i32).map(|s| 8000 / (1 + (s * s) as u16 / scale)).collect();
            table(-20, &weights)
        })
        .collect();
    let tables = Tables::parse(&file(8, &tables)).unwrap();
    let shape = Shape::new(8, 40, 40).unwrap();
    let level = tables.level(0).unwrap();
    let mut random = 1_u32;
    let mut symbols = Vec::new();
    for table in level {
        for _ in 0..shape.plane() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut slot = (random >> 20) as u16;
            let entry = table.frequencies().iter().position(|&f| {
                let here = slot < f;
                slot = slot.wrapping_sub(f);
                here
            });
            symbols.push(table.low() + entry.unwrap() as i16);
        }
    }
    let feature = Feature::new(shape, symbols).unwrap();
    let packet = goes_round(&tables, 0, Choice::Only(Mode::Static), &feature);

    let mut coder = SmallAnsCoder::new();
    let mut escapes = 0;
    for (table, plane) in level.iter().zip(feature.planes()).rev() {
        let model =
            ContiguousCategoricalEntropyModel::<u16, Vec<u16>, 12>::from_nonzero_fixed_point_probabilities(
                table.frequencies(),
                false,
            )
            .unwrap();
        coder.encode_iid_symbols_reverse(plane.iter().map(|&symbol| table.entry(symbol)), &model).unwrap();
        escapes += plane.iter().filter(|symbol| !table.holds(**symbol)).count();
    }
    let theirs = 2 * coder.into_compressed().unwrap().len();
    let lanes = usize::from(Header::parse(&packet).unwrap().layout);
    let ours = packet.len() - HEADER_BYTES - 2 * escapes;
    assert!(ours + 8 > theirs && ours < theirs + 4 * lanes + 8, "{ours} against {theirs}, {lanes} lanes");
}

/// Only integers decide the bytes (FORMAT.md): no source of the crate knows a floating-point type.
#[test]
fn no_source_holds_a_floating_point_type() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let float = words
                .into_iter()
                .any(|w| w == "f32" || w == "f64" || w.ends_with("_f32") || w.ends_with("_f64"));
            assert!(!float, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}
