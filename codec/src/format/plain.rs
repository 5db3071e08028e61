//! Payloads that hold symbols without a model: modes raw and zstd (FORMAT.md, section 6).

use zstd::{bulk, zstd_safe};

use crate::Error;

/// The compression level of zstd. Mode zstd is for features that the tables do not fit, where speed counts more than
/// the last byte.
const ZSTD_LEVEL: i32 = 3;

/// Bytes per symbol: 1 when every symbol is from −128 to 127, otherwise 2.
pub(crate) fn bytes_per_symbol(symbols: &[i16]) -> usize {
    let fit = symbols.iter().fold(true, |fit, &symbol| fit & (i16::from(symbol as i8) == symbol));
    if fit { 1 } else { 2 }
}

/// Appends `symbols` in `width` bytes each.
pub(crate) fn write_symbols(width: usize, symbols: &[i16], out: &mut Vec<u8>) {
    match width {
        1 => out.extend(symbols.iter().map(|&symbol| symbol as u8)),
        _ => out.extend(symbols.iter().flat_map(|symbol| symbol.to_le_bytes())),
    }
}

/// Reads symbols of `width` bytes each.
///
/// # Errors
/// [`Error::PacketTruncated`] and [`Error::PacketTrailing`] when there are fewer or more bytes than `symbols` takes.
pub(crate) fn read_symbols(width: usize, bytes: &[u8], symbols: &mut [i16]) -> Result<(), Error> {
    let expected = width * symbols.len();
    if bytes.len() < expected {
        return Err(Error::PacketTruncated { field: "symbols" });
    }
    if bytes.len() > expected {
        return Err(Error::PacketTrailing { field: "symbols", bytes: bytes.len() - expected });
    }
    match width {
        1 => symbols.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = i16::from(byte.cast_signed())),
        _ => {
            symbols.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, &pair)| *to = i16::from_le_bytes(pair))
        }
    }
    Ok(())
}

/// Writes zstd frames with a compressor that is made at the first one and used again.
#[derive(Default)]
pub(crate) struct FrameWriter(Option<bulk::Compressor<'static>>);

impl FrameWriter {
    /// Appends a frame with `content`.
    ///
    /// # Errors
    /// [`Error::Zstd`] when the library fails.
    pub(crate) fn write(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let failed = |source| Error::Zstd { source };
        let begin = out.len();
        out.resize(begin + zstd_safe::compress_bound(content.len()), 0);
        let compressor = match &mut self.0 {
            Some(compressor) => compressor,
            none => none.insert(bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?),
        };
        let written = compressor.compress_to_buffer(content, &mut out[begin..]).map_err(failed)?;
        out.truncate(begin + written);
        Ok(())
    }
}

/// Reads zstd frames with a decompressor that is made at the first one and used again.
#[derive(Default)]
pub(crate) struct FrameReader(Option<bulk::Decompressor<'static>>);

impl FrameReader {
    /// Decompresses `frame`, which must hold exactly as many bytes as `content` has room for. The size in the frame's
    /// header is compared before anything is decompressed.
    ///
    /// # Errors
    /// [`Error::Frame`] and [`Error::PacketTrailing`] when the frame is not as FORMAT.md describes, [`Error::Zstd`] when
    /// the library cannot be set up.
    pub(crate) fn read(&mut self, frame: &[u8], content: &mut [u8]) -> Result<(), Error> {
        let fault = |problem| Error::Frame { problem, source: None };
        let decompressor = match &mut self.0 {
            Some(decompressor) => decompressor,
            none => none.insert(bulk::Decompressor::new().map_err(|source| Error::Zstd { source })?),
        };
        let end = zstd_safe::find_frame_compressed_size(frame).map_err(|_| fault("not a whole frame"))?;
        if end != frame.len() {
            return Err(Error::PacketTrailing { field: "frame", bytes: frame.len() - end });
        }
        // The descriptor follows the magic number: no checksum, no dictionary, no reserved bits.
        if frame.get(4).is_none_or(|descriptor| descriptor & 0x1f != 0) {
            return Err(fault("with a checksum, a dictionary or reserved bits"));
        }
        if zstd_safe::get_frame_content_size(frame).ok().flatten() != Some(content.len() as u64) {
            return Err(fault("without the size of the symbols in its header"));
        }
        let written = decompressor.decompress_to_buffer(frame, content).map_err(|source| Error::Frame {
            problem: "damaged, or more content than the symbols",
            source: Some(source),
        })?;
        if written != content.len() {
            return Err(fault("less content than the symbols"));
        }
        Ok(())
    }
}
