//! `narrows-bench machines`: a table of what reports of `micro` and `arm` found, one row for each kind of machine.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::micro;

/// The ratios that are shown, and their columns.
const COLUMNS: [([&str; 2], &str); 3] = [
    ([micro::HEAD, micro::HEAD_ORT], "head to f32"),
    ([micro::LOCAL, micro::LITE0_ORT], "local network to f32"),
    ([micro::LOCAL, micro::LOCAL_ORT], "local network to int8"),
];

/// Which reports to show.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench machines evaluate-out/micro-avx2.json evaluate-out/micro.json evaluate-out/arm.json"
)]
pub struct Machines {
    /// Reports that `narrows-bench micro --json` and `narrows-bench arm --json` wrote
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
}

/// A report of either kind.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Report {
    Times(Times),
    Counts(Counts),
}

#[derive(Debug, Deserialize)]
struct Times {
    processor: String,
    kernel: String,
    ratios: Ratios,
}

#[derive(Debug, Deserialize)]
struct Counts {
    cores: Vec<Core>,
}

#[derive(Debug, Deserialize)]
struct Core {
    core: String,
    board: String,
    kernel: String,
    ratios: Ratios,
}

/// Two candidates, and the first one's figure over the other's.
type Ratios = Vec<(String, String, f64)>;

impl Machines {
    /// Prints the table as Markdown.
    ///
    /// # Errors
    /// For a file that is not a report of `micro` or of `arm`.
    pub fn run(&self) -> Result<()> {
        let mut rows = Vec::new();
        for path in &self.reports {
            let name = || path.display().to_string();
            let text = fs::read_to_string(path).with_context(name)?;
            let report = serde_json::from_str(&text)
                .with_context(|| format!("{} is no report of `micro` or `arm`", name()))?;
            rows.extend(table_rows(report));
        }
        let columns = COLUMNS.map(|(_, column)| column).join(" | ");
        println!("| processor | kernels | compared | {columns} |");
        println!("|---|---|---|{}", "---|".repeat(COLUMNS.len()));
        rows.iter().for_each(|row| println!("{row}"));
        Ok(())
    }
}

fn table_rows(report: Report) -> Vec<String> {
    match report {
        Report::Times(Times { processor, kernel, ratios }) => {
            vec![row([&processor, &kernel, "time"], &ratios)]
        }
        Report::Counts(Counts { cores }) => {
            let of = |Core { core, board, kernel, ratios }: &Core| {
                row([&format!("{core} ({board}), emulated"), kernel, "instructions"], ratios)
            };
            cores.iter().map(of).collect()
        }
    }
}

fn row(cells: [&str; 3], ratios: &Ratios) -> String {
    let mut row = format!("| {} |", cells.join(" | "));
    for ([ours, other], _) in COLUMNS {
        let found = ratios.iter().find(|(a, b, _)| (&**a, &**b) == (ours, other));
        match found {
            // Writing to a string does not fail.
            Some((.., ratio)) => drop(write!(row, " {ratio:.2} |")),
            None => row.push_str(" |"),
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_both_kinds_become_rows() {
        let ratio = format!("[[{:?}, {:?}, 0.456]]", micro::HEAD, micro::HEAD_ORT);
        let times = format!(r#"{{"processor": "x", "kernel": "avx2", "ratios": {ratio}}}"#);
        let rows = table_rows(serde_json::from_str(&times).unwrap());
        assert_eq!(rows, ["| x | avx2 | time | 0.46 | | |"]);
        let core =
            r#"{"core": "cortex-a72", "board": "Raspberry Pi 4, 1.8 GHz", "kernel": "neon", "ratios": "#;
        let rows = table_rows(serde_json::from_str(&format!(r#"{{"cores": [{core}{ratio}}}]}}"#)).unwrap());
        assert_eq!(
            rows,
            ["| cortex-a72 (Raspberry Pi 4, 1.8 GHz), emulated | neon | instructions | 0.46 | | |"]
        );
    }
}
