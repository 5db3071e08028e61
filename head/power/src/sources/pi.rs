//! The power management chip (PMIC) of the Raspberry Pi 5, read through `vcgencmd pmic_read_adc`.
#![expect(clippy::disallowed_methods, reason = "the time of the helper program is measured here")]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Absent, Error, Method, Quality, Rail, Scope, Source, firmware};

/// Every reading starts a program, so it is read four times a second only.
const INTERVAL: Duration = Duration::from_millis(250);
/// Name of the sum over the measured rails.
const SUM: &str = "PMIC sum";
/// Name of the estimate for the whole board.
const BOARD: &str = "board";
/// Slope and offset in watts of a published fit from the sum of the rails to a meter in the supply.
const FIT: (f64, f64) = (1.1451, 0.5879);
/// The voltage of the 5 V input, which has no current beside it.
const INPUT: &str = "EXT5V";
/// Volts of that input under which a supply or its cable is too weak. The firmware warns below 4.63 V, and this reading is some
/// 0.1 V low.
const LOW: f64 = 4.75;
const REMEDY: &str = "Readings come through /dev/vcio: `usermod -aG video $USER`, then log in again";

struct Pmic {
    program: PathBuf,
    rails: Vec<Rail>,
    names: Vec<String>,
    spent: Duration,
    /// The lowest voltage of the input so far.
    lowest: f64,
}

/// Finds the chip, if `board` is a Raspberry Pi that has one.
pub(crate) fn find(board: Option<&str>, program: &Path, absent: &mut Vec<Absent>) -> Option<Box<dyn Source>> {
    let board = board.filter(|board| board.starts_with("Raspberry Pi"))?;
    let mut pmic = Pmic {
        program: program.to_owned(),
        rails: Vec::new(),
        names: Vec::new(),
        spent: Duration::ZERO,
        lowest: f64::INFINITY,
    };
    match pmic.pairs() {
        Ok(pairs) if pairs.is_empty() => {
            absent.push(Absent {
                sensor: board.to_owned(),
                reason: "this board measures no current".to_owned(),
                remedy: Some(
                    "Put a meter into the supply: an INA226 or INA260, or a USB meter (--meter)".to_owned(),
                ),
            });
            None
        }
        Ok(pairs) => {
            pmic.names = pairs.into_keys().collect();
            pmic.rails = rails(&pmic.names);
            Some(Box::new(pmic))
        }
        Err(error) => {
            absent.push(Absent::new(format!("{board}, power chip"), &error));
            None
        }
    }
}

fn rails(names: &[String]) -> Vec<Rail> {
    let rail = |name: &str, covers: String, scope, part_of: Option<&str>, quality| Rail {
        name: name.to_owned(),
        covers,
        scope,
        part_of: part_of.map(str::to_owned),
        sensor: "vcgencmd pmic_read_adc".to_owned(),
        method: Method::VoltageTimesCurrent,
        quality,
        interval: INTERVAL,
        trust: None,
    };
    let part = |name: &String| {
        let covers = match name.as_str() {
            "VDD_CORE" => "the processor",
            "DDR_VDD2" | "DDR_VDDQ" => "memory",
            "3V7_WL_SW" => "Wi-Fi and Bluetooth",
            "HDMI" => "HDMI",
            _ => "a supply of the board",
        };
        rail(name, covers.to_owned(), Scope::Part, Some(SUM), Quality::Measured)
    };
    let mut rails: Vec<Rail> = names.iter().map(part).collect();
    let covers = "part of the board: all measured rails; regulator losses and what hangs on the 5 V input directly (USB, HATs) are missing";
    rails.push(rail(SUM, covers.to_owned(), Scope::Part, Some(BOARD), Quality::Measured));
    let (slope, rest) = FIT;
    let covers = format!(
        "the whole board without USB devices and HATs: {slope} × PMIC sum + {rest} W, a published fit"
    );
    rails.push(rail(BOARD, covers, Scope::Device, None, Quality::Estimated));
    rails
}

impl Pmic {
    /// Reads volts and amperes of the rails that have both.
    fn pairs(&mut self) -> Result<BTreeMap<String, (f64, f64)>, Error> {
        let began = Instant::now();
        let output = firmware::ask(&self.program, "pmic_read_adc");
        self.spent += began.elapsed();
        let output = output.map_err(|source| Error::reading(&self.program, source, REMEDY))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            let message = message.lines().next().unwrap_or_default().to_owned();
            // vcgencmd exits with an error and a message when it cannot open its device.
            return Err(match message.contains("denied") || message.contains("Can't open device") {
                true => Error::reading(&self.program, io::ErrorKind::PermissionDenied.into(), REMEDY),
                false => Error::Silent { sensor: self.program.display().to_string(), reason: message },
            });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        self.lowest = self.lowest.min(input(&text).unwrap_or(f64::INFINITY));
        parse(&text)
    }
}

impl Source for Pmic {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, readings: &mut Vec<f64>) -> Result<(), Error> {
        let pairs = self.pairs()?;
        let mut sum = 0.0;
        for name in &self.names {
            let (volts, amperes) = pairs.get(name).ok_or_else(|| Error::Silent {
                sensor: name.clone(),
                reason: "vcgencmd no longer lists this rail".to_owned(),
            })?;
            readings.push(volts * amperes);
            sum += volts * amperes;
        }
        readings.push(sum);
        readings.push(FIT.0 * sum + FIT.1);
        Ok(())
    }

    fn helpers(&self) -> Duration {
        self.spent
    }

    fn remarks(&self) -> Vec<String> {
        let low = format!(
            "the 5 V input fell to {:.2} V: use the board's own supply, and a short cable; joules at low voltage are not those of a good supply",
            self.lowest
        );
        if self.lowest < LOW { vec![low] } else { Vec::new() }
    }
}

/// The volts of the board's input.
fn input(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(INPUT)?.strip_prefix("_V "))?;
    line.split_once('=')?.1.trim().trim_end_matches('V').parse().ok()
}

/// Parses lines such as `VDD_CORE_A current(7)=0.75012000A` and `VDD_CORE_V volt(15)=0.89745940V`. Rails that have a
/// voltage alone (the input and the battery of the clock) are left out.
fn parse(text: &str) -> Result<BTreeMap<String, (f64, f64)>, Error> {
    let (mut volts, mut amperes) = (BTreeMap::new(), BTreeMap::new());
    // The answer of the firmware on a board without the chip.
    if text.starts_with("error=") {
        return Ok(BTreeMap::new());
    }
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || Error::Malformed {
            place: "vcgencmd pmic_read_adc".to_owned(),
            found: line.trim().chars().take(60).collect(),
            wanted: "a line such as `VDD_CORE_A current(7)=0.75A`",
        };
        let (name, value) = line.trim().split_once(' ').ok_or_else(wrong)?;
        let (_, value) = value.split_once('=').ok_or_else(wrong)?;
        let number = |unit: char| value.trim().trim_end_matches(unit).parse::<f64>().map_err(|_| wrong());
        match name.rsplit_once('_') {
            Some((rail, "A")) => drop(amperes.insert(rail.to_owned(), number('A')?)),
            Some((rail, "V")) => drop(volts.insert(rail.to_owned(), number('V')?)),
            _ => return Err(wrong()),
        }
    }
    let pair = |(name, amperes): (String, f64)| volts.get(&name).map(|&volts| (name, (volts, amperes)));
    Ok(amperes.into_iter().filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rails_are_paired_by_name_and_voltages_alone_left_out() {
        let pairs = parse(" VDD_CORE_A current(7)=2.0A\n  EXT5V_V volt(24)=5.1V\nVDD_CORE_V volt(15)=0.9V\n")
            .unwrap();
        assert_eq!(pairs.into_iter().collect::<Vec<_>>(), [("VDD_CORE".to_owned(), (0.9, 2.0))]);
    }

    #[test]
    fn an_input_of_low_voltage_is_remarked() {
        let text = "VDD_CORE_A current(7)=2.0A\n     EXT5V_V volt(24)=4.61250000V\n";
        assert_eq!(input(text), Some(4.6125));
        assert_eq!(input("VDD_CORE_V volt(15)=0.9V"), None);
        let (rails, names, spent) = (Vec::new(), Vec::new(), Duration::ZERO);
        let mut pmic = Pmic { program: "vcgencmd".into(), rails, names, spent, lowest: 5.02 };
        assert!(pmic.remarks().is_empty());
        pmic.lowest = 4.6125;
        assert!(pmic.remarks()[0].starts_with("the 5 V input fell to 4.61 V"), "{:?}", pmic.remarks());
    }

    #[test]
    fn a_malformed_line_is_part_of_the_error() {
        assert!(parse("error=1 error_msg=\"Command not registered\"\n").unwrap().is_empty());
        for text in ["VCHI initialization failed", "VDD_CORE_A current(7)=manyA", "VDD_CORE current(7)=1A"] {
            assert!(parse(text).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
