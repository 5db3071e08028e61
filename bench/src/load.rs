//! `narrows-bench load`: many simulated heads against one server, as an open loop.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use arrivals::Spacing;
use clap::Args;
use clients::{ClientPool, Target};
use load_stats::Step;
use narrows_models::{Bundle, Parts};
use narrows_pair::{Interrupt, Pair};
use process::{CpuTime, Memory, resident_kb};
use scenario::{Pace, Scenario, Verdict};
use serde::Serialize;
use workload::Workload;

use crate::json;

mod arrivals;
mod clients;
mod load_stats;
mod process;
mod scenario;
mod workload;

/// Connections that a server started here accepts beyond the simulated heads.
const SPARE: usize = 8;

/// Devices of the scenario greedy where no number is asked for.
const MOST_DEVICES: usize = 64;

/// How many heads, how often, and against which server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    narrows-bench load --bundle models/bundles/lite2 --heads 2000 --rate 1 --seconds 20 --json load.json\n  \
    narrows-bench load --bundle models/bundles/lite2 --server tail.local:7461 --identity certs/devices/device\n\n\
    narrows-bench load --bundle models/bundles/lite2 --scenario single-stream\n  \
    narrows-bench load --bundle models/bundles/lite2 --scenario greedy --heads 10 --rate 5\n\n\
    Latency counts from the moment a frame was due, even if it was sent later. Refusals are answers and are counted\n\
    by code. A server started here accepts all heads; another one needs `--connections` and\n\
    `--max-connections-per-device` of at least their number.")]
pub struct Load {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// What is sent when
    #[arg(long, value_enum, default_value_t = Scenario::Heads)]
    pub scenario: Scenario,
    /// A server that runs already [default: one is started on loopback]
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub server: Option<String>,
    /// Folders with ca.pem, cert.pem and key.pem of devices, for --server; the heads take them in turn
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "server")]
    pub identity: Vec<PathBuf>,
    /// Devices that the heads are, in turn, of a server started here [default: 1; greedy: as many as heads, at most 64]
    #[arg(long, value_name = "N", conflicts_with = "server", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub devices: Option<u32>,
    /// Simulated heads, each with a connection of its own [default: 100; single-stream 1, offline 4, greedy 20, storm 500, idle
    /// 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub heads: Option<u32>,
    /// Frames per second of each head
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub rate: f64,
    /// When frames are due
    #[arg(long, value_enum, default_value_t = Spacing::Poisson)]
    pub arrivals: Spacing,
    /// Seconds of the measurement
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds over which the heads connect [default: 200 heads a second; storm: 1]
    #[arg(long, value_name = "S")]
    pub ramp: Option<f64>,
    /// Tasks to run, by name
    #[arg(long, value_name = "TASK,…", value_delimiter = ',', default_value = "classify")]
    pub tasks: Vec<String>,
    /// Rate level of the packets [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,
    /// Photos that the real head encodes to packets [default: the packets recorded in the bundle]
    #[arg(long, value_name = "FILE|DIR|GLOB")]
    pub source: Option<String>,
    /// Milliseconds from the moment a frame is due to its deadline
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub budget: u64,
    /// Milliseconds that the 99th percentile may have, for the scenario server
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    pub bound_ms: f64,
    /// Connections of the greedy device, for the scenario greedy
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub greedy: u32,
    /// Folder with the identity of the greedy device, for --server
    #[arg(long, value_name = "DIR", requires = "server")]
    pub greedy_identity: Option<PathBuf>,
    /// Seed of arrival times
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the report to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Arguments of `narrows-tail serve` for the server started here, after `--`
    #[arg(last = true, value_name = "TAIL ARGS", conflicts_with = "server")]
    pub tail_args: Vec<String>,
}

/// The settings of a run and its outcome.
#[derive(Debug, Serialize)]
pub struct Report {
    /// False when the run was interrupted.
    pub complete: bool,
    /// What was sent when.
    pub scenario: Scenario,
    /// What the scenario is judged by; `None` for one without judgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The bundle's digest.
    pub bundle: String,
    /// The server's address.
    pub server: String,
    /// Arguments of a server that was started here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_args: Option<Vec<String>>,
    /// Simulated heads, and those of them that connected.
    pub heads: (usize, usize),
    /// Devices that the heads are, by their certificates.
    pub devices: usize,
    /// Reasons why the others did not connect, with their numbers.
    pub not_connected: Vec<(String, usize)>,
    /// Seconds until all heads were connected.
    pub connecting_s: f64,
    /// UDP sockets that the heads share.
    pub sockets: usize,
    /// When frames were due.
    pub arrivals: Spacing,
    /// Distinct packets and their mean bytes.
    pub packets: (usize, f64),
    /// From due to deadline.
    pub budget_ms: u64,
    /// Memory of this process before and after the heads connected.
    pub memory: Memory,
    /// The same of a server that was started here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_memory: Option<Memory>,
    /// Frames and times.
    pub step: Step,
    /// The same of the heads before the greedy device came, and of that device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Greedy>,
}

/// Steps of the scenario with a greedy device.
#[derive(Debug, Serialize)]
pub struct Greedy {
    /// The heads alone.
    pub alone: Step,
    /// The greedy device.
    pub device: Step,
}

impl Load {
    /// Loads the server, prints the outcome and writes the report.
    #[must_use]
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
        json::write(self.json.as_deref(), &report)
    }

    /// Loads the server. An interrupt is no error: the report is incomplete then.
    ///
    /// # Errors
    /// When the settings do not fit the bundle, or no head connects.
    pub fn measure(&self, interrupt: &Interrupt) -> Result<Report> {
        for (flag, value) in [("--rate", self.rate), ("--seconds", self.seconds)] {
            ensure!(value.is_finite() && value > 0.0, "{flag}: {value} must be above 0");
        }
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let workload = Workload::new(&bundle, &self.tasks, self.level, self.source.as_deref())?;
        let heads = self.heads.map_or_else(|| self.scenario.heads(), |heads| heads as usize);
        let (ramp, handshakes) = self.scenario.connecting(heads);
        let ramp = self.ramp.unwrap_or(ramp.as_secs_f64());
        ensure!(ramp.is_finite() && ramp >= 0.0, "--ramp: {ramp} must be 0 or more");
        ensure!(
            self.bound_ms.is_finite() && self.bound_ms > 0.0,
            "--bound-ms: {} must be above 0",
            self.bound_ms
        );
        let mut tail_args = self.tail_args.clone();
        if !tail_args.iter().any(|arg| arg.starts_with("--connections")) {
            tail_args
                .extend(["--connections".to_owned(), (heads + SPARE + self.greedy as usize).to_string()]);
        }
        if !tail_args.iter().any(|arg| arg.starts_with("--max-connections-per-device")) {
            // Heads have certificates in common.
            tail_args.extend(["--max-connections-per-device".to_owned(), (heads + SPARE).to_string()]);
        }
        let (pair, server, identities) = match &self.server {
            None => {
                let args: Vec<&str> = tail_args.iter().map(String::as_str).collect();
                let pair = Pair::start(&self.bundle, &args)?;
                let (server, identities) = (pair.address().to_owned(), self.identities(&pair, heads)?);
                (Some(pair), server, identities)
            }
            Some(_) if self.identity.is_empty() => bail!("--server needs --identity"),
            Some(server) => (None, server.clone(), self.identity.clone()),
        };
        let greedy_identity = match (&pair, &self.greedy_identity) {
            _ if self.scenario != Scenario::Greedy => None,
            (Some(pair), _) => Some(pair.identity("greedy")?),
            (None, Some(folder)) => Some(folder.clone()),
            (None, None) => bail!("--scenario greedy with --server needs --greedy-identity"),
        };
        let ramp = Duration::from_secs_f64(ramp);
        let devices = identities.len();
        let target = Target { server: server.clone(), identities, ramp, handshakes };
        let tail = pair.as_ref().map(Pair::tail_pid);
        // One thread, so that the rate of one core is what is measured.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = tokio::task::LocalSet::new().block_on(&runtime, async {
            let own = std::process::id();
            let (own_before, tail_before) = (resident_kb(own), tail.and_then(resident_kb));
            let pool = ClientPool::connect(&target, &workload, heads, interrupt).await?;
            let connected = pool.heads();
            let memory = Memory::between(own_before, resident_kb(own), connected);
            let tail_memory = tail.map(|pid| Memory::between(tail_before, resident_kb(pid), connected));
            let (step, greedy) = match &greedy_identity {
                None => (self.step(&pool, tail, interrupt).await?, None),
                Some(identity) => {
                    let alone = self.step(&pool, tail, interrupt).await?;
                    let (step, device) =
                        self.beside_greedy(&pool, &target, identity, &workload, tail, interrupt).await?;
                    (step, Some(Greedy { alone, device }))
                }
            };
            let alone = greedy.as_ref().map(|greedy| &greedy.alone);
            let verdict =
                self.scenario.judge(&self.pace(), &step, alone, (heads, connected), pool.connecting());
            let report = Report {
                complete: !interrupt.seen(),
                scenario: self.scenario,
                verdict,
                bundle: bundle.digest().to_string(),
                server,
                tail_args: pair.is_some().then_some(tail_args.clone()),
                heads: (heads, connected),
                devices,
                not_connected: pool.failures(),
                connecting_s: pool.connecting().as_secs_f64(),
                sockets: pool.sockets(),
                arrivals: self.arrivals,
                packets: (workload.packets.len(), workload.mean_bytes()),
                budget_ms: self.budget,
                memory,
                tail_memory,
                step,
                greedy,
            };
            pool.close().await;
            anyhow::Ok(report)
        })?;
        if let Some(pair) = pair {
            pair.drain()?;
        }
        Ok(report)
    }

    /// Identities of the heads at a server that was started here.
    fn identities(&self, pair: &Pair, heads: usize) -> Result<Vec<PathBuf>> {
        let devices = match (self.devices, self.scenario) {
            (Some(devices), _) => devices as usize,
            (None, Scenario::Greedy) => heads.min(MOST_DEVICES),
            (None, _) => 1,
        };
        let others = (1..devices).map(|number| pair.identity(&format!("device-{number}")));
        std::iter::once(Ok(pair.certs().join("devices/device"))).chain(others).collect()
    }

    fn pace(&self) -> Pace {
        Pace {
            rate: self.rate,
            spacing: self.arrivals,
            seed: self.seed,
            time: Duration::from_secs_f64(self.seconds),
            budget: Duration::from_millis(self.budget),
            bound_ms: self.bound_ms,
        }
    }

    /// Sends frames for the time of the measurement.
    async fn step(&self, pool: &ClientPool, tail: Option<u32>, interrupt: &Interrupt) -> Result<Step> {
        let (own_before, tail_before) = (CpuTime::own(), tail.and_then(CpuTime::of));
        let stats = self.scenario.send(&self.pace(), pool, interrupt).await?;
        let cpu = own_before.share_until(CpuTime::own());
        let tail_cpu = tail_before.zip(tail.and_then(CpuTime::of));
        let tail_cpu = tail_cpu.map(|(before, after)| before.share_until(after));
        Ok(stats.finish(self.scenario.offered(&self.pace(), pool.heads()), cpu, tail_cpu))
    }

    /// Sends the same frames beside a device that keeps its connections full. Returns the step of the heads and that of the
    /// device.
    async fn beside_greedy(
        &self,
        pool: &ClientPool,
        target: &Target,
        identity: &Path,
        workload: &Workload,
        tail: Option<u32>,
        interrupt: &Interrupt,
    ) -> Result<(Step, Step)> {
        let target = Target { identities: vec![identity.to_owned()], ramp: Duration::ZERO, ..target.clone() };
        let greedy = ClientPool::connect(&target, workload, self.greedy as usize, interrupt).await?;
        let time = Duration::from_secs_f64(self.seconds);
        let (step, device) =
            tokio::join!(self.step(pool, tail, interrupt), greedy.saturate(None, time, None, interrupt));
        let device = device?.finish(None, 0.0, None);
        greedy.close().await;
        Ok((step?, device))
    }
}

impl Report {
    fn print(&self) {
        let Report { heads: (heads, connected), devices, server, connecting_s, sockets, packets, .. } = self;
        println!(
            "{connected} of {heads} heads of {devices} devices connected to {server} in {connecting_s:.1} s over \
             {sockets} UDP sockets; {} packets of {:.0} bytes, {:?} arrivals",
            packets.0, packets.1, self.arrivals
        );
        for (reason, number) in &self.not_connected {
            println!("  {number} not connected: {reason}");
        }
        let tail = self.tail_memory.as_ref().map_or("unknown (not started here)".into(), Memory::text);
        println!("memory per connection: {} here, {tail} in the server", self.memory.text());
        if let Some(Greedy { alone, device }) = &self.greedy {
            println!("the heads alone:\n{}\nthe greedy device:\n{}", alone.table(), device.table());
            println!("the heads beside it:");
        }
        println!("{}", self.step.table());
        if let Some(verdict) = &self.verdict {
            println!("{}", verdict.text());
        }
        if !self.complete {
            println!("INCOMPLETE: interrupted");
        }
    }
}
