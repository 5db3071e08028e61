use std::{fs, path::Path};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

use super::*;
use crate::{Bundle, ErrorKind, Parts};

struct Signer(EcdsaKeyPair, PublicKey);

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let mut der: Vec<u8> =
            (0..26).map(|at| u8::from_str_radix(&prefix[2 * at..2 * at + 2], 16).unwrap()).collect();
        der.extend_from_slice(pair.public_key().as_ref());
        let key = PublicKey::from_der(&der).unwrap();
        Signer(pair, key)
    }

    fn sign(&self, dir: &Path) {
        let text = sign(dir, &self.1, |bytes| {
            self.0.sign(&SystemRandom::new(), bytes).ok().map(|s| s.as_ref().to_vec())
        });
        fs::write(dir.join(SIGNATURE), text.unwrap()).unwrap();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("vectors")).unwrap();
    for (file, text) in [("manifest.toml", "format = 3"), ("head.onnx", "head"), ("vectors/a.bin", "a")] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

fn fault_of(error: &Error) -> String {
    assert!(matches!(error.kind(), ErrorKind::Signature | ErrorKind::Unsigned));
    match error {
        Error::Signature { source, .. } => source.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_was_signed_is_verified_and_what_was_changed_named() {
    let (folder, signer) = (folder(), Signer::new());
    let (dir, keys) = (folder.path(), [signer.1.clone()]);
    assert!(fault_of(&verify_manifest(dir, &keys).unwrap_err()).contains("not signed"));
    signer.sign(dir);
    assert_eq!(verify_all(dir, &keys).unwrap(), 3);
    assert_eq!(verify_manifest(dir, &keys).unwrap(), Digest::of(b"format = 3"));
    for (file, text, word) in [
        ("vectors/a.bin", "b", "not the file"),
        ("added.bin", "c", "was not signed"),
        ("manifest.toml", "x", "not the file"),
    ] {
        let before = fs::read(dir.join(file)).ok();
        fs::write(dir.join(file), text).unwrap();
        let found = fault_of(&verify_all(dir, &keys).unwrap_err());
        assert!(found.starts_with(file) && found.contains(word), "{found}");
        // The manifest alone decides what a device uses; it holds the digests of parts.
        assert_eq!(verify_manifest(dir, &keys).is_ok(), file != "manifest.toml");
        match before {
            Some(before) => fs::write(dir.join(file), before).unwrap(),
            None => fs::remove_file(dir.join(file)).unwrap(),
        }
    }
    fs::remove_file(dir.join("head.onnx")).unwrap();
    assert!(fault_of(&verify_all(dir, &keys).unwrap_err()).starts_with("head.onnx: it was signed"));
}

#[test]
fn another_key_and_a_forged_signature_are_told_apart() {
    let (folder, signer, other) = (folder(), Signer::new(), Signer::new());
    let dir = folder.path();
    signer.sign(dir);
    let wrong = fault_of(&verify_manifest(dir, std::slice::from_ref(&other.1)).unwrap_err());
    assert!(wrong.contains(signer.1.hint()) && wrong.contains(other.1.hint()), "{wrong}");
    verify_manifest(dir, &[other.1.clone(), signer.1.clone()]).unwrap();
    let text = fs::read_to_string(dir.join(SIGNATURE)).unwrap();
    // One who has no key names the key of another.
    let forged = text.replace(signer.1.hint(), other.1.hint());
    fs::write(dir.join(SIGNATURE), forged).unwrap();
    assert!(fault_of(&verify_manifest(dir, std::slice::from_ref(&other.1)).unwrap_err()).contains("forged"));
    // A payload that was changed.
    let at = text.find("\"payload\":\"").unwrap() + 200;
    let changed =
        format!("{}{}{}", &text[..at], if &text[at..=at] == "A" { "B" } else { "A" }, &text[at + 1..]);
    fs::write(dir.join(SIGNATURE), changed).unwrap();
    let found = fault_of(&verify_manifest(dir, std::slice::from_ref(&signer.1)).unwrap_err());
    assert!(found.contains("forged") || found.contains("damaged"), "{found}");
    for text in ["", "{}", "no JSON", &"[".repeat(100_000)] {
        fs::write(dir.join(SIGNATURE), text).unwrap();
        assert!(
            fault_of(&verify_manifest(dir, std::slice::from_ref(&signer.1)).unwrap_err()).contains("damaged")
        );
    }
}

#[test]
fn only_keys_of_two_curves_are_taken() {
    let signer = Signer::new();
    let mut der = vec![0x30];
    assert!(PublicKey::from_der(&der).is_err());
    der.resize(91, 0);
    assert!(PublicKey::from_der(&der).is_err());
    for text in ["", "-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----"]
    {
        assert!(PublicKey::all_from_pem(text).is_err(), "{text}");
    }
    assert_eq!(signer.1.hint().len(), 64);
}

#[test]
fn versions_are_compared_as_numbers() {
    for (older, newer) in
        [("0.1.0", "0.1.1"), ("0.9", "0.10"), ("1", "1.0.1"), ("1.2.3-rc1", "1.3"), ("9.9", "10")]
    {
        assert!(is_older(older, newer) && !is_older(newer, older), "{older} {newer}");
    }
    for (one, other) in [("1.0", "1"), ("1.0-a", "1.0-b"), ("spring", "1.0"), ("1.0", "spring"), ("", "1")] {
        assert!(!is_older(one, other) && !is_older(other, one), "{one} {other}");
    }
}

#[test]
fn an_older_bundle_is_refused_until_it_is_asked_for() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles/lite2");
    let bundle = Bundle::open(shipped, Parts::Head).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundles");
    let record = NewestRecord::new(&file);
    record.check(&bundle).unwrap();
    record.note(&bundle).unwrap();
    let line = format!("{} {}\n", bundle.name(), bundle.manifest().version());
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    record.check(&bundle).unwrap();
    fs::write(&file, format!("{} 99.0\nother 1.0\n", bundle.name())).unwrap();
    let text = fault_of(&record.check(&bundle).unwrap_err());
    assert!(text.contains("99.0") && text.contains("--allow-older"), "{text}");
    record.note(&bundle).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{line}other 1.0\n"));
    fs::write(&file, "damaged").unwrap();
    assert!(record.check(&bundle).is_err() && record.note(&bundle).is_err());
}
