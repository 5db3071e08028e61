//! Features to packets (FORMAT.md, sections 3 to 6).

use crate::header::GEOMETRIES_MAX;
use crate::rans::LOWEST;
use crate::{Error, Feature, HEADER_BYTES, Header, Mode, Table, Tables};

/// How hard zstd tries. The fallback is for features that the tables do not fit, where speed matters more than the
/// last byte.
const ZSTD_LEVEL: i32 = 3;

/// Which mode an encoder takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// Static, unless raw would be smaller; then the smaller of raw and zstd.
    #[default]
    Auto,
    /// This one, whatever its size.
    Only(Mode),
}

/// Codes `feature` into `out`, whose former content is dropped and whose memory is used again. Returns the mode
/// that was taken.
///
/// # Errors
/// [`Error::NoLevel`] and [`Error::NoGeometry`] for an index that no packet can carry, [`Error::Channels`] when the
/// feature has another number of channels than the tables, [`Error::Zstd`] when the compressor fails.
pub fn encode(
    tables: &Tables,
    geometry: u8,
    level: u8,
    choice: Choice,
    feature: &Feature,
    out: &mut Vec<u8>,
) -> Result<Mode, Error> {
    if usize::from(geometry) >= GEOMETRIES_MAX {
        return Err(Error::NoGeometry { found: geometry, max: GEOMETRIES_MAX });
    }
    let level_tables =
        tables.level(level.into()).ok_or(Error::NoLevel { found: level, levels: tables.levels() })?;
    let channels = feature.shape().channels();
    if channels != tables.channels() {
        return Err(Error::Channels { tables: tables.channels(), feature: channels });
    }
    let mut mode = match choice {
        Choice::Auto => Mode::Static,
        Choice::Only(mode) => mode,
    };
    let mut layout = match mode {
        Mode::Raw => write_raw(feature, out),
        Mode::Static => write_static(level_tables, feature, out),
        Mode::Zstd => write_zstd(feature, out)?,
    };
    if choice == Choice::Auto && out.len() > raw_bytes(feature) {
        (mode, layout) = (Mode::Zstd, write_zstd(feature, out)?);
        if out.len() >= raw_bytes(feature) {
            (mode, layout) = (Mode::Raw, write_raw(feature, out));
        }
    }
    let header = Header { mode, level, geometry, layout, table_id: tables.id(), check: 0 };
    out[..HEADER_BYTES].copy_from_slice(&header.bytes(feature.symbols()));
    Ok(mode)
}

/// Bytes per symbol in the modes that hold them as they are.
fn width_of(symbols: &[i16]) -> u8 {
    let fits = symbols.iter().fold(true, |fits, &symbol| fits & (i16::from(symbol as i8) == symbol));
    if fits { 1 } else { 2 }
}

/// The size of a packet of mode raw.
fn raw_bytes(feature: &Feature) -> usize {
    HEADER_BYTES + usize::from(width_of(feature.symbols())) * feature.symbols().len()
}

fn write_raw(feature: &Feature, out: &mut Vec<u8>) -> u8 {
    let width = width_of(feature.symbols());
    out.clear();
    out.resize(HEADER_BYTES, 0);
    push_raw(feature.symbols(), width, out);
    width
}

fn push_raw(symbols: &[i16], width: u8, out: &mut Vec<u8>) {
    match width {
        1 => out.extend(symbols.iter().map(|&symbol| symbol as u8)),
        _ => out.extend(symbols.iter().flat_map(|symbol| symbol.to_le_bytes())),
    }
}

fn write_zstd(feature: &Feature, out: &mut Vec<u8>) -> Result<u8, Error> {
    let width = width_of(feature.symbols());
    let mut raw = Vec::new();
    push_raw(feature.symbols(), width, &mut raw);
    out.clear();
    out.resize(HEADER_BYTES + zstd::zstd_safe::compress_bound(raw.len()), 0);
    let written = zstd::bulk::compress_to_buffer(&raw, &mut out[HEADER_BYTES..], ZSTD_LEVEL)
        .map_err(|source| Error::Zstd { source })?;
    out.truncate(HEADER_BYTES + written);
    Ok(width)
}

fn write_static(tables: &[Table], feature: &Feature, out: &mut Vec<u8>) -> u8 {
    match feature.symbols().len() {
        0..2048 => write_lanes::<1>(tables, feature, out),
        2048..8192 => write_lanes::<2>(tables, feature, out),
        8192..16384 => write_lanes::<4>(tables, feature, out),
        _ => write_lanes::<8>(tables, feature, out),
    }
}

fn write_lanes<const N: usize>(tables: &[Table], feature: &Feature, out: &mut Vec<u8>) -> u8 {
    let front = HEADER_BYTES + 4 * N;
    out.clear();
    out.resize(front, 0);
    let mut states = [LOWEST; N];
    let mut escaped = false;
    for (table, plane) in tables.iter().zip(feature.planes()).rev() {
        escaped |= table.encode(&mut states, out, plane);
    }
    out[front..].as_chunks_mut::<2>().0.reverse();
    for (to, state) in out[HEADER_BYTES..front].as_chunks_mut().0.iter_mut().zip(states) {
        *to = state.to_le_bytes();
    }
    if escaped {
        for (table, plane) in tables.iter().zip(feature.planes()) {
            let strays = plane.iter().filter(|symbol| !table.holds(**symbol));
            out.extend(strays.flat_map(|symbol| symbol.to_le_bytes()));
        }
    }
    N as u8
}
