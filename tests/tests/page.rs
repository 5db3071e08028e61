//! The page on the device: over HTTP as hostile clients speak it, and in a browser.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_pair::terminate;
use narrows_tests::{TIMEOUT, browser::Browser, bundle, ended, photos, root, said, start};
use serde_json::Value;

/// How long the end of a head may take: two seconds, and the same for a busy machine.
const END: Duration = Duration::from_secs(4);
const BAD_FLAG: i32 = 2;

/// A head that answers photos on its own without end and serves its page.
struct Head {
    process: Option<Child>,
    address: SocketAddr,
    /// How many cameras it has.
    cameras: usize,
}

fn command(flags: &[&str]) -> Command {
    let mut head = narrows_pair::head();
    head.args([
        "run", "--path", "local", "--tasks", "classify", "--repeat", "0", "--lines", "none", "--device",
        "gate",
    ]);
    head.arg("--bundle").arg(bundle()).arg("--source").arg(photos()).args(flags);
    head.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    head
}

impl Head {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command.spawn()?;
        let mut told = BufReader::new(process.stderr.take().context("its errors are piped")?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            ensure!(told.read_line(&mut line)? > 0, "it has ended");
            if let Some((_, address)) = line.split_once("the page is at http://") {
                break address.trim().trim_end_matches('/').parse()?;
            }
        };
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let cameras = command.get_args().filter(|word| *word == "--source").count();
        let head = Head { process: Some(process), address, cameras };
        for _ in 0..TIMEOUT.as_millis() / 50 {
            let (_, body) = head.get("/status")?;
            let status: Value = serde_json::from_slice(&body)?;
            let cameras = status["cameras"].as_object().context("cameras")?;
            let answered = |camera: &Value| camera["answered"].as_u64() > Some(0);
            if !cameras.is_empty() && cameras.values().all(answered) && cameras.len() >= head.cameras {
                return Ok(head);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("no answer")
    }

    /// Sends bytes and returns everything that comes back until the connection ends.
    fn raw(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        // A server that has not read everything resets the connection after its answer.
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    }

    /// The head and the body of an answer.
    fn get(&self, path: &str) -> Result<(String, Vec<u8>)> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address))
    }

    fn ask(&self, request: &str) -> Result<(String, Vec<u8>)> {
        let answer = self.raw(request.as_bytes())?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("an answer")?;
        Ok((String::from_utf8(answer[..end].to_vec())?, answer[end + 4..].to_vec()))
    }

    fn end(mut self) -> Result<()> {
        terminate(self.process.as_ref().context("it runs")?.id())?;
        let child = self.process.take().context("it runs")?;
        ensure!(ended(child, END)?.status.code() == Some(143), "another exit code");
        Ok(())
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_page_its_figures_and_its_pictures_are_served() -> Result<()> {
    let head = Head::start(command(&["--page", "127.0.0.1:0"]))?;
    let (top, body) = head.get("/")?;
    let html = String::from_utf8(body)?;
    assert!(top.starts_with("HTTP/1.1 200 OK\r\n") && top.contains("content-type: text/html"), "{top}");
    for rule in
        ["content-security-policy: default-src 'none'", "x-frame-options: DENY", "cache-control: no-store"]
    {
        assert!(top.contains(rule), "{rule}: {top}");
    }
    let nonce = html.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a nonce")?;
    assert!(nonce.len() == 32 && top.contains(&format!("script-src 'nonce-{nonce}'")), "{top}");
    assert!(!html.contains("//cdn") && !html.contains("https://") && !html.contains("{nonce}"));

    let status: Value = serde_json::from_slice(&head.get("/status")?.1)?;
    assert_eq!(status["device"], "gate", "{status}");
    let (top, picture) = head.get("/cameras/camera/picture.jpg")?;
    assert!(
        top.contains("200 OK") && top.contains("x-picture: ") && picture.starts_with(b"\xff\xd8\xff"),
        "{top}"
    );
    let number = top.split("x-picture: ").nth(1).and_then(|rest| rest.lines().next()).context("a number")?;
    let (later, _) = head.get(&format!("/cameras/camera/picture.jpg?after={number}"))?;
    assert!(later.contains("200 OK") && !later.contains(&format!("x-picture: {number}\r")), "{later}");

    for (path, wanted) in [
        (
            "/events",
            &["event: status\ndata: {", "event: answer\ndata: {\"camera\":\"camera\",\"line\":{\"frame\":"][..],
        ),
        ("/cameras/camera/stream.mjpeg", &["--narrows\r\ncontent-type: image/jpeg"]),
    ] {
        let mut stream = TcpStream::connect(head.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !wanted.iter().all(|part| text.contains(part)) {
            let count = stream.read(&mut bytes)?;
            ensure!(count > 0, "{path} ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
    head.end()
}

#[test]
fn figures_of_a_split_name_path_level_and_bytes() -> Result<()> {
    let pair = start()?;
    let mut command = pair.head(&bundle());
    command.arg("--source").arg(root().join("bench/photos/road")).args(["--repeat", "0", "--lines", "none"]);
    command.args(["--page", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let head = Head::start(command)?;
    let status: Value = serde_json::from_slice(&head.get("/status")?.1)?;
    let camera = &status["cameras"]["camera"];
    assert_eq!((camera["path"].as_str(), camera["level"].as_u64()), (Some("split"), Some(1)), "{status}");
    assert!(camera["bytes"]["sent"].as_u64() > Some(1000), "{status}");
    if let Some(mut browser) = Browser::start("page of a split")? {
        let shots = shots()?;
        browser.resize(1280, 900, false)?;
        browser.open(&format!("http://{}/", head.address))?;
        browser.wait_for("document.querySelector('.view img')?.naturalWidth > 300")?;
        browser.wait_for("document.querySelector('.camera dl').textContent.includes('split')")?;
        browser.wait_for("document.querySelectorAll('#answers tbody tr').length > 0")?;
        let connected = format!("{}Connected", pair.address());
        browser.wait_for(&format!(
            "document.querySelector('#board dl').textContent.startsWith('Server{connected}for ')"
        ))?;
        browser.picture(&shots.join("split.png"))?;
        assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    }
    head.end()?;
    pair.drain()
}

#[test]
fn each_camera_has_a_card_of_its_own() -> Result<()> {
    let mut command = narrows_pair::head();
    command.args(["run", "--path", "local", "--tasks", "classify", "--repeat", "0", "--lines", "none"]);
    command.arg("--bundle").arg(bundle()).args(["--device", "gate", "--page", "127.0.0.1:0"]);
    for (name, file) in [("front-door", "orange.jpg"), ("yard", "squirrel.jpg")] {
        command.arg("--source").arg(format!("{name}={}", photos().join(file).display()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let head = Head::start(command)?;
    let status: Value = serde_json::from_slice(&head.get("/status")?.1)?;
    for (name, class) in [("front-door", "orange"), ("yard", "fox squirrel")] {
        assert_eq!(status["cameras"][name]["class"]["label"], class, "{status}");
        assert!(head.get(&format!("/cameras/{name}/picture.jpg"))?.0.contains("200 OK"));
    }
    if let Some(mut browser) = Browser::start("page of two cameras")? {
        let shots = shots()?;
        browser.resize(1280, 900, false)?;
        browser.open(&format!("http://{}/", head.address))?;
        browser.wait_for(
            "[...document.querySelectorAll('.view img')].filter((view) => view.naturalWidth).length === 2",
        )?;
        browser.wait_for("document.querySelectorAll('#answers tbody tr').length === 2")?;
        browser.picture(&shots.join("two.png"))?;
        assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    }
    head.end()
}

/// Where pictures of the page are put, to be looked at.
fn shots() -> Result<PathBuf> {
    let folder = root().join("target/page");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[test]
fn the_page_shows_what_waits_on_disk() -> Result<()> {
    let Some(mut browser) = Browser::start("page of a spool")? else { return Ok(()) };
    let (folder, pair) = (tempfile::TempDir::new()?, start()?);
    // Nothing listens there, so every frame is answered here and waits for a server.
    let mut command = pair.head_to(&bundle(), "127.0.0.1:7");
    command.args([
        "--retry-for",
        "0",
        "--tasks",
        "classify",
        "--lines",
        "none",
        "--repeat",
        "0",
        "--fps",
        "5",
    ]);
    command.args(["--page", "127.0.0.1:0", "--source"]).arg(photos());
    command.arg("--spool").arg(folder.path().join("spool"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let head = Head::start(command)?;
    for (name, width) in [("spool-wide", 1280), ("spool-phone", 390)] {
        browser.resize(width, 900, false)?;
        browser.open(&format!("http://{}/", head.address))?;
        browser.wait_for("document.querySelector('#spool')?.hidden === false")?;
        browser.wait_for("Number(document.querySelector('#spool dd').textContent) > 0")?;
        browser.wait_for("document.querySelector('#spool-folder').textContent.endsWith('spool')")?;
        browser
            .wait_for("document.querySelector('#board dl').textContent.includes('Why the server is away')")?;
        let fits = browser.value("document.documentElement.scrollWidth - innerWidth <= 0")?;
        assert_eq!(fits, true, "{name} is too wide");
        browser.picture(&shots()?.join(format!("{name}.png")))?;
    }
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    head.end()?;
    pair.drain().map(drop)
}

#[test]
fn what_is_no_request_of_a_browser_is_refused_by_its_status() -> Result<()> {
    let head = Head::start(command(&["--page", "127.0.0.1:0", "--page-name", "cam.example"]))?;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nhost: CAM.example:80\r\nconnection: close\r\n\r\n", "200"),
        ("GET /status HTTP/1.1\r\nhost: [::1]:80\r\nconnection: close\r\n\r\n", "200"),
        ("HEAD /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "200"),
        ("PUT / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc", "413"),
        ("GET /../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "404"),
        ("GET /cameras/other/picture.jpg HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "404"),
        ("GET /cameras/%zz/picture.jpg HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let (top, body) = head.ask(request)?;
        assert!(top.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {top}");
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert!(head.ask(&long)?.0.starts_with("HTTP/1.1 431 "));
    // Two requests in one packet get two answers.
    let two = "GET /status HTTP/1.1\r\nhost: localhost\r\n\r\nGET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let both = String::from_utf8_lossy(&head.raw(two.as_bytes())?).into_owned();
    assert!(both.contains("HTTP/1.1 200 OK") && both.contains("HTTP/1.1 404 Not Found"), "{both}");
    head.end()
}

#[test]
fn connections_are_limited_and_free_again() -> Result<()> {
    let head = Head::start(command(&["--page", "127.0.0.1:0"]))?;
    let held: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(head.address)?;
            stream.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    let mut refused = 0;
    for mut stream in &held {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut start = [0; 12];
        let answered = stream.read_exact(&mut start).is_ok();
        refused += usize::from(!answered || &start == b"HTTP/1.1 503");
    }
    assert_eq!(refused, 8);
    drop(held);
    for _ in 0..100 {
        if head.get("/status").is_ok_and(|(top, _)| top.contains("200 OK")) {
            return head.end();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no connection is freed")
}

#[test]
fn the_page_is_shown_to_this_device_alone_unless_told_otherwise() -> Result<()> {
    let output = command(&["--page", "0.0.0.0:0"]).output()?;
    assert_eq!(output.status.code(), Some(BAD_FLAG));
    assert!(said(&output).contains("--page-allow-remote"), "{}", said(&output));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let output = command(&["--page", &taken.local_addr()?.to_string()]).output()?;
    assert_eq!(output.status.code(), Some(BAD_FLAG));
    assert!(said(&output).contains("in use"), "{}", said(&output));
    let mut child = command(&["--page", "0.0.0.0:0", "--page-allow-remote"]).spawn()?;
    let mut told = BufReader::new(child.stderr.take().context("its errors are piped")?).lines();
    let is_warned = told.by_ref().map_while(Result::ok).any(|line| line.contains("there is no password"));
    terminate(child.id())?;
    ended(child, END)?;
    assert!(is_warned, "{:?}", told.map_while(Result::ok).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_browser_shows_the_page_without_complaint() -> Result<()> {
    let Some(mut browser) = Browser::start("page in a browser")? else { return Ok(()) };
    let shots = shots()?;
    let head = Head::start(command(&["--page", "127.0.0.1:0"]))?;
    let address = format!("http://{}/", head.address);
    for (name, width, height, is_dark) in [
        ("wide-light", 1280, 900, false),
        ("wide-dark", 1280, 900, true),
        ("phone-light", 390, 844, false),
        ("phone-dark", 390, 844, true),
    ] {
        browser.resize(width, height, is_dark)?;
        browser.open(&address)?;
        browser.wait_for("document.querySelector('.view img')?.naturalWidth > 300")?;
        browser.wait_for("document.querySelectorAll('#answers tbody tr').length >= 12")?;
        browser.wait_for("document.querySelector('#link').textContent === 'live'")?;
        browser.wait_for("document.querySelector('.camera dd').textContent.endsWith(' ms')")?;
        browser
            .wait_for("document.querySelector('svg path.line').getAttribute('d')?.split('L').length > 20")?;
        assert_eq!(
            browser.value("document.documentElement.scrollWidth - innerWidth <= 0")?,
            true,
            "{name} is too wide"
        );
        browser.picture(&shots.join(format!("{name}.png")))?;
        // The headline is the answer of the picture that is shown, which the overlay shows too.
        let same = "[...cameras.values()].every((own) => {
            const line = own.lines.get(own.number);
            return !line || own.answer.textContent.startsWith(line.classify[0].label);
        })";
        assert_eq!(browser.value(same)?, true, "{name}: another headline than picture");
        // Pictures move.
        let source = browser.value("document.querySelector('.view img').src")?;
        browser.wait_for(&format!("document.querySelector('.view img').src !== {source}"))?;
    }
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    // The device goes away, and says so.
    head.end()?;
    browser.wait_for("document.querySelector('#link').className === 'bad'")?;
    browser.wait_for("document.querySelector('.camera .state').textContent === 'unknown'")?;
    browser.wait_for("getComputedStyle(document.querySelector('main')).opacity === '0.5'")?;
    browser.picture(&shots.join("gone.png"))
}
