//! `narrows-head enrol` and `narrows-head renew`: a certificate for a private key that is made here and never leaves this device, and
//! another one before it ends (docs/enrolment.md).
#![expect(clippy::disallowed_methods, reason = "a server is waited for within a given time")]

mod clock;
mod exchange;
mod folder;
mod renewal;

use std::{
    io::Read,
    path::PathBuf,
    time::{Duration, Instant},
};

use narrows_wire::{
    enrol::{EnrolmentReply, EnrolmentRequest, Token},
    identity::Fingerprint,
    quic::{Tuning, enrolment_client},
};
use tokio::time::sleep;

use self::{exchange::ask, folder::Folder};
pub(crate) use self::{folder::settle, renewal::Renewal};
use crate::{
    Chain, Error,
    config::{Server, enrolment_server},
    event_loop::event_loop,
    name::Escaped,
    uplink::ConnectError,
};

/// Pause between two attempts to reach the server.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest token file.
const TOKEN_MAX: u64 = 4096;
/// From which difference to the server's clock on this device's is told to be wrong.
const CLOCKS: i64 = 300;

/// The flags of `narrows-head enrol`.
#[derive(Debug, Clone, clap::Args)]
pub struct EnrolFlags {
    /// Address of a tail that enrols devices (`narrows-tail serve --enrol`): a name or an address in its certificate, and a port
    /// [default port: 7463]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: String,

    /// Token that `narrows-tail enrol token` printed. Others on this device see it in the list of processes; it is of no use to them
    /// once it was used
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file")]
    pub token: Option<String>,

    /// File with the token, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// Name of this device in its certificate: 1 to 63 characters of a-z 0-9 -, with dots between parts [default: the one that the
    /// token is for]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Folder for the identity, which is made if missing: ca.pem, cert.pem, and key.pem, which this user alone can read
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,

    /// Seconds to wait for the server, and for its operator where it wants approval. Later the same command goes on where it was
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    pub wait: u64,
}

/// The flags of `narrows-head renew`.
#[derive(Debug, Clone, clap::Args)]
pub struct RenewFlags {
    /// Folder of the identity
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,

    /// Address of a tail that enrols devices [default: the one that this device was enrolled by]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: Option<String>,
}

/// Gets a certificate for this device, prints its folder, and says on standard error what it is for.
///
/// # Errors
/// The token or the folder cannot be used, the server is not the one that the token is of, it cannot be reached in time, or it gives no
/// certificate.
pub fn enrol(flags: &EnrolFlags) -> Result<(), Error> {
    let token = token(flags)?;
    let server = enrolment_server("--server", &flags.server)?;
    let folder = Folder::begin(&flags.identity)?;
    let key = folder.key()?;
    let print = Fingerprint::of(&key.public_key());
    eprintln!("the key of this device: {print}");
    let request = EnrolmentRequest::Enrol {
        token: token.id(),
        secret: *token.secret(),
        name: flags.name.clone(),
        request: key.signing_request(flags.name.as_deref())?,
    };
    let wait = Duration::from_secs(flags.wait);
    let answer = event_loop()?.block_on(first(&server, &token, &request, wait))?;
    let now = clock::now();
    let identity = folder.identity(answer.ca, answer.chain, &key, answer.now, now, &server)?;
    folder.write(&identity, &server)?;
    let (info, ca) = (&identity.info, Fingerprint::of(&identity.ca.public_key));
    place(&flags.identity)?;
    eprintln!(
        "enrolled as {} until {}; the CA of the server: {ca}",
        info.names.first().map_or("", String::as_str),
        clock::text(info.until),
    );
    let difference = answer.now - now;
    if difference.abs() > CLOCKS {
        let (here, there) = (clock::text(now), clock::text(answer.now));
        eprintln!(
            "the clock of this device shows {here}, that of the server {there}: no certificate is accepted before the clock is right \
             (timedatectl set-ntp true)"
        );
    }
    Ok(())
}

/// Renews the certificate in a folder, prints the folder, and says on standard error until when it is valid.
///
/// # Errors
/// The folder cannot be used or written, the server cannot be reached, or gives no certificate.
pub fn renew(flags: &RenewFlags) -> Result<(), Error> {
    settle(&flags.identity)?;
    let server = match &flags.server {
        Some(text) => enrolment_server("--server", text)?,
        None => folder::renew_at(&flags.identity)?.ok_or_else(|| {
            let folder = Escaped(&flags.identity);
            Error::usage(
                "--server",
                format!("{folder} does not say where this device was enrolled; give the address of a tail with --enrol"),
            )
        })?,
    };
    let info = event_loop()?.block_on(renewal::renew(&flags.identity, &server))?;
    place(&flags.identity)?;
    let name = info.names.first().map_or("", String::as_str);
    eprintln!(
        "renewed: {name} until {}; the new key: {}",
        clock::text(info.until),
        Fingerprint::of(&info.public_key)
    );
    Ok(())
}

/// A first certificate, with the CA that the token names.
struct Answer {
    ca: rustls_pki_types::CertificateDer<'static>,
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// The server's time in seconds since 1970.
    now: i64,
}

/// Asks until there is an answer that stays.
async fn first(
    server: &Server,
    token: &Token,
    request: &EnrolmentRequest,
    wait: Duration,
) -> Result<Answer, Error> {
    let began = Instant::now();
    let (mut told, mut waits) = (String::new(), false);
    loop {
        let (config, enrolling) = enrolment_client(token.ca(), &Tuning::default())?;
        let pause = match ask(server, &config, enrolling.check(), request).await {
            Ok((EnrolmentReply::Issued { now, chain }, connection)) => {
                let problem = "it does not show its CA".to_owned();
                let ca = enrolling.authority(&connection);
                let ca = ca.ok_or(Error::EnrolmentAnswer { server: server.to_string(), problem })?;
                return Ok(Answer { ca, chain, now: i64::try_from(now).unwrap_or(i64::MAX) });
            }
            Ok((EnrolmentReply::Pending { retry }, _)) => {
                if began.elapsed() >= wait {
                    return Err(Error::Unapproved { server: server.to_string(), waited: began.elapsed() });
                }
                if !std::mem::replace(&mut waits, true) {
                    eprintln!(
                        "waiting for approval: narrows-tail enrol approve, on the server, with the key above"
                    );
                }
                retry.clamp(PAUSE / 2, 30 * PAUSE)
            }
            Ok((refused, _)) => {
                let (server, reason) = (server.to_string(), refused.to_string());
                return Err(Error::NotEnrolled { server, reason });
            }
            Err(ConnectError::Transient(reason)) => {
                if began.elapsed() >= wait {
                    let (server, waited) = (server.to_string(), began.elapsed());
                    return Err(Error::Unreachable { server, waited, source: Box::new(reason) });
                }
                let text = Chain(&reason).to_string();
                if told != text {
                    tracing::warn!("no server at {server} yet: {text}; trying for {} s", wait.as_secs());
                    told = text;
                }
                PAUSE
            }
            Err(ConnectError::Unproven(error) | ConnectError::Permanent(error)) => return Err(error),
        };
        sleep(pause).await;
    }
}

/// The token, wherever it is given.
fn token(flags: &EnrolFlags) -> Result<Token, Error> {
    let (flag, text) = match (&flags.token, &flags.token_file) {
        (Some(text), _) => ("--token", text.clone()),
        (None, Some(file)) => {
            let mut text = String::new();
            let read = match file.as_os_str() == "-" {
                true => std::io::stdin().take(TOKEN_MAX).read_to_string(&mut text),
                false => {
                    std::fs::File::open(file).and_then(|file| file.take(TOKEN_MAX).read_to_string(&mut text))
                }
            };
            read.map_err(|error| Error::usage("--token-file", format!("{}: {error}", Escaped(file))))?;
            ("--token-file", text)
        }
        (None, None) => ("--token", String::new()),
    };
    text.parse().map_err(|fault| Error::usage(flag, format!("{fault}")))
}

fn place(folder: &std::path::Path) -> Result<(), Error> {
    let place = "standard output".to_owned();
    narrows_service::print(&format!("{}\n", folder.display()))
        .map_err(|source| Error::Output { place, source })
}
