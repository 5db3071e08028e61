//! Instructions per symbol, counted by callgrind while this program codes the bundle's vectors.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use narrows_codec::{Choice, Decoder, Encoder, Feature, GeometryId, LevelId, Shape, Tables};
use narrows_models::{Bundle, Vector};
use serde::Serialize;

use super::sizes::CODED;

/// Repeats of the longer of two runs; the shorter has one. Their difference holds no start-up cost.
const REPEATS: usize = 4;

#[derive(Debug, Serialize)]
pub(super) struct Count {
    work: String,
    /// Instructions per symbol.
    instructions: f64,
}

/// Codes the bundle's vectors `repeats` times; `work` is a mode and `encode` or `decode`, joined by a dash.
pub(super) fn work(bundle: &Bundle, work: &str, repeats: usize) -> Result<()> {
    let (mode, operation) = work.split_once('-').context("--count: MODE-encode or MODE-decode")?;
    let mode = CODED.into_iter().find(|found| found.to_string() == mode).context("--count: no such mode")?;
    let (tables, features) = vectors(bundle)?;
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let (mut packet, mut symbols) = (Vec::new(), Vec::new());
    let mut encode = |level, feature, packet: &mut Vec<u8>| {
        encoder.encode(&tables, GeometryId(0), level, Choice::Only(mode), feature, packet)
    };
    let mut packets = Vec::new();
    for (level, feature) in &features {
        encode(*level, feature, &mut packet)?;
        packets.push(packet.clone());
    }
    for _ in 0..repeats {
        for ((level, feature), packet) in features.iter().zip(&mut packets) {
            match operation {
                "encode" => {
                    encode(*level, feature, packet)?;
                }
                "decode" => {
                    decoder.decode_into(&tables, &[feature.shape()], packet, &mut symbols)?;
                }
                _ => bail!("--count: MODE-encode or MODE-decode"),
            }
        }
    }
    Ok(())
}

/// Reads the tables of `bundle` and the features of its vectors with their rate levels.
fn vectors(bundle: &Bundle) -> Result<(Tables, Vec<(LevelId, Feature)>)> {
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let feature = |vector: &Vector| {
        let symbols = bundle.read(&vector.symbols)?.into_iter().map(|byte| byte.cast_signed().into());
        let (rows, columns) = bundle.geometries()[vector.geometry].latent(bundle.head().stride);
        let shape = Shape::new(tables.channels(), rows, columns)?;
        Ok((LevelId(u8::try_from(vector.level)?), Feature::new(shape, symbols.collect())?))
    };
    let features = bundle.vectors().iter().map(feature).collect::<Result<Vec<_>>>()?;
    ensure!(!features.is_empty(), "the bundle has no vectors");
    Ok((tables, features))
}

pub(super) fn measure(bundle: &Bundle) -> Result<Vec<Count>> {
    let (tables, features) = vectors(bundle)?;
    let symbols: usize = features.iter().map(|(_, feature)| feature.symbols().len()).sum();
    let mut counts = Vec::new();
    for mode in CODED.into_iter().filter(|&mode| tables.supports(mode)) {
        for operation in ["encode", "decode"] {
            let work = format!("{mode}-{operation}");
            let more = callgrind(bundle, &work, REPEATS)? - callgrind(bundle, &work, 1)?;
            let instructions = more as f64 / ((REPEATS - 1) * symbols) as f64;
            counts.push(Count { work, instructions });
        }
    }
    Ok(counts)
}

/// Instructions of a whole run.
fn callgrind(bundle: &Bundle, work: &str, repeats: usize) -> Result<i64> {
    let program = std::env::current_exe().context("this program's path")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["codec", "--bundle"])
        .arg(bundle.dir())
        .args(["--count", work, &repeats.to_string()])
        .output()
        .context("--instructions: valgrind cannot be started")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {messages}");
    let line = messages.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("valgrind counted nothing: {messages}"))?;
    number.trim().parse().context("valgrind's count")
}

pub(super) fn print(counts: &[Count]) {
    println!("\nInstructions per symbol (callgrind, the bundle's vectors)");
    for Count { work, instructions } in counts {
        println!("  {work:16} {instructions:7.1}");
    }
}
