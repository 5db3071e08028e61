//! The checksum of a packet (FORMAT.md, section 3).

/// CRC-32 over the digest of the tables file, the header and the symbols in the order of coding.
#[derive(Clone)]
pub(crate) struct Checksum {
    hasher: crc32fast::Hasher,
}

impl Checksum {
    /// Starts the checksum of a packet that has this header.
    pub(crate) fn new(digest: &[u8; 32], header: [u8; 4]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(digest);
        hasher.update(&header);
        Self { hasher }
    }

    /// Adds symbols, as little-endian i16.
    pub(crate) fn update(&mut self, symbols: &[i16]) {
        let mut bytes = [[0; 2]; 1024];
        for chunk in symbols.chunks(bytes.len()) {
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = from.to_le_bytes();
            }
            self.hasher.update(bytes[..chunk.len()].as_flattened());
        }
    }

    /// The checksum of everything added so far.
    pub(crate) fn value(&self) -> u32 {
        self.hasher.clone().finalize()
    }

    /// The low 16 bits of [`value`](Self::value), which the directory holds for each group but the last.
    pub(crate) fn group_check(&self) -> u16 {
        self.value() as u16
    }
}

/// The bits of the checksum that the encoder's initial state of each of `N` lanes holds: 15 per lane, the low ones in
/// lane 0 (FORMAT.md, section 4.2).
pub(crate) fn lane_shares<const N: usize>(checksum: u32) -> [u32; N] {
    std::array::from_fn(|lane| (u64::from(checksum) >> (15 * lane).min(63)) as u32 & 0x7fff)
}
