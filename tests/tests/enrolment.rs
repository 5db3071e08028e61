//! Devices that get their certificates over the network, and renew them, with the real binaries.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::Pair;
use narrows_tests::{LiveHead, TIMEOUT, bundle, ended, lines_of, photos, runtime, said, skipped};
use narrows_wire::{
    enrol::{EnrolmentReply, EnrolmentRequest, Token},
    identity::{CertificateInfo, Fingerprint, certificates},
    quic::{self, Tuning},
    stream,
};
use serde_json::Value;
use tempfile::TempDir;

/// Exit codes, as `narrows-head enrol --help` has them.
const USAGE: i32 = 2;
const NOT_TRUSTED: i32 = 4;
const NO_CERTIFICATE: i32 = 6;

/// A tail that enrols devices, and a folder for their identities.
struct Enrolling {
    pair: Pair,
    /// Where devices enrol.
    server: String,
    devices: TempDir,
}

impl Enrolling {
    fn start(args: &[&str]) -> Result<Enrolling> {
        let pair = Pair::start_with(&bundle(), |certs| {
            let runtime = runtime().display().to_string();
            let all = ["--device", "cpu", "--runtime", &runtime, "--enrol", "127.0.0.1:0", "--enrol-ca"];
            let certs = [certs.as_os_str().to_owned()];
            all.iter().map(Into::into).chain(certs).chain(args.iter().map(Into::into)).collect()
        })?;
        let log = pair.log();
        let line = log.lines().find(|line| line.contains("enrolling devices")).context(log.clone())?;
        let (_, port) = line.rsplit_once(':').context(line.to_owned())?;
        let server = format!("localhost:{port}");
        Ok(Enrolling { pair, server, devices: tempfile::tempdir()? })
    }

    /// Runs `narrows-tail enrol` beside the tail.
    fn tail(&self, args: &[&str]) -> Result<Output> {
        Ok(narrows_pair::tail().arg("enrol").args(args).arg("--dir").arg(self.pair.certs()).output()?)
    }

    fn token(&self, args: &[&str]) -> Result<String> {
        let output = self.tail(&[&["token"], args].concat())?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn list(&self) -> Result<Value> {
        let output = self.tail(&["list", "--json"])?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn identity(&self, device: &str) -> PathBuf {
        self.devices.path().join(device)
    }

    /// `narrows-head enrol` into the folder of a device.
    fn enrol(&self, device: &str, token: &str) -> Command {
        let mut head = narrows_pair::head();
        head.args(["enrol", "--server", &self.server, "--token", token, "--wait", "30", "--identity"]);
        head.arg(self.identity(device)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        head
    }

    fn enrolled(&self, device: &str, token: &str) -> Result<Output> {
        let output = self.enrol(device, token).output()?;
        ensure!(output.status.success(), "{}\n{}", said(&output), self.pair.log());
        Ok(output)
    }

    /// A run with the identity of a device.
    fn run(&self, device: &str) -> Command {
        let mut head = narrows_pair::head();
        head.args(["run", "--server", &self.pair.address().replace("127.0.0.1", "localhost")]);
        head.arg("--identity").arg(self.identity(device)).arg("--bundle").arg(bundle());
        head.args(["--tasks", "classify", "--fallback", "never", "--source"]).arg(photos().join("cat.png"));
        head
    }

    fn logs(&self, text: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.pair.log().contains(text) {
            ensure!(begun.elapsed() < TIMEOUT, "`{text}` is not in the log: {}", self.pair.log());
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn info(folder: &Path) -> Result<CertificateInfo> {
    let own = certificates(&folder.join("cert.pem"))?;
    CertificateInfo::read(&own[0]).map_err(anyhow::Error::msg)
}

#[test]
fn a_device_enrols_once_with_its_own_key_and_is_served() -> Result<()> {
    let tail = Enrolling::start(&[])?;
    let token = tail.token(&["pi-kitchen"])?;
    let output = tail.enrolled("pi", &token)?;
    let (identity, list) = (tail.identity("pi"), tail.list()?);
    assert_eq!(String::from_utf8(output.stdout.clone())?.trim(), identity.display().to_string());
    let key = list["requests"][0]["key"].as_str().context("a key")?.to_owned();
    assert!(said(&output).contains(&key) && said(&output).contains("pi-kitchen"), "{}", said(&output));
    assert_eq!(key, Fingerprint::of(&info(&identity)?.public_key).to_string());
    for (file, mode) in [("key.pem", 0o600), ("", 0o700)] {
        assert_eq!(identity.join(file).metadata()?.permissions().mode() & 0o777, mode, "{file}");
    }
    assert!(!tail.pair.certs().join("devices/pi-kitchen").exists(), "the key is on the device alone");
    let lines = lines_of(&mut tail.run("pi"))?;
    assert_eq!(lines[0]["device"], "pi-kitchen");

    fails(&tail.enrol("pi", &token).output()?, NOT_TRUSTED, &["cert.pem exists", "narrows-head renew"]);
    let used = tail.enrol("other", &token).output()?;
    fails(&used, NO_CERTIFICATE, &["the token was used", "for pi-kitchen", &key]);
    tail.logs("the token was used")?;
    let ended = tail.token(&["pi-garden", "--valid", "1s"])?;
    sleep(Duration::from_millis(2100));
    fails(&tail.enrol("late", &ended).output()?, NO_CERTIFICATE, &["the token has ended"]);
    let mut typed = token.clone();
    typed.replace_range(20..21, if &token[20..21] == "A" { "B" } else { "A" });
    fails(&tail.enrol("typed", &typed).output()?, USAGE, &["--token", "copy it again"]);
    let real: Token = token.parse()?;
    let guessed = Token::new(real.id(), [7; 16], real.ca()).to_string();
    let output = tail.enrol("guessed", &guessed).output()?;
    fails(&output, NO_CERTIFICATE, &["the token is not known"]);
    assert!(!said(&output).contains("pi-kitchen"), "a stranger learns nothing: {}", said(&output));
    for device in ["other", "late", "guessed"] {
        assert!(!tail.identity(device).join("cert.pem").exists(), "{device}");
    }
    assert!(!tail.pair.log().contains(&token), "no token is logged");
    tail.pair.drain()
}

#[test]
fn a_server_in_between_with_another_ca_gets_neither_token_nor_belief() -> Result<()> {
    let (tail, between) = (Enrolling::start(&[])?, Enrolling::start(&[])?);
    let token = tail.token(&["pi"])?;
    let mut head = between.enrol("pi", &token);
    let output = head.output()?;
    fails(&output, NOT_TRUSTED, &["does not show the CA that the token names", "stands between"]);
    let identity = between.identity("pi");
    assert!(!identity.join("ca.pem").exists() && !identity.join("cert.pem").exists());
    assert_eq!(between.list()?["requests"], serde_json::json!([]));
    // With a name that the certificate does not carry, nobody is believed either.
    let mut head = narrows_pair::head();
    head.args(["enrol", "--server", &tail.server.replace("localhost", "127.0.0.2"), "--token", &token]);
    head.args(["--wait", "1", "--identity"]).arg(tail.identity("name"));
    let output = head.output()?;
    assert!(
        !output.status.success() && !tail.identity("name").join("cert.pem").exists(),
        "{}",
        said(&output)
    );
    // The device goes on where it was, with the key that it has, at the right server.
    let key = fs::read(identity.join("key.pem"))?;
    head = narrows_pair::head();
    head.args(["enrol", "--server", &tail.server, "--token-file", "-", "--identity"]).arg(&identity);
    let mut head = head.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut head.stdin.take().context("standard input")?, token.as_bytes())?;
    let output = ended(head, TIMEOUT)?;
    ensure!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(identity.join("key.pem"))?, key);
    between.pair.drain()?;
    tail.pair.drain()
}

/// Waits until so many devices wait for approval.
fn waits(tail: &Enrolling, count: usize) -> Result<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let list = tail.list()?;
        let requests = list["requests"].as_array().context("requests")?;
        let pending: Vec<_> = requests.iter().filter(|one| one["state"] == "pending").cloned().collect();
        if pending.len() == count {
            return Ok(pending);
        }
        ensure!(begun.elapsed() < TIMEOUT, "{list}");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_operator_approves_or_rejects_and_a_device_that_was_killed_goes_on() -> Result<()> {
    let tail = Enrolling::start(&["--enrol-approval", "operator"])?;
    let (first, second) = (tail.token(&["cam-*"])?, tail.token(&["cam-*"])?);
    let named = |device: &str, token: &str| -> Result<Child> {
        Ok(tail.enrol(device, token).args(["--name", device]).spawn()?)
    };
    let mut killed = named("cam-1", &first)?;
    waits(&tail, 1)?;
    killed.kill()?;
    killed.wait()?;
    let (good, bad) = (named("cam-1", &first)?, named("cam-2", &second)?);
    let pending = waits(&tail, 2)?;
    let key = pending.iter().find(|one| one["name"] == "cam-1").and_then(|one| one["key"].as_str());
    let approved = tail.tail(&["approve", &key.context("a key")?[..20]])?;
    ensure!(approved.status.success(), "{}", said(&approved));
    let rejected = tail.tail(&["reject", "cam-2"])?;
    ensure!(rejected.status.success(), "{}", said(&rejected));
    let (good, bad) = (ended(good, TIMEOUT)?, ended(bad, TIMEOUT)?);
    ensure!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("waiting for approval") && said(&good).contains(key.context("a key")?));
    fails(&bad, NO_CERTIFICATE, &["rejected"]);
    lines_of(&mut tail.run("cam-1"))?;
    fails(&tail.tail(&["approve", "cam-9"])?, 4, &["cam-9", "none waits"]);
    tail.pair.drain()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_enrolments_takes_nothing_from_the_frames_of_devices() -> Result<()> {
    let tail = Enrolling::start(&["--enrol-rate", "20"])?;
    let token: Token = tail.token(&["pi"])?.parse()?;
    tail.enrolled("pi", &token.to_string())?;
    let address = tail.server.replace("localhost", "127.0.0.1").parse()?;
    let flood = async move {
        let mut answered = 0;
        for round in 0..300 {
            let Ok((config, _)) = quic::enrolment_client(token.ca(), &Tuning::default()) else { continue };
            let endpoint = quic::client_endpoint(address, &Tuning::default())?;
            let Ok(connection) = endpoint.connect_with(config, address, "localhost")?.await else { continue };
            let Ok((mut send, mut receive)) = connection.open_bi().await else { continue };
            let request = match round % 3 {
                0 => vec![0xff; 3000],
                1 => vec![1; 100_000],
                _ => EnrolmentRequest::Enrol {
                    token: token.id(),
                    secret: [0; 16],
                    name: None,
                    request: vec![0; 300].into(),
                }
                .encode()?,
            };
            if round % 7 == 0 {
                // Held open without a word.
                std::mem::forget((send, receive, connection, endpoint));
                continue;
            }
            let _ = stream::write_message(&mut send, &request).await;
            if let Ok(reply) = stream::read_message(&mut receive, 1 << 16).await {
                let reply = EnrolmentReply::parse(&reply)?;
                ensure!(matches!(reply, EnrolmentReply::Refused { .. }), "{reply}");
                answered += 1;
            }
        }
        anyhow::Ok(answered)
    };
    let flood = tokio::spawn(flood);
    let mut head = tail.run("pi");
    head.args(["--repeat", "40"]);
    let lines = tokio::task::spawn_blocking(move || lines_of(&mut head)).await??;
    assert!(lines.len() == 40 && lines.iter().all(|line| line["status"] == "answered"), "{lines:?}");
    let answered = flood.await??;
    assert!(answered <= 20, "{answered} answers, with a limit of 20 attempts a minute");
    tail.logs("too many attempts")?;
    let log = tail.pair.log();
    assert!(log.lines().filter(|line| line.contains("enrolment")).count() < 60, "{log}");
    tail.pair.drain()
}

#[test]
fn a_device_renews_while_frames_flow_and_uses_the_new_certificate_for_its_next_connection() -> Result<()> {
    let tail = Enrolling::start(&["--enrol-valid", "16s"])?;
    tail.enrolled("pi", &tail.token(&["pi"])?)?;
    let first = info(&tail.identity("pi"))?;
    let began = Instant::now();
    let mut head = tail.run("pi");
    head.args(["--repeat", "0", "--fps", "10"]);
    head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let head = LiveHead::of(head)?;
    head.hears("the certificate was renewed", 1)?;
    let renewed = info(&tail.identity("pi"))?;
    assert!(renewed.public_key != first.public_key && renewed.until > first.until);
    // The first certificate ends; the connection that it was shown on is closed when the tail looks at its certificates again.
    sleep(Duration::from_secs(17).saturating_sub(began.elapsed()));
    let reload = Command::new("kill").args(["-HUP", &tail.pair.tail_pid().to_string()]).status()?;
    ensure!(reload.success());
    tail.logs("no longer accepted")?;
    head.hears("is back", 1)?;
    head.hears("the certificate was renewed", 2)?;
    sleep(Duration::from_secs(1));
    let (rest, text) = head.interrupt()?;
    let answered = rest.iter().filter(|line| line["status"] == "answered").count();
    let lost: Vec<_> = rest.iter().filter(|line| line["status"] != "answered").collect();
    assert!(answered > 20 && lost.is_empty(), "{answered} answered, lost {lost:?}: {text}");
    assert!(tail.pair.log().matches("certificate issued").count() >= 3, "{}", tail.pair.log());
    tail.pair.drain()
}

#[test]
fn a_device_renews_when_it_is_told_to_and_not_once_it_is_revoked() -> Result<()> {
    let tail = Enrolling::start(&[])?;
    tail.enrolled("pi", &tail.token(&["pi"])?)?;
    let identity = tail.identity("pi");
    let renew = |folder: &Path, args: &[&str]| -> Result<Output> {
        Ok(narrows_pair::head().args(["renew", "--identity"]).arg(folder).args(args).output()?)
    };
    let before = info(&identity)?;
    let output = renew(&identity, &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    let after = info(&identity)?;
    assert!(after.public_key != before.public_key && after.names == before.names);
    assert!(said(&output).contains(&Fingerprint::of(&after.public_key).to_string()), "{}", said(&output));
    lines_of(&mut tail.run("pi"))?;
    // A folder that was copied says nothing of a server.
    let copied = tail.pair.certs().join("devices/device");
    fails(&renew(&copied, &[])?, USAGE, &["--server", "--enrol"]);
    let output = renew(&copied, &["--server", &tail.server])?;
    ensure!(output.status.success(), "{}", said(&output));
    let done =
        narrows_pair::tail().args(["certs", "revoke", "pi", "--dir"]).arg(tail.pair.certs()).output()?;
    ensure!(done.status.success(), "{}", said(&done));
    tail.logs("certificates were read again")?;
    let output = renew(&identity, &[])?;
    assert!(
        !output.status.success() && said(&output).to_lowercase().contains("revoked"),
        "{}",
        said(&output)
    );
    assert_eq!(info(&identity)?, after);
    // By an operator's token for this name the device comes back, with a new key.
    fs::remove_dir_all(&identity)?;
    tail.enrolled("pi", &tail.token(&["pi"])?)?;
    lines_of(&mut tail.run("pi"))?;
    tail.pair.drain()
}

#[test]
fn a_board_that_boots_in_1970_enrols_and_is_told_of_its_clock() -> Result<()> {
    if Command::new("faketime").arg("--version").output().is_err() {
        skipped("enrolment", "faketime (apt install faketime)");
        return Ok(());
    }
    let tail = Enrolling::start(&[])?;
    let token = tail.token(&["pi"])?;
    let plain = tail.enrol("pi", &token);
    let mut head = Command::new("faketime");
    head.args(["-m", "1970-01-02 00:00:00"]).arg(plain.get_program()).args(plain.get_args());
    let output = head.output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("the clock of this device shows 1970-01-0") && text.contains("set-ntp"), "{text}");
    lines_of(&mut tail.run("pi"))?;
    // After the end of the server's certificate nobody is believed.
    let other = tail.enrol("late", &tail.token(&["late"])?);
    let mut head = Command::new("faketime");
    head.args(["-m", "2099-01-02 00:00:00"]).arg(other.get_program()).args(other.get_args());
    fails(&head.output()?, NOT_TRUSTED, &["this device's clock shows", "2099"]);
    tail.pair.drain()
}

#[test]
fn a_tail_that_cannot_enrol_says_why_before_it_serves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let made = |dir: &Path| narrows_pair::tail().args(["certs", "init", "--dir"]).arg(dir).output();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    made(&own)?;
    made(&other)?;
    let check = |ca: &Path| -> Result<Output> {
        let mut tail = narrows_pair::tail();
        tail.args(["serve", "--listen", "127.0.0.1:0", "--enrol", "127.0.0.1:0", "--enrol-ca"]).arg(ca);
        tail.arg("--identity").arg(own.join("server")).arg("--bundle").arg(bundle());
        Ok(tail.args(["--runtime", "/nowhere/libonnxruntime.so"]).output()?)
    };
    fails(&check(&other)?, 4, &["other", "has not signed", "--enrol-ca"]);
    fs::remove_file(own.join("ca.key"))?;
    fails(&check(&own)?, 4, &["ca.key"]);
    fails(&check(&folder.path().join("none"))?, 4, &["none/ca.pem"]);
    Ok(())
}
