//! Class maps: a class per pixel, compressed (PROTOCOL.md section 5).

use crate::{
    codes::MapEncoding,
    cursor::{Reader, Writer},
    error::Error,
    limits::{MAX_MAP_PIXELS, MAX_REPLY},
    request::check_size,
};

/// Bytes of the largest compressed class map: its pixels, and what zstd adds to pixels that do not compress.
const MAX_PACKED: usize = MAX_MAP_PIXELS + MAX_MAP_PIXELS / 128 + 1024;

const _: () = assert!(MAX_PACKED < MAX_REPLY);

/// A class per pixel, compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    width: u16,
    height: u16,
    encoding: MapEncoding,
    packed: Vec<u8>,
}

impl ClassMap {
    /// Compresses the classes of `width` × `height` pixels, which are one byte each, row by row.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a size over the limits or another number of pixels.
    pub fn pack(width: u16, height: u16, pixels: &[u8]) -> Result<ClassMap, Error> {
        check_size(width, height).map_err(|reason| Error::Invalid { field: "map size", reason })?;
        if pixels.len() != usize::from(width) * usize::from(height) {
            return Err(Error::Invalid { field: "map", reason: "not width times height pixels" });
        }
        let packed = zstd::bulk::compress(pixels, 1)
            .map_err(|_| Error::Invalid { field: "map", reason: "zstd failed" })?;
        Ok(ClassMap { width, height, encoding: MapEncoding::ZstdU8, packed })
    }

    /// The classes of exactly `width` × `height` pixels. No more memory is allocated than they take, whatever size the
    /// compressed bytes declare.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an unknown encoding and for bytes that do not decompress to this many pixels.
    pub fn unpack(&self) -> Result<Vec<u8>, Error> {
        let malformed = |reason| Reader::new("reply", &[]).invalid("map", reason);
        if self.encoding != MapEncoding::ZstdU8 {
            return Err(malformed("an encoding this version does not know"));
        }
        let pixels = usize::from(self.width) * usize::from(self.height);
        match zstd::bulk::decompress(&self.packed, pixels) {
            Ok(map) if map.len() == pixels => Ok(map),
            Ok(_) => Err(malformed("fewer pixels than width times height")),
            Err(_) => Err(malformed("not a zstd frame of width times height bytes")),
        }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// The encoding of the pixels.
    #[must_use]
    pub fn encoding(&self) -> MapEncoding {
        self.encoding
    }

    /// The number of bytes of the compressed pixels.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.packed.len()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u16(self.width);
        writer.u16(self.height);
        writer.u8(self.encoding.into());
        writer.bytes(&self.packed);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<ClassMap, Error> {
        let (width, height) = (reader.u16("map width")?, reader.u16("map height")?);
        check_size(width, height).map_err(|reason| reader.invalid("map size", reason))?;
        let encoding = MapEncoding::from(reader.u8("map encoding")?);
        let length = reader.remaining();
        reader.check("map", length, MAX_PACKED)?;
        let packed = reader.bytes("map", length)?.to_vec();
        Ok(ClassMap { width, height, encoding, packed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_comes_back_as_it_went_in() {
        let pixels: Vec<u8> = (0..480 * 360).map(|index| (index / 4000) as u8).collect();
        let map = ClassMap::pack(480, 360, &pixels).unwrap();
        assert!(map.packed_len() < pixels.len() / 50);
        assert_eq!(map.packed_len(), map.packed.len());
        assert_eq!(map.unpack().unwrap(), pixels);
    }

    #[test]
    fn the_largest_map_passes_however_its_pixels_compress() {
        assert!(zstd::zstd_safe::compress_bound(MAX_MAP_PIXELS) <= MAX_PACKED);
        assert_eq!(MAX_PACKED, 2_097_152 + 16_384 + 1024);
    }

    #[test]
    fn a_frame_that_unpacks_to_more_than_the_map_is_an_error() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        let map = ClassMap { width: 8, height: 8, encoding: MapEncoding::ZstdU8, packed: bomb };
        assert!(map.unpack().unwrap_err().to_string().contains("not a zstd frame of width times height"));
    }

    #[test]
    fn a_frame_that_unpacks_to_less_than_the_map_is_an_error() {
        let short = zstd::bulk::compress(&[0; 63], 1).unwrap();
        let map = ClassMap { width: 8, height: 8, encoding: MapEncoding::ZstdU8, packed: short };
        assert!(map.unpack().unwrap_err().to_string().contains("fewer pixels"));
    }

    #[test]
    fn an_unknown_encoding_is_kept_and_refused_when_unpacked() {
        let map = ClassMap { width: 2, height: 1, encoding: MapEncoding::Unknown(9), packed: vec![1, 2] };
        let mut writer = Writer::part();
        map.write(&mut writer);
        let bytes = writer.finish("map", 100).unwrap();
        let back = ClassMap::read(&mut Reader::new("reply", &bytes)).unwrap();
        assert_eq!(back, map);
        assert!(back.unpack().unwrap_err().to_string().contains("does not know"));
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(ClassMap::pack(0, 4, &[]).is_err());
        assert!(ClassMap::pack(2, 2, &[0; 3]).is_err());
        assert!(ClassMap::pack(4097, 1, &[0; 4097]).is_err());
        assert!(ClassMap::pack(4096, 4096, &vec![0; 4096 * 4096]).is_err());
    }
}
