//! `narrows-bench load`: many heads at once against one tail, open loop, and where it breaks.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use arrivals::Arrivals;
use clap::{Args, ValueEnum};
use cost::{Cost, Memory};
use knee::{Search, Verdict};
use narrows_models::{Bundle, Parts};
use narrows_pair::{Interrupt, Pair};
use question::Question;
use serde::Serialize;
use swarm::{Swarm, Target};
use tally::{Step, Tally};

mod arrivals;
mod cost;
mod knee;
mod question;
mod swarm;
mod tally;

/// Share of frames that may go without an answer before a step counts as broken.
const UNANSWERED: f64 = 0.01;
/// Steps of a knee's search at most.
const STEPS: usize = 16;
/// Connections that an own tail takes beside the heads asked for.
const SPARE: usize = 8;

/// How many heads, how often, against which tail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    narrows-bench load --bundle models/bundles/lite2 --heads 2000 --rate 1 --seconds 20 --json load.json\n  \
    narrows-bench load --bundle models/bundles/lite2 --heads 50 --knee --p99 200\n  \
    narrows-bench load --bundle models/bundles/lite2 --server tail.local:7461 --identity certs/devices/device\n\n\
    Latency counts from the moment a frame was due, also when it left later. Refusals are answers and are\n\
    counted by code. An own tail is given room for all heads; another one needs `--connections` of at least that.")]
pub struct Load {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// A tail that runs already [default: an own one is started on loopback]
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub server: Option<String>,
    /// Folder with ca.pem, cert.pem and key.pem of a device, for --server
    #[arg(long, value_name = "DIR", requires = "server")]
    pub identity: Option<PathBuf>,
    /// Simulated heads, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub heads: u32,
    /// Frames per second of each head; with --knee of the first step
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub rate: f64,
    /// When frames are due
    #[arg(long, value_enum, default_value_t = Spacing::Poisson)]
    pub arrivals: Spacing,
    /// Seconds that are measured; with --knee of each step
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds over which the heads connect [default: 200 heads a second]
    #[arg(long, value_name = "S")]
    pub ramp: Option<f64>,
    /// What to ask, by task name
    #[arg(long, value_name = "TASK,…", value_delimiter = ',', default_value = "classify")]
    pub tasks: Vec<String>,
    /// Rate level of the packets [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,
    /// Photos that the real head makes the packets of [default: the packets recorded in the bundle]
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    pub source: Option<String>,
    /// Milliseconds from when a frame is due to its answer; the rest of it travels with the frame
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub budget: u64,
    /// Raise the rate until it breaks, and find the highest that holds
    #[arg(long)]
    pub knee: bool,
    /// Milliseconds that 99 % of the answers may take before a step of --knee counts as broken
    #[arg(long, value_name = "MS", default_value_t = 250.0)]
    pub p99: f64,
    /// What arrivals and choices are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// For the own tail, after `--`: arguments of `narrows-tail serve`
    #[arg(last = true, value_name = "TAIL ARGS", conflicts_with = "server")]
    pub tail_args: Vec<String>,
}

/// When frames are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// At random, independent of each other
    Poisson,
    /// At equal distances for each head, the heads spread over them
    Fixed,
}

/// What was asked of the tail, and what came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// False when it was interrupted.
    pub complete: bool,
    /// The bundle's digest.
    pub bundle: String,
    /// Where the tail is, and whether it is an own one.
    pub server: String,
    /// An own tail's arguments beside the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_args: Option<Vec<String>>,
    /// Heads asked for and heads that got a connection.
    pub heads: (usize, usize),
    /// Why the others did not.
    pub not_connected: Vec<(String, usize)>,
    /// Seconds until all were connected.
    pub connecting_s: f64,
    /// UDP sockets that the heads share.
    pub sockets: usize,
    /// When frames were due.
    pub arrivals: Spacing,
    /// Distinct packets and their mean bytes.
    pub packets: (usize, f64),
    /// From due to answer, at most.
    pub budget_ms: u64,
    /// This process, before and after the heads connected.
    pub memory: Memory,
    /// The own tail likewise; absent for another one, which cannot be looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_memory: Option<Memory>,
    /// One, or those of the search for the knee in their order.
    pub steps: Vec<Step>,
    /// With `--knee`: frames per second of all heads that the tail still answered in time; `None`: not even the least
    /// rate tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knee: Option<Option<f64>>,
}

impl Load {
    /// Loads the tail, prints what came of it and writes the report.
    pub fn run(&self) -> ExitCode {
        match Interrupt::watch() {
            Ok(interrupt) => interrupt.exit("load", self.show(&interrupt)),
            Err(error) => {
                eprintln!("narrows-bench load: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn show(&self, interrupt: &Interrupt) -> Result<()> {
        let report = self.measure(interrupt)?;
        report.print();
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }

    /// Loads the tail. An interrupt is no error: the report is incomplete then.
    ///
    /// # Errors
    /// When the settings do not fit the bundle, or no head gets through.
    pub fn measure(&self, interrupt: &Interrupt) -> Result<Report> {
        for (flag, value) in [("--rate", self.rate), ("--seconds", self.seconds)] {
            ensure!(value.is_finite() && value > 0.0, "{flag}: {value} must be above 0");
        }
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let question = Question::new(&bundle, &self.tasks, self.level, self.source.as_deref())?;
        let heads = self.heads as usize;
        let mut tail_args = self.tail_args.clone();
        if !tail_args.iter().any(|arg| arg.starts_with("--connections")) {
            tail_args.extend(["--connections".to_owned(), (heads + SPARE).to_string()]);
        }
        let pair = match &self.server {
            Some(_) => None,
            None => {
                let args: Vec<&str> = tail_args.iter().map(String::as_str).collect();
                Some(Pair::start(&self.bundle, &args)?)
            }
        };
        let (server, identity) = match (&pair, &self.server, &self.identity) {
            (Some(pair), ..) => (pair.address().to_owned(), pair.certs().join("devices/device")),
            (None, Some(server), Some(identity)) => (server.clone(), identity.clone()),
            _ => anyhow::bail!("--server needs --identity"),
        };
        let ramp = self.ramp.unwrap_or(heads as f64 / 200.0);
        ensure!(ramp.is_finite() && ramp >= 0.0, "--ramp: {ramp} must be 0 or more");
        let target = Target { server: server.clone(), identity, ramp: Duration::from_secs_f64(ramp) };
        let tail = pair.as_ref().map(Pair::tail_pid);
        // One thread, so that what a core can do is what is measured.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = tokio::task::LocalSet::new().block_on(&runtime, async {
            let (own, others) = (cost::memory(None), tail.and_then(|pid| cost::memory(Some(pid))));
            let swarm = Swarm::connect(&target, &question, heads, interrupt).await?;
            let connected = swarm.heads();
            let memory = Memory::between(own, cost::memory(None), connected);
            let tail_memory = tail.map(|pid| Memory::between(others, cost::memory(Some(pid)), connected));
            let mut report = Report {
                complete: false,
                bundle: bundle.digest().to_string(),
                server,
                tail_args: pair.is_some().then_some(tail_args.clone()),
                heads: (heads, connected),
                not_connected: swarm.missed(),
                connecting_s: swarm.took().as_secs_f64(),
                sockets: swarm.sockets(),
                arrivals: self.arrivals,
                packets: (question.packets.len(), question.mean_bytes()),
                budget_ms: self.budget,
                memory,
                tail_memory,
                steps: Vec::new(),
                knee: None,
            };
            self.steps(&swarm, tail, interrupt, &mut report).await?;
            report.complete = !interrupt.seen();
            swarm.close().await;
            anyhow::Ok(report)
        })?;
        if let Some(pair) = pair {
            pair.drain()?;
        }
        Ok(report)
    }

    async fn steps(
        &self,
        swarm: &Swarm,
        tail: Option<u32>,
        interrupt: &Interrupt,
        report: &mut Report,
    ) -> Result<()> {
        if !self.knee {
            report.steps.push(self.step(swarm, self.rate, tail, interrupt).await?);
            return Ok(());
        }
        let mut search = Search::new(self.rate);
        while let Some(rate) = search.next()
            && report.steps.len() < STEPS
            && !interrupt.seen()
        {
            let mut step = self.step(swarm, rate, tail, interrupt).await?;
            let holds = step.unanswered_share() <= UNANSWERED && step.answered_ms.p99 <= self.p99;
            step.holds = Some(holds);
            search.learn(if holds { Verdict::Holds } else { Verdict::Breaks });
            report.steps.push(step);
        }
        report.knee = Some(search.found().map(|rate| rate * swarm.heads() as f64));
        Ok(())
    }

    async fn step(&self, swarm: &Swarm, rate: f64, tail: Option<u32>, interrupt: &Interrupt) -> Result<Step> {
        let arrivals = Arrivals::new(self.arrivals, swarm.heads(), rate, self.seed);
        let before = (Cost::own()?, tail.and_then(Cost::of));
        let budget = Duration::from_millis(self.budget);
        let tally: Tally =
            swarm.send(arrivals, Duration::from_secs_f64(self.seconds), budget, interrupt).await?;
        let cpu = before.0.until(Cost::own()?);
        let tail_cpu = before.1.zip(tail.and_then(Cost::of)).map(|(before, after)| before.until(after));
        Ok(tally.finish(rate * swarm.heads() as f64, cpu, tail_cpu))
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{} of {} heads connected to {} in {:.1} s over {} UDP sockets; {} packets of {:.0} bytes, {:?} arrivals",
            self.heads.1,
            self.heads.0,
            self.server,
            self.connecting_s,
            self.sockets,
            self.packets.0,
            self.packets.1,
            self.arrivals
        );
        for (reason, number) in &self.not_connected {
            println!("  {number} not connected: {reason}");
        }
        println!(
            "memory per connection: {} here, {} in the tail",
            self.memory.text(),
            match &self.tail_memory {
                Some(memory) => memory.text(),
                None => "unknown (not started here)".into(),
            }
        );
        println!("{}", tally::table(&self.steps));
        for step in &self.steps {
            println!("{}", step.details());
        }
        match self.knee {
            Some(Some(rate)) => println!("knee: {rate:.1} frames/s answered in time"),
            Some(None) => println!("knee: below the least rate tried"),
            None => {}
        }
        if !self.complete {
            println!("INCOMPLETE: interrupted");
        }
    }
}
