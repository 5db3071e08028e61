//! The values of `--gate` and `--exit`: off, the bundle's or the program's choice, or a number.

use std::{fmt, str::FromStr};

/// A threshold on a figure from 0 to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold<const MOST: u8> {
    /// None: the figure is not looked at.
    Off,
    /// The calibrated one.
    Auto,
    /// This one.
    At(f64),
}

impl<const MOST: u8> FromStr for Threshold<MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Threshold::Off),
            "auto" => Ok(Threshold::Auto),
            _ => {
                let number = text.parse::<f64>().ok();
                let number = number.filter(|number| (0.0..=f64::from(MOST)).contains(number));
                number
                    .map(Threshold::At)
                    .ok_or_else(|| format!("give off, auto or a number from 0 to {MOST}"))
            }
        }
    }
}

impl<const MOST: u8> fmt::Display for Threshold<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Off => f.write_str("off"),
            Threshold::Auto => f.write_str("auto"),
            Threshold::At(threshold) => threshold.fmt(f),
        }
    }
}
