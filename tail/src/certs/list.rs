//! The list of the certificates that a CA has signed.

use std::{fmt::Write, path::Path};

use narrows_wire::identity::{CertificateInfo, CertificateKind, RENEW_DAYS};
use serde::Serialize;

use super::{
    date::{now, text},
    error::Error,
    records,
    revoke::list_of,
};

/// A certificate in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// `ca`, `server` or `device`; `any` and `other` for certificates that another program made.
    pub kind: String,
    /// The name: that of the device, or the certificate's subject.
    pub name: String,
    /// The DNS names and addresses in it.
    pub names: Vec<String>,
    /// Whether it can be used.
    pub state: State,
    /// When it begins to be valid, as in RFC 3339.
    pub begins: String,
    /// When it ends.
    pub ends: String,
    /// When it was revoked.
    pub revoked: Option<String>,
    /// The serial number in hexadecimal digits.
    pub serial: String,
}

/// Whether a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It can.
    Valid,
    /// It can, and ends within [`RENEW_DAYS`].
    Expiring,
    /// It has ended.
    Ended,
    /// It is revoked.
    Revoked,
}

/// Lists the CA in `dir` and the certificates that it has signed: the CA, the server's and the devices', each by name and the
/// oldest first. The CA's key is not needed.
///
/// # Errors
/// [`Error::Identity`] if the CA's certificate is missing, or a certificate or the revocation list is damaged;
/// [`Error::File`] if a folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Entry>, Error> {
    let (ca, revoked) = list_of(dir)?;
    let records = records::all(dir)?;
    let now = now().unix_timestamp();
    let entry = |info: &CertificateInfo| {
        let revoked = revoked.iter().flat_map(|list| list.revoked());
        let revoked = revoked.filter(|one| one.serial == info.serial).map(|one| one.at).min();
        Entry {
            kind: info.kind.to_string(),
            name: quote(match info.kind {
                CertificateKind::Device | CertificateKind::Any => info.names.first().unwrap_or(&info.subject),
                _ => &info.subject,
            }),
            names: info.names.iter().map(|name| quote(name)).collect(),
            state: match info.until - now {
                _ if revoked.is_some() => State::Revoked,
                left if left < 0 => State::Ended,
                left if left < RENEW_DAYS * 86_400 => State::Expiring,
                _ => State::Valid,
            },
            begins: text(info.from),
            ends: text(info.until),
            revoked: revoked.map(text),
            serial: records::hex(&info.serial),
        }
    };
    let mut entries: Vec<Entry> = records.iter().map(entry).collect();
    let rank = |kind: &str| ["server", "device"].iter().position(|known| *known == kind).unwrap_or(2);
    entries.sort_by(|a, b| (rank(&a.kind), &a.name).cmp(&(rank(&b.kind), &b.name)));
    entries.insert(0, entry(&ca));
    Ok(entries)
}

/// The entries as a table with one line each.
#[must_use]
pub fn table(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0).max(4);
    let mut table = format!(
        "{:<6}  {:<width$}  {:<10}  {:<10}  {:<7}  NAMES\n",
        "KIND", "NAME", "BEGINS", "ENDS", "STATE"
    );
    for entry in entries {
        let state = match entry.state {
            State::Valid => "valid",
            State::Expiring => "expiring",
            State::Ended => "ended",
            State::Revoked => "revoked",
        };
        let date = |time: &str| time.chars().take(10).collect::<String>();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{:<6}  {:<width$}  {:<10}  {:<10}  {state:<7}  {}",
            entry.kind,
            entry.name,
            date(&entry.begins),
            date(&entry.ends),
            entry.names.join(" ")
        );
    }
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

/// A name without control characters.
fn quote(name: &str) -> String {
    name.escape_debug().to_string()
}
