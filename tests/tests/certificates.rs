//! Certificates that are renewed, revoked, damaged, of the wrong kind or readable by others, with the real binaries.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{Client, TIMEOUT, bundle, photos, root, said, start};
use narrows_wire::{
    Close, FrameReply,
    identity::Identity,
    quic::{self, Tuning},
};
use tempfile::TempDir;

/// Exit codes, as both binaries document them.
const SUCCESS: i32 = 0;
const BAD_IDENTITY: i32 = 4;
const NO_RUNTIME: i32 = 5;
const CANNOT_LISTEN: i32 = 6;

/// Runs `narrows-tail certs` on the CA in `dir`.
fn certs(dir: &Path, args: &[&str]) -> Result<Output> {
    Ok(narrows_pair::tail().arg("certs").args(args).arg("--dir").arg(dir).output()?)
}

fn made(dir: &Path, args: &[&str]) -> Result<()> {
    let output = certs(dir, args)?;
    ensure!(output.status.success(), "{args:?}: {}", said(&output));
    Ok(())
}

/// A CA with the identities `server` and `devices/device`.
fn authority() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    made(folder.path(), &["init"])?;
    made(folder.path(), &["device", "device"])?;
    Ok(folder)
}

/// A tail that is to end before it loads a network: its library of ONNX Runtime does not exist.
fn serve(identity: &Path, args: &[&str]) -> Result<Output> {
    let mut command = narrows_pair::tail();
    command.args(["serve", "--runtime", "/nowhere/libonnxruntime.so", "--bundle"]).arg(bundle());
    if !args.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    Ok(command.arg("--identity").arg(identity).args(args).current_dir(root()).output()?)
}

fn run(identity: &Path) -> Command {
    let mut command = narrows_pair::head();
    command.args(["run", "--server", "127.0.0.1:9", "--retry-for", "1", "--fallback", "never"]);
    command.arg("--bundle").arg(bundle()).arg("--identity").arg(identity);
    command.arg("--source").arg(photos().join("cat.png"));
    command
}

fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Waits until the tail has logged a text.
fn logs(pair: &Pair, text: &str) -> Result<()> {
    let begun = Instant::now();
    while !pair.log().contains(text) {
        ensure!(begun.elapsed() < TIMEOUT, "`{text}` is not in the log: {}", pair.log());
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

async fn answers(client: &Client, id: u64) -> Result<()> {
    let bundle = Bundle::open(bundle(), Parts::All)?;
    let packet = bundle.read(&bundle.vectors().first().context("the bundle has vectors")?.packet)?;
    let reply = client.classify(id, &packet).await?;
    ensure!(matches!(reply, FrameReply::Answered(_)), "{reply:?}");
    Ok(())
}

#[tokio::test]
async fn a_revoked_device_is_closed_and_refused_and_nobody_else() -> Result<()> {
    let pair = start()?;
    let dir = pair.certs();
    made(&dir, &["device", "other"])?;
    let (lost, other) = (dir.join("devices/device"), dir.join("devices/other"));
    let (stolen, kept) =
        (Client::connect(pair.address(), &lost).await?, Client::connect(pair.address(), &other).await?);
    // A copy of the certificate from before its renewal is revoked as well.
    let old = tempfile::tempdir()?;
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(lost.join(file), old.path().join(file))?;
    }
    made(&dir, &["renew", "device"])?;
    let renewed = Client::connect(pair.address(), &lost).await?;
    let begun = Instant::now();
    made(&dir, &["revoke", "device"])?;
    assert_eq!(stolen.closed().await?, Some(Close::Revoked));
    assert_eq!(renewed.closed().await?, Some(Close::Revoked));
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    answers(&kept, 1).await?;
    answers(&Client::connect(pair.address(), &other).await?, 1).await?;
    for identity in [lost.as_path(), old.path()] {
        assert!(Client::connect(pair.address(), identity).await.is_err(), "{}", identity.display());
    }
    let mut head = pair.head(&bundle());
    head.args(["--retry-for", "2", "--fallback", "never", "--source"]).arg(photos().join("cat.png"));
    let output = head.output()?;
    assert_ne!(output.status.code(), Some(SUCCESS));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("\"answered\""), "{}", said(&output));
    assert!(said(&output).to_lowercase().contains("revoked"), "{}", said(&output));
    pair.drain()
}

#[tokio::test]
async fn after_the_ca_is_replaced_connections_of_the_old_one_are_closed() -> Result<()> {
    let pair = start()?;
    let server = pair.certs().join("server");
    let old = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    answers(&old, 1).await?;
    let authority = authority()?;
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(authority.path().join("server").join(file), server.join(file))?;
    }
    assert_eq!(old.closed().await?, Some(Close::Revoked), "{}", pair.log());
    assert!(pair.log().contains("no longer accepted"), "{}", pair.log());
    let (begun, device) = (Instant::now(), authority.path().join("devices/device"));
    let new = loop {
        match Client::connect(pair.address(), &device).await {
            Ok(client) => break client,
            Err(error) => ensure!(begun.elapsed() < TIMEOUT, "{error:#}: {}", pair.log()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    answers(&new, 1).await?;
    assert!(Client::connect(pair.address(), &pair.certs().join("devices/device")).await.is_err());
    pair.drain()
}

#[tokio::test]
async fn a_list_from_before_a_revocation_lets_nobody_in_again() -> Result<()> {
    let pair = start()?;
    let (dir, list) = (pair.certs(), pair.certs().join("server/crl.pem"));
    made(&dir, &["device", "other"])?;
    made(&dir, &["revoke", "other"])?;
    let older = fs::read(&list)?;
    made(&dir, &["revoke", "device"])?;
    let device = dir.join("devices/device");
    let begun = Instant::now();
    while Client::connect(pair.address(), &device).await.is_ok() {
        ensure!(begun.elapsed() < TIMEOUT, "the list is not read: {}", pair.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fs::write(&list, older)?;
    logs(&pair, "older than the revocation list in force")?;
    assert!(Client::connect(pair.address(), &device).await.is_err(), "{}", pair.log());
    pair.drain()
}

#[tokio::test]
async fn a_damaged_list_leaves_the_old_one_in_force_and_keeps_a_tail_from_starting() -> Result<()> {
    let pair = start()?;
    let (dir, list) = (pair.certs(), pair.certs().join("server/crl.pem"));
    made(&dir, &["device", "other"])?;
    made(&dir, &["revoke", "device"])?;
    logs(&pair, "certificates were read again")?;
    let foreign = authority()?;
    made(foreign.path(), &["revoke", "device"])?;
    for text in [b"damaged".to_vec(), Vec::new(), fs::read(foreign.path().join("crl.pem"))?] {
        fs::write(&list, text)?;
        let (before, begun) = (pair.log().matches("stays in force").count(), Instant::now());
        while pair.log().matches("stays in force").count() == before {
            ensure!(begun.elapsed() < TIMEOUT, "nothing is logged: {}", pair.log());
            sleep(Duration::from_millis(50));
        }
        assert!(Client::connect(pair.address(), &dir.join("devices/device")).await.is_err());
        answers(&Client::connect(pair.address(), &dir.join("devices/other")).await?, 1).await?;
        assert_fails(&serve(&dir.join("server"), &[])?, BAD_IDENTITY, &["crl.pem"]);
    }
    assert!(pair.log().contains("crl.pem"), "{}", pair.log());
    assert_fails(
        &serve(&authority()?.path().join("server"), &["--crl", "/nope/crl.pem"])?,
        BAD_IDENTITY,
        &["/nope/crl.pem", "certs revoke"],
    );
    pair.drain()
}

#[tokio::test]
async fn a_renewed_server_answers_to_another_name_without_a_restart() -> Result<()> {
    let pair = start()?;
    let device = pair.certs().join("devices/device");
    let key = fs::read(pair.certs().join("server/key.pem"))?;
    let named = async || -> Result<()> {
        let config = quic::client_config(&Identity::load(&device)?, &Tuning::default())?;
        let address = pair.address().parse()?;
        let endpoint = quic::client_endpoint(address, &Tuning::default())?;
        endpoint.connect_with(config, address, "other.example")?.await?;
        Ok(())
    };
    let open = Client::connect(pair.address(), &device).await?;
    assert!(named().await.is_err(), "the certificate does not have the name yet");
    made(&pair.certs(), &["server", "--name", "other.example"])?;
    assert_eq!(fs::read(pair.certs().join("server/key.pem"))?, key, "the key is the same");
    let begun = Instant::now();
    while named().await.is_err() {
        ensure!(begun.elapsed() < TIMEOUT, "the tail keeps its old certificate: {}", pair.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answers(&open, 1).await?;
    pair.drain()
}

#[tokio::test]
async fn sighup_reads_the_certificates_again_and_ends_nothing() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let sent = Command::new("bash").args(["-c", &format!("kill -HUP {}", pair.tail_pid())]).status()?;
    assert!(sent.success());
    logs(&pair, "certificates were read again")?;
    answers(&client, 1).await?;
    pair.drain()
}

#[test]
fn a_certificate_for_the_other_side_is_named_with_its_remedy() -> Result<()> {
    let authority = authority()?;
    let (server, device) = (authority.path().join("server"), authority.path().join("devices/device"));
    let output = serve(&device, &[])?;
    assert_fails(&output, BAD_IDENTITY, &["a device's certificate", "certs/server", "certs init"]);
    let output = run(&server).output()?;
    assert_fails(&output, BAD_IDENTITY, &["a server's certificate", "certs device NAME"]);
    Ok(())
}

#[test]
fn keys_that_others_can_read_are_refused_with_the_command_that_mends_them() -> Result<()> {
    let authority = authority()?;
    let (server, device) = (authority.path().join("server"), authority.path().join("devices/device"));
    let keys = [server.join("key.pem"), device.join("key.pem"), authority.path().join("ca.key")];
    for key in &keys {
        fs::set_permissions(key, fs::Permissions::from_mode(0o644))?;
    }
    let chmod = |key: &Path| format!("chmod 600 {}", key.display());
    assert_fails(&serve(&server, &[])?, BAD_IDENTITY, &[&chmod(&keys[0])]);
    assert_fails(&run(&device).output()?, BAD_IDENTITY, &[&chmod(&keys[1])]);
    for args in [&["device", "new"][..], &["renew", "device"], &["revoke", "device"], &["server"]] {
        assert_fails(&certs(authority.path(), args)?, BAD_IDENTITY, &[&chmod(&keys[2])]);
    }
    assert!(!authority.path().join("crl.pem").exists() && !authority.path().join("devices/new").exists());
    Ok(())
}

#[test]
fn the_list_is_a_table_and_json() -> Result<()> {
    let authority = authority()?;
    made(authority.path(), &["device", "door"])?;
    made(authority.path(), &["revoke", "device"])?;
    let table = certs(authority.path(), &["list"])?;
    let table = String::from_utf8(table.stdout)?;
    let line = table.lines().find(|line| line.starts_with("device  device ")).context("the device")?;
    assert!(line.contains("revoked"), "{table}");
    let json: serde_json::Value =
        serde_json::from_slice(&certs(authority.path(), &["list", "--json"])?.stdout)?;
    let entries = json.as_array().context("an array")?;
    let door = entries.iter().find(|entry| entry["name"] == "door").context("the door")?;
    assert!(door["state"] == "valid" && door["kind"] == "device" && door["revoked"].is_null(), "{door}");
    assert!(door["ends"].as_str() > door["begins"].as_str(), "{door}");
    assert!(entries.iter().any(|entry| entry["kind"] == "ca"));
    assert!(entries.iter().any(|entry| entry["name"] == "device" && entry["revoked"].is_string()));
    let output = certs(Path::new("/nope"), &["list"])?;
    assert_fails(&output, BAD_IDENTITY, &["/nope/ca.pem", "certs init"]);
    Ok(())
}

/// The networks cannot be loaded in these runs, so every other exit code shows what was found before.
#[test]
fn what_else_is_wrong_is_found_before_the_networks_are_loaded() -> Result<()> {
    let authority = authority()?;
    let server = authority.path().join("server");
    assert_fails(&serve(&server, &[])?, NO_RUNTIME, &["make runtime"]);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    assert_fails(&serve(&server, &["--listen", &address])?, CANNOT_LISTEN, &[&address, "another program"]);
    let output = serve(&server, &["--listen", "no-such-host.invalid:7461"])?;
    assert_fails(&output, CANNOT_LISTEN, &["no-such-host.invalid:7461"]);
    assert_fails(&serve(&server, &["--listen", "localhost:0"])?, NO_RUNTIME, &[]);
    assert_fails(&serve(&server, &["--port-file", "/nope/port"])?, 1, &["--port-file /nope/port"]);
    assert_fails(&serve(Path::new("/nope"), &[])?, BAD_IDENTITY, &["/nope/ca.pem", "certs init"]);
    assert_fails(&serve(&server, &["--threads", "100000"])?, 2, &["--threads", "0 to 256"]);
    let output = serve(&server, &["--threads", "256", "--workers", "64"])?;
    assert_fails(&output, 2, &["--threads 256", "--workers 64", "at most 1024"]);
    let (link, victim) = (authority.path().join("port"), authority.path().join("victim"));
    fs::write(&victim, "precious")?;
    symlink(&victim, &link)?;
    let link = link.display().to_string();
    assert_fails(&serve(&server, &["--port-file", &link])?, 1, &["--port-file", "a link"]);
    assert_eq!(fs::read(&victim)?, b"precious");
    Ok(())
}
