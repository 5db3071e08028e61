//! Energy of a radio by a published model, for devices without a meter. Its figures are modelled, not measured.
//!
//! The model is linear in the bytes sent and received and in the time that the radio is awake (Huang et al., MobiSys
//! 2012), plus the energy of waking up and of staying awake after the last byte. The coefficients are in a TOML file that
//! names their source.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The coefficients that are part of this crate.
pub const SHIPPED: &str = include_str!("../radio.toml");

/// Longest file of coefficients, in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// Joules per byte for one milliwatt per megabit per second: 8e-6 megabits in a byte times 1e-3 watts.
const JOULES_PER_BYTE: f64 = 8.0e-6 * 1e-3;

/// The coefficients of one radio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radio {
    /// Name in reports.
    pub name: String,
    /// Source of the coefficients.
    pub source: String,
    /// Milliwatts per megabit per second sent.
    pub up_mw_per_mbps: f64,
    /// Milliwatts per megabit per second received.
    pub down_mw_per_mbps: f64,
    /// Milliwatts while awake, whatever the rate.
    pub awake_mw: f64,
    /// Milliwatts while waking up.
    pub wake_mw: f64,
    /// Seconds of waking up.
    pub wake_s: f64,
    /// Milliwatts while staying awake after the last byte.
    pub tail_mw: f64,
    /// Seconds of staying awake after the last byte.
    pub tail_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    radio: Vec<Radio>,
}

/// Reads a file of coefficients.
///
/// # Errors
/// [`Error::Toml`] for text that is not TOML and for a field that is missing or unknown; [`Error::Model`] for a negative
/// coefficient, a coefficient without a source and too long a text.
pub fn parse(text: &str) -> Result<Vec<Radio>, Error> {
    if text.len() > MOST_BYTES {
        return Err(Error::Model(format!("the file has {} bytes; {MOST_BYTES} are allowed", text.len())));
    }
    let file: File = toml::from_str(text)?;
    for radio in &file.radio {
        let numbers = [
            radio.up_mw_per_mbps,
            radio.down_mw_per_mbps,
            radio.awake_mw,
            radio.wake_mw,
            radio.wake_s,
            radio.tail_mw,
            radio.tail_s,
        ];
        if numbers.iter().any(|number| !number.is_finite() || *number < 0.0) {
            return Err(Error::Model(format!("{}: a coefficient is negative or no number", radio.name)));
        }
        if radio.source.trim().is_empty() {
            return Err(Error::Model(format!("{}: name the source of the coefficients", radio.name)));
        }
    }
    Ok(file.radio)
}

impl Radio {
    /// Modelled joules of a transfer during which the radio was awake for `seconds_active`, without waking up before and
    /// staying awake after it.
    #[must_use]
    pub fn joules(&self, bytes_up: u64, bytes_down: u64, seconds_active: f64) -> f64 {
        let sent = bytes_up as f64 * self.up_mw_per_mbps + bytes_down as f64 * self.down_mw_per_mbps;
        sent * JOULES_PER_BYTE + self.awake_mw * 1e-3 * seconds_active
    }

    /// Modelled joules of a burst without its transfer: waking up before and staying awake after it. Bursts closer
    /// together than [`Radio::tail_s`] share them; a stream of frames pays them once.
    #[must_use]
    pub fn burst(&self) -> f64 {
        (self.wake_mw * self.wake_s + self.tail_mw * self.tail_s) * 1e-3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_coefficients_name_their_source() {
        let radios = parse(SHIPPED).unwrap();
        assert!(
            radios.iter().any(|radio| radio.name == "wifi") && radios.iter().any(|radio| radio.name == "lte")
        );
        assert!(radios.iter().all(|radio| radio.source.contains("MobiSys")));
    }

    #[test]
    fn joules_follow_the_linear_model() {
        let radios = parse(SHIPPED).unwrap();
        let lte = radios.iter().find(|radio| radio.name == "lte").unwrap();
        // One megabit sent in one second: the rate's and the base's milliwatts for a second.
        let sent = lte.joules(125_000, 0, 1.0);
        assert!((sent - (lte.up_mw_per_mbps + lte.awake_mw) * 1e-3).abs() < 1e-9, "{sent}");
        let both = lte.joules(125_000, 250_000, 1.0);
        assert!((both - sent - 2.0 * lte.down_mw_per_mbps * 1e-3).abs() < 1e-9, "{both}");
        assert!(lte.burst() > 100.0 * lte.joules(6_000, 0, 0.01), "the tail dominates a small packet");
    }

    #[test]
    fn a_wrong_file_is_refused_by_name() {
        let one = |line: &str, with: &str| SHIPPED.replacen(line, with, 1);
        for (text, part) in [
            (one("awake_mw", "awake_kw"), "awake_kw"),
            (one("tail_s = ", "tail_s = -"), "negative"),
            (one("name = \"wifi\"", ""), "name"),
            ("radio = 3".to_owned(), "radio"),
            (" ".repeat(MOST_BYTES + 1), "bytes"),
        ] {
            let error = parse(&text).unwrap_err().report();
            assert!(error.starts_with("the radio model: ") && error.contains(part), "{error}");
        }
    }
}
