//! `narrows-bench links`: what the named links really do, so that latencies measured over them can be believed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use narrows_netsim::{DirectionFidelity, Fidelity, Ladder, Prober};
use narrows_pair::Interrupt;
use serde::{Deserialize, Serialize};

/// Which links, how thoroughly.
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
    /// What the links' chances are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Do not hold the rates against the kernel's own shaping (tbf in network namespaces)
    #[arg(long)]
    pub no_cross_check: bool,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Every link as it was asked for and as it was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// False when it was interrupted: links are missing.
    pub complete: bool,
    /// All that was judged is within its bounds.
    pub pass: bool,
    /// Why the rates were not held against tbf; absent when they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_check_skipped: Option<String>,
    /// In the order of the file.
    pub links: Vec<Fidelity>,
}

impl Links {
    /// Measures, prints a table and writes the report; fails when a link does not do what it says.
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
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        anyhow::ensure!(report.pass, "a link does not do what it says; on a loaded machine, try again");
        Ok(())
    }

    /// Measures every link of the ladder, one after the other.
    ///
    /// # Errors
    /// When sockets fail. An interrupt is no error: the report is incomplete then.
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

/// The links of a file, or the shipped ones.
///
/// # Errors
/// When the file cannot be read, naming link and field.
pub fn ladder(file: Option<&Path>) -> Result<Ladder> {
    let Some(path) = file else { return Ok(Ladder::shipped()) };
    let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ladder::parse(&text).with_context(|| path.display().to_string())
}

impl Report {
    /// One row per link and direction.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "link", "", "kbit/s", "measured", "off", "tbf", "ms", "p50", "p95", "loss", "measured", "relay",
            "",
        ]);
        for fidelity in &self.links {
            for (name, way) in [("up", &fidelity.up), ("down", &fidelity.down)] {
                table.add_row(row(fidelity, name, way));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn row(fidelity: &Fidelity, name: &str, way: &DirectionFidelity) -> Vec<String> {
    let kbit = |rate: Option<f64>| rate.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
    vec![
        fidelity.link.name.clone(),
        name.into(),
        kbit(way.asked_kbit),
        kbit(way.kbit),
        way.rate_off().map_or_else(|| "-".into(), |off| format!("{:+.2} %", off * 100.0)),
        way.tbf_off().map_or_else(|| "-".into(), |off| format!("{:+.2} %", off * 100.0)),
        format!("{:.2}", way.asked_ms),
        format!("{:.2}", way.ms_p50),
        format!("{:.2}", way.ms_p95),
        format!("{:.2} %", way.asked_loss * 100.0),
        format!("{}/{}", way.missing, way.sent),
        format!("{:.0} %", fidelity.relay_cpu * 100.0),
        if way.pass() { "ok" } else { "OFF" }.into(),
    ]
}
