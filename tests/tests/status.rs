//! The status of the server: health, metrics and the dashboard, over HTTP as hostile clients speak it, and in a browser.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{Client, TIMEOUT, browser::Browser, bundle, photos, root, runtime, skipped};
use narrows_wire::{FrameReply, Payload, Truncatable};
use serde_json::Value;

/// A tail with a status listener, and where that is.
struct Tail {
    pair: Pair,
    status: SocketAddr,
}

impl Tail {
    fn start(flags: &[&str]) -> Result<Tail> {
        let library = runtime().display().to_string();
        let common = ["--device", "cpu", "--runtime", &library, "--status", "127.0.0.1:0"];
        let pair = Pair::start(&bundle(), &[&common, flags].concat())?;
        let log = pair.log();
        let line = log.lines().find(|line| line.contains("status listening")).context("a line of the log")?;
        let address = line
            .split(['=', '"'])
            .find_map(|word| word.split_whitespace().next()?.parse::<SocketAddr>().ok());
        Ok(Tail { status: address.context("an address")?, pair })
    }

    /// Sends bytes and returns everything that comes back until the connection ends.
    fn raw(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = TcpStream::connect(self.status)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        // A server that has not read everything resets the connection after its answer.
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The head and the body of an answer.
    fn get(&self, path: &str) -> Result<(String, String)> {
        let answer = self.raw(format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes())?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{path}: {answer}"))?;
        Ok((head.to_owned(), body.to_owned()))
    }

    fn overview(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get("/status")?.1)?)
    }

    /// The samples of the metrics, each with its labels, by the text before its value.
    fn samples(&self) -> Result<BTreeMap<String, f64>> {
        let (head, body) = self.get("/metrics")?;
        ensure!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((name.to_owned(), value.parse()?))
        };
        lines.map(sample).collect()
    }

    /// Waits until the sum of the samples of this name, with these labels, is as large.
    fn reaches(&self, name: &str, labels: &[&str], least: f64) -> Result<f64> {
        for _ in 0..TIMEOUT.as_millis() / 100 {
            let sum = sum(&self.samples()?, name, labels);
            if sum >= least {
                return Ok(sum);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("{name} does not reach {least}: {:#?}", self.samples()?)
    }

    fn device(&self, name: &str) -> Result<()> {
        let mut certs = narrows_pair::tail();
        certs.args(["certs", "device", name, "--dir"]).arg(self.pair.certs());
        ensure!(certs.stdout(Stdio::null()).status()?.success(), "certs device");
        Ok(())
    }

    /// The command of a head of this name that sends photos.
    fn head(&self, name: &str, flags: &[&str]) -> Command {
        let mut head = narrows_pair::head();
        head.args(["run", "--server", self.pair.address(), "--bundle"]).arg(bundle());
        head.arg("--identity")
            .arg(self.pair.certs().join("devices").join(name))
            .arg("--source")
            .arg(photos());
        head.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        head
    }
}

fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of_name = samples.iter().filter(|(key, _)| key.split('{').next() == Some(name));
    of_name.filter(|(key, _)| labels.iter().all(|label| key.contains(label))).map(|(_, value)| value).sum()
}

/// The names of metrics in docs/METRICS.md.
fn documented() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/METRICS.md"))?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let kinds = ["counter", "gauge", "histogram"];
    let of_metric = rows.filter(|(_, rest)| kinds.iter().any(|kind| rest.starts_with(kind)));
    Ok(of_metric.map(|(name, _)| name.to_owned()).collect())
}

#[tokio::test]
async fn the_metrics_are_those_of_the_document_and_add_up() -> Result<()> {
    let tail = Tail::start(&["--offload", "--status-devices", "2"])?;
    tail.device("second")?;
    tail.device("third")?;
    for (device, flags) in [
        ("device", &["--path", "split", "--tasks", "classify"][..]),
        ("second", &["--path", "image"]),
        ("third", &["--path", "split"]),
    ] {
        tail.head(device, flags).status()?;
    }
    let client = Client::connect(tail.pair.address(), &tail.pair.certs().join("devices/device")).await?;
    let opened = Bundle::open(bundle(), Parts::All)?;
    let packet = opened.read(&opened.vectors().first().context("the bundle has vectors")?.packet)?;
    let refused = client.classify(1, b"no packet").await?;
    assert!(matches!(refused, FrameReply::Refused { .. }), "{refused:?}");
    let payload = Payload::Truncatable(Truncatable { wait: TIMEOUT, packet });
    let answered = client.classify_payload(2, payload).await?;
    assert!(matches!(answered, FrameReply::Answered(_)), "{answered:?}");
    let (_, text) = tail.get("/metrics")?;
    let exposed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned()))
        .collect();
    assert_eq!(exposed, documented()?);
    let samples = tail.samples()?;
    for name in &exposed {
        let has = samples.keys().any(|key| {
            key.strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_']))
        });
        assert!(has, "{name} has no sample");
    }
    let of = |name: &str, labels: &[&str]| sum(&samples, name, labels);
    let answered = "outcome=\"answered\"";
    let requests = "narrows_inference_requests_total";
    assert!(of(requests, &[answered, "device=\"device\""]) > 1.0);
    assert_eq!(of(requests, &["outcome=\"refused\"", "reason=\"bad_packet\"", "device=\"device\""]), 1.0);
    assert_eq!(
        of("narrows_packet_groups_answered_total", &[]),
        of("narrows_packet_groups_encoded_total", &[])
    );
    for stage in ["request", "decode", "queue", "infer", "answer"] {
        let count = of(&format!("narrows_inference_{stage}_duration_seconds_count"), &[]);
        assert_eq!(count, of(requests, &[answered]), "{stage}");
    }
    let time = |stage: &str| of(&format!("narrows_inference_{stage}_duration_seconds_sum"), &[]);
    let stages: f64 = ["decode", "queue", "infer", "answer"].map(time).iter().sum();
    assert!((time("request") - stages).abs() < 1e-6 * stages, "{} {stages}", time("request"));
    assert_eq!(
        of("narrows_inference_accepted_total", &[]),
        of(requests, &[]) - of(requests, &["outcome=\"not_accepted\""])
            + of("narrows_inference_in_flight", &[])
    );
    // The third device has no metrics of its own.
    assert!(of("narrows_inference_accepted_total", &["device=\"other\""]) > 0.0);
    assert!(!text.contains("third"), "{text}");
    assert!(of("narrows_inference_accepted_total", &["path=\"image\"", "device=\"second\""]) > 0.0);
    assert!(of("narrows_inference_batch_size_sum", &["path=\"split\"", "task=\"classify\""]) > 0.0);
    // Its end in the future, its beginning in the past.
    assert!(
        of("narrows_certificate_expiry_timestamp_seconds", &["cert.pem"])
            > of("process_start_time_seconds", &[])
    );
    assert_eq!(of("narrows_connections_opened_total", &[]), 4.0);
    check_with_promtool(&text)?;
    let log = tail.pair.log();
    let address = tail.status;
    tail.pair.drain().with_context(|| log)?;
    assert!(TcpStream::connect(address).is_err(), "the status ends with the server");
    Ok(())
}

/// Has promtool check the text, where it is installed.
fn check_with_promtool(text: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        skipped("metrics by promtool", "promtool (apt install prometheus)");
        return Ok(());
    };
    promtool.stdin.take().context("its input is piped")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn the_server_is_ready_until_its_drain_begins_and_live_to_its_end() -> Result<()> {
    let tail = Tail::start(&["--drain-timeout", "20000"])?;
    let (live, body) = tail.get("/v2/health/live")?;
    assert!(live.starts_with("HTTP/1.1 200 ") && body == "{\"live\":true}", "{live} {body}");
    let (ready, body) = tail.get("/v2/health/ready")?;
    assert!(ready.starts_with("HTTP/1.1 200 ") && body.contains("\"ready\":true"), "{ready} {body}");
    assert_eq!(sum(&tail.samples()?, "narrows_ready", &[]), 1.0);
    // A slow frame keeps the drain busy: a head that keeps sending.
    let mut head = tail.head("device", &["--repeat", "0", "--tasks", "segment"]).spawn()?;
    tail.reaches("narrows_inference_requests_total", &["answered"], 1.0)?;
    ensure!(
        Command::new("kill").args(["-TERM", &tail.pair.tail_pid().to_string()]).status()?.success(),
        "no signal"
    );
    let mut states = BTreeSet::new();
    for _ in 0..400 {
        let Ok((top, body)) = tail.get("/v2/health/ready") else { break };
        states.insert((top.contains(" 200 "), body.contains("draining")));
        std::thread::sleep(Duration::from_millis(2));
    }
    head.kill()?;
    head.wait()?;
    // Ready as long as the signal was on its way; not ready and draining after it.
    states.remove(&(true, false));
    assert!(states.is_empty() || states == BTreeSet::from([(false, true)]), "{states:?}");
    Ok(())
}

#[test]
fn a_server_that_loads_its_networks_is_live_and_not_ready() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let certs = folder.path().join("certs");
    let mut init = narrows_pair::tail();
    ensure!(
        init.args(["certs", "init", "--dir"]).arg(&certs).stdout(Stdio::null()).status()?.success(),
        "certs init"
    );
    // A library that never opens: a FIFO without a writer.
    let library = folder.path().join("libonnxruntime.so");
    ensure!(Command::new("mkfifo").arg(&library).status()?.success(), "mkfifo");
    let log = folder.path().join("log");
    let mut tail = narrows_pair::tail()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--status",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--bundle",
        ])
        .arg(bundle())
        .arg("--identity")
        .arg(certs.join("server"))
        .arg("--runtime")
        .arg(&library)
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let check = || -> Result<()> {
        let said = || fs::read_to_string(&log).unwrap_or_default();
        for _ in 0..TIMEOUT.as_millis() / 50 {
            if said().contains("\"bundle\"") {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = said();
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let line =
            lines.iter().find(|line| line["fields"]["message"] == "status listening").context("a line")?;
        assert_eq!(line["level"], "INFO", "{line}");
        let address = line["fields"]["address"].as_str().context("an address")?;
        let mut answers = Vec::new();
        for path in ["/v2/health/live", "/v2/health/ready", "/metrics", "/status"] {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            answers.push(answer);
        }
        assert!(answers[0].starts_with("HTTP/1.1 200 "), "{}", answers[0]);
        assert!(answers[1].starts_with("HTTP/1.1 503 ") && answers[1].contains("starting"), "{}", answers[1]);
        assert!(
            answers[2].contains("\nnarrows_ready 0") && answers[3].contains("\"starting\""),
            "{answers:?}"
        );
        Ok(())
    };
    let checked = check();
    tail.kill()?;
    tail.wait()?;
    checked
}

#[test]
fn what_is_no_request_for_the_status_is_refused() -> Result<()> {
    let tail = Tail::start(&[])?;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\r\n", "200"),
        ("HEAD /metrics HTTP/1.1\r\nconnection: close\r\n\r\n", "200"),
        ("HEAD /v2/health/ready HTTP/1.0\r\n\r\n", "200"),
        ("GET /v2/health/ready?verbose HTTP/1.0\r\n\r\n", "200"),
        ("PUT / HTTP/1.1\r\nconnection: close\r\n\r\n", "405"),
        ("DELETE /metrics HTTP/1.1\r\nconnection: close\r\n\r\n", "405"),
        ("POST /metrics HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "413"),
        ("GET /../../etc/passwd HTTP/1.1\r\nconnection: close\r\n\r\n", "404"),
        ("GET /%2e%2e/etc/passwd HTTP/1.1\r\nconnection: close\r\n\r\n", "404"),
        ("GET //metrics HTTP/1.1\r\nconnection: close\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400"),
    ] {
        let answer = tail.raw(request.as_bytes())?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        let body = answer.split_once("\r\n\r\n").context("an answer")?.1;
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request:?}: {body}");
        assert!(!answer.contains("root:"));
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert!(tail.raw(many.as_bytes())?.starts_with("HTTP/1.1 431 "));
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert!(tail.raw(long.as_bytes())?.starts_with("HTTP/1.1 431 "));
    // Clients that say nothing hold places for a while, and the health of the server answers again when they go.
    let held: Vec<_> = (0..32).map(|_| TcpStream::connect(tail.status)).collect::<Result<_, _>>()?;
    for _ in 0..200 {
        // The last of them may not have been accepted yet.
        if tail.raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")?.starts_with("HTTP/1.1 503 ") {
            break;
        }
    }
    drop(held);
    for _ in 0..100 {
        if tail.get("/v2/health/live").is_ok_and(|(top, _)| top.contains("200 OK")) {
            return tail.pair.drain();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no connection is freed")
}

#[test]
fn a_client_that_is_silent_or_slow_is_let_go() -> Result<()> {
    let tail = Tail::start(&[])?;
    let ends = |bytes: &[u8]| -> Result<String> {
        let mut stream = TcpStream::connect(tail.status)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(bytes)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| ends(b""));
        let slow = scope.spawn(|| ends(b"GET /metr"));
        let idle = scope.spawn(|| ends(b"GET /v2/health/live HTTP/1.1\r\n\r\n"));
        assert_eq!(silent.join().expect("no panic")?, "");
        assert!(slow.join().expect("no panic")?.starts_with("HTTP/1.1 408 "));
        assert!(idle.join().expect("no panic")?.starts_with("HTTP/1.1 200 "));
        Ok(())
    })
}

#[test]
fn an_address_that_cannot_be_listened_on_ends_the_start() -> Result<()> {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    let error = Pair::start(&bundle(), &["--status", &address]).err().context("an error")?.to_string();
    assert!(error.contains("exit status: 6") && error.contains(&address), "{error}");
    Ok(())
}

#[test]
fn the_expressions_of_the_grafana_dashboard_are_right() -> Result<()> {
    let file = root().join("deploy/grafana/narrows-tail.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let panels = dashboard["panels"].as_array().context("panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(expressions.len() > 20);
    // As rules that record them; Grafana fills in its variables.
    let rule = |(at, text): (usize, &&str)| {
        let text = text.replace("$__rate_interval", "1m").replace("$instance", ".+");
        serde_json::json!({ "record": format!("panel:{at}"), "expr": text })
    };
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let groups = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yml");
    fs::write(&file, groups.to_string())?;
    let Ok(output) = Command::new("promtool").args(["check", "rules"]).arg(&file).output() else {
        skipped("expressions of the Grafana dashboard", "promtool (apt install prometheus)");
        return Ok(());
    };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where pictures of the dashboard are put, to be looked at.
fn shots() -> Result<PathBuf> {
    let folder = root().join("target/page");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The sizes of windows in which the dashboard is looked at: name, width, height, and whether the system is dark.
const WINDOWS: [(&str, u32, u32, bool); 4] = [
    ("wide-light", 1280, 900, false),
    ("wide-dark", 1280, 900, true),
    ("phone-light", 390, 844, false),
    ("phone-dark", 390, 844, true),
];

#[test]
fn the_dashboard_shows_heads_and_comes_back_after_a_restart() -> Result<()> {
    let Some(mut browser) = Browser::start("dashboard in a browser")? else { return Ok(()) };
    let shots = shots()?;
    let tail = Tail::start(&[])?;
    let address = format!("http://{}/", tail.status);
    browser.resize(1280, 900, false)?;
    browser.open(&address)?;
    browser.wait_for("document.querySelector('#state')?.textContent === 'ready'")?;
    browser.wait_for("!document.querySelector('#none').hidden")?;
    browser.picture(&shots.join("status-empty.png"))?;
    browser.resize(390, 844, false)?;
    browser.picture(&shots.join("status-empty-phone.png"))?;
    tail.device("gate-north")?;
    let mut heads = vec![
        tail.head("device", &["--repeat", "0", "--tasks", "classify"]).spawn()?,
        tail.head("gate-north", &["--repeat", "0", "--fps", "2", "--tasks", "segment"]).spawn()?,
    ];
    let shown = (|| -> Result<()> {
        for (name, width, height, is_dark) in WINDOWS {
            browser.resize(width, height, is_dark)?;
            browser.open(&address)?;
            browser.wait_for("document.querySelectorAll('#devices tbody tr').length === 2")?;
            browser.wait_for("typeof devices !== 'undefined' && devices.get('gate-north')?.answered > 1")?;
            browser.wait_for("typeof devices !== 'undefined' && devices.get('device')?.rate > 0 && devices.get('device').p95 > 0")?;
            browser
                .wait_for("document.querySelector('[data-device=device]').textContent.includes('split')")?;
            browser.wait_for("document.querySelector('#legend').textContent.includes('network')")?;
            browser.wait_for("document.querySelector('#networks dd').textContent !== ''")?;
            browser.wait_for("document.querySelector('#certificates').textContent.includes('ca.pem')")?;
            browser.wait_for("document.querySelector('#link').textContent === 'live'")?;
            let fits = "document.documentElement.scrollWidth - innerWidth <= 0";
            assert_eq!(browser.value(fits)?, true, "{name} is too wide");
            browser.picture(&shots.join(format!("status-{name}.png")))?;
        }
        Ok(())
    })();
    for head in &mut heads {
        head.kill()?;
        head.wait()?;
    }
    shown?;
    browser.wait_for("[...devices.values()].every((own) => own.connections === 0)")?;
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    // The server goes away, and another one comes at the same place.
    let status = tail.status.to_string();
    tail.pair.drain()?;
    browser.wait_for("document.querySelector('#link').className === 'bad'")?;
    browser.wait_for("getComputedStyle(document.querySelector('main')).opacity === '0.5'")?;
    let library = runtime().display().to_string();
    let again = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &library, "--status", &status])?;
    browser.wait_for("document.querySelector('#link').textContent === 'live'")?;
    browser.wait_for("document.querySelector('#state').textContent === 'ready' && devices.size === 0")?;
    again.drain()
}

#[test]
fn the_dashboard_holds_two_hundred_devices_and_writes_names_as_text() -> Result<()> {
    let Some(mut browser) = Browser::start("dashboard of many devices")? else { return Ok(()) };
    let (shots, tail) = (shots()?, Tail::start(&[])?);
    tail.overview()?;
    // The page of a server that has many devices, one of a hostile name: what the server says, with more devices in it.
    let fill = r#"(() => {
        const state = { ...latest, changes: true, device_count: 201, devices: [] };
        for (let at = 0; at < 200; at++) state.devices.push({
            name: "camera-" + at, connections: at % 9 ? 1 : 0, remote: "10.1.2." + at + ":50432", seen: state.time - (at % 13 ? at % 3 : at * 60),
            rate: at % 9 && at % 13 ? at % 31 : 0, path: at % 5 ? "split" : "image", level: at % 5 ? at % 4 : null, p50: 8 + at % 7, p95: 12 + at % 40,
            bytes: 4000 + 37 * at, answered: at * 1234, refused: at % 17 ? 0 : at, refusal: at % 17 ? null : "budget_spent", until: state.time + at * 86400,
        });
        state.devices.push({ name: "<img src=x onerror=alert(1)>", connections: 1, remote: null, seen: state.time, rate: 1, path: null, level: null, p50: null,
            p95: null, bytes: null, answered: 0, refused: 1, refusal: "<b>no</b>", until: null });
        show(state);
        return devices.size;
    })()"#;
    for (name, width, height, is_dark) in WINDOWS {
        browser.resize(width, height, is_dark)?;
        browser.open(&format!("http://{}/", tail.status))?;
        browser.wait_for("typeof latest !== 'undefined' && latest?.state === 'ready'")?;
        assert_eq!(browser.value(fill)?, 201);
        let rows = "document.querySelectorAll('#devices tbody tr').length";
        assert_eq!(browser.value(rows)?, if width > 600 { 20 } else { 8 });
        browser.picture(&shots.join(format!("status-many-{name}.png")))?;
        browser.value("$('more').click()")?;
        assert_eq!(browser.value(rows)?, 201);
        assert_eq!(
            browser.value("document.querySelectorAll('#devices img, #devices b').length")?,
            0,
            "escaped"
        );
        assert_eq!(browser.value("document.documentElement.scrollWidth - innerWidth <= 0")?, true, "{name}");
        let filter =
            "(() => { $('filter').value = 'camera-19'; $('filter').dispatchEvent(new Event('input'));
            return document.querySelectorAll('#devices tbody tr').length; })()";
        assert_eq!(browser.value(filter)?, 11, "camera-19 and camera-190 to camera-199");
        browser.picture(&shots.join(format!("status-filtered-{name}.png")))?;
    }
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    tail.pair.drain()
}
