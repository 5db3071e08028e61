//! The sum over what was coded that a packet carries (FORMAT.md, section 3).

/// CRC-32 over the tables' digest, the header and symbols, in the order of coding.
#[derive(Clone)]
pub(crate) struct Checksum {
    hasher: crc32fast::Hasher,
}

impl Checksum {
    pub(crate) fn new(digest: &[u8; 32], header: [u8; 4]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(digest);
        hasher.update(&header);
        Self { hasher }
    }

    /// Takes in symbols as i16, little-endian.
    pub(crate) fn update(&mut self, symbols: &[i16]) {
        let mut bytes = [[0; 2]; 1024];
        for chunk in symbols.chunks(bytes.len()) {
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = from.to_le_bytes();
            }
            self.hasher.update(bytes[..chunk.len()].as_flattened());
        }
    }

    /// The sum so far.
    pub(crate) fn value(&self) -> u32 {
        self.hasher.clone().finalize()
    }

    /// The sum so far in the 16 bits of a directory.
    pub(crate) fn check(&self) -> u16 {
        self.value() as u16
    }
}

/// What the states of `N` lanes carry of the checksum: 15 bits each, the low ones first.
pub(crate) fn lane_shares<const N: usize>(checksum: u32) -> [u32; N] {
    std::array::from_fn(|lane| (u64::from(checksum) >> (15 * lane).min(63)) as u32 & 0x7fff)
}
