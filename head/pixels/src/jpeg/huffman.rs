//! Huffman tables, with values looked up together with their codes (ITU-T T.81, annex F.2.2).

/// Bits that a code and its value are looked up by at once.
pub(super) const LOOKUP: u32 = 11;

/// What the end of a block passes over.
pub(super) const END: u32 = 64;

/// Marks an entry of a table whose value is not among the bits that it was looked up by.
pub(super) const APART: u32 = 0x80;

/// Codes in the order of their lengths.
#[derive(Debug, Clone, Default)]
struct Codes {
    /// By length: one above the last code, left-aligned in 16 bits, and the place of the first code's symbol less that code.
    limits: [(u32, i32); 17],
    symbols: Vec<u8>,
}

/// A table of the coefficients behind the first.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// By the next [`LOOKUP`] bits: the value in the upper half, how far it is behind the last one, and the number of bits of
    /// code and value. With [`APART`], the size of the value in the upper half and the number of bits of the code; 0 where
    /// that is longer.
    pub(super) fast: Box<[u32; 1 << LOOKUP]>,
    codes: Codes,
}

/// A table of the sizes of first coefficients.
#[derive(Debug, Clone)]
pub(super) struct DcTable {
    codes: Codes,
    /// By the next 8 bits: length of the code and size; length 0 where the code is longer.
    fast: Box<[(u8, u8); 256]>,
}

impl Codes {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut limits = [(0, 0); 17];
        let (mut code, mut place) = (0u32, 0i32);
        for (length, &count) in (1..).zip(counts) {
            let first = place - code as i32;
            code += u32::from(count);
            place += i32::from(count);
            if code > 1 << length {
                return None;
            }
            limits[length] = (code << (16 - length), first);
            code <<= 1;
        }
        Some(Codes { limits, symbols: symbols.to_vec() })
    }

    /// Length and symbol of the code that begins these 16 bits.
    fn symbol(&self, bits: u32) -> Option<(u32, u8)> {
        let length = (1..=16).find(|&length| bits < self.limits[length].0)?;
        let place = (bits >> (16 - length)) as i32 + self.limits[length].1;
        Some((length as u32, *self.symbols.get(usize::try_from(place).ok()?)?))
    }
}

impl Table {
    /// The table of a DHT segment; `None` where it has more codes of a length than there can be.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let codes = Codes::new(counts, symbols)?;
        let mut fast = Box::new([APART; 1 << LOOKUP]);
        for (bits, entry) in (0u32..).zip(fast.iter_mut()) {
            let Some((length, symbol)) = codes.symbol(bits << (16 - LOOKUP)) else { continue };
            let (distance, size) = parts(symbol);
            let total = length + size;
            *entry = match () {
                () if length > LOOKUP => continue,
                () if total > LOOKUP => size << 16 | distance << 8 | APART | length,
                () => {
                    let value = bits >> (LOOKUP - total) & ((1 << size) - 1);
                    let is_negative = size > 0 && value >> (size - 1) == 0;
                    let value = if is_negative { value as i32 - (1 << size) + 1 } else { value as i32 };
                    (value as u32) << 16 | distance << 8 | total
                }
            };
        }
        Some(Table { fast, codes })
    }

    /// Length of the code that begins these 16 bits, how far its coefficient is behind the last one, and the size of its
    /// value.
    #[cold]
    #[inline(never)]
    pub(super) fn coefficient(&self, bits: u32) -> Option<(u32, u32, u32)> {
        let (length, symbol) = self.codes.symbol(bits)?;
        let (distance, size) = parts(symbol);
        Some((length, distance, size))
    }
}

/// What a symbol says: how far a coefficient is behind the last one, and the size of its value.
fn parts(symbol: u8) -> (u32, u32) {
    match (u32::from(symbol >> 4), u32::from(symbol & 15)) {
        (15, 0) => (16, 0),
        (_, 0) => (END, 0),
        (run, size) => (run + 1, size),
    }
}

impl DcTable {
    /// As [`Table::new`].
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let codes = Codes::new(counts, symbols)?;
        let mut fast = Box::new([(0, 0); 256]);
        for (bits, entry) in (0u32..).zip(fast.iter_mut()) {
            if let Some((length @ ..=8, size)) = codes.symbol(bits << 8) {
                *entry = (length as u8, size);
            }
        }
        Some(DcTable { codes, fast })
    }

    /// Length of the code that begins these 16 bits, and the size that it stands for, at most 11.
    #[inline(always)]
    pub(super) fn size(&self, bits: u32) -> Option<(u32, u32)> {
        let (length, size) = self.fast[(bits >> 8 & 0xff) as usize];
        let (length, size) = match length {
            0 => self.codes.symbol(bits)?,
            _ => (u32::from(length), size),
        };
        (size <= 11).then_some((length, u32::from(size)))
    }
}
