//! Answers at a real broker, and a device as Home Assistant sees it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use narrows_pair::terminate;
use narrows_tests::{broker::Broker, bundle, ended, photos, root, said, schema};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

/// How long the end of a head may take: two seconds, and the same for a busy machine.
const END: Duration = Duration::from_secs(4);

/// A head that answers photos on its own without end and publishes to the port.
fn head(address: &str, flags: &[&str]) -> Command {
    named("pi", address, flags)
}

/// The same under another name.
fn named(device: &str, address: &str, flags: &[&str]) -> Command {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--repeat", "0"]);
    head.arg("--bundle")
        .arg(bundle())
        .arg("--source")
        .arg(photos())
        .args(["--device", device, "--mqtt", address]);
    head.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    head
}

/// A process that is killed when a test gives up.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        Ok(Running(Some(command.spawn()?)))
    }

    /// Ends it by SIGKILL.
    fn kill(&mut self) -> Result<()> {
        Ok(self.0.as_mut().context("it runs")?.kill()?)
    }

    /// Waits for so many lines of JSON on its standard output; all of them are counted until it ends.
    fn read(&mut self, lines: usize) -> Result<JoinHandle<usize>> {
        let output = self.0.as_mut().and_then(|child| child.stdout.take()).context("its output is piped")?;
        let mut output = BufReader::new(output).lines();
        for _ in 0..lines {
            serde_json::from_str::<Value>(&output.next().context("a line")??)?;
        }
        let is_json = |line: &String| serde_json::from_str::<Value>(line).is_ok();
        Ok(thread::spawn(move || lines + output.map_while(Result::ok).filter(is_json).count()))
    }

    /// Ends it by SIGTERM and returns what it said.
    fn end(mut self) -> Result<String> {
        terminate(self.0.as_ref().context("it runs")?.id())?;
        let output = ended(self.0.take().context("it runs")?, END)?;
        ensure!(output.status.code() == Some(143), "{}", said(&output));
        Ok(said(&output))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn address(broker: &Broker) -> String {
    format!("mqtt://127.0.0.1:{}", broker.port())
}

fn is_valid(discovery: &Value) -> Result<()> {
    let file = root().join("tests/schemas/homeassistant-discovery.json");
    let rules = serde_json::from_str(&fs::read_to_string(file)?)?;
    schema::check(&rules, discovery).map_err(anyhow::Error::msg)
}

#[test]
fn answers_are_published_and_states_are_retained() -> Result<()> {
    let Some(broker) = Broker::start("mqtt", "allow_anonymous true")? else { return Ok(()) };
    let live = broker.subscribe("#", &[])?;
    let head = Running::start(&mut head(&address(&broker), &["--mqtt-picture", "1"]))?;
    live.expect("narrows/pi/available", "online")?;
    let answer = live.find(|message| message.topic == "narrows/pi/camera/answer")?.json()?;
    assert_eq!(answer["status"], "answered", "{answer}");
    let picture = live.find(|message| message.topic == "narrows/pi/camera/picture")?;
    assert!(picture.payload.starts_with(b"\xff\xd8\xff"), "no JPEG");
    let status = live.find(|message| {
        let status = message.json().unwrap_or_default();
        message.topic == "narrows/pi/status" && status["cameras"]["camera"]["latency_ms"]["p95"].is_number()
    });
    let status = status?.json()?;
    assert_eq!(
        (status["device"].as_str(), status["sinks"][0]["lost"].as_u64()),
        (Some("pi"), Some(0)),
        "{status}"
    );

    let late = broker.subscribe("narrows/#", &["--retained-only"])?;
    let topics = ["available", "camera/class", "camera/picture", "camera/state", "status"];
    let topics = topics.map(|topic| format!("narrows/pi/{topic}"));
    let mut kept = BTreeSet::new();
    while kept.len() < topics.len() {
        kept.insert(late.find(|_| true)?.topic);
    }
    kept.extend(late.within(Duration::from_millis(500)).into_iter().map(|message| message.topic));
    assert_eq!(kept, topics.into());
    let said = head.end()?;
    live.expect("narrows/pi/available", "offline")?;
    let line = said.lines().find(|line| line.starts_with("mqtt://")).context("a line in the summary")?;
    assert!(line.ends_with(" delivered, 0 lost"), "{said}");
    Ok(())
}

#[test]
fn discovery_is_valid_and_names_topics_that_exist() -> Result<()> {
    let Some(broker) = Broker::start("mqtt discovery", "allow_anonymous true")? else { return Ok(()) };
    let live = broker.subscribe("#", &[])?;
    let flags = ["--mqtt-topic", "home/gate", "--mqtt-picture", "1"];
    let head = Running::start(&mut head(&address(&broker), &flags))?;
    let has_camera = |discovery: &Value| discovery["components"].as_object().is_some_and(|all| all.len() > 2);
    let topic = "homeassistant/device/narrows_pi/config";
    // Home Assistant may pass over entities that follow in a second message, so the first one has all of them.
    let discovery = live.find(|message| message.topic == topic)?.json()?;
    assert!(has_camera(&discovery), "{discovery}");
    is_valid(&discovery)?;
    let components = discovery["components"].as_object().context("components")?;
    let mut names = BTreeSet::new();
    let mut topics =
        BTreeSet::from([discovery["availability_topic"].as_str().context("a topic")?.to_owned()]);
    for (key, component) in components {
        assert_eq!(component["unique_id"], key.as_str());
        assert!(names.insert(component["name"].to_string()), "two of one name: {component}");
        let topic = component.get("state_topic").or_else(|| component.get("image_topic"));
        topics.insert(topic.and_then(Value::as_str).context("a topic")?.to_owned());
    }
    let kinds: BTreeSet<&str> =
        components.values().filter_map(|component| component["platform"].as_str()).collect();
    assert_eq!(kinds, ["binary_sensor", "image", "sensor"].into());
    for topic in topics {
        broker.subscribe(&topic, &[])?.find(|_| true).with_context(|| topic.clone())?;
    }

    // Home Assistant has started: it is told again, the same.
    let kept = broker.subscribe(topic, &[])?;
    assert_eq!(kept.find(|message| message.retained)?.json()?, discovery);
    broker.publish("homeassistant/status", "online", &[])?;
    assert_eq!(kept.find(|message| !message.retained)?.json()?, discovery);
    // Somebody's late last will is corrected.
    broker.publish("home/gate/available", "offline", &["-r"])?;
    let available = broker.subscribe("home/gate/available", &[])?;
    available.expect("home/gate/available", "online")?;
    head.end()?;

    let quiet = Running::start(&mut named(
        "quiet",
        &address(&broker),
        &["--mqtt-discovery", "none", "--mqtt-picture", "0"],
    ))?;
    let live = broker.subscribe("#", &["-R"])?;
    live.find(|message| message.topic == "narrows/quiet/camera/state")?;
    let rest = live.within(Duration::from_secs(1));
    let stray = rest
        .iter()
        .find(|message| message.topic.contains("quiet/config") || message.topic.contains("picture"));
    assert!(stray.is_none(), "{:?}", stray.map(|message| &message.topic));
    quiet.end().map(drop)
}

#[test]
fn a_camera_that_is_no_longer_in_the_run_leaves_home_assistant() -> Result<()> {
    let Some(broker) = Broker::start("mqtt removal", "allow_anonymous true")? else { return Ok(()) };
    let of = |cameras: &[&str]| {
        let mut head = narrows_pair::head();
        head.args(["run", "--path", "local", "--tasks", "classify", "--repeat", "0", "--fps", "5"]);
        head.args(["--device", "pi", "--mqtt", &address(&broker), "--bundle"]).arg(bundle());
        for camera in cameras {
            head.arg("--source").arg(format!("{camera}={}", photos().display()));
        }
        head.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Running::start(&mut head)
    };
    let both = of(&["front", "back"])?;
    broker.subscribe("narrows/pi/back/class", &[])?.find(|_| true)?;
    both.end()?;
    let live = broker.subscribe("homeassistant/device/narrows_pi/config", &["-R"])?;
    let gone = broker.subscribe("narrows/pi/back/class", &["-R"])?;
    let one = of(&["front"])?;
    let component = |message: &narrows_tests::broker::Message, key: &str| {
        message.json().map(|discovery| discovery["components"][key].clone()).unwrap_or_default()
    };
    // Home Assistant removes what has its platform alone.
    let key = "narrows_pi_back_class";
    live.find(|message| component(message, key) == serde_json::json!({ "platform": "sensor" }))?;
    live.find(|message| {
        component(message, key).is_null() && !component(message, "narrows_pi_front_class").is_null()
    })?;
    // The broker forgets the topics of the camera.
    gone.find(|message| message.payload.is_empty())?;
    one.end()?;
    let kept = broker.subscribe("narrows/pi/back/#", &[])?.within(Duration::from_millis(500));
    assert!(kept.is_empty(), "{:?}", kept.iter().map(|message| &message.topic).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_killed_head_is_offline_and_a_killed_broker_is_told_everything_again() -> Result<()> {
    let Some(mut broker) = Broker::start("mqtt killed", "allow_anonymous true")? else { return Ok(()) };
    let available = broker.subscribe("narrows/pi/available", &[])?;
    let mut killed = Running::start(&mut head(&address(&broker), &[]))?;
    available.expect("narrows/pi/available", "online")?;
    killed.kill()?;
    available.expect("narrows/pi/available", "offline")?;
    let late = broker.subscribe("narrows/pi/available", &[])?;
    assert!(late.expect("narrows/pi/available", "offline")?.retained);

    let head = Running::start(&mut head(&address(&broker), &["--mqtt-picture", "1"]))?;
    let live = broker.subscribe("narrows/#", &[])?;
    live.find(|message| message.topic == "narrows/pi/camera/picture")?;
    broker.kill()?;
    broker.restart()?;
    // Each by a subscriber of its own, since what is retained comes in any order.
    broker.subscribe("narrows/pi/available", &[])?.expect("narrows/pi/available", "online")?;
    let config = broker.subscribe("homeassistant/device/narrows_pi/config", &[])?;
    let discovery = config.find(|_| true)?.json()?;
    is_valid(&discovery)?;
    assert!(discovery["components"].as_object().is_some_and(|all| all.len() > 2), "{discovery}");
    for kind in ["class", "picture", "state"] {
        let topic = format!("narrows/pi/camera/{kind}");
        broker.subscribe(&topic, &[])?.find(|_| true).with_context(|| topic.clone())?;
    }
    let said = head.end()?;
    assert!(said.contains("the broker") && said.contains("works again"), "{said}");
    Ok(())
}

#[test]
fn a_broker_that_is_away_or_silent_holds_up_nothing() -> Result<()> {
    // One that nobody listens at, one that takes the connection and says nothing, and a name that does not exist.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let silent = silent.local_addr()?.to_string();
    let nobody = format!("127.0.0.1:{}", narrows_tests::broker::free_port()?);
    for place in [nobody.as_str(), &silent, "narrows.invalid"] {
        let mut command = head(&format!("mqtt://{place}"), &[]);
        let mut head = Running::start(command.stdout(Stdio::piped()))?;
        let lines = head.read(100)?;
        let said = head.end()?;
        let lines = lines.join().map_err(|_| anyhow!("no reader"))?;
        assert!(lines > 0 && said.contains(&format!("{lines} lost")), "{lines} lines: {said}");
    }
    Ok(())
}

#[test]
fn every_answer_of_a_short_run_arrives() -> Result<()> {
    let Some(broker) = Broker::start("mqtt short", "allow_anonymous true")? else { return Ok(()) };
    // What was retained before it comes when the subscription is in force.
    broker.publish("narrows/pi/before", "x", &["-r"])?;
    let live = broker.subscribe("narrows/pi/#", &[])?;
    live.expect("narrows/pi/before", "x")?;
    let mut command = narrows_pair::head();
    command.args([
        "run",
        "--path",
        "local",
        "--tasks",
        "classify",
        "--device",
        "pi",
        "--mqtt",
        &address(&broker),
    ]);
    let output = command.arg("--bundle").arg(bundle()).arg("--source").arg(photos()).output()?;
    let lines = narrows_tests::lines(&output)?;
    assert!(said(&output).contains(&format!("{} delivered, 0 lost", lines.len())), "{}", said(&output));
    for line in lines {
        assert_eq!(live.find(|message| message.topic == "narrows/pi/camera/answer")?.json()?, line);
    }
    live.expect("narrows/pi/available", "offline").map(drop)
}

#[test]
fn a_broker_that_stops_reading_holds_up_nothing() -> Result<()> {
    let Some(broker) = Broker::start("mqtt paused", "allow_anonymous true")? else { return Ok(()) };
    let live = broker.subscribe("narrows/pi/camera/answer", &[])?;
    let mut command = head(&address(&broker), &["--mqtt-picture", "1"]);
    let mut head = Running::start(command.stdout(Stdio::piped()))?;
    live.find(|_| true)?;
    broker.pause(true)?;
    // More than may be on its way and wait.
    let ended = head.read(200).and_then(|lines| Ok((lines, head.end()?)));
    broker.pause(false)?;
    let (lines, said) = ended?;
    let lines = lines.join().map_err(|_| anyhow!("no reader"))?;
    let line = said.lines().find(|line| line.starts_with("mqtt://")).context("a line in the summary")?;
    let counts: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 2 && counts[1] > 0 && counts[0] + counts[1] == lines, "{lines} lines: {said}");
    Ok(())
}

/// A certificate authority, and certificates of it, written into a folder.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.join(format!("{name}.pem")), issuer.pem())?;
        Ok(Authority(issuer))
    }

    fn issue(&self, folder: &Path, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0)?;
        let file = folder.join(format!("{name}.key"));
        fs::write(&file, key.serialize_pem())?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        Ok(fs::write(folder.join(format!("{name}.crt")), certificate.pem())?)
    }
}

#[test]
fn tls_with_an_own_ca_a_password_and_a_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = Authority::new(folder.path(), "own")?;
    Authority::new(folder.path(), "other")?;
    own.issue(folder.path(), "broker")?;
    own.issue(folder.path(), "device")?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("password"), "secret\n")?;
    fs::write(folder.path().join("wrong"), "guess")?;
    let passwords =
        Command::new("mosquitto_passwd").args(["-b", "-c", &path("users"), "pi", "secret"]).status();
    if !passwords.is_ok_and(|status| status.success()) {
        narrows_tests::skipped("mqtt tls", "mosquitto_passwd (apt install mosquitto)");
        return Ok(());
    }
    let settings = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\npassword_file {}",
        path("own.pem"),
        path("broker.crt"),
        path("broker.key"),
        path("users")
    );
    let Some(broker) = Broker::start("mqtt tls", &settings)? else { return Ok(()) };
    let address = format!("mqtts://localhost:{}", broker.port());
    let certificate =
        ["--mqtt-cert", &path("device.crt"), "--mqtt-key", &path("device.key")].map(str::to_owned);
    let flags = |ca: &str, password: &str| {
        let flags = ["--mqtt-ca", &path(ca), "--mqtt-user", "pi", "--mqtt-password-file", &path(password)];
        flags.map(str::to_owned).into_iter().chain(certificate.clone()).collect::<Vec<String>>()
    };
    let client = ["--cafile", &path("own.pem"), "--cert", &path("device.crt"), "--key", &path("device.key")];
    let client = [&client[..], &["-h", "localhost", "-u", "pi", "-P", "secret"]].concat();
    let live = broker.subscribe("narrows/#", &client)?;
    let right = Running::start(head(&address, &[]).args(flags("own.pem", "password")))?;
    live.expect("narrows/pi/available", "online")?;
    live.find(|message| message.topic == "narrows/pi/camera/answer")?;
    right.end()?;
    live.expect("narrows/pi/available", "offline")?;

    for (ca, password, reason) in
        [("other.pem", "password", "TLS"), ("own.pem", "wrong", "--mqtt-password-file")]
    {
        let wrong = Running::start(head(&address, &[]).args(flags(ca, password)))?;
        std::thread::sleep(Duration::from_secs(2));
        let said = wrong.end()?;
        assert!(said.contains(reason) && !said.contains("guess"), "{said}");
    }
    fs::set_permissions(folder.path().join("device.key"), fs::Permissions::from_mode(0o644))?;
    let exposed = head(&address, &[]).args(flags("own.pem", "password")).output()?;
    assert_eq!(exposed.status.code(), Some(2));
    assert!(
        said(&exposed).contains("--mqtt-key: ") && said(&exposed).contains("chmod 600"),
        "{}",
        said(&exposed)
    );
    Ok(())
}
