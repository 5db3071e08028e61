//! Instructions per symbol, counted by callgrind over this program coding the bundle's vectors.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use narrows_codec::{Choice, Decoder, Encoder, Feature, GeometryId, LevelId, Mode, Shape, Tables};
use narrows_models::{Bundle, Parts};
use serde::Serialize;

use super::sizes::CODED;

/// Turns of the longer run; the shorter has one. What is done once is in both.
const TURNS: usize = 4;

#[derive(Debug, Serialize)]
pub(super) struct Count {
    work: String,
    /// Of one symbol.
    instructions: f64,
}

/// Codes the bundle's vectors `turns` times as `work`, a mode and `encode` or `decode`, says.
pub(super) fn work(bundle: &Path, work: &str, turns: usize) -> Result<()> {
    let (mode, way) = work.split_once('-').context("--count: MODE-encode or MODE-decode")?;
    let mode = CODED.into_iter().find(|found| found.to_string() == mode).context("--count: no such mode")?;
    let (tables, features) = vectors(bundle)?;
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let (mut packet, mut symbols) = (Vec::new(), Vec::new());
    let mut packets = Vec::new();
    for (level, feature) in &features {
        encoder.encode(&tables, GeometryId(0), *level, Choice::Only(mode), feature, &mut packet)?;
        packets.push(packet.clone());
    }
    for _ in 0..turns {
        for ((level, feature), packet) in features.iter().zip(&mut packets) {
            match way {
                "encode" => {
                    encoder.encode(&tables, GeometryId(0), *level, Choice::Only(mode), feature, packet)?;
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

fn vectors(bundle: &Path) -> Result<(Tables, Vec<(LevelId, Feature)>)> {
    let bundle = Bundle::open(bundle, Parts::All)?;
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let feature = |vector: &narrows_models::Vector| {
        let symbols = bundle.read(&vector.symbols)?.into_iter().map(|byte| byte.cast_signed().into());
        let (rows, columns) = bundle.geometries()[vector.geometry].latent(bundle.head().stride);
        let shape = Shape::new(tables.channels(), rows, columns)?;
        Ok((LevelId(u8::try_from(vector.level)?), Feature::new(shape, symbols.collect())?))
    };
    let features = bundle.vectors().iter().map(feature).collect::<Result<Vec<_>>>()?;
    ensure!(!features.is_empty(), "the bundle has no vectors");
    Ok((tables, features))
}

pub(super) fn measure(bundle: &Path) -> Result<Vec<Count>> {
    let (tables, features) = vectors(bundle)?;
    let symbols: usize = features.iter().map(|(_, feature)| feature.symbols().len()).sum();
    let mut counts = Vec::new();
    for mode in CODED.into_iter().filter(|&mode: &Mode| tables.supports(mode)) {
        for way in ["encode", "decode"] {
            let work = format!("{mode}-{way}");
            let more = callgrind(bundle, &work, TURNS)? - callgrind(bundle, &work, 1)?;
            let instructions = more as f64 / ((TURNS - 1) * symbols) as f64;
            counts.push(Count { work, instructions });
        }
    }
    Ok(counts)
}

/// Instructions of a whole run.
fn callgrind(bundle: &Path, work: &str, turns: usize) -> Result<i64> {
    let program = std::env::current_exe().context("this program's path")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["codec", "--bundle"])
        .arg(bundle)
        .args(["--count", work, &turns.to_string()])
        .output()
        .context("--instructions: valgrind cannot be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("valgrind counted nothing: {said}"))?;
    number.trim().parse().context("valgrind's count")
}

pub(super) fn print(counts: &[Count]) {
    println!("\nInstructions per symbol (callgrind, the bundle's vectors)");
    if counts.is_empty() {
        println!("  unknown: not asked for with --instructions");
    }
    for Count { work, instructions } in counts {
        println!("  {work:16} {instructions:7.1}");
    }
}
