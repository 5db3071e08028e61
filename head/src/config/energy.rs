//! The flags of `--for energy`.

use narrows_policy::EnergyModel;
use narrows_power::radio::{self, Radio};

use crate::Error;

/// Watts that computing adds unless others are given or measured: a Jetson Orin at 15 W spends 0.30 J in 28 ms on a network of the
/// size of a head, with 6.5 W of an idle board in it (docs/rate-control.md).
const COMPUTING: f64 = 4.0;
/// The radio that is assumed unless another one is given.
const RADIO: &str = "wifi";
/// Most joules of a byte, and most watts.
const MOST_PER_BYTE: f64 = 1.0;
const MOST_WATTS: f64 = 1000.0;

/// The flags of `--for energy`, as given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Energy")]
pub struct EnergyFlags {
    /// With --for energy: watts that computing adds to those of the idle device [default: what its power sensors show, in four
    /// seconds before the first frame; without any, 4]
    #[arg(long, value_name = "WATTS")]
    pub computing_watts: Option<f64>,

    /// With --for energy: what sending costs: `wifi` or `lte` for a published model of the radio, or joules for each byte, for
    /// example 2.3e-6 [default: wifi]
    #[arg(long, value_name = "wifi|lte|JOULES")]
    pub radio: Option<String>,
}

impl EnergyFlags {
    /// The model of this device, where `saves` says that energy is to be saved.
    ///
    /// # Errors
    /// The flag that cannot be used, and what it may be.
    pub(super) fn model(&self, saves: bool) -> Result<Option<EnergyModel>, Error> {
        if !saves {
            for (flag, given) in
                [("--computing-watts", self.computing_watts.is_some()), ("--radio", self.radio.is_some())]
            {
                if given {
                    return Err(Error::usage(flag, "only --for energy has it"));
                }
            }
            return Ok(None);
        }
        let watts = self.computing_watts.unwrap_or(COMPUTING);
        let computing = super::in_span("--computing-watts", watts, 0.0, MOST_WATTS)?;
        let text = self.radio.as_deref().unwrap_or(RADIO);
        if let Ok(per_byte) = text.parse::<f64>() {
            let per_byte = super::in_span("--radio", per_byte, 0.0, MOST_PER_BYTE)?;
            return Ok(Some(EnergyModel { computing, per_byte, sending: 0.0 }));
        }
        let radios = radio::parse(radio::SHIPPED)?;
        let Some(radio) = radios.iter().find(|radio| radio.name == text) else {
            let names: Vec<&str> = radios.iter().map(|radio| radio.name.as_str()).collect();
            let reason =
                format!("{text:?}; give {} or the joules of a byte, such as 2.3e-6", names.join(", "));
            return Err(Error::usage("--radio", reason));
        };
        let Radio { awake_mw, .. } = *radio;
        Ok(Some(EnergyModel { computing, per_byte: radio.joules(1, 0, 0.0), sending: awake_mw * 1e-3 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(watts: Option<f64>, radio: Option<&str>) -> EnergyFlags {
        EnergyFlags { computing_watts: watts, radio: radio.map(str::to_owned) }
    }

    #[test]
    fn a_model_has_the_watts_and_the_radio_that_were_given() {
        let model = flags(None, None).model(true).unwrap().unwrap();
        assert!(model.computing == 4.0 && (model.per_byte - 2.265e-6).abs() < 1e-8, "{model:?}");
        assert!((model.sending - 0.13286).abs() < 1e-9);
        let lte = flags(Some(1.5), Some("lte")).model(true).unwrap().unwrap();
        assert!(lte.computing == 1.5 && lte.per_byte > model.per_byte && lte.sending > 1.0);
        let own = flags(None, Some("5e-6")).model(true).unwrap().unwrap();
        assert_eq!((own.per_byte, own.sending), (5e-6, 0.0));
        assert_eq!(flags(None, None).model(false).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (flags, saves, parts) in [
            (flags(Some(-1.0), None), true, ["--computing-watts: ", "0 to 1000"]),
            (flags(Some(f64::NAN), None), true, ["--computing-watts: ", "0 to 1000"]),
            (flags(None, Some("zigbee")), true, ["--radio: ", "wifi, lte"]),
            (flags(None, Some("2")), true, ["--radio: ", "0 to 1"]),
            (flags(Some(1.0), None), false, ["--computing-watts: ", "--for energy"]),
            (flags(None, Some("lte")), false, ["--radio: ", "--for energy"]),
        ] {
            let error = flags.model(saves).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
