//! A headless Chromium, driven by the DevTools protocol over pipes (<https://chromedevtools.github.io/devtools-protocol/>).
#![expect(clippy::disallowed_methods, reason = "a browser must answer within a bound")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{TIMEOUT, skipped};

/// A browser with one page, ended when this is dropped.
pub struct Browser {
    process: Child,
    commands: File,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    /// What the page has complained about.
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser; `None`, and one line that says what is missing, where Chromium is not installed.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(test: &str) -> Result<Option<Self>> {
        let places =
            ["chromium", "chromium-browser", "google-chrome"].map(|name| Path::new("/usr/bin").join(name));
        let Some(program) = places.into_iter().find(|place| place.exists()) else {
            skipped(test, "Chromium (apt install chromium)");
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        let pipe = |name: &str| -> Result<PathBuf> {
            let path = profile.path().join(name);
            ensure!(Command::new("mkfifo").arg(&path).status()?.success(), "mkfifo");
            Ok(path)
        };
        let (input, output) = (pipe("in")?, pipe("out")?);
        let script = r#"exec "$0" "${@:3}" about:blank 3<"$1" 4>"$2""#;
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(program).arg(&input).arg(&output);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ]);
        command.args(["--remote-debugging-pipe", "--disable-background-networking", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.path().join("profile").display()));
        // A group of its own, so that its helpers end with it.
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        // Opened to read and write, so that no side waits for the other.
        let open = |path: &Path| File::options().read(true).write(true).open(path);
        let (commands, answers) = (open(&input)?, open(&output)?);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Some(message) = message.ok().and_then(|text| serde_json::from_slice(&text).ok()) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            process,
            commands,
            messages,
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().context("a session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(Some(browser))
    }

    /// Sets the size of the window in pixels of the page, and whether the system is dark.
    ///
    /// # Errors
    /// The browser refuses.
    pub fn resize(&mut self, width: u32, height: u32, is_dark: bool) -> Result<()> {
        let is_phone = width < 600;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": if is_phone { 2 } else { 1 }, "mobile": is_phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).map(drop)
    }

    /// Opens an address.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({"url": address}))?;
        ensure!(opened["errorText"].is_null(), "{address}: {opened}");
        Ok(())
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// It throws.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters)?;
        ensure!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_for(&mut self, expression: &str) -> Result<()> {
        let until = Instant::now() + TIMEOUT;
        while Instant::now() < until {
            if self.value(expression)? == true {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("never: {expression}; {:?}", self.complaints)
    }

    /// Writes a picture of the whole page as PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", parameters)?;
        let mut decoder =
            Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(File::create(file)?).spawn()?;
        let text = picture["data"].as_str().context("a picture")?;
        decoder.stdin.take().context("its input is piped")?.write_all(text.as_bytes())?;
        ensure!(decoder.wait()?.success(), "base64");
        Ok(())
    }

    /// What the page has complained about: exceptions, errors on the console, requests that failed.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Calls a method and returns its result.
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes())?;
        let until = Instant::now() + TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).with_context(|| format!("{method}: no answer"))?;
            if message["id"] == self.last {
                ensure!(message["error"].is_null(), "{method}: {message}");
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let details = &message["params"];
        let is_bad = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(details["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => matches!(details["entry"]["level"].as_str(), Some("error" | "warning")),
            Some("Network.loadingFailed") => details["canceled"] != true,
            _ => false,
        };
        if is_bad {
            self.complaints.push(message.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}
