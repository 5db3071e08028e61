use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use narrows_wire::{
    identity::{CertificateInfo, Identity, IdentityError, RevocationList, certificates, name_of},
    quic::{Tuning, client_config, server_config},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::*;

fn name_in(folder: &Path) -> String {
    name_of(&CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap()
}

#[test]
fn quic_accepts_the_ca_the_server_and_the_devices() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    let server = init(&dir, &["tail.example".into(), "10.0.0.7".into()]).unwrap().folder;
    assert_eq!(server, dir.join("server"));
    assert_eq!(name_in(&server), "localhost");
    let camera = device(&dir, "cam-1.yard").unwrap().folder;
    assert_eq!(camera, dir.join("devices/cam-1.yard"));
    assert_eq!(name_in(&camera), "cam-1.yard");
    server_config(&Identity::load(&server).unwrap(), &Tuning::default()).unwrap();
    client_config(&Identity::load(&camera).unwrap(), &Tuning::default()).unwrap();
    for key in ["ca.key", "server/key.pem", "devices/cam-1.yard/key.pem"] {
        let mode = dir.join(key).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    init(dir, &[]).unwrap();
    let before = fs::read(dir.join("ca.pem")).unwrap();
    let error = init(dir, &[]).unwrap_err();
    assert!(error.to_string().contains("ca.pem exists; nothing was written"), "{error}");
    assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), before);
    device(dir, "cam").unwrap();
    assert!(matches!(device(dir, "cam"), Err(Error::Exists { .. })));
    fs::remove_file(dir.join("ca.pem")).unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    assert!(matches!(init(dir, &[]), Err(Error::Exists { .. })), "a server identity is kept too");
    assert!(!dir.join("ca.pem").exists(), "and no half of a new CA is left");
}

#[test]
fn a_device_cannot_be_made_without_the_ca() {
    let folder = tempfile::tempdir().unwrap();
    let error = device(folder.path(), "cam").unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
    init(folder.path(), &[]).unwrap();
    fs::write(folder.path().join("ca.key"), "no key").unwrap();
    let error = device(folder.path(), "cam").unwrap_err();
    assert!(error.to_string().contains("ca.key"), "{error}");
    assert!(!folder.path().join("devices").exists());
}

#[test]
fn names_that_would_leave_the_folder_or_the_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &[]).unwrap();
    for name in
        ["", ".", "..", "../x", "a/b", "A", "a b", "-a", "a-", "a..b", "1.2.3.4", "7", &"a".repeat(64)]
    {
        assert!(matches!(device(folder.path(), name), Err(Error::Name { .. })), "{name}");
    }
    let error = init(&folder.path().join("new"), &["not a host".into()]).unwrap_err();
    assert!(error.to_string().contains("not a host"), "{error}");
    assert!(!folder.path().join("new").exists());
}
fn info(folder: &Path) -> CertificateInfo {
    CertificateInfo::read(&certificates(&folder.join("cert.pem")).unwrap()[0]).unwrap()
}

/// A CA with a server and the devices `cam` and `door`.
fn authority() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    init(&dir, &["tail.example".into()]).unwrap();
    device(&dir, "cam").unwrap();
    device(&dir, "door").unwrap();
    (folder, dir)
}

/// Whether a certificate is on a list.
fn lists(list: &RevocationList, info: &CertificateInfo) -> bool {
    list.revoked().iter().any(|one| one.serial == info.serial)
}

fn crl(dir: &Path) -> RevocationList {
    RevocationList::load(&dir.join("crl.pem"), &certificates(&dir.join("ca.pem")).unwrap()).unwrap()
}

#[test]
fn a_renewed_server_keeps_its_key_and_names_and_gets_another_name() {
    let (_folder, dir) = authority();
    let (before, key) = (info(&dir.join("server")), fs::read(dir.join("server/key.pem")).unwrap());
    let renewed = server(&dir, &["other.example".into(), "[fe80::1%eth0]".into()], Key::Keep).unwrap();
    assert!(renewed.has_key && renewed.folder == dir.join("server"));
    let after = info(&dir.join("server"));
    assert_eq!(after.names, ["localhost", "tail.example", "other.example", "127.0.0.1", "::1", "fe80::1"]);
    assert_eq!((&after.public_key, fs::read(dir.join("server/key.pem")).unwrap()), (&before.public_key, key));
    assert_ne!(after.serial, before.serial, "each certificate can be revoked on its own");
    server_config(&Identity::load(&dir.join("server")).unwrap(), &Tuning::default()).unwrap();
    server(&dir, &[], Key::New).unwrap();
    let newest = info(&dir.join("server"));
    assert_ne!(newest.public_key, before.public_key);
    assert_eq!(newest.names, after.names);
    server_config(&Identity::load(&dir.join("server")).unwrap(), &Tuning::default()).unwrap();
    let mode = dir.join("server/key.pem").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_certificate_is_renewed_where_its_key_is_not() {
    let (_folder, dir) = authority();
    let before = info(&dir.join("devices/cam"));
    fs::remove_dir_all(dir.join("devices/cam")).unwrap();
    fs::remove_dir_all(dir.join("server")).unwrap();
    for renewed in [renew(&dir, "cam", Key::Keep).unwrap(), server(&dir, &[], Key::Keep).unwrap()] {
        assert!(!renewed.has_key && renewed.folder.join("cert.pem").exists());
        assert!(renewed.folder.join("ca.pem").exists());
    }
    assert_eq!(info(&dir.join("devices/cam")).public_key, before.public_key);
    assert!(info(&dir.join("server")).names.contains(&"tail.example".to_owned()));
}

#[test]
fn the_identity_in_the_folder_is_renewed_whatever_else_was_issued_since() {
    let (_folder, dir) = authority();
    let folder = dir.join("devices/cam");
    let present = ["cert.pem", "key.pem"].map(|file| fs::read(folder.join(file)).unwrap());
    let before = info(&folder);
    // Another certificate, most often of the same second, for a key that is not in the folder.
    for _ in 0..4 {
        renew(&dir, "cam", Key::New).unwrap();
    }
    std::iter::zip(["cert.pem", "key.pem"], present).for_each(|(file, bytes)| {
        fs::write(folder.join(file), bytes).unwrap();
    });
    renew(&dir, "cam", Key::Keep).unwrap();
    assert_eq!(info(&folder).public_key, before.public_key);
    client_config(&Identity::load(&folder).unwrap(), &Tuning::default()).unwrap();
}

#[test]
fn revoking_a_device_revokes_what_it_was_renewed_from_and_nobody_else() {
    let (_folder, dir) = authority();
    let first = info(&dir.join("devices/cam"));
    renew(&dir, "cam", Key::Keep).unwrap();
    let second = info(&dir.join("devices/cam"));
    let done = revoke(&dir, "cam").unwrap();
    assert_eq!(done.certificates, 2);
    assert_eq!(done.files, [dir.join("crl.pem"), dir.join("server/crl.pem")]);
    assert_eq!(fs::read(&done.files[0]).unwrap(), fs::read(&done.files[1]).unwrap());
    let list = crl(&dir);
    assert!(lists(&list, &first) && lists(&list, &second));
    let door = info(&dir.join("devices/door"));
    assert!(!lists(&list, &door));
    // A later list names everything that the earlier ones named, with its date.
    revoke(&dir, "door").unwrap();
    let later = crl(&dir);
    assert!(lists(&later, &first) && lists(&later, &door) && later.number() > list.number());
    assert_eq!(later.revoked()[0].at, list.revoked()[0].at);
    assert!(later.until().unwrap() > later.revoked()[0].at + 5 * 365 * 86_400);
    let error = renew(&dir, "cam", Key::New).unwrap_err().to_string();
    assert!(error.contains("revoked") && error.contains("certs device cam"), "{error}");
    // With a new key the name is let in again.
    fs::remove_dir_all(dir.join("devices/cam")).unwrap();
    device(&dir, "cam").unwrap();
    assert!(!lists(&crl(&dir), &info(&dir.join("devices/cam"))));
}

#[test]
fn a_device_that_was_never_issued_is_named_beside_those_that_were() {
    let (_folder, dir) = authority();
    for error in [revoke(&dir, "camera").unwrap_err(), renew(&dir, "camera", Key::Keep).unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("\"camera\"") && text.contains("cam, door"), "{text}");
    }
    assert!(!dir.join("crl.pem").exists());
}

#[test]
fn certificates_of_before_the_record_are_renewed_revoked_and_listed() {
    let (_folder, dir) = authority();
    fs::remove_dir_all(dir.join("issued")).unwrap();
    assert_eq!(list(&dir).unwrap().len(), 4);
    let old = info(&dir.join("devices/cam"));
    assert_eq!(revoke(&dir, "cam").unwrap().certificates, 1);
    assert!(lists(&crl(&dir), &old));
}

#[test]
fn a_damaged_or_foreign_list_is_not_written_over() {
    let (_folder, dir) = authority();
    let (_other, foreign) = authority();
    revoke(&foreign, "cam").unwrap();
    for text in [fs::read(foreign.join("crl.pem")).unwrap(), b"damaged".to_vec(), Vec::new()] {
        fs::write(dir.join("crl.pem"), &text).unwrap();
        let error = revoke(&dir, "cam").unwrap_err();
        assert!(error.to_string().contains("crl.pem"), "{error}");
        assert_eq!(fs::read(dir.join("crl.pem")).unwrap(), text);
    }
}

#[test]
fn many_at_once_lose_no_revocation() {
    let (_folder, dir) = authority();
    let names: Vec<String> = (0..8).map(|number| format!("cam-{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                device(&dir, name).unwrap();
                revoke(&dir, name).unwrap();
            });
        }
    });
    assert_eq!(crl(&dir).revoked().len(), names.len());
    assert_eq!(crl(&dir).number(), names.len() as u64);
}

#[test]
fn the_list_names_kind_dates_and_state_without_the_key() {
    let (_folder, dir) = authority();
    renew(&dir, "door", Key::Keep).unwrap();
    revoke(&dir, "cam").unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    let entries = list(&dir).unwrap();
    let short: Vec<_> = entries.iter().map(|one| (one.kind.as_str(), one.name.as_str(), one.state)).collect();
    assert!(short[0].0 == "ca" && short[0].1.starts_with("narrows CA ") && short[0].2 == State::Valid);
    assert_eq!(
        short[1..],
        [
            ("server", "narrows server", State::Valid),
            ("device", "cam", State::Revoked),
            ("device", "door", State::Valid),
            ("device", "door", State::Valid),
        ]
    );
    assert!(entries[2].revoked.as_ref().unwrap().starts_with("20"));
    assert!(entries[0].ends > entries[1].ends && entries[1].names.contains(&"tail.example".to_owned()));
    let table = table(&entries);
    assert!(table.lines().count() == 6 && table.contains("revoked"), "{table}");
    assert!(table.lines().all(|line| line == line.trim_end()));
    let error = list(&dir.join("none")).unwrap_err().to_string();
    assert!(error.contains("none/ca.pem") && error.contains("certs init"), "{error}");
}

#[test]
fn a_key_of_the_ca_that_others_can_read_or_that_is_another_is_refused() {
    let (_folder, dir) = authority();
    let (_other, foreign) = authority();
    let key = dir.join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = device(&dir, "new").unwrap_err();
    assert!(matches!(error, Error::Identity(IdentityError::Exposed { .. })), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, fs::read(foreign.join("ca.key")).unwrap()).unwrap();
    let error = device(&dir, "new").unwrap_err();
    assert!(error.to_string().contains("not the key of ca.pem"), "{error}");
    assert!(!dir.join("devices/new").exists());
    fs::remove_file(&key).unwrap();
    let error = device(&dir, "new").unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("bring it back"), "{error}");
}
