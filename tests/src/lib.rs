//! Shared parts of the tests that run the real binaries: the shipped bundle, copies of it with an error in one place, and a
//! client that sends any bytes to a tail. The fuzz targets are in `fuzz/`.

pub mod broker;
pub mod browser;
mod fleet;
mod live;
mod processes;
mod python;
pub mod schema;
mod service_tail;
mod steady;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_models::{Bundle, Digest};
use narrows_pair::Pair;
use narrows_wire::{
    BundleId, Close, FrameReply, Hello, HelloReply, Payload, Query, Request, TaskRequest,
    identity::Identity,
    limits::MAX_REPLY,
    quic::{self, Tuning},
    stream,
};
use tempfile::TempDir;

pub use self::{
    fleet::Fleet,
    live::{LiveHead, check_order, live_command, processes_with},
    processes::{after, can_read_only, output_within, read_only, skipped},
    python::python_with,
    service_tail::ServiceTail,
    steady::SteadyHead,
};

/// The time that a test waits for an answer or another event.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The folder of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The folder of the shipped bundle.
#[must_use]
pub fn bundle() -> PathBuf {
    root().join("models/bundles/lite2")
}

/// A folder of files as boards, cameras and phones deliver them; its README.md says what is right for each.
#[must_use]
pub fn inputs() -> PathBuf {
    root().join("tests/inputs")
}

/// The folder of the demo's photos.
#[must_use]
pub fn photos() -> PathBuf {
    root().join("bench/photos")
}

/// The library of ONNX Runtime that `make runtime` unpacks.
#[must_use]
pub fn runtime() -> PathBuf {
    root().join(".runtime/libonnxruntime.so")
}

/// Starts the tail with the shipped bundle on the CPU, and makes an identity for a device.
///
/// # Errors
/// The tail does not start.
pub fn start() -> Result<Pair> {
    Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])
}

/// A copy of the shipped bundle in which the bytes of one part are changed. With `forged` the part's digest in the manifest
/// is changed as well, so that the digests are right and only the content is wrong.
///
/// # Errors
/// An error of the file system.
pub fn changed_bundle(part: &str, forged: bool, change: impl FnOnce(&mut Vec<u8>)) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    copy(&bundle(), folder.path())?;
    let path = folder.path().join(part);
    let mut bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let before = Digest::of(&bytes).to_string();
    change(&mut bytes);
    let after = Digest::of(&bytes).to_string();
    fs::write(&path, bytes)?;
    if forged {
        let manifest = folder.path().join("manifest.toml");
        fs::write(&manifest, fs::read_to_string(&manifest)?.replace(&before, &after))?;
    }
    Ok(folder)
}

/// Makes a bundle in a new folder at `to`: the shipped one with another name and version in its manifest. Its other files are links.
///
/// # Errors
/// An error of the file system.
pub fn bundle_of_version(to: &Path, name: &str, version: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(bundle())? {
        let entry = entry?;
        if entry.file_name() != "manifest.toml" {
            std::os::unix::fs::symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let manifest = fs::read_to_string(bundle().join("manifest.toml"))?;
    let manifest = manifest.replacen("name = \"lite2\"", &format!("name = \"{name}\""), 1).replacen(
        "version = \"0.1.0\"",
        &format!("version = \"{version}\""),
        1,
    );
    Ok(fs::write(to.join("manifest.toml"), manifest)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?
        } else {
            fs::copy(entry.path(), to).map(drop)?
        }
    }
    Ok(())
}

/// Waits for a process that must end within `limit`, and returns what it wrote to its pipes.
///
/// # Errors
/// An error if it is still running then; it is killed.
pub fn ended(mut child: Child, limit: Duration) -> Result<Output> {
    let (id, (done, ended)) = (child.id(), std::sync::mpsc::channel());
    // Its pipes are read while it runs, so that it is not held up by them.
    drop(child.stdin.take());
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(limit) {
        Ok(output) => Ok(output?),
        Err(_) => {
            Command::new("kill").args(["-9", &id.to_string()]).status()?;
            anyhow::bail!("the process has not ended within {limit:?}")
        }
    }
}

/// The text that a command wrote to standard error.
#[must_use]
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON lines that a head wrote to standard output.
///
/// # Errors
/// An error of the parser that names the line.
pub fn lines(output: &Output) -> Result<Vec<serde_json::Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Runs a head that must succeed; returns the JSON lines that it wrote to standard output.
///
/// # Errors
/// It cannot be started, it fails, or it wrote something else.
pub fn lines_of(head: &mut Command) -> Result<Vec<serde_json::Value>> {
    let output = head.output()?;
    anyhow::ensure!(output.status.code() == Some(0), "{}", said(&output));
    lines(&output)
}

/// A connection to a tail that sends any bytes.
pub struct Client {
    connection: quinn::Connection,
    // Dropping the endpoint would close the connection.
    _endpoint: quinn::Endpoint,
}

impl Client {
    /// Connects to `address` with the identity in `folder` and sends a hello for the shipped bundle.
    ///
    /// # Errors
    /// An error if the connection fails or the hello is refused.
    pub async fn connect(address: &str, folder: &Path) -> Result<Self> {
        Self::connect_with(address, folder, &Tuning::default()).await
    }

    /// Does the same with other settings of the transport.
    ///
    /// # Errors
    /// An error if the connection fails or the hello is refused.
    pub async fn connect_with(address: &str, folder: &Path, tuning: &Tuning) -> Result<Self> {
        let digest = *Bundle::open(bundle(), narrows_models::Parts::Head)?.digest().bytes();
        let client = Self::dial(address, quic::client_config(&Identity::load(folder)?, tuning)?).await?;
        let hello = Hello::new(vec![BundleId(digest)], vec!["classify".into()]).encode()?;
        let answer = client.exchange(&hello).await?;
        match HelloReply::parse(&answer)? {
            HelloReply::Welcome(_) => Ok(client),
            HelloReply::Refused(refusal) => anyhow::bail!("{refusal}"),
        }
    }

    /// The QUIC connection.
    #[must_use]
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Connects with any settings and sends nothing.
    ///
    /// # Errors
    /// An error if the connection fails.
    pub async fn dial(address: &str, config: quinn::ClientConfig) -> Result<Self> {
        let address: SocketAddr = address.parse()?;
        let endpoint = quic::client_endpoint(address, &Tuning::default())?;
        let connection = endpoint.connect_with(config, address, "localhost")?.await?;
        Ok(Client { connection, _endpoint: endpoint })
    }

    /// Waits until the tail closes the connection; returns the protocol's code if it gave one.
    ///
    /// # Errors
    /// An error if it stays open for [`TIMEOUT`].
    pub async fn closed(&self) -> Result<Option<Close>> {
        let end = tokio::time::timeout(TIMEOUT, self.connection.closed()).await;
        Ok(quic::close_code(&end.context("the connection stays open")?))
    }

    /// Sends `bytes` on a new stream and reads the answer.
    ///
    /// # Errors
    /// An error if there is no answer within [`TIMEOUT`].
    pub async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let exchange = async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            // The tail may answer and stop the stream before it has read everything.
            let sent = stream::write_message(&mut send, bytes).await;
            let answer = stream::read_message(&mut receive, MAX_REPLY).await;
            sent.and(Ok(()))?;
            anyhow::Ok(answer?)
        };
        tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?
    }

    /// Sends a packet and queries its most probable classes.
    ///
    /// # Errors
    /// Those of [`Client::exchange`], and for an answer that is malformed.
    pub async fn classify(&self, id: u64, packet: &[u8]) -> Result<FrameReply> {
        self.classify_payload(id, Payload::Packet(packet.to_vec())).await
    }

    /// Sends a payload and queries its most probable classes.
    ///
    /// # Errors
    /// Those of [`Client::exchange`], and for an answer that is malformed.
    pub async fn classify_payload(&self, id: u64, payload: Payload) -> Result<FrameReply> {
        let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }];
        let request = Request { id, bundle: 0, budget: None, task_requests, payload };
        Ok(FrameReply::parse(&self.exchange(&request.encode()?).await?)?)
    }
}
