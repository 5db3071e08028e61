//! The layers of `model.sig`: sigstore bundle, DSSE envelope, in-toto statement.

use std::path::{Component, Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use super::PublicKey;
use crate::Digest;

/// The file of the signature.
pub const SIGNATURE: &str = "model.sig";

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// What is not signed: the signature, and files of git, as the specification's tool leaves out by default.
pub(super) const IGNORED: [&str; 5] = [SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore"];

/// A payload with its signature.
pub(super) struct Envelope {
    payload: String,
    signature: Vec<u8>,
    /// What the signer says which key it is by.
    pub(super) hint: Option<String>,
}

/// The files that were signed.
pub(super) struct Statement {
    resources: Vec<(String, Digest)>,
    ignored: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: RawMaterial,
    dsse_envelope: RawEnvelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    sig: String,
}

#[derive(Deserialize)]
struct RawStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<RawSubject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: RawPredicate,
}

#[derive(Deserialize)]
struct RawSubject {
    digest: RawDigest,
}

#[derive(Deserialize)]
struct RawDigest {
    sha256: String,
}

#[derive(Deserialize)]
struct RawPredicate {
    resources: Vec<RawResource>,
    serialization: RawSerialization,
}

#[derive(Deserialize)]
struct RawResource {
    name: String,
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
struct RawSerialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

impl Envelope {
    pub(super) fn new(payload: String, signature: Vec<u8>) -> Envelope {
        Envelope { payload, signature, hint: None }
    }

    /// Reads the outer layers. Nothing in them is to be believed before [`Envelope::fits`].
    ///
    /// # Errors
    /// What is not as the specification says.
    pub(super) fn parse(text: &[u8]) -> Result<Envelope, String> {
        // The reason may quote what stands there, which anybody may have written.
        let reason = |error: serde_json::Error| error.to_string().chars().take(200).collect::<String>();
        let raw: RawBundle = serde_json::from_slice(text).map_err(reason)?;
        if raw.media_type != MEDIA_TYPE {
            return Err(format!("its mediaType is not {MEDIA_TYPE}"));
        }
        let Some(key) = raw.verification_material.public_key else {
            return Err("it is by a certificate and not by a key; only keys are supported".to_owned());
        };
        if raw.dsse_envelope.payload_type != PAYLOAD_TYPE {
            return Err(format!("its payloadType is not {PAYLOAD_TYPE}"));
        }
        let [signature] = &raw.dsse_envelope.signatures[..] else {
            return Err("it must have one signature".to_owned());
        };
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| format!("no base64: {error}"));
        let payload = String::from_utf8(bytes(&raw.dsse_envelope.payload)?);
        let payload = payload.map_err(|_| "its payload is no UTF-8".to_owned())?;
        let hint = Some(key.hint).filter(|hint| !hint.is_empty());
        Ok(Envelope { payload, signature: bytes(&signature.sig)?, hint })
    }

    /// Whether a key has signed the payload.
    pub(super) fn fits(&self, key: &PublicKey) -> bool {
        key.verify(&pae(self.payload.as_bytes()), &self.signature)
    }

    /// The text of `model.sig`.
    pub(super) fn write(&self, key: &PublicKey) -> String {
        let envelope = json!({
            "payload": STANDARD.encode(&self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": STANDARD.encode(&self.signature), "keyid": "" }],
        });
        let material = json!({ "publicKey": { "hint": key.hint() }, "tlogEntries": [] });
        json!({ "mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope })
            .to_string()
            + "\n"
    }

    /// What was signed.
    ///
    /// # Errors
    /// What is not as the specification says.
    pub(super) fn statement(&self) -> Result<Statement, String> {
        let raw: RawStatement = serde_json::from_str(&self.payload).map_err(|error| error.to_string())?;
        if raw.kind != STATEMENT || raw.predicate_type != PREDICATE {
            return Err(format!("the statement is not of the type {PREDICATE}"));
        }
        let serialization = raw.predicate.serialization;
        if serialization.method != "files" || serialization.hash_type != "sha256" {
            return Err("only whole files with SHA-256 are supported".to_owned());
        }
        let (mut resources, mut all) = (Vec::new(), Vec::new());
        for RawResource { name, algorithm, digest } in raw.predicate.resources {
            let digest: Digest = digest.parse().map_err(|_| format!("{name:?} has no SHA-256"))?;
            let is_inside = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
            if algorithm != "sha256" || !is_inside || name.is_empty() {
                return Err(format!("{name:?} is no file with a SHA-256"));
            }
            all.extend_from_slice(digest.bytes());
            resources.push((name, digest));
        }
        let [subject] = &raw.subject[..] else { return Err("it must have one subject".to_owned()) };
        if subject.digest.sha256.parse() != Ok(Digest::of(&all)) {
            return Err("the digest of all files is not that of the list".to_owned());
        }
        let mut ignored: Vec<PathBuf> = serialization.ignore_paths.iter().map(PathBuf::from).collect();
        ignored.extend(IGNORED.map(PathBuf::from));
        Ok(Statement { resources, ignored })
    }
}

impl Statement {
    /// The files and their digests.
    pub(super) fn resources(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.resources.iter().map(|(name, digest)| (name.as_str(), *digest))
    }

    /// The digest of a file, if it was signed.
    pub(super) fn digest_of(&self, file: &str) -> Option<Digest> {
        self.resources().find(|(name, _)| *name == file).map(|(_, digest)| digest)
    }

    /// What the signer left out.
    pub(super) fn ignored(&self) -> Vec<PathBuf> {
        self.ignored.clone()
    }
}

/// The statement of these files, as JSON.
pub(super) fn write(name: &str, resources: &[(String, Digest)], has_links: bool) -> String {
    let all: Vec<u8> = resources.iter().flat_map(|(_, digest)| *digest.bytes()).collect();
    let resource = |(name, digest): &(String, Digest)| json!({ "name": name, "algorithm": "sha256", "digest": digest.to_string() });
    let resources: Vec<_> = resources.iter().map(resource).collect();
    let serialization = json!({
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": has_links,
        "ignore_paths": IGNORED,
    });
    let statement = json!({
        "_type": STATEMENT,
        "subject": [{ "name": name, "digest": { "sha256": Digest::of(&all).to_string() } }],
        "predicateType": PREDICATE,
        "predicate": { "serialization": serialization, "resources": resources },
    });
    format!("{statement:#}")
}

/// The bytes that are signed: DSSE's pre-authentication encoding.
pub(super) fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}
