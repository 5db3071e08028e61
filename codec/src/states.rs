//! The states of the lanes at the front of a payload (FORMAT.md, section 4).

use crate::{Error, cursor::Cursor, rans::LOWEST};

/// Appends the states, each in four bits and as many as it has below the highest.
pub(crate) fn write(states: &[u32], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0_u64, 0);
    for &state in states {
        let top = state.ilog2();
        held |= u64::from(top - LOWEST.ilog2()) << bits | u64::from(state ^ 1 << top) << (bits + 4);
        bits += 4 + top;
        while bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

/// Reads the states. None is below 2^15 or above 2^31 − 1.
pub(crate) fn read<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u32; N], Error> {
    let (mut held, mut bits) = (0_u64, 0);
    let mut take = |count: u32| -> Result<u32, Error> {
        while bits < count {
            held |= u64::from(cursor.u8("states")?) << bits;
            bits += 8;
        }
        let value = held & ((1 << count) - 1);
        held >>= count;
        bits -= count;
        Ok(value as u32)
    };
    let mut states = [0; N];
    for state in &mut states {
        let top = take(4)? + LOWEST.ilog2();
        *state = 1 << top | take(top)?;
    }
    if held != 0 {
        return Err(Error::Padding);
    }
    Ok(states)
}

/// Reads past the states of so many lanes.
pub(crate) fn skip(cursor: &mut Cursor<'_>, lanes: u8) -> Result<(), Error> {
    match lanes {
        1 => read::<1>(cursor).map(drop),
        2 => read::<2>(cursor).map(drop),
        4 => read::<4>(cursor).map(drop),
        8 => read::<8>(cursor).map(drop),
        16 => read::<16>(cursor).map(drop),
        _ => read::<32>(cursor).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_their_bits() {
        let states = [LOWEST, (1 << 31) - 1, LOWEST + 1, 0x1234_5678, 1 << 30, 0xffff, 0x1_0000, 77_777];
        let mut bytes = Vec::new();
        write(&states, &mut bytes);
        assert_eq!(bytes.len(), (8 * 4 + 15 + 30 + 15 + 28 + 30 + 15 + 16 + 16_usize).div_ceil(8));
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(read::<8>(&mut cursor).unwrap(), states);
        assert!(cursor.rest().is_empty());
        *bytes.last_mut().unwrap() |= 0x80;
        assert!(matches!(read::<8>(&mut Cursor::new(&bytes)), Err(Error::Padding)));
        for len in 0..bytes.len() {
            let error = read::<8>(&mut Cursor::new(&bytes[..len])).unwrap_err();
            assert!(matches!(error, Error::PacketTruncated { field: "states" }), "{len}");
        }
    }
}
