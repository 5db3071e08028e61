//! Whatever keeps a head from its server: with a local network every frame is answered with the reason, without one the
//! exit code says who is to blame, and nothing that anybody could send is believed to last.
#![expect(clippy::disallowed_methods, reason = "what is tried again takes time")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::{Pair, terminate};
use narrows_tests::{bundle, changed_bundle, lines, photos, runtime, said};
use narrows_wire::{
    HelloRefusal, Refusal, RefusalCode,
    identity::Identity,
    limits::MAX_HELLO,
    quic::{self, Tuning},
    stream::{read_message, write_message},
};
use quinn::Endpoint;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const BAD_BUNDLE: i32 = 3;
const BAD_IDENTITY: i32 = 4;
const NO_SERVER: i32 = 6;

/// Seconds for which the heads of these tests look for a server.
const PATIENCE: u64 = 2;

/// A CA and the identities that it signed.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Ca(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// An identity that is valid in these years and trusts `trusted`.
    fn identity(&self, usage: ExtendedKeyUsagePurpose, years: (i32, i32), trusted: &Ca) -> Result<TempDir> {
        let folder = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        fs::write(folder.path().join("ca.pem"), trusted.0.pem())?;
        fs::write(folder.path().join("cert.pem"), params.signed_by(&key, &self.0)?.pem())?;
        let file = folder.path().join("key.pem");
        fs::write(&file, key.serialize_pem())?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(folder)
    }

    fn server(&self) -> Result<TempDir> {
        self.identity(ExtendedKeyUsagePurpose::ServerAuth, (2000, 2150), self)
    }

    fn device(&self) -> Result<TempDir> {
        self.identity(ExtendedKeyUsagePurpose::ClientAuth, (2000, 2150), self)
    }
}

/// A server that takes connections and does one thing with each.
struct Fake {
    address: SocketAddr,
    // Dropping it closes the socket.
    _runtime: Runtime,
}

impl Fake {
    /// A server with this identity that completes handshakes, and answers each hello with `refusal` if there is one.
    fn start(identity: &Path, refusal: Option<HelloRefusal>) -> Result<Self> {
        let identity = Identity::load(identity)?;
        let tuning = Tuning::default();
        let config = quic::server_config(&identity, &tuning)?;
        let open = || Ok(quic::server_endpoint("127.0.0.1:0".parse()?, config, &identity, &tuning)?);
        Self::run(open, refusal.map(|refusal| refusal.encode()).transpose()?)
    }

    /// A server of another protocol: it ends every handshake with an alert, before any certificate.
    fn stranger(identity: &Path) -> Result<Self> {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let chain = vec![CertificateDer::from_pem_file(identity.join("cert.pem"))?];
        let key = PrivateKeyDer::from_pem_file(identity.join("key.pem"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        tls.alpn_protocols = vec![b"another/1".to_vec()];
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        Self::run(|| Ok(Endpoint::server(config, "127.0.0.1:0".parse()?)?), None)
    }

    fn run(open: impl FnOnce() -> Result<Endpoint>, hello_reply: Option<Vec<u8>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let context = runtime.enter();
        let endpoint = open()?;
        drop(context);
        let address = endpoint.local_addr()?;
        runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let reply = hello_reply.clone();
                tokio::spawn(async move {
                    let connection = incoming.await?;
                    if let Some(reply) = reply {
                        let (mut send, mut receive) = connection.accept_bi().await?;
                        read_message(&mut receive, MAX_HELLO).await?;
                        write_message(&mut send, &reply).await?;
                    }
                    connection.closed().await;
                    anyhow::Ok(())
                });
            }
        });
        Ok(Fake { address, _runtime: runtime })
    }
}

fn head(server: &str, identity: &Path, more: &[&str]) -> Result<(Output, Duration)> {
    let begin = Instant::now();
    let mut command = narrows_pair::head();
    command.args(["run", "--server", server, "--retry-for", &PATIENCE.to_string(), "--bundle"]).arg(bundle());
    command.arg("--identity").arg(identity).arg("--source").arg(photos().join("cat.png")).args(more);
    Ok((command.stdin(Stdio::null()).output()?, begin.elapsed()))
}

/// A head with a local network answers and names the reason; the parts of it are `words`.
fn answers_itself(server: &str, identity: &Path, words: &[&str]) -> Result<String> {
    let (output, _) = head(server, identity, &[])?;
    ensure!(output.status.code() == Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    ensure!(lines.len() == 1 && lines[0]["path"] == "local", "{lines:?}");
    let reason = lines[0]["fallback"].as_str().context("a reason")?;
    for word in words {
        ensure!(reason.contains(word), "no `{word}` in: {reason}");
    }
    ensure!(!reason.contains(char::is_control), "{reason:?}");
    let told = said(&output);
    ensure!(!told.contains(|letter: char| letter.is_control() && letter != '\n'), "{told:?}");
    Ok(told)
}

/// A head without a local network ends with `code`; it has tried for its whole patience if `patient`.
fn ends_with(server: &str, identity: &Path, code: i32, patient: bool, words: &[&str]) -> Result<()> {
    let (output, took) = head(server, identity, &["--fallback", "never"])?;
    let told = said(&output);
    ensure!(output.status.code() == Some(code), "{:?} and not {code}: {told}", output.status.code());
    for word in words {
        ensure!(told.contains(word), "no `{word}` in: {told}");
    }
    ensure!(!patient || took >= Duration::from_secs(PATIENCE), "it gave up after {took:?}: {told}");
    Ok(())
}

#[test]
fn a_foreign_ca_is_not_believed_to_last_and_names_the_identity() -> Result<()> {
    let (ours, foreign) = (Ca::new()?, Ca::new()?);
    let fake = Fake::start(foreign.server()?.path(), None)?;
    let (server, device) = (fake.address.to_string(), ours.device()?);
    let words = ["no trust", "not signed by the CA", "--identity"];
    answers_itself(&server, device.path(), &words)?;
    ends_with(&server, device.path(), BAD_IDENTITY, true, &words)
}

#[test]
fn a_certificate_of_another_time_names_the_clock() -> Result<()> {
    let ours = Ca::new()?;
    let device = ours.device()?;
    for (years, word) in [((2150, 2151), "before"), ((1999, 2000), "after")] {
        let identity = ours.identity(ExtendedKeyUsagePurpose::ServerAuth, years, &ours)?;
        let fake = Fake::start(identity.path(), None)?;
        let server = fake.address.to_string();
        let (from, until) = (years.0.to_string(), years.1.to_string());
        let words = ["this device's clock shows", word, &from, &until];
        answers_itself(&server, device.path(), &words)?;
        ends_with(&server, device.path(), BAD_IDENTITY, true, &words)?;
    }
    Ok(())
}

#[test]
fn a_refused_handshake_of_a_stranger_ends_nothing() -> Result<()> {
    let ours = Ca::new()?;
    let fake = Fake::stranger(ours.server()?.path())?;
    let (server, device) = (fake.address.to_string(), ours.device()?);
    answers_itself(&server, device.path(), &["refused the handshake"])?;
    ends_with(&server, device.path(), NO_SERVER, true, &["no server at", "refused the handshake"])
}

#[test]
fn a_server_that_does_not_accept_the_device_is_believed() -> Result<()> {
    let (ours, other) = (Ca::new()?, Ca::new()?);
    let fake =
        Fake::start(ours.identity(ExtendedKeyUsagePurpose::ServerAuth, (2000, 2150), &other)?.path(), None)?;
    let (server, device) = (fake.address.to_string(), ours.device()?);
    answers_itself(&server, device.path(), &["no trust", "refused the handshake"])?;
    ends_with(&server, device.path(), BAD_IDENTITY, false, &["refused the handshake", "--identity"])
}

#[test]
fn the_text_of_a_refusal_is_quoted_and_a_full_server_is_told_as_full() -> Result<()> {
    let ours = Ca::new()?;
    let device = ours.device()?;
    let text = "no\n\u{1b}[31mINFO answered\u{202e}";
    let quoted = r#""no\n\u{1b}[31mINFO answered\u{202e}""#;
    for (code, exit, patient) in
        [(RefusalCode::Task, NO_SERVER, false), (RefusalCode::Connections, NO_SERVER, true)]
    {
        let refusal =
            HelloRefusal { refusal: Refusal::new(code, text), oldest: 1, newest: 1, serves: Vec::new() };
        let fake = Fake::start(ours.server()?.path(), Some(refusal))?;
        let server = fake.address.to_string();
        let name = code.to_string();
        answers_itself(&server, device.path(), &[&name, quoted])?;
        ends_with(&server, device.path(), exit, patient, &[&name, quoted])?;
    }
    Ok(())
}

#[test]
fn another_bundle_is_named_and_answered_here() -> Result<()> {
    let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])?;
    let other = changed_bundle("manifest.toml", false, |text| text.push(b'\n'))?;
    let run = |more: &[&str]| {
        let mut command = pair.head(other.path());
        command.arg("--source").arg(photos().join("cat.png")).args(more).output()
    };
    let output = run(&[])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    assert_eq!(lines[0]["path"], "local");
    assert!(lines[0]["fallback"].as_str().is_some_and(|why| why.contains("another bundle")), "{lines:?}");
    let output = run(&["--fallback", "never"])?;
    assert_eq!(output.status.code(), Some(BAD_BUNDLE), "{}", said(&output));
    Ok(())
}

#[test]
fn a_server_whose_certificate_was_mended_is_used_again() -> Result<()> {
    let ours = Ca::new()?;
    let (device, good) = (ours.device()?, ours.server()?);
    let future = ours.identity(ExtendedKeyUsagePurpose::ServerAuth, (2150, 2151), &ours)?;
    let fake = Fake::start(future.path(), None)?;
    let address = fake.address.to_string();
    let mut command = narrows_pair::head();
    command
        .args(["run", "--server", &address, "--repeat", "0", "--tasks", "classify", "--bundle"])
        .arg(bundle());
    command.arg("--identity").arg(device.path()).arg("--source").arg(photos());
    let mut head = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(head.stdout.take().context("an output")?);
    let mut lines = output.lines().map(|line| anyhow::Ok(serde_json::from_str::<Value>(&line?)?));
    let first = lines.next().context("a line")??;
    assert_eq!(first["path"], "local", "{first}");
    drop(fake);
    let runtime = runtime();
    let mut tail = Command::new(narrows_pair::tail().get_program());
    tail.args(["serve", "--listen", &address, "--device", "cpu", "--bundle"]).arg(bundle());
    tail.arg("--identity").arg(good.path()).arg("--runtime").arg(runtime).stderr(Stdio::null());
    let mut tail = tail.spawn()?;
    let begin = Instant::now();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line["path"] == "split" || begin.elapsed() > Duration::from_secs(60));
    tail.kill()?;
    tail.wait()?;
    terminate(head.id())?;
    drop(lines);
    head.wait()?;
    assert_eq!(found.context("the head ended")?["path"], "split");
    Ok(())
}

#[test]
fn frames_that_a_busy_server_refuses_are_answered_here() -> Result<()> {
    let runtime = runtime().display().to_string();
    let args =
        ["--device", "cpu", "--runtime", &runtime, "--queue", "1", "--batch", "1", "--in-flight", "64"];
    let pair = Pair::start(&bundle(), &args)?;
    let run = |more: &[&str]| {
        let mut command = pair.head(&bundle());
        command.args(["--tasks", "classify", "--in-flight", "32", "--repeat", "8", "--source"]).arg(photos());
        command.args(more).output()
    };
    let output = run(&[])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let own: Vec<Value> = lines(&output)?.into_iter().filter(|line| line["path"] == "local").collect();
    assert!(
        own.iter().all(|line| line["fallback"].as_str().is_some_and(|why| why.contains("busy"))),
        "{own:?}"
    );
    let output = run(&["--fallback", "never"])?;
    let refused = lines(&output)?.iter().filter(|line| line["status"] == "refused").count();
    // A tail on a fast machine may have time for all of them.
    assert_eq!(output.status.code(), Some(i32::from(refused > 0)), "{}", said(&output));
    Ok(())
}
