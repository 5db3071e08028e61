//! The kernel's own shaping for comparison: two network namespaces with a virtual cable between them, and the token bucket
//! filter (tbf) on both ends.

use std::{
    fs,
    net::UdpSocket,
    os::fd::AsFd,
    path::PathBuf,
    process::{Command, id},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    link::{Direction, Link},
    probe::{Effort, Path, connect_back},
};

/// Bytes that tbf counts in addition to the payload: IPv4, UDP and the Ethernet header.
const HEADER: usize = 28 + 14;
/// Prefix of the namespaces' names.
const PREFIX: &str = "narrows-";
/// Name of the cable's ends; both namespaces hold nothing else.
const CABLE: &str = "cable";
const ADDRESSES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// Bytes that tbf sends at once: 4 ms of the rate, so that a late timer loses nothing, and at least one datagram.
const BUCKET: (f64, usize) = (0.004, 1600);

/// Two namespaces with a cable between them. Dropping it removes them.
pub(crate) struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Creates the namespaces.
    ///
    /// # Errors
    /// The reason why that is not possible here, in words.
    pub(crate) fn build() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".into());
        }
        remove_stale();
        let names = ["head", "tail"].map(|end| format!("{PREFIX}{end}-{}", id()));
        // From here on dropping cleans up, also after a failure below.
        let namespaces = Namespaces { names };
        namespaces.connect().map_err(|error| format!("{error:#}"))?;
        Ok(namespaces)
    }

    fn connect(&self) -> Result<()> {
        let [head, tail] = &self.names;
        for name in &self.names {
            command("ip", &["netns", "add", name])?;
        }
        let cable =
            ["link", "add", CABLE, "netns", head, "type", "veth", "peer", "name", CABLE, "netns", tail];
        command("ip", &cable)?;
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            command("ip", &["-n", name, "addr", "add", &format!("{address}/30"), "dev", CABLE])?;
            // Room for the probe's jumbo datagrams.
            command("ip", &["-n", name, "link", "set", CABLE, "mtu", "9000", "up"])?;
        }
        Ok(())
    }

    /// Measures the rates of a link's directions, up and down, in 1000 bit/s; `None` for a direction without a limit.
    pub(crate) fn rates(&self, link: &Link, effort: &Effort<'_>) -> Result<(Option<f64>, Option<f64>)> {
        for (name, direction) in self.names.iter().zip([Direction::Up, Direction::Down]) {
            shape(name, link, direction)?;
        }
        let (head, tail) = (self.socket(0)?, self.socket(1)?);
        head.connect(tail.local_addr()?)?;
        connect_back(&head, &tail)?;
        let rate = |from: &UdpSocket, to: &UdpSocket, direction| {
            let mut shape = link.shape(direction);
            shape.queue = queue(link, direction);
            match shape.rate {
                Some(_) => Ok(Some(Path::new(from, to, shape, HEADER).full(effort)?.0)),
                None => anyhow::Ok(None),
            }
        };
        Ok((rate(&head, &tail, Direction::Up)?, rate(&tail, &head, Direction::Down)?))
    }

    /// A socket inside one of the namespaces; it stays in there whichever thread uses it.
    fn socket(&self, end: usize) -> Result<UdpSocket> {
        let open = || {
            let space = fs::File::open(PathBuf::from("/run/netns").join(&self.names[end]))?;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            anyhow::Ok(UdpSocket::bind((ADDRESSES[end], 0))?)
        };
        // Only the new thread enters the namespace.
        let opened = thread::scope(|scope| scope.spawn(open).join());
        opened.map_err(|_| anyhow!("the thread in {} failed", self.names[end]))?.context("network namespace")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // A namespace that was not created cannot be removed; the cable goes with its ends.
            let _ = command("ip", &["netns", "del", name]);
        }
    }
}

fn shape(space: &str, link: &Link, direction: Direction) -> Result<()> {
    let Some(rate) = link.shape(direction).rate else {
        // Fails where there is none to remove.
        let _ = command("tc", &["-n", space, "qdisc", "del", "dev", CABLE, "root"]);
        return Ok(());
    };
    let burst = BUCKET.1.max((rate as f64 / 8.0 * BUCKET.0) as usize).to_string();
    let (rate, limit) = (format!("{rate}bit"), queue(link, direction).to_string());
    let tbf = ["tbf", "rate", &rate, "burst", &burst, "limit", &limit];
    command("tc", &[&["-n", space, "qdisc", "replace", "dev", CABLE, "root"][..], &tbf].concat())
}

/// tbf's queue in bytes: twice the link's, because the kernel counts more than the payload of a datagram.
fn queue(link: &Link, direction: Direction) -> usize {
    link.shape(direction).queue.saturating_mul(2)
}

/// Removes the namespaces of processes that were killed.
fn remove_stale() {
    let Ok(found) = fs::read_dir("/run/netns") else { return };
    for name in found.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !PathBuf::from("/proc").join(pid).exists()) {
            let _ = command("ip", &["netns", "del", &name]);
        }
    }
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("`{program}` cannot be started"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}`: {}", args.join(" "), message.trim());
    Ok(())
}
