//! The Open Inference Protocol of the tail, as curl and Triton's own client see it.

use std::{fs, io::Write, net::TcpStream, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use narrows_tests::{ServiceTail, TIMEOUT, bundle, output_within, photos, python_with, root, said, skipped};
use serde_json::{Value, json};

/// The time in which the client's checks end on the slowest machine.
const LONG: Duration = Duration::from_secs(300);
const TOKEN: &str = "a token of the laboratory";

/// A tail that answers the protocol, with these settings besides, and where it does.
fn start(rest: &str) -> Result<(ServiceTail, String)> {
    let digest = narrows_models::Digest::of(TOKEN.as_bytes());
    let text = format!(
        "offload = true\n{rest}\n[oip]\nhttp = '127.0.0.1:0'\n[[devices.device]]\nname = 'lab'\ntoken_sha256 = '{digest}'\n"
    );
    let tail = ServiceTail::start(&text)?;
    let log = tail.log();
    let line =
        log.lines().find(|line| line.contains("Open Inference Protocol listening")).context(log.clone())?;
    let address = line.rsplit("address=").next().context("an address")?.trim().to_owned();
    Ok((tail, address))
}

/// What curl gets: the status, the headers, and the body.
fn curl(address: &str, path: &str, arguments: &[&str]) -> Result<(u16, String, Vec<u8>)> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--max-time", "60"]).args(arguments);
    let output = output_within(curl.arg(format!("http://{address}{path}")), LONG)?;
    ensure!(output.status.success(), "{path}: {}", said(&output));
    let mut rest = output.stdout.as_slice();
    loop {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").context("the end of the headers")?;
        let (head, body) = (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 4..]);
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        if status != 100 {
            return Ok((status, head, body.to_vec()));
        }
        rest = body;
    }
}

fn json_of(address: &str, path: &str, arguments: &[&str]) -> Result<(u16, Value)> {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let (status, _, body) = curl(address, path, &[&["--header", &bearer][..], arguments].concat())?;
    Ok((status, serde_json::from_slice(&body).with_context(|| String::from_utf8_lossy(&body).into_owned())?))
}

#[test]
fn curl_asks_for_models_and_is_answered_from_an_image_file() -> Result<()> {
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("oip", "curl (apt install curl)");
        return Ok(());
    }
    let (tail, address) = start("")?;
    // Without a token there is nothing but health.
    let (status, head, body) = curl(&address, "/v2/models/lite2.classify", &[])?;
    assert_eq!(status, 401, "{}", String::from_utf8_lossy(&body));
    ensure!(head.contains("www-authenticate: Bearer"), "{head}");
    let (status, _, _) = curl(&address, "/v2", &["--header", "Authorization: Bearer wrong"])?;
    assert_eq!(status, 401);
    assert_eq!(curl(&address, "/v2/health/live", &[])?.0, 200);
    assert_eq!(curl(&address, "/v2/health/ready", &["--head"])?.0, 200);

    let (status, server) = json_of(&address, "/v2", &[])?;
    assert_eq!((status, &server["name"]), (200, &"narrows-tail".into()));
    let (_, model) = json_of(&address, "/v2/models/lite2.classify", &[])?;
    let version = model["versions"][0].as_str().context("a version")?.to_owned();
    assert_eq!(model["inputs"][0], json!({ "name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3] }));
    let (status, ready) =
        json_of(&address, &format!("/v2/models/lite2.classify/versions/{version}/ready"), &[])?;
    assert_eq!((status, &ready["ready"]), (200, &true.into()));
    // The version of the manifest names it as well.
    assert_eq!(json_of(&address, "/v2/models/lite2.classify/versions/0.1.0", &[])?.0, 200);

    // A photo as it is, behind a line of JSON.
    let photo = fs::read(photos().join("orange.jpg"))?;
    let (body, length) = binary_request(&photo, "probabilities")?;
    let file = tail.file("request");
    fs::write(&file, &body)?;
    let data = format!("@{}", file.display());
    let header = format!("Inference-Header-Content-Length: {length}");
    let infer = |path: &str, more: &[&str]| {
        json_of(&address, path, &[&["--header", &header, "--data-binary", &data][..], more].concat())
    };
    let (status, answer) = infer("/v2/models/lite2.classify/infer", &["--header", "Expect: 100-continue"])?;
    assert_eq!(status, 200, "{answer}");
    let best = answer["outputs"][0]["data"][0].as_str().context("a class")?;
    ensure!(best.ends_with(":orange") && answer["model_version"] == version.as_str(), "{answer}");

    // Faults have a status and a reason.
    for (path, arguments, status, words) in [
        ("/v2/models/lite9.classify", &[][..], 404, "lite9.classify"),
        ("/v2/models/lite2.classify/versions/9", &[], 404, "no version"),
        ("/v2/models/lite2.classify/explain", &[], 404, "there is no /v2"),
        ("/v2/models/lite2.classify/infer", &[], 405, "POST"),
        ("/v2/models/lite2.classify", &["--data", "{}"], 405, "GET"),
        ("/v2/models/lite2.classify/infer", &["--data", "{"], 400, "JSON"),
        ("/v2/models/lite2.classify/infer", &["--data", "{\"inputs\":[]}"], 400, "give image or file"),
        (
            "/v2/models/lite2.classify/infer",
            &["--data", "{}", "--header", "Inference-Header-Content-Length: 9"],
            400,
            "the body has 2 bytes",
        ),
        (
            "/v2/models/lite2.classify/infer",
            &["--data", "{}", "--header", "Content-Encoding: gzip"],
            415,
            "content-encoding",
        ),
        (
            "/v2/models/lite2.classify/infer",
            &["--data", r#"{"inputs":[],"outputs":[{"name":"logits"},{"name":"logits"}]}"#],
            400,
            "wanted twice",
        ),
    ] {
        let (found, body) = json_of(&address, path, arguments)?;
        let error = body["error"].as_str().with_context(|| body.to_string())?;
        ensure!(found == status && error.contains(words), "{path} {arguments:?}: {found} {error}");
    }
    let (status, _, _) = curl(&address, "/v2", &["--header", "Transfer-Encoding: chunked", "--data", "x"])?;
    assert_eq!(status, 411);
    // A body that is too long is refused before it is read, and a client that breaks off costs nothing.
    let large = tail.file("large");
    fs::write(&large, vec![0; (16 << 20) + 1])?;
    let (status, error) = json_of(
        &address,
        "/v2/models/lite2.classify/infer",
        &["--data-binary", &format!("@{}", large.display()), "--header", "Expect: 100-continue"],
    )?;
    ensure!(
        status == 413 && error["error"].as_str().is_some_and(|text| text.contains("16777216")),
        "{error}"
    );
    // The client need not send such a body, so what follows on the connection would be a guess.
    let (bearer, whole) = (format!("Authorization: Bearer {TOKEN}"), format!("@{}", large.display()));
    let arguments = ["--header", &bearer, "--data-binary", &whole, "--header", "Expect: 100-continue"];
    let (_, head, _) = curl(&address, "/v2/models/lite2.classify/infer", &arguments)?;
    ensure!(head.contains("connection: close"), "{head}");
    let mut broken = TcpStream::connect(&address)?;
    broken.write_all(b"POST /v2/models/lite2.classify/infer HTTP/1.1\r\ncontent-length: 1000\r\n\r\n{")?;
    drop(broken);
    assert_eq!(infer("/v2/models/lite2.classify/infer", &[])?.0, 200);

    // Rights are those of devices, and change with them.
    let digest = narrows_models::Digest::of(TOKEN.as_bytes());
    tail.write(&format!(
        "offload = true\n[oip]\nhttp = '127.0.0.1:0'\n[[devices.device]]\nname = 'lab'\ntoken_sha256 = '{digest}'\ntasks = ['segment']\nframes_per_second = 0.01\n"
    ))?;
    tail.hang_up()?;
    assert_eq!(infer("/v2/models/lite2.classify/infer", &[])?.0, 404);
    let (body, length) = binary_request(&photo, "classes")?;
    fs::write(&file, body)?;
    let header = format!("Inference-Header-Content-Length: {length}");
    let segment = || {
        json_of(&address, "/v2/models/lite2.segment/infer", &["--header", &header, "--data-binary", &data])
    };
    let (status, answer) = segment()?;
    ensure!(status == 200 && answer["outputs"][0]["datatype"] == "UINT8", "{status}");
    let (status, error) = segment()?;
    ensure!(status == 503 && error["error"].as_str().is_some_and(|text| text.contains("0.01")), "{error}");
    ensure!(!tail.log().contains("panicked"), "{}", tail.log());
    Ok(())
}

/// A request with an image file in binary form, which asks for one output, of classes the best one; and the length of its JSON.
fn binary_request(photo: &[u8], output: &str) -> Result<(Vec<u8>, usize)> {
    let parameters = if output == "probabilities" { json!({ "classification": 1 }) } else { json!({}) };
    let json = json!({
        "inputs": [{
            "name": "file", "datatype": "BYTES", "shape": [1],
            "parameters": { "binary_data_size": photo.len() + 4 },
        }],
        "outputs": [{ "name": output, "parameters": parameters }],
    });
    let json = serde_json::to_vec(&json)?;
    let size = u32::try_from(photo.len())?.to_le_bytes();
    Ok(([&json[..], &size, photo].concat(), json.len()))
}

#[test]
fn tritons_own_client_is_answered_as_the_bundles_vectors_say() -> Result<()> {
    let Some(python) = python()? else {
        skipped(
            "oip",
            "python3 of version 3.11 or later with venv, and a package index for tritonclient[http]",
        );
        return Ok(());
    };
    let (tail, address) = start("batch = 8\n")?;
    let mut judge = Command::new(python);
    judge
        .arg(root().join("tests/oip-client/judge.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NARROWS_OIP", &address)
        .env("NARROWS_TOKEN", TOKEN)
        .env("NARROWS_BUNDLE", bundle())
        .env("NARROWS_PHOTO", photos().join("orange.jpg"));
    let output = output_within(&mut judge, LONG)?;
    ensure!(output.status.success(), "{}\n{}", said(&output), tail.log());
    ensure!(!tail.log().contains("panicked"), "{}", tail.log());
    // Heads are answered beside it.
    tail.accepts("cam-1", &bundle())
}

/// A Python with Triton's client.
fn python() -> Result<Option<PathBuf>> {
    python_with("oip-client", (3, 11), "tritonclient.http, numpy, tomllib", &["tritonclient[http]>=2.50"])
}

#[test]
fn clients_without_a_token_have_the_rights_of_their_name_where_that_is_allowed() -> Result<()> {
    let tail = ServiceTail::start(
        "[oip]\nhttp = '127.0.0.1:0'\nanonymous = true\n[[devices.device]]\nname = 'anonymous'\ntasks = ['classify']\n",
    )?;
    let log = tail.log();
    let address = log.lines().find(|line| line.contains("Protocol listening")).context(log.clone())?;
    let address = address.rsplit("address=").next().context("an address")?.trim();
    let (status, _, body) = curl(address, "/v2/repository/index", &["--request", "POST"])?;
    let index: Value = serde_json::from_slice(&body)?;
    let names: Vec<&str> =
        index.as_array().context("models")?.iter().filter_map(|own| own["name"].as_str()).collect();
    // Without --offload there are tails alone.
    assert_eq!((status, names), (200, vec!["lite2.classify.tail"]));
    let mut check = narrows_pair::tail();
    check.args(["check", "--config"]).arg(tail.file("tail.toml"));
    let checked = output_within(&mut check, TIMEOUT)?;
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(text.contains("oip-http"), "{text}");
    Ok(())
}
