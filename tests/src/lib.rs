//! Proof that the parts hold together: the tests of this crate run the real binaries and read the real tree.
//!
//! Here is what they share: the shipped bundle, copies of it that are wrong in one place, and a client that speaks the
//! wire without the head's good manners. The fuzz targets are in `fuzz/`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_models::{Bundle, Digest};
use narrows_wire::{
    BundleId, FrameReply, Hello, HelloReply, Payload, Query, Request, TaskRequest,
    identity::Identity,
    limits::MAX_REPLY,
    quic::{self, Tuning},
    stream,
};
use tempfile::TempDir;

/// How long a test waits for an answer that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The shipped bundle's folder.
pub fn bundle() -> PathBuf {
    root().join("models/bundles/lite2")
}

/// The demo's photos.
pub fn photos() -> PathBuf {
    root().join("bench/photos")
}

/// ONNX Runtime as `make runtime` unpacks it.
pub fn runtime() -> PathBuf {
    root().join(".runtime/libonnxruntime.so")
}

/// A copy of the shipped bundle with the bytes of one part changed.
///
/// With `forged` the manifest's digest is changed too, so that the digests hold and only the content is wrong.
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

/// What a command wrote to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON lines that a head wrote to standard output.
pub fn lines(output: &Output) -> Result<Vec<serde_json::Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// A connection that has said hello and sends whatever bytes it is given.
pub struct Client {
    connection: quinn::Connection,
    // Dropping the endpoint would close the connection.
    _endpoint: quinn::Endpoint,
}

impl Client {
    /// Connects to `address` with the identity in `folder` and says hello for the shipped bundle.
    pub async fn connect(address: &str, folder: &Path) -> Result<Self> {
        let digest = *Bundle::open(bundle(), narrows_models::Parts::Head)?.digest().bytes();
        let client =
            Self::dial(address, quic::client_config(&Identity::load(folder)?, &Tuning::default())?).await?;
        let hello = Hello::new(vec![BundleId(digest)], vec!["classify".into()]).encode()?;
        let answer = client.exchange(&hello).await?;
        anyhow::ensure!(
            matches!(HelloReply::parse(&answer)?, HelloReply::Welcome(_)),
            "the hello was refused"
        );
        Ok(client)
    }

    /// Connects with any settings and says nothing.
    pub async fn dial(address: &str, config: quinn::ClientConfig) -> Result<Self> {
        let address: SocketAddr = address.parse()?;
        let endpoint = quic::client_endpoint(address, &Tuning::default())?;
        let connection = endpoint.connect_with(config, address, "localhost")?.await?;
        Ok(Client { connection, _endpoint: endpoint })
    }

    /// Sends `bytes` on a stream of their own and reads the answer.
    pub async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let exchange = async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            // The tail may answer and stop the stream before it has read everything.
            let sent = stream::write_message(&mut send, bytes).await;
            let answer = stream::read_message(&mut receive, MAX_REPLY).await;
            sent.and(Ok(()))?;
            anyhow::Ok(answer?)
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
    }

    /// Asks for the class of one packet.
    pub async fn classify(&self, id: u64, packet: &[u8]) -> Result<FrameReply> {
        self.ask(id, Payload::Packet(packet.to_vec())).await
    }

    /// Asks for the class of whatever the payload holds.
    pub async fn ask(&self, id: u64, payload: Payload) -> Result<FrameReply> {
        let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }];
        let request = Request { id, bundle: 0, budget: None, task_requests, payload };
        Ok(FrameReply::parse(&self.exchange(&request.encode()?).await?)?)
    }
}
