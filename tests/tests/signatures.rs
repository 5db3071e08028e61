//! Bundles that are signed, forged, changed and older, with the real binaries; the judge is `model_signing` of PyPI where it is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use narrows_tests::{bundle, changed_bundle, lines_of, photos, said, skipped};
use tempfile::TempDir;

/// Exit codes, as the binaries document them.
const BAD_BUNDLE: i32 = 3;
const USAGE: i32 = 2;

fn tail(args: &[&str]) -> Result<Output> {
    Ok(narrows_pair::tail().arg("bundle").args(args).output()?)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A key, the folder that it lies in, and its public half.
fn key() -> Result<(TempDir, PathBuf, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("signing.pem");
    let output = tail(&["key", text(&key)])?;
    ensure!(output.status.success(), "{}", said(&output));
    let public = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok((folder, key, public))
}

/// A copy of the shipped bundle that is signed.
fn signed(key: &Path) -> Result<TempDir> {
    let folder = changed_bundle("CARD.md", false, |_| ())?;
    let output = tail(&["sign", text(folder.path()), "--key", text(key)])?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(folder)
}

/// A head that answers by itself with the bundle in `dir`.
fn head(dir: &Path, args: &[&str]) -> Command {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(dir).args(args);
    head.arg("--source").arg(photos().join("cat.png")).stdin(Stdio::null());
    head
}

fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_head_takes_bundles_that_its_keys_have_signed_and_no_others() -> Result<()> {
    let ((_one, key_file, public), (_other, other_key, other_public)) = (key()?, key()?);
    let folder = signed(&key_file)?;
    let (dir, keys) = (folder.path(), ["--bundle-keys", text(&public)]);
    lines_of(&mut head(dir, &keys))?;
    lines_of(&mut head(dir, &["--bundle-keys", text(&other_public), "--bundle-keys", text(&public)]))?;
    // Without keys nothing is asked for.
    lines_of(&mut head(&bundle(), &[]))?;
    fails(&head(&bundle(), &keys).output()?, BAD_BUNDLE, &["not signed", "narrows-tail bundle sign"]);
    let output = head(&bundle(), &[&keys[..], &["--allow-unsigned"]].concat()).output()?;
    ensure!(output.status.success() && said(&output).contains("--allow-unsigned"), "{}", said(&output));
    // A wrong signature is never allowed.
    for args in [&[][..], &["--allow-unsigned"]] {
        let wrong = [&["--bundle-keys", text(&other_public)], args].concat();
        fails(&head(dir, &wrong).output()?, BAD_BUNDLE, &["none of the keys that are trusted"]);
    }
    fails(
        &head(dir, &["--bundle-keys", text(&key_file)]).output()?,
        USAGE,
        &["--bundle-keys", "no public key"],
    );
    fails(&head(dir, &["--allow-unsigned"]).output()?, USAGE, &["--bundle-keys"]);

    // Somebody changes a part and the manifest, so that the digests are right; the old signature stays.
    let signature = fs::read(dir.join("model.sig"))?;
    let forged = changed_bundle("CARD.md", true, |bytes| bytes.push(b'\n'))?;
    fs::write(forged.path().join("model.sig"), &signature)?;
    fails(
        &head(forged.path(), &keys).output()?,
        BAD_BUNDLE,
        &["manifest.toml", "not the file that was signed"],
    );
    // Somebody signs it with another key, and names the trusted one.
    let output = tail(&["sign", text(forged.path()), "--key", text(&other_key)])?;
    ensure!(output.status.success(), "{}", said(&output));
    let text_of = |path: &Path| -> Result<String> { Ok(String::from_utf8(fs::read(path)?)?) };
    let hint =
        |text: &str| text.split("\"hint\":\"").nth(1).and_then(|rest| rest.get(..64)).map(str::to_owned);
    let (good, bad) = (text_of(&dir.join("model.sig"))?, text_of(&forged.path().join("model.sig"))?);
    let (good, named) = (hint(&good).context("a hint")?, hint(&bad).context("a hint")?);
    fs::write(forged.path().join("model.sig"), bad.replace(&named, &good))?;
    fails(&head(forged.path(), &keys).output()?, BAD_BUNDLE, &["model.sig"]);
    // A part that was changed behind a signature that holds.
    let part = signed(&key_file)?;
    fs::write(part.path().join("local.onnx"), b"other")?;
    fails(&head(part.path(), &keys).output()?, BAD_BUNDLE, &["local.onnx"]);
    Ok(())
}

#[test]
fn a_signature_covers_every_file() -> Result<()> {
    let (_keys, key_file, public) = key()?;
    let folder = signed(&key_file)?;
    let verify = || tail(&["verify", text(folder.path()), "--key", text(&public)]);
    let output = verify()?;
    ensure!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8(output.stdout)?.contains("files are as they were signed"));
    let card = folder.path().join("CARD.md");
    let before = fs::read(&card)?;
    fs::write(&card, "other")?;
    fails(&verify()?, BAD_BUNDLE, &["CARD.md", "not the file that was signed"]);
    fs::write(&card, before)?;
    fs::write(folder.path().join("extra"), "")?;
    fails(&verify()?, BAD_BUNDLE, &["extra", "was not signed"]);
    let again = tail(&["key", text(&key_file)])?;
    fails(&again, 1, &["signing.pem"]);
    fails(&tail(&["sign", text(&photos()), "--key", text(&key_file)])?, BAD_BUNDLE, &["manifest.toml"]);
    Ok(())
}

#[test]
fn an_older_version_is_refused_until_it_is_asked_for() -> Result<()> {
    let (keys, key_file, public) = key()?;
    let record = keys.path().join("bundles");
    let newer = signed(&key_file)?;
    let manifest = newer.path().join("manifest.toml");
    fs::write(
        &manifest,
        fs::read_to_string(&manifest)?.replace("version = \"0.1.0\"", "version = \"0.2.0\""),
    )?;
    let output = tail(&["sign", text(newer.path()), "--key", text(&key_file)])?;
    ensure!(output.status.success(), "{}", said(&output));
    let older = signed(&key_file)?;
    let args = ["--bundle-keys", text(&public), "--bundle-record", text(&record)];
    lines_of(&mut head(older.path(), &args))?;
    lines_of(&mut head(newer.path(), &args))?;
    fails(&head(older.path(), &args).output()?, BAD_BUNDLE, &["0.1.0", "older than 0.2.0", "--allow-older"]);
    lines_of(&mut head(older.path(), &[&args[..], &["--allow-older"]].concat()))?;
    lines_of(&mut head(older.path(), &args))?;
    Ok(())
}

#[test]
fn the_specifications_own_tool_agrees_in_both_directions() -> Result<()> {
    let program = std::env::var("MODEL_SIGNING").unwrap_or_else(|_| "model_signing".to_owned());
    let judge = |args: &[&str]| Command::new(&program).args(args).output();
    if !judge(&["--help"]).is_ok_and(|output| output.status.success()) {
        skipped(
            "signatures",
            "model_signing (pip install model-signing pyopenssl, or MODEL_SIGNING=PROGRAM)",
        );
        return Ok(());
    }
    let (keys, key_file, public) = key()?;
    let folder = signed(&key_file)?;
    let (dir, signature) = (text(folder.path()), folder.path().join("model.sig"));
    let verify = ["verify", "key", dir, "--signature", text(&signature), "--public_key", text(&public)];
    let output = judge(&verify)?;
    ensure!(output.status.success(), "{}", said(&output));
    fs::remove_file(&signature)?;
    let output =
        judge(&["sign", "key", dir, "--signature", text(&signature), "--private_key", text(&key_file)])?;
    ensure!(output.status.success(), "{}", said(&output));
    let output = tail(&["verify", dir, "--key", text(&public)])?;
    ensure!(output.status.success(), "{}", said(&output));
    lines_of(&mut head(folder.path(), &["--bundle-keys", text(&public)]))?;
    // P-384, by a key of another program.
    let (other, other_public) = (keys.path().join("p384.pem"), keys.path().join("p384.pub"));
    let openssl = |args: &[&str]| Command::new("openssl").args(args).output();
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", text(&other)])?;
    openssl(&["pkey", "-in", text(&other), "-pubout", "-out", text(&other_public)])?;
    let output = tail(&["sign", dir, "--key", text(&other)])?;
    ensure!(output.status.success(), "{}", said(&output));
    let verify = ["verify", "key", dir, "--signature", text(&signature), "--public_key", text(&other_public)];
    let output = judge(&verify)?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}
