//! The final states of the lanes, at the front of a coded payload (FORMAT.md, section 4).

use super::cursor::{Cursor, Truncated};
use crate::Error;

/// The smallest state that a lane can have.
pub(crate) const LOWEST_STATE: u32 = 1 << 15;

/// Appends the states: for each, the position of its highest bit in four bits and then the bits below it.
pub(crate) fn write(states: &[u32], out: &mut Vec<u8>) {
    let (mut pending, mut bits) = (0_u64, 0);
    for &state in states {
        let top = state.ilog2();
        pending |= u64::from(top - LOWEST_STATE.ilog2()) << bits | u64::from(state ^ 1 << top) << (bits + 4);
        bits += 4 + top;
        while bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(pending as u8);
    }
}

/// Reads the states of `N` lanes, each from 2^15 to 2^31 − 1.
///
/// # Errors
/// [`Error::PacketTruncated`] when the bytes end too early, [`Error::Padding`] when bits after the last state are set.
pub(crate) fn read<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u32; N], Error> {
    let (mut pending, mut bits) = (0_u64, 0);
    let mut take = |count: u32| -> Result<u32, Error> {
        while bits < count {
            pending |= u64::from(cursor.u8("states").map_err(Truncated::packet)?) << bits;
            bits += 8;
        }
        let value = pending & ((1 << count) - 1);
        pending >>= count;
        bits -= count;
        Ok(value as u32)
    };
    let mut states = [0; N];
    for state in &mut states {
        let top = take(4)? + LOWEST_STATE.ilog2();
        *state = 1 << top | take(top)?;
    }
    if pending != 0 {
        return Err(Error::Padding);
    }
    Ok(states)
}

/// Moves the cursor behind the states of `lanes` lanes, with the errors of [`read`].
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
        let states =
            [LOWEST_STATE, (1 << 31) - 1, LOWEST_STATE + 1, 0x1234_5678, 1 << 30, 0xffff, 0x1_0000, 77_777];
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
