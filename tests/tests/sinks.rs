//! Lines in a file and at a web address: nothing holds up the frames, and what is lost is counted.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{TIMEOUT, bundle, ended, lines, photos, said, skipped};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;

/// Exit code where a result could not be written.
const DEVICE: i32 = 7;
/// How long the end of a head may take: two seconds, and the same for a busy machine.
const END: Duration = Duration::from_secs(4);

/// A head that answers photos on its own.
fn head(flags: &[&str]) -> Command {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    head.arg("--source").arg(photos()).args(flags);
    head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    head
}

/// The number of lines in a file, each of which must be JSON.
fn count(file: &Path) -> Result<usize> {
    let text = fs::read_to_string(file)?;
    let parsed: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    Ok(parsed.with_context(|| file.display().to_string())?.len())
}

/// Waits until `happened`.
fn wait_for(what: &str, happened: impl Fn() -> bool) -> Result<()> {
    for _ in 0..TIMEOUT.as_millis() / 20 {
        if happened() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("not in time: {what}")
}

fn terminated(child: Child) -> Result<Output> {
    terminate(child.id())?;
    let output = ended(child, END)?;
    ensure!(output.status.code() == Some(143), "{}", said(&output));
    Ok(output)
}

#[test]
fn lines_go_to_a_file_that_is_renamed_when_it_is_full() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("answers.jsonl");
    let path = file.display().to_string();
    let run =
        head(&["--repeat", "10", "--lines", &path, "--rotate-size", "4K", "--rotate-keep", "3"]).output()?;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(run.stdout.is_empty());
    let frames = lines(&head(&[]).output()?)?.len() * 10;
    assert!(said(&run).contains(&format!("answers.jsonl: {frames} delivered, 0 lost")), "{}", said(&run));
    let names: Vec<_> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        assert!(count(name)? > 0 && fs::metadata(name)?.len() <= 4096, "{}", name.display());
    }
    let last = fs::read_to_string(&file)?;
    let last: Value = serde_json::from_str(last.lines().last().context("a line")?)?;
    assert_eq!(last["frame"], frames as u64 - 1);

    let none = head(&["--lines", "none"]).output()?;
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0));
    let folder = head(&["--lines", &folder.path().display().to_string()]).output()?;
    assert_eq!(folder.status.code(), Some(DEVICE));
    assert!(said(&folder).contains("no regular file"), "{}", said(&folder));
    Ok(())
}

#[test]
fn a_file_that_is_removed_is_begun_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("answers.jsonl");
    let child = head(&["--repeat", "0", "--lines", &file.display().to_string()]).spawn()?;
    wait_for("the first line", || count(&file).is_ok_and(|lines| lines > 0))?;
    fs::rename(&file, folder.path().join("moved"))?;
    wait_for("a new file", || count(&file).is_ok_and(|lines| lines > 0))?;
    terminated(child)?;
    assert!(count(&folder.path().join("moved"))? > 0 && count(&file)? > 0);
    Ok(())
}

#[test]
fn a_full_disk_loses_lines_that_are_counted_until_there_is_room_again() -> Result<()> {
    let script = r#"
        set -e
        mount -t tmpfs -o size=64k none "$1"
        ("$0" "${@:2}" --lines "$1/answers.jsonl" > /dev/null 2> "$1.said") & head=$!
        until grep -q 'No space left' "$1.said"; do sleep 0.1; done
        : > "$1/answers.jsonl"
        until grep -q 'works again' "$1.said"; do sleep 0.1; done
        kill -TERM $(pgrep -P $head || echo $head); wait $head || true
        cp "$1/answers.jsonl" "$1.kept"
    "#;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    fs::create_dir(&disk)?;
    let inner = head(&["--repeat", "0"]);
    let mut outer = Command::new("unshare");
    outer.args(["--map-root-user", "--mount", "bash", "-c"]);
    let probe =
        Command::new("unshare").args(["--map-root-user", "--mount", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        skipped("sinks: full disk", "user namespaces (sysctl kernel.unprivileged_userns_clone=1)");
        return Ok(());
    }
    let program = inner.get_program();
    outer.arg(script).arg(program).arg(&disk).args(inner.get_args());
    let output = ended(outer.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?, TIMEOUT)?;
    let told = fs::read_to_string(folder.path().join("disk.said"))?;
    assert!(output.status.success(), "{}\n{told}", said(&output));
    assert!(count(&folder.path().join("disk.kept"))? > 0, "{told}");
    let line = told.lines().find(|line| line.contains(" delivered, ")).context("a line in the summary")?;
    assert!(!line.contains(" 0 lost") && !line.contains(" 0 delivered"), "{told}");
    Ok(())
}

/// A request that a server got: its head and its body.
type Request = (String, Value);

/// How a server answers.
#[derive(Clone)]
enum Manner {
    /// With a status line after a time.
    Status(&'static str, Duration),
    /// Never.
    Silent,
}

/// Serves HTTP on a listener; every request is sent on.
fn serve(listener: TcpListener, manner: Manner, tls: Option<Arc<rustls::ServerConfig>>) -> Receiver<Request> {
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (sender, manner, tls) = (sender.clone(), manner.clone(), tls.clone());
            thread::spawn(move || -> Result<()> {
                match tls {
                    None => exchange(stream.try_clone()?, stream, &manner, &sender),
                    Some(config) => {
                        let stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config)?, stream);
                        let stream = std::sync::Mutex::new(stream);
                        exchange(Shared(&stream), Shared(&stream), &manner, &sender)
                    }
                }
            });
        }
    });
    requests
}

/// Reads and writes the same stream by turns.
struct Shared<'a>(&'a std::sync::Mutex<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>);

impl Read for Shared<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(bytes)
    }
}

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).flush()
    }
}

fn exchange(
    input: impl Read,
    mut output: impl Write,
    manner: &Manner,
    requests: &std::sync::mpsc::Sender<Request>,
) -> Result<()> {
    let mut input = BufReader::new(input);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(input.read_line(&mut head)? > 0, "closed");
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.context("a length")?];
        input.read_exact(&mut body)?;
        requests.send((head, serde_json::from_slice(&body)?))?;
        match manner {
            Manner::Silent => thread::sleep(TIMEOUT),
            Manner::Status(status, after) => {
                thread::sleep(*after);
                output.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
                output.flush()?;
            }
        }
    }
}

fn listen() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = format!("http://{}/hook/s3cret", listener.local_addr()?);
    Ok((listener, address))
}

const OK: Manner = Manner::Status("204 No Content", Duration::ZERO);

#[test]
fn a_webhook_gets_each_line_with_the_headers_of_the_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("headers"), "Authorization: Bearer abc\n")?;
    let (listener, address) = listen()?;
    fs::write(folder.path().join("url"), format!("{address}\n"))?;
    let requests = serve(listener, OK, None);
    let (url, headers) = (folder.path().join("url"), folder.path().join("headers").display().to_string());
    let output =
        head(&["--webhook", &format!("@{}", url.display()), "--webhook-headers", &headers]).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    let posts: Vec<Request> = requests.try_iter().collect();
    assert_eq!(posts.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>(), lines);
    for (head, _) in &posts {
        let lower = head.to_ascii_lowercase();
        assert!(
            head.starts_with("POST /hook/s3cret HTTP/1.1\r\n") && lower.contains("authorization: bearer abc"),
            "{head}"
        );
        assert!(lower.contains("content-type: application/json"), "{head}");
    }
    assert!(said(&output).contains(&format!("{} delivered, 0 lost", lines.len())), "{}", said(&output));
    assert!(!said(&output).contains("s3cret"), "{}", said(&output));
    Ok(())
}

#[test]
fn a_webhook_for_answers_alone_gets_no_failures() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("a.jpg"), "no image")?;
    fs::copy(photos().join("orange.jpg"), folder.path().join("b.jpg"))?;
    let source = folder.path().display().to_string();
    for (only, wanted) in [("answered", "answered"), ("unanswered", "failed")] {
        let (listener, address) = listen()?;
        let requests = serve(listener, OK, None);
        let mut command = narrows_pair::head();
        command
            .args(["run", "--path", "local", "--tasks", "classify", "--source", &source, "--bundle"])
            .arg(bundle());
        let output = command.args(["--webhook", &address, "--webhook-only", only]).output()?;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let posts: Vec<Request> = requests.try_iter().collect();
        assert_eq!(posts.len(), 1);
        assert_eq!(posts[0].1["status"], wanted);
    }
    Ok(())
}

#[test]
fn a_slow_webhook_loses_lines_and_holds_up_no_frame() -> Result<()> {
    for manner in [Manner::Status("200 OK", Duration::from_millis(500)), Manner::Silent] {
        let (listener, address) = listen()?;
        let requests = serve(listener, manner, None);
        let mut child = head(&["--repeat", "0", "--webhook", &address]).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        for _ in 0..150 {
            output.next().context("a line")??;
        }
        let rest = thread::spawn(move || output.count());
        let output = terminated(child)?;
        rest.join().map_err(|_| anyhow::anyhow!("no reader"))?;
        assert!(requests.try_iter().count() < 150);
        let line = said(&output);
        let line =
            line.lines().find(|line| line.starts_with("webhook at ")).context("a line in the summary")?;
        assert!(line.contains(" lost") && !line.contains(" 0 lost"), "{line}");
    }
    Ok(())
}

#[test]
fn the_end_of_the_source_waits_for_a_slow_webhook() -> Result<()> {
    let (listener, address) = listen()?;
    let requests = serve(listener, Manner::Status("200 OK", Duration::from_millis(700)), None);
    let output = head(&["--webhook", &address]).output()?;
    let lines = lines(&output)?.len();
    assert_eq!(requests.try_iter().count(), lines, "{}", said(&output));
    assert!(said(&output).contains(&format!("{lines} delivered, 0 lost")), "{}", said(&output));
    Ok(())
}

#[test]
fn a_webhook_that_comes_back_gets_the_newest_line() -> Result<()> {
    let (listener, address) = listen()?;
    let place = listener.local_addr()?;
    drop(listener);
    let mut child = head(&["--repeat", "0", "--webhook", &address]).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
    for _ in 0..100 {
        output.next().context("a line")??;
    }
    let rest = thread::spawn(move || output.count());
    let requests = serve(TcpListener::bind(place)?, OK, None);
    let (_, first) = requests.recv_timeout(TIMEOUT)?;
    assert!(first["frame"].as_u64() > Some(0), "{first}");
    requests.recv_timeout(TIMEOUT)?;
    let output = terminated(child)?;
    rest.join().map_err(|_| anyhow::anyhow!("no reader"))?;
    assert!(
        said(&output).contains("cannot be reached") && said(&output).contains("works again"),
        "{}",
        said(&output)
    );
    Ok(())
}

#[test]
fn a_webhook_that_refuses_is_not_asked_twice_for_a_line() -> Result<()> {
    for (status, text) in [("400 Bad Request", "answers 400"), ("308 Permanent Redirect", "answers 308")] {
        let (listener, address) = listen()?;
        let requests = serve(listener, Manner::Status(status, Duration::ZERO), None);
        let output = head(&["--webhook", &address]).output()?;
        let lines = lines(&output)?.len();
        assert_eq!(
            (output.status.code(), requests.try_iter().count()),
            (Some(0), lines),
            "{}",
            said(&output)
        );
        assert!(said(&output).contains(&format!("0 delivered, {lines} lost; {text}")), "{}", said(&output));
    }
    Ok(())
}

#[test]
fn a_webhook_with_tls_is_trusted_by_its_own_ca_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, certificate.pem())?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    let (listener, _) = listen()?;
    let address = format!("https://localhost:{}/", listener.local_addr()?.port());
    let requests = serve(listener, OK, Some(Arc::new(config)));
    let output = head(&["--webhook", &address, "--webhook-ca", &ca.display().to_string()]).output()?;
    let lines = lines(&output)?.len();
    assert_eq!(requests.try_iter().count(), lines, "{}", said(&output));
    let other = head(&["--webhook", &address]).output()?;
    assert_eq!(requests.try_iter().count(), 0);
    let told = said(&other);
    assert!(
        told.contains(&format!("0 delivered, {lines} lost")) || told.contains("--webhook-ca: "),
        "{told}"
    );
    Ok(())
}
