//! Features are decoded as they were encoded, in every mode, for every shape, table, number of lanes and prefix. The crate
//! constriction needs as many bytes for the static model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod generate;

use std::{fs, path::PathBuf};

use constriction::stream::{model::ContiguousCategoricalEntropyModel, stack::SmallAnsCoder};
use narrows_codec::{
    Choice, Decoder, Encoder, Feature, GeometryId, HEADER_BYTES, Header, LevelId, Mode, Shape, Tables,
    decode, encode, packet_max, prefixes,
};
use proptest::prelude::*;

const CODED: [Mode; 5] = [Mode::Static, Mode::Indexed, Mode::Context, Mode::Columns, Mode::Rows];

fn choices() -> impl Iterator<Item = Choice> {
    // Auto tries zstd.
    let auto = generate::modes().find(|mode| *mode == Mode::Zstd).map(|_| Choice::Auto);
    generate::modes().map(Choice::Only).chain([Choice::Within(5)]).chain(auto)
}

fn round_trip(
    tables: &Tables,
    level: u8,
    choice: Choice,
    feature: &Feature,
    encoder: &mut Encoder,
) -> Vec<u8> {
    let mut packet = Vec::new();
    let mode = encoder.encode(tables, GeometryId(1), LevelId(level), choice, feature, &mut packet).unwrap();
    assert!(packet.len() <= packet_max(feature.shape()));
    let found = decode(tables, &[feature.shape(); 2], &packet).unwrap();
    assert_eq!(
        (found.level, found.geometry, found.mode, found.groups_decoded),
        (LevelId(level), GeometryId(1), mode, found.groups)
    );
    assert_eq!(found.feature, *feature);
    packet
}

fn case() -> impl Strategy<Value = (Tables, u8, Feature, u8, bool)> {
    let precision = prop_oneof![Just(12), Just(generate::unless_miri(14, 12))];
    let outliers = prop_oneof![4 => Just(0_usize), 2 => Just(50), 1 => Just(1)];
    let lanes = prop_oneof![Just(0), Just(1), Just(2), Just(4), Just(8), Just(16), Just(32)];
    (
        (any::<u64>(), 1..generate::unless_miri(5, 3_usize), 1..generate::unless_miri(3, 2_usize), precision),
        (1..generate::unless_miri(24, 4_usize), 1..generate::unless_miri(40, 12_usize)),
        outliers,
        lanes,
        any::<bool>(),
    )
        .prop_map(
            |((seed, channels, levels, precision), (height, width), outliers, lanes, truncatable)| {
                let tables = Tables::parse(&generate::tables(seed, channels, levels, precision)).unwrap();
                let shape = Shape::new(channels, height, width).unwrap();
                let feature = generate::feature(seed ^ 1, shape, outliers);
                (tables, (levels - 1) as u8, feature, lanes, truncatable)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(generate::unless_miri(150, 1)))]

    #[test]
    fn every_feature_survives_every_mode((tables, level, feature, lanes, truncatable) in case()) {
        let mut encoder = Encoder::new().lanes(lanes).truncatable(truncatable);
        let mut sizes = Vec::new();
        for choice in choices() {
            sizes.push((choice, round_trip(&tables, level, choice, &feature, &mut encoder).len()));
        }
        let size = |of| sizes.iter().find(|(choice, _)| *choice == of).map(|(_, size)| *size);
        let (raw, zstd) = (size(Choice::Only(Mode::Raw)), size(Choice::Only(Mode::Zstd)));
        prop_assert!(size(Choice::Auto) <= raw && size(Choice::Auto) <= zstd, "{sizes:?}");
        prop_assert!(size(Choice::Within(5)) <= raw, "{sizes:?}");
    }

    #[test]
    fn portable_code_writes_and_reads_the_same_bytes((tables, level, feature, lanes, truncatable) in case()) {
        let mut vector = Encoder::new().lanes(lanes).truncatable(truncatable);
        let mut portable = Encoder::portable().lanes(lanes).truncatable(truncatable);
        for mode in CODED {
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            portable.encode(&tables, GeometryId(0), LevelId(level), Choice::Only(mode), &feature, &mut expected).unwrap();
            vector.encode(&tables, GeometryId(0), LevelId(level), Choice::Only(mode), &feature, &mut found).unwrap();
            prop_assert_eq!(&expected, &found);
            let mut symbols = Vec::new();
            Decoder::portable().decode_into(&tables, &[feature.shape()], &found, &mut symbols).unwrap();
            prop_assert_eq!(&symbols[..], feature.symbols());
        }
    }

    #[test]
    fn a_packet_can_be_cut_exactly_where_groups_end((tables, level, feature, lanes, _) in case()) {
        let mut encoder = Encoder::new().lanes(lanes).truncatable(true);
        for mode in CODED {
            let packet = round_trip(&tables, level, Choice::Only(mode), &feature, &mut encoder);
            let groups = Header::parse(&packet).unwrap().groups();
            let ends: Vec<_> = prefixes(&packet).unwrap().collect();
            prop_assert_eq!(ends.last(), Some(&packet.len()));
            for end in (0..packet.len()).filter(|end| !cfg!(miri) || ends.contains(end) || end % 29 == 0) {
                let found = decode(&tables, &[feature.shape(); 2], &packet[..end]);
                prop_assert_eq!(found.is_ok(), ends.contains(&end), "{} of {}", end, packet.len());
                let Ok(found) = found else { continue };
                prop_assert!(found.groups_decoded < groups);
                for (group, channels) in tables.order().enumerate() {
                    for channel in channels.iter().map(|&channel| usize::from(channel)) {
                        let median = tables.level(LevelId(level)).unwrap()[channel].median();
                        let plane = found.feature.plane(channel);
                        if group < found.groups_decoded {
                            prop_assert_eq!(plane, feature.plane(channel));
                        } else {
                            prop_assert!(plane.iter().all(|symbol| *symbol == median));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn arbitrary_payloads_are_refused(
        (tables, level, feature, lanes, truncatable) in case(), mode in 0..5_u8, payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let code = [1, 2, 4, 8, 16, 32].iter().position(|l| *l == lanes).unwrap_or(0) as u8;
        let groups = if truncatable { tables.groups() as u8 - 1 } else { 0 };
        let layout = if mode % 2 == 0 && mode < 4 { 1 + u8::from(truncatable) } else { groups << 3 | code };
        let mut packet = vec![0x20 | mode, level, layout, tables.id()[0]];
        packet.extend(payload);
        prop_assume!(!generate::unsupported_by_miri(&packet));
        // A random payload may well be a packet of one symbol, or a prefix without words.
        prop_assume!(feature.symbols().len() > 8 && !truncatable);
        prop_assert!(decode(&tables, &[feature.shape()], &packet).is_err());
    }
}

/// A tables file of one level with static tables alone.
fn static_tables(precision: u32, tables: &[(i16, Vec<usize>)]) -> Tables {
    let mut bytes = b"NRWT\x02".to_vec();
    bytes.push(precision as u8);
    bytes.extend((tables.len() as u16).to_le_bytes());
    bytes.extend([1, 1, 0, 0]);
    tables.iter().for_each(|(low, frequencies)| generate::table(*low, frequencies, &mut bytes));
    Tables::parse(&bytes).unwrap()
}

#[test]
fn extreme_features_survive() {
    for precision in [12, 14] {
        let entries = generate::unless_miri((1 << precision) - 96, 200);
        let tables = static_tables(
            precision,
            &[
                (-3, generate::frequencies(&[1, 5, 20, 60, 20, 5, 1], precision)),
                (-2000, generate::frequencies(&vec![1; entries], precision)),
                (i16::MAX, generate::frequencies(&[7], precision)),
                (i16::MIN, generate::frequencies(&[7], precision)),
            ],
        );
        let shapes = [(1, 1), (1, 2), (3, 85), (16, 16), (1, 257), (61, 67)];
        for &(height, width) in generate::unless_miri(&shapes[..], &shapes[1..2]) {
            let shape = Shape::new(4, height, width).unwrap();
            for values in
                [vec![0], vec![i16::MIN], vec![i16::MAX], vec![3], vec![4], vec![-4, 2000, 1, -32768, 32767]]
            {
                let symbols = values.iter().copied().cycle().take(shape.symbols()).collect();
                let feature = Feature::new(shape, symbols).unwrap();
                for lanes in [1, 2, 4, 8, 16, 32] {
                    let mut encoder = Encoder::new().lanes(lanes);
                    for mode in generate::modes().filter(|&mode| tables.supports(mode)) {
                        round_trip(&tables, 0, Choice::Only(mode), &feature, &mut encoder);
                    }
                }
            }
        }
    }
}

#[test]
fn contexts_survive_symbols_at_the_ends_of_their_range() {
    let tables = Tables::parse(&generate::tables(3, 3, 1, 12)).unwrap();
    let shapes = [(1, 1), (2, 2), (7, 33), (40, 1), (1, 64)];
    for &(height, width) in generate::unless_miri(&shapes[..], &shapes[1..2]) {
        let shape = Shape::new(3, height, width).unwrap();
        for values in [vec![i16::MIN], vec![i16::MAX], vec![i16::MIN, i16::MAX], vec![0, 1, -32768, 5, 32767]]
        {
            let symbols = values.iter().copied().cycle().take(shape.symbols()).collect();
            let feature = Feature::new(shape, symbols).unwrap();
            for mode in CODED {
                round_trip(&tables, 0, Choice::Only(mode), &feature, &mut Encoder::new());
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "four million symbols")]
fn the_largest_feature_survives() {
    let shape = Shape::new(1, 1024, 4096).unwrap();
    let tables = Tables::parse(&generate::tables(5, 1, 1, 12)).unwrap();
    let symbols = (0..shape.symbols()).map(|i| (i * i % 8) as i16 - 3).collect();
    let feature = Feature::new(shape, symbols).unwrap();
    for mode in CODED {
        round_trip(&tables, 0, Choice::Only(mode), &feature, &mut Encoder::new());
    }
}

#[test]
fn lanes_follow_the_estimated_size() {
    // Every frequency is 16 of 4096, so each symbol costs one byte.
    let tables = static_tables(12, &[(0, vec![16; 256].into_iter().take(255).chain([16]).collect())]);
    let cases = [(248, 1), (256, 2), (1784, 2), (1792, 4), (3832, 4), (3840, 8), (24568, 8), (24576, 32)];
    for &(bytes, lanes) in generate::unless_miri(&cases[..], &cases[..4]) {
        let (height, width) = if bytes > 4096 { (8, bytes / 8) } else { (1, bytes) };
        let shape = Shape::new(1, height, width).unwrap();
        let feature = Feature::new(shape, (0..bytes).map(|i| (i * 7 % 255) as i16).collect()).unwrap();
        let packet = round_trip(&tables, 0, Choice::Only(Mode::Static), &feature, &mut Encoder::new());
        assert_eq!(Header::parse(&packet).unwrap().lanes(), lanes, "{bytes}");
    }
}

#[test]
fn modes_with_contexts_use_more_lanes_at_smaller_sizes() {
    let tables = Tables::parse(&generate::tables(3, 1, 1, 12)).unwrap();
    // Nearly every symbol is an escape of frequency 1, which costs 28 bits.
    let cases = [(64, 1), (80, 2), (240, 2), (256, 4), (544, 4), (560, 8), (1312, 8), (1328, 16)];
    for &(symbols, lanes) in generate::unless_miri(&cases[..], &cases[..2]) {
        let feature = generate::feature(5, Shape::new(1, 1, symbols).unwrap(), 1);
        let packet = round_trip(&tables, 0, Choice::Only(Mode::Context), &feature, &mut Encoder::new());
        assert_eq!(Header::parse(&packet).unwrap().lanes(), lanes, "{symbols}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn auto_uses_another_mode_than_static_only_when_it_is_smaller() {
    let tables = static_tables(12, &[(0, generate::frequencies(&[1, 1], 12))]);
    let shape = Shape::new(1, 20, 20).unwrap();
    let mut packet = Vec::new();
    let mut chosen = |choice, symbol: &dyn Fn(usize) -> i16| {
        let feature = Feature::new(shape, (0..400).map(symbol).collect()).unwrap();
        encode(&tables, GeometryId(0), LevelId(0), choice, &feature, &mut packet).unwrap()
    };
    let random = &mut generate::Random::new(3);
    let coins: Vec<_> = (0..400).map(|_| random.below(2) as i16).collect();
    let coin = |i: usize| coins[i];
    assert_eq!(chosen(Choice::Auto, &coin), Mode::Static);
    assert_eq!(chosen(Choice::Auto, &|_| 77), Mode::Zstd);
    assert_eq!(chosen(Choice::Within(1), &|_| 77), Mode::Raw);
    assert_eq!(chosen(Choice::Within(0), &coin), Mode::Raw);
    assert_eq!(chosen(Choice::Auto, &|i| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as i16), Mode::Raw);
}

#[test]
#[cfg_attr(miri, ignore = "large features")]
fn auto_codes_stripes_in_their_direction() {
    let tables = Tables::parse(&generate::tables(9, 4, 1, 12)).unwrap();
    let shape = Shape::new(4, 24, 24).unwrap();
    let random = &mut generate::Random::new(5);
    let lines: Vec<_> = (0..4 * 24).map(|_| random.from(-9, 10) as i16).collect();
    let plane = shape.plane();
    let mode_of = |place: &dyn Fn(usize) -> usize| {
        let symbols = (0..shape.symbols()).map(|at| lines[at / plane * 24 + place(at % plane)]).collect();
        let feature = Feature::new(shape, symbols).unwrap();
        let packet = round_trip(&tables, 0, Choice::Within(9), &feature, &mut Encoder::new());
        Header::parse(&packet).unwrap().mode
    };
    assert_eq!((mode_of(&|at| at / 24), mode_of(&|at| at % 24)), (Mode::Rows, Mode::Columns));
}

/// constriction codes the same entries with the same frequencies to as many bytes, but for the states of the lanes.
#[test]
#[cfg_attr(miri, ignore = "most of it is constriction")]
fn constriction_needs_as_many_bytes() {
    let scales: Vec<_> = (1..9_u32)
        .map(|scale| {
            let weights: Vec<u32> = (-20..=20_i32).map(|s| 8000 / (1 + (s * s) as u32 / scale)).collect();
            (-20, generate::frequencies(&weights, 12))
        })
        .collect();
    let tables = static_tables(12, &scales);
    let shape = Shape::new(8, 40, 40).unwrap();
    let level = tables.level(LevelId(0)).unwrap();
    let random = &mut generate::Random::new(1);
    let mut symbols = Vec::new();
    for table in level {
        for _ in 0..shape.plane() {
            let mut slot = random.below(4096) as u16;
            let entry = table.frequencies().iter().position(|&f| {
                let here = slot < f;
                slot = slot.wrapping_sub(f);
                here
            });
            symbols.push(table.low() + entry.unwrap() as i16);
        }
    }
    let feature = Feature::new(shape, symbols).unwrap();
    let packet = round_trip(&tables, 0, Choice::Only(Mode::Static), &feature, &mut Encoder::new());

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
    let theirs = 2 * coder.into_compressed().unwrap().len() + 2 * escapes;
    let lanes = usize::from(Header::parse(&packet).unwrap().lanes());
    let ours = packet.len() - HEADER_BYTES;
    assert!(ours + 8 > theirs && ours < theirs + 4 * lanes, "{ours} against {theirs}, {lanes} lanes");
}

/// Only integers decide the bytes (FORMAT.md): no source of the crate names a floating-point type.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn no_source_names_a_floating_point_type() {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
                let float =
                    words.any(|w| w == "f32" || w == "f64" || w.ends_with("_f32") || w.ends_with("_f64"));
                assert!(!float, "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
    assert!(files > 30, "{files} sources");
}

#[test]
fn the_cost_of_a_feature_is_the_size_of_its_packet_without_header_and_states() {
    let tables = Tables::parse(&generate::tables(3, 4, 2, 12)).unwrap();
    let feature = generate::feature(4, Shape::new(4, 16, 24).unwrap(), 0);
    let mut encoder = Encoder::new().lanes(1);
    for mode in CODED {
        let packet = round_trip(&tables, 1, Choice::Only(mode), &feature, &mut encoder);
        let cost = encoder.cost(&tables, LevelId(1), mode, &feature).unwrap();
        // Rounded up to bytes, with four bytes of header and the bits of one state; the cost is a sum of rounded logarithms.
        let bytes = cost as f64 / 2048.0 + (HEADER_BYTES + 4) as f64;
        let size = packet.len() as f64;
        assert!((bytes - size).abs() <= 4.0 + size / 100.0, "{mode:?}: {size} bytes, {bytes} by the cost");
    }
}

#[test]
fn a_feature_gives_its_symbols_and_indices_are_printed_as_numbers() {
    let symbols: Vec<i16> = (0..24).collect();
    let feature = Feature::new(Shape::new(2, 3, 4).unwrap(), symbols.clone()).unwrap();
    assert_eq!(feature.symbols(), symbols);
    assert_eq!(feature.into_symbols(), symbols);
    assert_eq!((LevelId(7).to_string(), GeometryId(9).to_string()), ("7".to_owned(), "9".to_owned()));
    assert_eq!((LevelId(7).index(), GeometryId(9).index()), (7, 9));
}
