//! `narrows-bench links`: what the named links really do, so that latencies measured over them can be believed.
#![expect(clippy::disallowed_methods, reason = "the relay's processor time is held against the time it ran")]

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use narrows_relay::{Direction, Ladder, Link, Relay};
use probe::{Course, Effort};
use serde::{Deserialize, Serialize};
use spaces::Spaces;

use crate::interrupt::Interrupt;

mod fidelity;
mod probe;
mod spaces;

pub use fidelity::{Fidelity, Way};

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
        let spaces = match self.no_cross_check {
            true => Err("not asked for".to_owned()),
            false => Spaces::build(),
        };
        let effort = Effort { seconds: self.seconds, stop: interrupt };
        let mut links = Vec::new();
        let mut skipped = spaces.as_ref().err().cloned();
        for (place, link) in ladder.links.iter().enumerate() {
            eprintln!("{} of {}: {} ({})", place + 1, ladder.links.len(), link.name, link.about);
            let mut fidelity = through_relay(link, self.seed, &effort)?;
            if let Ok(spaces) = &spaces
                && !interrupt.seen()
            {
                match spaces.rates(link, &effort) {
                    Ok((up, down)) => fidelity.cross_check(up, down),
                    Err(error) => skipped = Some(format!("{error:#}")),
                }
            }
            if interrupt.seen() {
                break;
            }
            links.push(fidelity);
        }
        Ok(Report {
            complete: links.len() == ladder.links.len(),
            pass: links.iter().all(Fidelity::pass),
            cross_check_skipped: skipped,
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

fn through_relay(link: &Link, seed: u64, effort: &Effort<'_>) -> Result<Fidelity> {
    let (head, tail) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let relay = Relay::start(link, tail.local_addr()?, seed)?;
    let start = Instant::now();
    head.connect(relay.address())?;
    probe::meet(&head, &tail)?;
    let way = |from: &UdpSocket, to: &UdpSocket, direction| -> Result<Way> {
        let course = Course::new(from, to, link.shape(direction), narrows_relay::HEADER);
        Ok(Way::judge(link, direction, &course.probe(effort)?))
    };
    let up = way(&head, &tail, Direction::Up)?;
    let down = way(&tail, &head, Direction::Down)?;
    // What the thread has told last is a nap old at most.
    let relay_cpu =
        relay.counts().cpu.as_secs_f64() / start.elapsed().max(Duration::from_millis(1)).as_secs_f64();
    Ok(Fidelity { link: link.clone(), up, down, relay_cpu })
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

fn row(fidelity: &Fidelity, name: &str, way: &Way) -> Vec<String> {
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
