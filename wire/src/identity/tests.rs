use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

use super::*;
use crate::quic::{ClientVerifier, Tuning, server_config};

/// A CA and the means to sign with it.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    der: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Ca { params, key, pem: certificate.pem(), der: certificate.der().clone() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// Writes an identity whose certificate has these usages.
    fn identity(&self, folder: &Path, serial: u64, usages: &[ExtendedKeyUsagePurpose]) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["cam".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        fs::write(folder.join("ca.pem"), &self.pem).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn revoke(&self, serials: &[u64]) -> String {
        self.list(7, 2, serials)
    }

    /// A revocation list of this number, made on this day of January.
    fn list(&self, number: u64, day: u8, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: rcgen::date_time_ymd(2026, 1, 2),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, day),
            next_update: rcgen::date_time_ymd(2036, 1, 2),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }
}

#[test]
fn a_certificate_for_the_other_side_is_named_with_the_folder_to_take() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let (server, device) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let configured = |usages: &[ExtendedKeyUsagePurpose]| {
        ca.identity(folder.path(), 1, usages);
        let identity = Identity::load(folder.path()).unwrap();
        let text = |error: IdentityError| error.to_string();
        (identity.require_server().map_err(text), identity.require_device().map_err(text))
    };
    let (as_server, as_device) = configured(std::slice::from_ref(&device));
    assert_eq!(as_device, Ok(()));
    let text = as_server.unwrap_err();
    assert!(text.contains("cert.pem is a device's certificate, not a server's certificate"), "{text}");
    assert!(text.contains("certs init"), "{text}");
    let (as_server, as_device) = configured(std::slice::from_ref(&server));
    assert_eq!(as_server, Ok(()));
    let text = as_device.unwrap_err();
    assert!(text.contains("cert.pem is a server's certificate, not a device's certificate"), "{text}");
    assert!(text.contains("certs device"), "{text}");
    // Certificates of other CAs often have both usages, or none.
    for usages in [&[server, device][..], &[]] {
        assert_eq!(configured(usages), (Ok(()), Ok(())));
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    ca.identity(folder.path(), 1, &[]);
    let key = folder.path().join("key.pem");
    for mode in [0o604, 0o666, 0o620, 0o660, 0o610, 0o601] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let text = Identity::load(folder.path()).unwrap_err().to_string();
        let command = format!("chmod 600 {}", key.display());
        assert!(text.contains(&command) && text.contains(&format!("{mode:04o}")), "{text}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        Identity::load(folder.path()).unwrap();
    }
    let root = fs::metadata(&key).unwrap().uid() == 0;
    for mode in [0o640, 0o440] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let identity = Identity::load(folder.path()).map(drop).map_err(|error| error.to_string());
        assert_eq!(identity.is_ok(), root, "{identity:?}");
    }
    if chown(&key, Some(12_345), None).is_err() {
        println!("a key of another user: skipped, which takes root to make");
        return;
    }
    assert!(matches!(Identity::load(folder.path()), Err(IdentityError::Exposed { mode: 0o440, .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let text = Identity::load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("user 12345") && text.contains("chown"), "{text}");
}

#[test]
fn a_missing_file_names_the_commands_that_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = Identity::load(&folder.path().join("nope")).unwrap_err().to_string();
    let words = ["nope/ca.pem", "certs init --dir", "certs device NAME --dir"];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    // Reading a FIFO would wait for a writer.
    let socket = folder.path().join("ca.pem");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = Identity::load(folder.path()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_revocation_list_names_certificates_of_its_own_ca_alone() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("crl.pem");
    fs::write(&file, ca.revoke(&[0x80, 5])).unwrap();
    let list = RevocationList::load(&file, std::slice::from_ref(&ca.der)).unwrap();
    assert_eq!((list.number(), list.revoked().len()), (7, 2));
    assert_eq!(list.revoked()[0].serial, [0x80], "without the zero that keeps the number positive");
    assert!(list.until().unwrap() > list.revoked()[0].at);
    let certificate = |ca: &Ca, serial: u64| {
        ca.identity(folder.path(), serial, &[]);
        certificates(&folder.path().join("cert.pem")).unwrap()
    };
    let foreign = certificate(&other, 6);
    let (revoked, valid) = ([0x80, 5].map(|serial| certificate(&ca, serial)), certificate(&ca, 6));
    let identity = Identity::load(folder.path()).unwrap().with_revoked(Some(list));
    server_config(&identity, &Tuning::default()).unwrap();
    let verifier = ClientVerifier::new(&identity).unwrap();
    for chain in revoked {
        assert!(verifier.verify(&chain).unwrap_err().to_string().contains("Revoked"));
    }
    verifier.verify(&valid).unwrap();
    assert!(verifier.verify(&foreign).is_err());
    assert!(verifier.verify(&[]).is_err());

    // The name of both CAs is the same; only the key tells them apart.
    fs::write(&file, other.revoke(&[5])).unwrap();
    let error = RevocationList::load(&file, std::slice::from_ref(&ca.der)).unwrap_err();
    assert!(matches!(error, IdentityError::Revocation { .. }) && error.to_string().contains("crl.pem"));
    RevocationList::load(&file, &[ca.der.clone(), other.der.clone()]).unwrap();
}

#[test]
fn an_older_revocation_list_does_not_replace_a_newer_one_of_the_same_ca() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let both = [ca.der.clone(), other.der.clone()];
    let load = |lists: &[String]| {
        let file = folder.path().join("crl.pem");
        fs::write(&file, lists.concat()).unwrap();
        RevocationList::load(&file, &both).unwrap()
    };
    let present = load(&[ca.list(7, 5, &[1]), other.list(3, 5, &[])]);
    for newer in [
        [ca.list(7, 5, &[1]), other.list(3, 5, &[])],
        [other.list(4, 1, &[]), ca.list(8, 1, &[1])],
        [ca.list(7, 6, &[]), other.list(3, 5, &[])],
    ] {
        load(&newer).check_replaces(&present, &both).unwrap();
    }
    let older: [&[String]; 4] = [
        &[ca.list(6, 9, &[]), other.list(9, 9, &[])],
        &[ca.list(9, 9, &[]), other.list(2, 9, &[])],
        &[ca.list(7, 4, &[]), other.list(3, 5, &[])],
        &[other.list(9, 9, &[])],
    ];
    for lists in older {
        let error = load(lists).check_replaces(&present, &both).unwrap_err();
        assert!(matches!(error, IdentityError::Outdated { .. }) && error.to_string().contains("crl.pem"));
    }
    // The list of a CA that is trusted no longer holds nobody up.
    load(&[other.list(9, 9, &[])]).check_replaces(&present, &both[1..]).unwrap();
}

#[test]
fn a_damaged_revocation_list_is_refused() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("crl.pem");
    let whole = ca.revoke(&[5]);
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        RevocationList::load(&file, std::slice::from_ref(&ca.der))
    };
    load(&whole).unwrap();
    for length in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 40] {
        assert!(load(&whole[..length]).is_err(), "{length} bytes");
    }
    let middle = whole.len() / 2;
    let flipped: String = whole
        .char_indices()
        .map(|(at, c)| if at == middle { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    assert!(load(&flipped).is_err(), "one character");
    assert!(load(&ca.pem).is_err(), "a certificate");
    assert!(RevocationList::load(&folder.path().join("none"), &[]).is_err());
}

#[test]
fn an_end_is_told_thirty_days_before() {
    let ending = |days: i64| Validity { file: "cert.pem", from: 0, until: 100 * DAY }.ending(days * DAY);
    assert_eq!(ending(70), None);
    assert_eq!(ending(71).unwrap(), "cert.pem ends in 29 days");
    assert_eq!(ending(99).unwrap(), "cert.pem ends in 1 day");
    assert_eq!(ending(102).unwrap(), "cert.pem ended 2 days ago");
}

#[test]
fn a_certificate_says_its_names_kind_and_serial() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    assert_eq!(CertificateInfo::read(&ca.der).unwrap().kind, CertificateKind::Authority);
    ca.identity(folder.path(), 0x1234, &[ExtendedKeyUsagePurpose::ClientAuth]);
    let info = certificates(&folder.path().join("cert.pem")).unwrap();
    let info = CertificateInfo::read(&info[0]).unwrap();
    assert_eq!((info.kind, info.serial), (CertificateKind::Device, vec![0x12, 0x34]));
    assert_eq!(info.names, ["cam", "10.0.0.7"]);
    assert!(CertificateInfo::read(&CertificateDer::from(vec![1, 2, 3])).is_err());
}
