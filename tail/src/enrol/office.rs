//! Who gets a certificate: tokens, requests, the operator's decisions, and renewals.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use narrows_wire::{
    EnrolmentCode as Code,
    enrol::{EnrolmentReply as Reply, EnrolmentRequest, Token, TokenId},
    identity::{CertificateInfo, Fingerprint, pem},
    text::Quoted,
};
use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};

use super::{
    error::Error,
    store::{RequestRecord, State, Store, TokenRecord, Use},
};
use crate::{
    certs::{self, Authority, check_device, for_device, is_of, issued, now, present_list, text},
    devices::Pattern,
    engine::chain,
};

/// When a device that waits for approval asks again: so seldom that several behind one address leave others their attempts.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// How long tokens and requests are kept after the end of the token.
const KEEP: i64 = 90 * 86_400;
/// Renewals of one device within [`RENEWALS_SPAN`].
const RENEWALS: u32 = 60;
const RENEWALS_SPAN: Duration = Duration::from_secs(60 * 60);
/// Fewest digits of a fingerprint by which a request is chosen.
const DIGITS_MIN: usize = 8;

/// How a server enrols devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Whether an operator approves every device that has a token.
    pub(crate) approval: bool,
    /// For how long certificates are valid.
    pub(crate) valid: Duration,
}

/// What a device asked for, as the log names it, and the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) reply: Reply,
    /// The device, where it is known; a stranger's name is not.
    pub(crate) name: String,
    /// The fingerprint of the key that it has shown.
    pub(crate) key: Option<Fingerprint>,
    /// Whether this changed anything: not where an answer was repeated.
    pub(crate) is_new: bool,
}

/// A token that was made.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewToken {
    /// The token. This is the only time that it can be seen.
    pub token: Token,
    /// Its last second, as in RFC 3339.
    pub ends: String,
}

/// A request that an operator has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// The device.
    pub name: String,
    /// The fingerprint of its key.
    pub key: String,
}

/// Makes a token in the folder `dir` of a CA for a device of this name, or one of a name that fits a pattern.
///
/// # Errors
/// [`Error::Names`], or the reason why the CA cannot be read or the token not be written.
pub fn token(dir: &Path, names: &str, valid: Duration) -> Result<NewToken, Error> {
    check_names(names)?;
    let ca = authority_key(dir)?;
    let (mut id, mut secret) = ([0; 8], [0; 16]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut secret))
        .map_err(|e| Error::Random(e.into()))?;
    let id = TokenId(id);
    let token = Token::new(id, secret, ca);
    let store = Store::open(dir)?;
    let _lock = store.lock()?;
    let made = now().unix_timestamp();
    store.prune(made - KEEP)?;
    let ends = made.saturating_add(i64::try_from(valid.as_secs()).unwrap_or(i64::MAX));
    let secret = hex(&id.secret_digest(token.secret()));
    store.put_token(id, &TokenRecord { names: names.to_owned(), secret, made, ends, used: None })?;
    Ok(NewToken { token, ends: text(ends) })
}

/// Gives the device that waits under this name, or with a key whose fingerprint begins so, its certificate.
///
/// # Errors
/// [`Error::Which`] if no device or several are meant, [`Error::Decided`] if that was decided before, or the reason why nothing can
/// be signed.
pub fn approve(dir: &Path, which: &str, valid: Duration) -> Result<Decided, Error> {
    let store = Store::open(dir)?;
    let _lock = store.lock()?;
    let (key, request) = waiting(&store, which)?;
    issue(&store, &key, request, valid, now().unix_timestamp())
}

/// Refuses the device that waits under this name, or with a key whose fingerprint begins so.
///
/// # Errors
/// Those of [`approve`].
pub fn reject(dir: &Path, which: &str) -> Result<Decided, Error> {
    let store = Store::open(dir)?;
    let _lock = store.lock()?;
    let (key, mut request) = waiting(&store, which)?;
    request.state = State::Rejected;
    request.decided = Some(now().unix_timestamp());
    store.put_request(&key, &request)?;
    Ok(Decided { name: request.name, key: format!("sha256:{key}") })
}

/// Answers devices.
#[derive(Debug)]
pub(crate) struct Office {
    store: Store,
    policy: Policy,
    /// Renewals of each device since a time.
    renewals: Mutex<BTreeMap<String, (Instant, u32)>>,
}

impl Office {
    /// The office of the CA in `dir`.
    ///
    /// # Errors
    /// The CA cannot be used to sign, or the folders of tokens and requests not be made.
    pub(crate) fn open(dir: &Path, policy: Policy) -> Result<Office, Error> {
        drop(Authority::open(dir)?);
        let store = Store::open(dir)?;
        drop(store.lock()?);
        Ok(Office { store, policy, renewals: Mutex::default() })
    }

    /// Answers a device that has authenticated itself with this chain of certificates, or with none, at `now` in seconds since 1970.
    pub(crate) fn answer(
        &self,
        request: &EnrolmentRequest,
        peer: Option<&[CertificateDer<'_>]>,
        from: &str,
        now: i64,
        clock: Instant,
    ) -> Asked {
        let answered = match request {
            EnrolmentRequest::Enrol { token, secret, name, request } => {
                let token = GivenToken { id: *token, secret, name: name.as_deref() };
                self.enrol(&token, request, from, now)
            }
            EnrolmentRequest::Renew { request } => self.renew(request, peer, now, clock),
        };
        answered.unwrap_or_else(|error| {
            tracing::error!("enrolment: {}", chain(&error));
            refused(Code::Internal, "the server's log has the reason", String::new(), None)
        })
    }

    fn enrol(
        &self,
        given: &GivenToken<'_>,
        request: &CertificateSigningRequestDer<'_>,
        from: &str,
        now: i64,
    ) -> Result<Asked, Error> {
        let stranger = || refused(Code::Token, "", String::new(), None);
        let _lock = self.store.lock()?;
        let Some(mut token) = self.store.token(given.id)? else { return Ok(stranger()) };
        // Digests, so the time of the comparison tells nothing of the secret.
        if hex(&given.id.secret_digest(given.secret)) != token.secret {
            return Ok(stranger());
        }
        let Ok(key) = public_key(request) else {
            return Ok(refused(Code::Request, "", token.names, None));
        };
        let print = Fingerprint::of(&key.subject_public_key_info());
        let no = |code, reason: &str, name: &str| Ok(refused(code, reason, name.to_owned(), Some(print)));
        match &token.used {
            Some(used) if used.key != print.digits() => {
                let (at, name, key) = (text(used.at), &used.name, &used.key);
                let reason =
                    format!("token {} was used at {at} for {name}, by the key sha256:{key}", given.id);
                return no(Code::Used, &reason, name);
            }
            Some(used) => {
                // The device did not hear the answer, or asks whether it has been approved.
                let name = used.name.clone();
                return match self.store.request(print)? {
                    Some(known) if known.token == given.id.to_string() => self.repeat(known, print, now),
                    // The key has used another token since. To begin anew would give it another certificate for this name, also
                    // after those were revoked.
                    Some(known) if known.asked >= used.at => {
                        let reason = format!("the same key has used token {} since", known.token);
                        no(Code::Used, &reason, &name)
                    }
                    // The server was stopped before it had written the request.
                    _ => self.begin(given, request, name, print, from, now),
                };
            }
            None if now > token.ends => {
                let reason = format!("token {} ended at {}", given.id, text(token.ends));
                return no(Code::Ended, &reason, &token.names);
            }
            None => {}
        }
        let name = match self.name(&token.names, given.name, print)? {
            Ok(name) => name,
            Err(reason) => return no(Code::Name, &reason, given.name.unwrap_or(&token.names)),
        };
        // Used before anything is signed: a token is never good for two keys, whatever happens in between.
        token.used = Some(Use { at: now, name: name.clone(), key: print.digits() });
        self.store.put_token(given.id, &token)?;
        self.begin(given, request, name, print, from, now)
    }

    /// Takes up the request of a device that has used its token.
    fn begin(
        &self,
        given: &GivenToken<'_>,
        request: &CertificateSigningRequestDer<'_>,
        name: String,
        print: Fingerprint,
        from: &str,
        now: i64,
    ) -> Result<Asked, Error> {
        let record = RequestRecord {
            name: name.clone(),
            token: given.id.to_string(),
            asked: now,
            from: from.to_owned(),
            state: State::Pending,
            decided: None,
            request: pem("CERTIFICATE REQUEST", request),
            certificate: None,
        };
        self.store.put_request(&print.digits(), &record)?;
        if self.policy.approval {
            let reply = Reply::Pending { retry: ASK_AGAIN };
            return Ok(Asked { reply, name, key: Some(print), is_new: true });
        }
        issue(&self.store, &print.digits(), record, self.policy.valid, now)?;
        let issued = self.store.request(print)?.and_then(|request| request.certificate);
        self.issued(issued.as_deref(), name, print, now, true)
    }

    /// What became of a request.
    fn repeat(&self, known: RequestRecord, print: Fingerprint, now: i64) -> Result<Asked, Error> {
        let RequestRecord { name, state, certificate, .. } = known;
        match state {
            State::Pending if self.policy.approval => {
                let reply = Reply::Pending { retry: ASK_AGAIN };
                Ok(Asked { reply, name, key: Some(print), is_new: false })
            }
            State::Pending => {
                // The server was stopped before it had signed, or approval is no longer wanted.
                let Some(record) = self.store.request(print)? else {
                    return Ok(refused(Code::Token, "", name, Some(print)));
                };
                issue(&self.store, &print.digits(), record, self.policy.valid, now)?;
                let issued = self.store.request(print)?.and_then(|request| request.certificate);
                self.issued(issued.as_deref(), name, print, now, true)
            }
            State::Issued => self.issued(certificate.as_deref(), name, print, now, false),
            State::Rejected => Ok(refused(Code::Rejected, "by the server's operator", name, Some(print))),
        }
    }

    fn issued(
        &self,
        certificate: Option<&str>,
        name: String,
        key: Fingerprint,
        now: i64,
        is_new: bool,
    ) -> Result<Asked, Error> {
        let certificate = certificate.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
        match certificate {
            Some(Ok(certificate)) => {
                let reply = Reply::Issued { now: u64::try_from(now).unwrap_or(0), chain: vec![certificate] };
                Ok(Asked { reply, name, key: Some(key), is_new })
            }
            _ => {
                tracing::error!(
                    "enrolment: the certificate of {name} is missing or damaged in {}",
                    key.digits()
                );
                Ok(refused(Code::Internal, "the server's log has the reason", name, Some(key)))
            }
        }
    }

    /// The name that a device is given, or why it cannot be given one.
    fn name(
        &self,
        names: &str,
        wanted: Option<&str>,
        key: Fingerprint,
    ) -> Result<Result<String, String>, Error> {
        if !is_pattern(names) {
            return Ok(match wanted.filter(|wanted| *wanted != names) {
                Some(wanted) => Err(format!("the token is for {names}, not for {wanted}")),
                None => Ok(names.to_owned()),
            });
        }
        let Some(wanted) = wanted else {
            return Ok(Err(format!("the token is for a name like {names}; choose one with --name")));
        };
        if check_device(wanted).is_err() || !Pattern::parse(names).is_ok_and(|names| names.fits(wanted)) {
            return Ok(Err(format!("the token is for a name like {names}, not for {wanted}")));
        }
        // Whoever has such a token chooses a name, and must not choose that of another device.
        let is_other = |(of, request): &(String, RequestRecord)| {
            request.name == wanted && request.state == State::Pending && *of != key.digits()
        };
        if issued(self.store.dir())?.iter().any(|info| is_of(info, wanted))
            || self.store.requests()?.iter().any(is_other)
        {
            return Ok(Err(format!(
                "there is a device {wanted}; to replace it, make a token for this name alone, `narrows-tail enrol token {wanted}`"
            )));
        }
        Ok(Ok(wanted.to_owned()))
    }

    fn renew(
        &self,
        request: &CertificateSigningRequestDer<'_>,
        peer: Option<&[CertificateDer<'_>]>,
        now: i64,
        clock: Instant,
    ) -> Result<Asked, Error> {
        let own = peer.and_then(<[_]>::first).and_then(|own| CertificateInfo::read(own).ok());
        let Some(own) = own.filter(|own| own.kind.connects()) else {
            let reason = "the device has to show its present certificate";
            return Ok(refused(Code::Unauthenticated, reason, String::new(), None));
        };
        let name = own.names.first().cloned().unwrap_or_default();
        let Ok(key) = public_key(request) else { return Ok(refused(Code::Request, "", name, None)) };
        let print = Fingerprint::of(&key.subject_public_key_info());
        let no = |code, reason: &str| Ok(refused(code, reason, name.clone(), Some(print)));
        let ca = Authority::open(self.store.dir())?;
        if !issued(self.store.dir())?.contains(&own) {
            return no(
                Code::Unauthenticated,
                "the CA of this server has not issued the device's certificate",
            );
        }
        let list = present_list(self.store.dir(), ca.certificate())?;
        if list.is_some_and(|list| list.revoked().iter().any(|one| one.serial == own.serial)) {
            return no(Code::Revoked, &format!("the certificate of {name} is revoked"));
        }
        if !self.may_renew(&name, clock) {
            return no(Code::Often, &format!("{RENEWALS} renewals within an hour"));
        }
        let certificate = for_device(&ca, &own.names, &key, self.policy.valid)?;
        let reply = Reply::Issued { now: u64::try_from(now).unwrap_or(0), chain: vec![certificate] };
        Ok(Asked { reply, name, key: Some(print), is_new: true })
    }

    /// Counts a renewal of a device, unless there were too many.
    fn may_renew(&self, name: &str, clock: Instant) -> bool {
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.retain(|_, (since, _)| clock.saturating_duration_since(*since) < RENEWALS_SPAN);
        let (_, count) = renewals.entry(name.to_owned()).or_insert((clock, 0));
        *count += 1;
        *count <= RENEWALS
    }
}

/// A token as a device has given it.
struct GivenToken<'a> {
    id: TokenId,
    secret: &'a [u8; 16],
    /// The name that the device would like to have.
    name: Option<&'a str>,
}

/// Signs the certificate that is asked for and keeps it with the request.
fn issue(
    store: &Store,
    key: &str,
    mut request: RequestRecord,
    valid: Duration,
    now: i64,
) -> Result<Decided, Error> {
    let der = CertificateSigningRequestDer::from_pem_slice(request.request.as_bytes())
        .map_err(|_| Error::Request(rcgen::Error::CouldNotParseCertificationRequest))?;
    let public = public_key(&der).map_err(Error::Request)?;
    let ca = Authority::open(store.dir())?;
    let certificate = for_device(&ca, std::slice::from_ref(&request.name), &public, valid)?;
    request.certificate = Some(pem("CERTIFICATE", &certificate));
    (request.state, request.decided) = (State::Issued, Some(now));
    store.put_request(key, &request)?;
    Ok(Decided { name: request.name, key: format!("sha256:{key}") })
}

/// The request that an operator means.
fn waiting(store: &Store, which: &str) -> Result<(String, RequestRecord), Error> {
    let digits = which.strip_prefix("sha256:").unwrap_or(which).to_ascii_lowercase();
    let is_digits = digits.len() >= DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let requests = store.requests()?;
    let mut found: Vec<_> = requests
        .iter()
        .filter(|(key, request)| request.name == which || is_digits && key.starts_with(&digits))
        .collect();
    if found.len() > 1 {
        found.retain(|(_, request)| request.state == State::Pending);
    }
    match &found[..] {
        [(key, request)] => match request.state {
            State::Pending => Ok((key.clone(), request.clone())),
            state => Err(Error::Decided {
                name: request.name.clone(),
                key: format!("sha256:{key}"),
                how: if state == State::Issued { "approved" } else { "rejected" },
            }),
        },
        [] => {
            let waits: Vec<String> = requests
                .iter()
                .filter(|(_, request)| request.state == State::Pending)
                .map(|(key, request)| format!("{} ({})", request.name, &key[..12.min(key.len())]))
                .collect();
            let waits = if waits.is_empty() { "none waits".to_owned() } else { waits.join(", ") };
            Err(Error::Which(format!("no device {which:?} waits for approval; waiting: {waits}")))
        }
        several => {
            let keys: Vec<&str> = several.iter().map(|(key, _)| &key[..12.min(key.len())]).collect();
            let keys = keys.join(", ");
            Err(Error::Which(format!("several devices {which:?} wait; name one by its key: {keys}")))
        }
    }
}

/// The fingerprint of the key of the CA in `dir`, whose private key is not needed.
pub(super) fn authority_key(dir: &Path) -> Result<Fingerprint, Error> {
    let file = dir.join("ca.pem");
    let read = narrows_wire::identity::certificates(&file).map_err(certs::Error::from)?;
    let info = read.first().map(CertificateInfo::read).transpose().map_err(|reason| {
        let error = narrows_wire::identity::IdentityError::Dates { file, reason };
        certs::Error::from(error)
    })?;
    // A file of certificates holds at least one.
    Ok(Fingerprint::of(&info.map(|info| info.public_key).unwrap_or_default()))
}

/// Checks the name or the pattern that a token is for.
fn check_names(names: &str) -> Result<(), Error> {
    match is_pattern(names) {
        true => Pattern::parse(names).map(drop).map_err(Error::Names),
        false => Ok(check_device(names)?),
    }
}

fn is_pattern(names: &str) -> bool {
    names.contains(['*', '?'])
}

/// The key of a signing request whose signature is by that key. Whatever else it asks for is not given.
fn public_key(request: &CertificateSigningRequestDer<'_>) -> Result<PublicKey, rcgen::Error> {
    Ok(CertificateSigningRequestParams::from_der(request)?.public_key)
}

fn refused(code: Code, text: &str, name: String, key: Option<Fingerprint>) -> Asked {
    Asked { reply: Reply::Refused { code, text: text.to_owned() }, name, key, is_new: true }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", Quoted(&self.name), self.reply)
    }
}
