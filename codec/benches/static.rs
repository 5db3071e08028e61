//! Mode static against constriction's ANS coder with the same tables: one thread, interleaved rounds, medians.
//!
//! ```text
//! cargo bench -p narrows-codec --bench static -- [--rounds N] [--bundle DIR]
//! ```
//!
//! Without a bundle the features are synthetic: 24x32x32, Laplace tables of scales 8 to 0.1, symbols drawn from the
//! tables. With one they are its test vectors. Every coder works from i16 symbols to bytes or words and back; our
//! times hold the header and the check too. The last line is JSON.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use constriction::stream::Decode;
use constriction::stream::model::{ContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel};
use constriction::stream::stack::{DefaultAnsCoder, SmallAnsCoder};
use narrows_codec::{Choice, Feature, HEADER_BYTES, Header, Mode, Shape, Table, Tables, decode_into, encode};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut rounds = 41;
    let mut bundle = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().ok_or("--rounds takes a number")?.parse()?,
            "--bundle" => bundle = Some(PathBuf::from(arguments.next().ok_or("--bundle takes a folder")?)),
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let (tables, features) = match &bundle {
        Some(folder) => from_bundle(folder)?,
        None => synthetic(24, 32, 12)?,
    };
    let models = models(&tables);
    let [mut ours, mut small, mut default] = [const { Times::new() }; 3];
    for _ in 0..rounds {
        for (level, feature) in &features {
            let models = &models[usize::from(*level)];
            // Each coder finds the symbols in the cache, as if the network had just put them out.
            warm(feature);
            run_ours(&tables, *level, feature, &mut ours)?;
            warm(feature);
            run_small(models, feature, &mut small);
            warm(feature);
            run_default(models, feature, &mut default);
        }
    }
    let bits: f64 = features.iter().map(|(level, feature)| entropy(&tables, *level, feature)).sum();
    report(
        if bundle.is_some() { "bundle" } else { "synthetic" },
        &features,
        bits / 8.0,
        [ours, small, default],
    );
    Ok(())
}

fn warm(feature: &Feature) {
    black_box(feature.symbols().iter().fold(0_i16, |sum, symbol| sum.wrapping_add(*symbol)));
}

/// What one coder took: nanoseconds of every call, and the bytes of all features in the last round.
struct Times {
    encode: Vec<u64>,
    decode: Vec<u64>,
    bytes: Vec<usize>,
    lanes: Vec<usize>,
}

impl Times {
    const fn new() -> Self {
        Self { encode: Vec::new(), decode: Vec::new(), bytes: Vec::new(), lanes: Vec::new() }
    }
}

fn run_ours(tables: &Tables, level: u8, feature: &Feature, times: &mut Times) -> Result<(), Failure> {
    thread_local!(static BUFFERS: std::cell::RefCell<(Vec<u8>, Vec<i16>)> = Default::default());
    BUFFERS.with_borrow_mut(|(packet, symbols)| {
        let begin = Instant::now();
        encode(tables, 0, level, Choice::Only(Mode::Static), black_box(feature), packet)?;
        times.encode.push(begin.elapsed().as_nanos() as u64);
        let begin = Instant::now();
        decode_into(tables, &[feature.shape()], black_box(packet), symbols)?;
        times.decode.push(begin.elapsed().as_nanos() as u64);
        assert_eq!(symbols, feature.symbols());
        times.bytes.push(packet.len());
        times.lanes.push(Header::parse(packet)?.layout.into());
        Ok(())
    })
}

/// constriction's models of one channel.
struct Channel<'a> {
    table: &'a Table,
    encoder: ContiguousCategoricalEntropyModel<u16, Vec<u16>, 12>,
    decoder: SmallContiguousLookupDecoderModel,
}

fn models(tables: &Tables) -> Vec<Vec<Channel<'_>>> {
    let channel = |table| Channel {
        table,
        encoder: ContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(
            Table::frequencies(table),
            false,
        )
        .expect("a checked table"),
        decoder: SmallContiguousLookupDecoderModel::from_nonzero_fixed_point_probabilities(
            Table::frequencies(table),
            false,
        )
        .expect("a checked table"),
    };
    (0..tables.levels())
        .map(|level| tables.level(level).into_iter().flatten().map(channel).collect())
        .collect()
}

/// One round of one of constriction's coders. Escapes are coded, but not the symbols that they stand for.
macro_rules! round_of {
    ($name:ident, $coder:ident) => {
        fn $name(channels: &[Channel<'_>], feature: &Feature, times: &mut Times) {
            let begin = Instant::now();
            let mut coder = $coder::new();
            for (channel, plane) in channels.iter().zip(black_box(feature).planes()).rev() {
                let entries = plane.iter().map(|&symbol| channel.table.entry(symbol));
                coder.encode_iid_symbols_reverse(entries, &channel.encoder).expect("an entry of the model");
            }
            let words = coder.into_compressed().expect("memory");
            times.encode.push(begin.elapsed().as_nanos() as u64);
            times.bytes.push(size_of_val(words.as_slice()));

            let mut symbols = vec![0; feature.symbols().len()];
            let begin = Instant::now();
            let mut coder = $coder::from_compressed(black_box(words)).expect("no trailing zero");
            for (channel, plane) in channels.iter().zip(symbols.chunks_exact_mut(feature.shape().plane())) {
                let entries = coder.decode_iid_symbols(plane.len(), &channel.decoder);
                for (to, entry) in plane.iter_mut().zip(entries) {
                    *to = channel.table.low() + entry.expect("this coder cannot fail") as i16;
                }
            }
            times.decode.push(begin.elapsed().as_nanos() as u64);
            black_box(&symbols);
        }
    };
}

round_of!(run_small, SmallAnsCoder);
round_of!(run_default, DefaultAnsCoder);

/// Bits of the feature under the tables; an escape costs 16 more.
fn entropy(tables: &Tables, level: u8, feature: &Feature) -> f64 {
    let level = tables.level(level.into()).expect("a level of the tables");
    let cost = |table: &Table, symbol: i16| {
        let frequency = table.frequencies()[table.entry(symbol)];
        12.0 - f64::from(frequency).log2() + if table.holds(symbol) { 0.0 } else { 16.0 }
    };
    level.iter().zip(feature.planes()).flat_map(|(table, plane)| plane.iter().map(|&s| cost(table, s))).sum()
}

fn report(set: &str, features: &[(u8, Feature)], model: f64, times: [Times; 3]) {
    let symbols: usize = features.iter().map(|(_, feature)| feature.symbols().len()).sum();
    let mean = symbols as f64 / features.len() as f64;
    let lanes: usize = times[0].lanes.iter().rev().take(features.len()).sum();
    let bytes = times.each_ref().map(|t| t.bytes.iter().rev().take(features.len()).sum::<usize>());
    let payload = bytes[0] - HEADER_BYTES * features.len();
    let over = (payload as f64 - 3.0 * lanes as f64) / model - 1.0;
    let [encode, small_encode, default_encode] = times.each_ref().map(|t| median(&t.encode));
    let [decode, small_decode, default_decode] = times.each_ref().map(|t| median(&t.decode));
    let best = [small_encode.min(default_encode), small_decode.min(default_decode)];
    println!(
        "{set}: {} features, {mean:.0} symbols each, {:.3} bits per symbol",
        features.len(),
        8.0 * model / symbols as f64
    );
    println!("coder                 encode us  decode us   bytes");
    for (name, encode, decode, bytes) in [
        ("narrows static", encode, decode, bytes[0]),
        ("constriction small", small_encode, small_decode, bytes[1]),
        ("constriction default", default_encode, default_decode, bytes[2]),
    ] {
        println!("{name:20} {:10.1} {:10.1} {bytes:7}", encode / 1e3, decode / 1e3);
    }
    let [encode_ratio, decode_ratio] = [best[0] / encode, best[1] / decode];
    println!("against the faster constriction coder: encode {encode_ratio:.2}x, decode {decode_ratio:.2}x");
    println!("payload less 3 bytes a lane, against the model's {model:.0} bytes: {:+.3} %", 100.0 * over);
    println!(
        "{{\"set\":\"{set}\",\"features\":{},\"symbols\":{mean:.0},\"model_bytes\":{model:.1},\"payload_bytes\":{payload},\
         \"lanes\":{lanes},\"over_percent\":{:.4},\"encode_ns\":{encode:.0},\"decode_ns\":{decode:.0},\
         \"constriction_encode_ns\":{:.0},\"constriction_decode_ns\":{:.0},\
         \"encode_ratio\":{encode_ratio:.3},\"decode_ratio\":{decode_ratio:.3}}}",
        features.len(),
        100.0 * over,
        best[0],
        best[1],
    );
}

fn median(times: &[u64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2] as f64
}

/// The vectors of a bundle: i8 symbols, and their level from the packet beside them.
fn from_bundle(folder: &Path) -> Result<(Tables, Vec<(u8, Feature)>), Failure> {
    let tables = Tables::parse(&std::fs::read(folder.join("tables.bin"))?)?;
    let mut paths: Vec<_> = std::fs::read_dir(folder.join("vectors"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Failure>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "symbols"));
    paths.sort();
    let feature = |path: &PathBuf| {
        let level = Header::parse(&std::fs::read(path.with_extension("packet"))?)?.level;
        let symbols: Vec<i16> =
            std::fs::read(path)?.into_iter().map(|byte| byte.cast_signed().into()).collect();
        let plane = symbols.len() / tables.channels();
        let width =
            (1..=plane).find(|width| plane.is_multiple_of(*width) && width * width >= plane).unwrap_or(1);
        Ok((level, Feature::new(Shape::new(tables.channels(), plane / width, width)?, symbols)?))
    };
    let features = paths.iter().map(feature).collect::<Result<Vec<_>, Failure>>()?;
    if features.is_empty() {
        return Err(format!("no *.symbols in {}", folder.join("vectors").display()).into());
    }
    Ok((tables, features))
}

/// Laplace tables of scales from 8 down to 0.1, and features drawn from them.
fn synthetic(channels: usize, side: usize, count: usize) -> Result<(Tables, Vec<(u8, Feature)>), Failure> {
    let mut bytes = b"NRWT\x01\x0c".to_vec();
    bytes.extend((channels as u16).to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    for channel in 0..channels {
        let scale = 8.0 * (0.1_f64 / 8.0).powf(channel as f64 / (channels - 1) as f64);
        let reach = (scale * 8.0).ceil().clamp(2.0, 60.0) as i16;
        let weights: Vec<f64> = (-reach..=reach).map(|s| (-f64::from(s.abs()) / scale).exp()).collect();
        let spare = f64::from(4095 - 2 * i32::from(reach) - 1);
        let sum: f64 = weights.iter().sum();
        let mut frequencies: Vec<u16> =
            weights.iter().map(|w| 1 + (spare * w / sum) as u16).chain([1]).collect();
        frequencies[reach as usize] += 4096 - frequencies.iter().sum::<u16>();
        bytes.extend((-reach).to_le_bytes());
        bytes.extend((weights.len() as u16).to_le_bytes());
        bytes.extend(frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()));
    }
    let tables = Tables::parse(&bytes)?;
    let shape = Shape::new(channels, side, side)?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |table: &Table| loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut slot = (random >> 40) as u16 % 4096;
        let entry = table.frequencies().iter().position(|&frequency| match slot.checked_sub(frequency) {
            Some(left) => {
                slot = left;
                false
            }
            None => true,
        });
        if let Some(entry) = entry.filter(|entry| entry + 1 < table.frequencies().len()) {
            return table.low() + entry as i16;
        }
    };
    let mut features = Vec::new();
    for _ in 0..count {
        let level = tables.level(0).into_iter().flatten();
        let symbols = level.flat_map(|table| (0..shape.plane()).map(|_| draw(table)).collect::<Vec<_>>());
        features.push((0, Feature::new(shape, symbols.collect())?));
    }
    Ok((tables, features))
}
