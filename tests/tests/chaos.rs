//! A head whose server, broker, camera and network are killed in random order: every frame that it captures has one outcome, and it
//! lives. `ROUNDS=200` runs more than the few of `make test`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_tests::{
    Fleet, LiveHead,
    broker::{Broker, free_port},
    bundle, check_order, photos, processes_with,
};
use serde_json::Value;

/// Rounds without `ROUNDS`.
const ROUNDS: usize = 6;

/// A link on loopback that can be cut.
struct Link {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Link {
    fn to(server: SocketAddr) -> Result<Self> {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        let (address, cut) = (front.local_addr()?, Arc::new(AtomicBool::new(false)));
        let is_cut = Arc::clone(&cut);
        thread::spawn(move || {
            let backs: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>> = Mutex::default();
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = front.recv_from(&mut buffer) {
                if is_cut.load(Relaxed) {
                    continue;
                }
                let mut backs = backs.lock().expect("no panic holds it");
                let back = match backs.get(&client) {
                    Some(back) => Arc::clone(back),
                    None => {
                        let Ok(back) = UdpSocket::bind("127.0.0.1:0") else { continue };
                        let back = Arc::new(back);
                        let (from, to, is_cut) = (Arc::clone(&back), Arc::clone(&front), Arc::clone(&is_cut));
                        thread::spawn(move || {
                            let mut buffer = [0; 2048];
                            loop {
                                match from.recv(&mut buffer) {
                                    Ok(length) if !is_cut.load(Relaxed) => {
                                        let _ = to.send_to(&buffer[..length], client);
                                    }
                                    // Nothing listens at the moment.
                                    Err(error) if error.kind() != ErrorKind::ConnectionRefused => return,
                                    _ => {}
                                }
                            }
                        });
                        backs.insert(client, Arc::clone(&back));
                        back
                    }
                };
                let _ = back.send_to(&buffer[..length], server);
            }
        });
        Ok(Link { address, cut })
    }
}

/// Numbers that differ from run to run, or are those of `SEED`.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x5_eed5);
        println!("SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // The generator of PCG's state, of which the upper bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn whatever_is_killed_every_frame_has_one_outcome_and_the_head_lives() -> Result<()> {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut random = Random::new();
    let mut fleet = Fleet::start(false)?;
    let link = Link::to(fleet.addresses[0].parse()?)?;
    let mut broker = Broker::start("chaos", "allow_anonymous true\n")?;
    let broker_port = match &broker {
        Some(broker) => broker.port(),
        None => free_port()?,
    };
    let place = tempfile::tempdir()?;
    let small = place.path().join("photo.jpg");
    let photo = image::open(photos().join("orange.jpg"))?.resize_to_fill(224, 224, image::imageops::Triangle);
    photo.into_rgb8().save(&small)?;
    // The name of the file finds the camera's process.
    let camera = place.path().join("camera.sh");
    fs::write(&camera, format!("while :; do cat '{}'; sleep 0.1; done\n", small.display()))?;
    let spool = place.path().join("spool");
    let mut head = narrows_pair::head();
    head.args(["run", "--tasks", "classify", "--budget", "1500", "--retry-for", "2", "--fallback", "never"]);
    head.args([
        "--server",
        &link.address.to_string(),
        "--server",
        &fleet.addresses[1],
        "--return-after",
        "1",
    ]);
    head.arg("--bundle").arg(bundle()).arg("--identity").arg(fleet.device()).arg("--spool").arg(&spool);
    head.args(["--stall", "2", "--source", &format!("gate=command:exec sh {}", camera.display())]);
    head.args(["--mqtt", &format!("mqtt://127.0.0.1:{broker_port}"), "--level", "auto", "--for", "accuracy"]);
    head.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    head.stderr(std::process::Stdio::piped());
    let mut head = LiveHead::of(head)?;
    let mut lines = head.lines_until(|line| line["status"] == "answered")?;
    for round in 0..rounds {
        match random.below(5) {
            0 => {
                fleet.kill(0)?;
                thread::sleep(Duration::from_millis(random.below(1500)));
                fleet.launch(0, None)?;
            }
            1 => {
                // Both servers, so that frames wait on disk.
                fleet.kill(0)?;
                fleet.kill(1)?;
                thread::sleep(Duration::from_millis(random.below(3000)));
                fleet.launch(1, None)?;
                fleet.launch(0, None)?;
            }
            2 => {
                link.cut.store(true, Relaxed);
                thread::sleep(Duration::from_millis(random.below(3000)));
                link.cut.store(false, Relaxed);
            }
            3 => {
                for process in processes_with(&camera.display().to_string())? {
                    // It may have ended meanwhile.
                    let _ = Command::new("kill").args(["-9", &process]).status();
                }
            }
            _ => {
                if let Some(broker) = &mut broker {
                    broker.kill()?;
                    thread::sleep(Duration::from_millis(random.below(1000)));
                    broker.restart()?;
                }
            }
        }
        thread::sleep(Duration::from_millis(random.below(800)));
        ensure!(head.child.try_wait()?.is_none(), "round {round}: the head ended: {}", head.said());
    }
    // It recovers: an answer of a server to a frame that is captured after all of this.
    let is_late = |line: &Value| line["spool"]["waited"].is_number();
    lines.extend(head.waiting_lines());
    lines.extend(head.lines_until(|line| line["status"] == "answered" && !is_late(line))?);
    let (rest, said) = head.interrupt()?;
    lines.extend(rest);

    let (late, live): (Vec<Value>, Vec<Value>) = lines.into_iter().partition(|line| is_late(line));
    let mut outcomes: BTreeMap<u64, usize> = BTreeMap::new();
    for line in &live {
        *outcomes.entry(line["frame"].as_u64().with_context(|| line.to_string())?).or_default() += 1;
        let is_accounted = line["status"] == "answered" || line["error"].is_string();
        ensure!(is_accounted, "no answer and no cause: {line}");
    }
    let last = *outcomes.keys().last().context("no frame")?;
    assert!(
        outcomes.len() as u64 == last + 1 && outcomes.values().all(|&times| times == 1),
        "{outcomes:?}\n{said}"
    );
    let mut sorted = live.clone();
    sorted.sort_by_key(|line| line["frame"].as_u64());
    check_order(&sorted, "gate")?;
    let number = |line: &Value| line["spool"]["id"].as_u64();
    let stored: BTreeSet<u64> = live.iter().filter_map(number).collect();
    let answered: Vec<u64> = late.iter().filter_map(number).collect();
    let once: BTreeSet<u64> = answered.iter().copied().collect();
    assert!(once.len() == answered.len() && once.is_subset(&stored), "{answered:?} of {stored:?}\n{said}");
    for id in stored.difference(&once) {
        let is_there = |name: String| name.starts_with(&format!("{id:016x}-"));
        let mut files = fs::read_dir(&spool)?.filter_map(Result::ok);
        let there = files.any(|file| is_there(file.file_name().to_string_lossy().into_owned()));
        assert!(there, "frame {id} is neither answered nor on disk\n{said}");
    }
    let count = |status: &str| live.iter().filter(|line| line["status"] == status).count();
    println!(
        "{rounds} rounds, {} frames: {} answered, {} spooled of which {} answered later, {} failed, {} dropped",
        live.len(),
        count("answered"),
        stored.len(),
        answered.len(),
        count("failed"),
        count("dropped")
    );
    Ok(())
}
