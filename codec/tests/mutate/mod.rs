//! Damages packets of all modes and numbers of lanes, and counts what the decoder accepts.

use narrows_codec::{Choice, Decoder, Encoder, GeometryId, LevelId, Mode, Shape, Tables, packet_max};

use crate::generate::{self, Random};

/// How many packets were accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) packets: u64,
    /// Accepted as cut where a group ends, with the encoded symbols up to there.
    pub(crate) cut: u64,
    /// Accepted with all symbols as they were encoded, by mode.
    pub(crate) same: [u64; Mode::ALL.len()],
    /// Accepted with other symbols, and those of them that have one lane.
    pub(crate) wrong: u64,
    pub(crate) wrong_of_one_lane: u64,
    /// Tried, by mode.
    pub(crate) per_mode: [u64; Mode::ALL.len()],
}

/// Damages and decodes `packets` packets, from `seed`.
///
/// # Panics
/// When the decoder panics, or when vector and portable code differ.
pub(crate) fn run(packets: u64, seed: u64) -> Report {
    let random = &mut Random::new(seed);
    let tables = Tables::parse(&generate::tables(2, 4, 2, 12)).expect("generated tables");
    let shapes = [(3, 5), (8, 8), (1, 1), (11, 6)].map(|(h, w)| Shape::new(4, h, w).expect("a valid shape"));
    let mut intact_packets = Vec::new();
    for (geometry, shape) in (0..).zip(shapes).take(generate::unless_miri(4, 1)) {
        for lanes in [1, 2, 4, 8, 16, 32] {
            for mode in generate::modes() {
                for truncatable in [false, true] {
                    let feature = generate::feature(u64::from(geometry) + 5, shape, 40);
                    let mut packet = Vec::new();
                    let mut encoder = Encoder::new().lanes(lanes).truncatable(truncatable);
                    encoder
                        .encode(
                            &tables,
                            GeometryId(geometry),
                            LevelId(1),
                            Choice::Only(mode),
                            &feature,
                            &mut packet,
                        )
                        .expect("a feature that fits the tables");
                    intact_packets.push((packet, mode, lanes, feature));
                }
            }
        }
    }
    let (mut decoder, mut portable_decoder) = (Decoder::new(), Decoder::portable());
    let (mut symbols, mut expected) = (Vec::new(), Vec::new());
    let mut packet = Vec::new();
    let mut report = Report::default();
    while report.packets < packets {
        let (whole, mode, lanes, feature) = &intact_packets[random.below(intact_packets.len())];
        packet.clone_from(whole);
        damage(&mut packet, random);
        if packet == *whole || generate::unsupported_by_miri(&packet) {
            continue;
        }
        report.packets += 1;
        report.per_mode[*mode as usize] += 1;
        let found = decoder.decode_into(&tables, &shapes, &packet, &mut symbols);
        if report.packets % 8 == 0 {
            let portable = portable_decoder.decode_into(&tables, &shapes, &packet, &mut expected);
            assert_eq!(found.is_ok(), portable.is_ok(), "{packet:x?}");
            assert!(found.is_err() || symbols == expected, "{packet:x?}");
        }
        let Ok(found) = found else { continue };
        let shape = shapes[found.header.geometry.index()];
        assert!(symbols.len() == shape.symbols() && packet.len() <= packet_max(shape));
        let decoded_channels =
            tables.order().take(if found.header.groups() == 1 { usize::MAX } else { found.groups_decoded });
        let intact = shape == feature.shape()
            && decoded_channels.flatten().map(|&channel| usize::from(channel) * shape.plane()).all(|begin| {
                symbols[begin..][..shape.plane()] == feature.symbols()[begin..][..shape.plane()]
            });
        if intact && found.groups_decoded < found.header.groups() {
            report.cut += 1;
        } else if intact {
            report.same[found.header.mode as usize] += 1;
        } else {
            report.wrong += 1;
            report.wrong_of_one_lane += u64::from(*lanes == 1);
        }
    }
    report
}

/// Truncates, extends, cuts or changes a packet in one to four places.
fn damage(packet: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(packet.len().max(1));
        match random.below(8) {
            0 => packet.truncate(at),
            1 => packet.extend((0..=random.below(6)).map(|_| random.below(256) as u8)),
            2 => packet.insert(at.min(packet.len()), random.below(256) as u8),
            3 if !packet.is_empty() => drop(packet.remove(at)),
            4 if !packet.is_empty() => packet[at] = random.below(256) as u8,
            5 => {
                let end = (at + random.below(8)).min(packet.len());
                packet[at.min(end)..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            }
            _ if !packet.is_empty() => packet[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
}
