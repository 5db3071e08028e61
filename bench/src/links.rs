//! `narrows-bench links`: what the emulated links really do, so that latencies measured over them can be believed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use narrows_netsim::{DirectionFidelity, Fidelity, Ladder, Prober};
use narrows_pair::Interrupt;
use serde::{Deserialize, Serialize};

use crate::json;

/// Which links to measure, and how thoroughly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  narrows-bench links --only wifi-poor,lte,lora --json links.json\n\n\
    The cross-check needs root, `ip` and `tc`; without them it is skipped and the report says why.")]
pub struct Links {
    /// A file of links [default: the shipped ladder, bench/links.toml]
    #[arg(long, value_name = "FILE")]
    pub links: Option<PathBuf>,
    /// Only these links
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Seconds that each direction of each link is kept full
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,
    /// Seed of losses, jitter and reordering
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Do not compare the rates with the kernel's own shaping (tbf in network namespaces)
    #[arg(long)]
    pub no_cross_check: bool,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Every link as it is configured and as it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// False when the run was interrupted: links are missing.
    pub complete: bool,
    /// Every measurement is within its tolerance.
    pub pass: bool,
    /// The reason why rates were not compared with tbf; absent where they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_check_skipped: Option<String>,
    /// In the order of the file.
    pub links: Vec<Fidelity>,
}

impl Links {
    /// Measures, prints a table and writes the report; fails when a measurement is outside its tolerance.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        match Interrupt::watch() {
            Ok(interrupt) => interrupt.exit("links", self.show(&interrupt)),
            Err(error) => {
                eprintln!("narrows-bench links: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn show(&self, interrupt: &Interrupt) -> Result<()> {
        let mut ladder = ladder(self.links.as_deref())?;
        if !self.only.is_empty() {
            let chosen = self.only.iter().map(|name| ladder.find(name).cloned());
            ladder.links = chosen.collect::<Result<_, _>>()?;
        }
        let report = self.measure(&ladder, interrupt)?;
        println!("{}", report.table());
        match &report.cross_check_skipped {
            Some(reason) => println!("cross-check with tbf: skipped, {reason}"),
            None => println!("cross-check: tbf on a pair of network namespaces, rates on the Ethernet wire"),
        }
        json::write(self.json.as_deref(), &report)?;
        ensure!(report.pass, "a link does not do what it says; on a loaded machine, try again");
        Ok(())
    }

    /// Measures every link of `ladder`, one after the other. An interrupt is no error: the report is incomplete then.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn measure(&self, ladder: &Ladder, interrupt: &Interrupt) -> Result<Report> {
        let stop = || interrupt.seen();
        let mut prober = Prober::new(self.seconds, self.seed, &stop);
        if !self.no_cross_check {
            prober = prober.with_cross_check();
        }
        let mut links = Vec::new();
        for (place, link) in ladder.links.iter().enumerate() {
            eprintln!("{} of {}: {} ({})", place + 1, ladder.links.len(), link.name, link.about);
            let fidelity = prober.measure(link)?;
            if interrupt.seen() {
                break;
            }
            links.push(fidelity);
        }
        Ok(Report {
            complete: links.len() == ladder.links.len(),
            pass: links.iter().all(Fidelity::pass),
            cross_check_skipped: prober.cross_check_skipped().map(str::to_owned),
            links,
        })
    }
}

/// The links of a file; without a file, the shipped ones.
///
/// # Errors
/// When the file cannot be read, naming link and field.
pub fn ladder(file: Option<&Path>) -> Result<Ladder> {
    let Some(path) = file else { return Ok(Ladder::shipped()) };
    let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ladder::parse(&text).with_context(|| path.display().to_string())
}

impl Report {
    /// A table with one row per link and direction.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "link", "", "kbit/s", "measured", "off", "tbf", "ms", "p50", "p95", "loss", "measured", "relay",
            "",
        ]);
        for fidelity in &self.links {
            for (name, direction) in [("up", &fidelity.up), ("down", &fidelity.down)] {
                table.add_row(row(fidelity, name, direction));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn row(fidelity: &Fidelity, name: &str, direction: &DirectionFidelity) -> Vec<String> {
    let kbit = |rate: Option<f64>| rate.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
    let off = |off: Option<f64>| off.map_or_else(|| "-".into(), |off| format!("{:+.2} %", off * 100.0));
    vec![
        fidelity.link.name.clone(),
        name.into(),
        kbit(direction.asked_kbit),
        kbit(direction.kbit),
        off(direction.rate_off()),
        off(direction.tbf_off()),
        format!("{:.2}", direction.asked_ms),
        format!("{:.2}", direction.ms_p50),
        format!("{:.2}", direction.ms_p95),
        format!("{:.2} %", direction.asked_loss * 100.0),
        format!("{}/{}", direction.missing, direction.sent),
        format!("{:.0} %", fidelity.relay_cpu * 100.0),
        if direction.pass() { "ok" } else { "OFF" }.into(),
    ]
}
