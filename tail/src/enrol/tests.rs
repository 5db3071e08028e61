#![expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use narrows_wire::{
    EnrolmentCode as Code,
    enrol::{EnrolmentReply as Reply, EnrolmentRequest, Token},
    identity::{CertificateInfo, Fingerprint, certificates},
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::certs;

const HOUR: Duration = Duration::from_secs(3600);

/// A CA, and the office that signs with it.
struct Desk {
    _folder: tempfile::TempDir,
    dir: PathBuf,
    policy: Policy,
}

impl Desk {
    fn new(approval: bool) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("certs");
        certs::init(&dir, &[]).unwrap();
        Desk { _folder: folder, dir, policy: Policy { approval, valid: 24 * HOUR } }
    }

    /// Asks an office that was just started, as after a loss of power, `later` after the present time.
    fn asks_at(&self, later: i64, request: &EnrolmentRequest, peer: Option<&[CertificateDer<'_>]>) -> Asked {
        let office = Office::open(&self.dir, self.policy).unwrap();
        let now = certs::now().unix_timestamp() + later;
        office.answer(request, peer, "192.0.2.1:9", now, Instant::now())
    }

    fn asks(&self, request: &EnrolmentRequest) -> Asked {
        self.asks_at(0, request, None)
    }

    fn token(&self, names: &str) -> Token {
        token(&self.dir, names, HOUR).unwrap().token
    }
}

fn request(key: &KeyPair) -> rustls_pki_types::CertificateSigningRequestDer<'static> {
    let params = CertificateParams::new(vec!["anything".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().der().clone()
}

fn enrol(token: &Token, name: Option<&str>, key: &KeyPair) -> EnrolmentRequest {
    EnrolmentRequest::Enrol {
        token: token.id(),
        secret: *token.secret(),
        name: name.map(str::to_owned),
        request: request(key),
    }
}

fn issued(asked: &Asked) -> (CertificateDer<'static>, CertificateInfo) {
    match &asked.reply {
        Reply::Issued { chain, .. } => (chain[0].clone(), CertificateInfo::read(&chain[0]).unwrap()),
        reply => panic!("{reply}"),
    }
}

fn code(asked: &Asked) -> (Code, &str) {
    match &asked.reply {
        Reply::Refused { code, text } => (*code, text),
        reply => panic!("{reply}"),
    }
}

#[test]
fn a_token_lets_one_key_in_and_repeats_its_answer_to_that_key_alone() {
    let desk = Desk::new(false);
    let (token, key, other) = (desk.token("cam"), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    assert_eq!(token.ca(), {
        let ca = certificates(&desk.dir.join("ca.pem")).unwrap();
        Fingerprint::of(&CertificateInfo::read(&ca[0]).unwrap().public_key)
    });
    let first = desk.asks(&enrol(&token, None, &key));
    let (certificate, info) = issued(&first);
    assert!(first.is_new && info.names == ["cam"] && info.subject == "cam");
    assert_eq!(info.public_key, key.subject_public_key_info(), "whatever else was asked for");
    // The answer was lost, and the token has ended meanwhile.
    let again = desk.asks_at(2 * 3600, &enrol(&token, None, &key), None);
    assert!(!again.is_new && issued(&again).0 == certificate);
    let stolen = desk.asks(&enrol(&token, None, &other));
    let (refused, text) = code(&stolen);
    assert!(refused == Code::Used && text.contains("for cam") && text.contains("sha256:"), "{text}");
    assert_eq!(certs::issued(&desk.dir).unwrap().len(), 2, "the server's and the device's");
    let (tokens, requests) = list(&desk.dir).unwrap();
    assert_eq!((tokens[0].state, tokens[0].device.as_deref(), requests.len()), ("used", Some("cam"), 1));
    let table = table(&tokens, &requests);
    assert!(table.contains("issued") && table.contains(&requests[0].key), "{table}");
}

#[test]
fn a_key_with_two_tokens_gets_one_certificate_by_each() {
    let desk = Desk::new(false);
    let (first, second, key) = (desk.token("cam"), desk.token("door"), KeyPair::generate().unwrap());
    issued(&desk.asks(&enrol(&first, None, &key)));
    let (door, _) = issued(&desk.asks(&enrol(&second, None, &key)));
    certs::revoke(&desk.dir, "cam").unwrap();
    let again = desk.asks(&enrol(&first, None, &key));
    assert!(code(&again).0 == Code::Used && code(&again).1.contains("since"), "{again}");
    assert_eq!(issued(&desk.asks(&enrol(&second, None, &key))).0, door);
    assert_eq!(certs::issued(&desk.dir).unwrap().len(), 3, "the server's and one by each token");
}

#[test]
fn whoever_has_no_token_learns_the_same_whatever_is_wrong() {
    let desk = Desk::new(false);
    let (token, key) = (desk.token("cam"), KeyPair::generate().unwrap());
    let wrong = Token::new(token.id(), [0; 16], token.ca());
    let unknown = Token::new(narrows_wire::enrol::TokenId([0; 8]), *token.secret(), token.ca());
    for token in [wrong, unknown] {
        assert_eq!(code(&desk.asks(&enrol(&token, None, &key))), (Code::Token, ""));
        assert_eq!(code(&desk.asks_at(7200, &enrol(&token, None, &key), None)), (Code::Token, ""));
    }
    issued(&desk.asks(&enrol(&token, None, &key)));
    let text = fs::read_to_string(desk.dir.join(format!("enrol/tokens/{}.toml", token.id()))).unwrap();
    let secret: String = token.secret().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains(&secret) && !text.contains(&token.to_string()), "{text}");
}

#[test]
fn a_token_ends_and_is_named() {
    let desk = Desk::new(false);
    let (token, key) = (desk.token("cam"), KeyPair::generate().unwrap());
    let asked = desk.asks_at(3605, &enrol(&token, None, &key), None);
    let (refused, text) = code(&asked);
    assert!(refused == Code::Ended && text.contains(&token.id().to_string()), "{text}");
    assert_eq!(certs::issued(&desk.dir).unwrap().len(), 1);
}

#[test]
fn a_device_chooses_a_free_name_that_fits_and_no_other() {
    let desk = Desk::new(false);
    let key = || KeyPair::generate().unwrap();
    let (token, first) = (desk.token("cam-*"), key());
    for (name, word) in [(None, "--name"), (Some("door"), "cam-*"), (Some("cam-"), "cam-*")] {
        let asked = desk.asks(&enrol(&token, name, &first));
        assert!(code(&asked).0 == Code::Name && code(&asked).1.contains(word), "{asked}");
    }
    assert_eq!(issued(&desk.asks(&enrol(&token, Some("cam-1"), &first))).1.names, ["cam-1"]);
    let second = desk.token("cam-?");
    let taken = desk.asks(&enrol(&second, Some("cam-1"), &key()));
    assert!(code(&taken).0 == Code::Name && code(&taken).1.contains("enrol token cam-1"), "{taken}");
    // For the name alone an operator has said so.
    let exact = desk.token("cam-1");
    let other = desk.asks(&enrol(&exact, Some("cam-2"), &key()));
    assert_eq!(code(&other), (Code::Name, "the token is for cam-1, not for cam-2"));
    assert_eq!(issued(&desk.asks(&enrol(&exact, Some("cam-1"), &key()))).1.names, ["cam-1"]);
    for names in ["", "Cam", "a b", "../x", "cam/*"] {
        assert!(super::token(&desk.dir, names, HOUR).is_err(), "{names}");
    }
}

#[test]
fn an_operator_approves_by_name_or_key_and_the_device_then_gets_it() {
    let desk = Desk::new(true);
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let asks: Vec<_> = std::iter::zip(["cam", "door", "gate"], &keys)
        .map(|(name, key)| enrol(&desk.token(name), None, key))
        .collect();
    for ask in &asks {
        assert!(matches!(desk.asks(ask).reply, Reply::Pending { .. }));
    }
    assert!(!desk.asks(&asks[0]).is_new);
    assert_eq!(approve(&desk.dir, "cam", HOUR).unwrap().name, "cam");
    let print = Fingerprint::of(&keys[1].subject_public_key_info()).to_string();
    assert_eq!(approve(&desk.dir, &print[..20], HOUR).unwrap().name, "door");
    assert_eq!(reject(&desk.dir, "gate").unwrap().name, "gate");
    assert_eq!(issued(&desk.asks(&asks[0])).1.names, ["cam"]);
    // Hours later, when its token has ended.
    assert_eq!(issued(&desk.asks_at(9 * 3600, &asks[1], None)).1.names, ["door"]);
    assert_eq!(code(&desk.asks(&asks[2])).0, Code::Rejected);
    for (which, word) in [("cam", "approved before"), ("gate", "rejected before"), ("nobody", "none waits")] {
        let error = approve(&desk.dir, which, HOUR).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_device_renews_its_own_name_with_a_new_key_until_it_is_revoked() {
    let desk = Desk::new(false);
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (certificate, _) = issued(&desk.asks(&enrol(&desk.token("cam"), None, &old)));
    let renew = EnrolmentRequest::Renew { request: request(&new) };
    let asked = desk.asks_at(0, &renew, Some(std::slice::from_ref(&certificate)));
    let (_, renewed) = issued(&asked);
    assert_eq!((renewed.names, renewed.public_key), (vec!["cam".to_owned()], new.subject_public_key_info()));
    assert_eq!(code(&desk.asks(&renew)).0, Code::Unauthenticated);
    // The server's own certificate, and one of another CA, are none of a device.
    let other = Desk::new(false);
    let foreign = issued(&other.asks(&enrol(&other.token("cam"), None, &old))).0;
    let server = certificates(&desk.dir.join("server/cert.pem")).unwrap().remove(0);
    for certificate in [server, foreign] {
        assert_eq!(code(&desk.asks_at(0, &renew, Some(&[certificate]))).0, Code::Unauthenticated);
    }
    certs::revoke(&desk.dir, "cam").unwrap();
    assert_eq!(code(&desk.asks_at(0, &renew, Some(&[certificate]))).0, Code::Revoked);
}

#[test]
fn a_device_that_renews_without_end_is_stopped() {
    let desk = Desk::new(false);
    let key = KeyPair::generate().unwrap();
    let (certificate, _) = issued(&desk.asks(&enrol(&desk.token("cam"), None, &key)));
    let renew = EnrolmentRequest::Renew { request: request(&key) };
    let office = Office::open(&desk.dir, desk.policy).unwrap();
    let (now, clock) = (certs::now().unix_timestamp(), Instant::now());
    let ask = |clock| office.answer(&renew, Some(std::slice::from_ref(&certificate)), "", now, clock);
    assert!((0..60).all(|_| matches!(ask(clock).reply, Reply::Issued { .. })));
    assert_eq!(code(&ask(clock)).0, Code::Often);
    issued(&ask(clock + HOUR));
}

#[test]
fn a_signing_request_that_is_not_by_its_own_key_is_refused() {
    let desk = Desk::new(false);
    let (token, key) = (desk.token("cam"), KeyPair::generate().unwrap());
    let mut forged = request(&key).as_ref().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for request in [forged, b"no request".to_vec(), Vec::new()] {
        let asked = desk.asks(&EnrolmentRequest::Enrol {
            token: token.id(),
            secret: *token.secret(),
            name: None,
            request: request.into(),
        });
        assert_eq!(code(&asked).0, Code::Request);
    }
    issued(&desk.asks(&enrol(&token, None, &key)));
}

#[test]
fn damaged_files_are_named_and_old_ones_removed() {
    let desk = Desk::new(false);
    let token = desk.token("cam");
    let file = desk.dir.join(format!("enrol/tokens/{}.toml", token.id()));
    let text = fs::read_to_string(&file).unwrap();
    let old = text.lines().map(|line| if line.starts_with("ends") { "ends = 1" } else { line });
    fs::write(&file, old.collect::<Vec<_>>().join("\n")).unwrap();
    desk.token("door");
    assert!(!file.exists() && list(&desk.dir).unwrap().0.len() == 1);
    fs::write(&file, "damaged").unwrap();
    let asked = desk.asks(&enrol(&token, None, &KeyPair::generate().unwrap()));
    assert_eq!(code(&asked).0, Code::Internal);
    let error = list(&desk.dir).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
    let error = super::token(Path::new("/nowhere"), "cam", HOUR).unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
