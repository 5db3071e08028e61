//! The list of tokens and requests.

use std::{fmt::Write, path::Path};

use serde::Serialize;

use super::{
    error::Error,
    store::{State, Store},
};
use crate::certs::{now, text};

/// A token in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenEntry {
    /// Its number.
    pub id: String,
    /// The name of the device that it is for, or a pattern of names.
    pub names: String,
    /// When it was made, as in RFC 3339.
    pub made: String,
    /// When it ends.
    pub ends: String,
    /// `open`, `used` or `ended`.
    pub state: &'static str,
    /// The device that has used it.
    pub device: Option<String>,
}

/// A device's request in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestEntry {
    /// The fingerprint of the device's key.
    pub key: String,
    /// The device.
    pub name: String,
    /// The number of its token.
    pub token: String,
    /// When it asked, as in RFC 3339.
    pub asked: String,
    /// The address that it asked from.
    pub from: String,
    /// `pending`, `issued` or `rejected`.
    pub state: State,
    /// When it was decided.
    pub decided: Option<String>,
}

/// Lists the tokens and requests in the folder of a CA, oldest first. No private key is needed.
///
/// # Errors
/// [`Error::Read`] or [`Error::Damaged`].
pub fn list(dir: &Path) -> Result<(Vec<TokenEntry>, Vec<RequestEntry>), Error> {
    if !dir.join("enrol").is_dir() {
        // Nothing was asked for yet; the CA itself must be there.
        super::office::authority_key(dir)?;
        return Ok(Default::default());
    }
    let (store, now) = (Store::open(dir)?, now().unix_timestamp());
    let tokens = store.tokens()?.into_iter().map(|(id, token)| TokenEntry {
        id,
        made: text(token.made),
        ends: text(token.ends),
        state: match &token.used {
            Some(_) => "used",
            None if now > token.ends => "ended",
            None => "open",
        },
        device: token.used.map(|used| used.name),
        names: token.names,
    });
    let requests = store.requests()?.into_iter().map(|(key, request)| RequestEntry {
        key: format!("sha256:{key}"),
        name: request.name,
        token: request.token,
        asked: text(request.asked),
        from: request.from,
        state: request.state,
        decided: request.decided.map(text),
    });
    Ok((tokens.collect(), requests.collect()))
}

/// Tokens and requests as two tables with one line each.
#[must_use]
pub fn table(tokens: &[TokenEntry], requests: &[RequestEntry]) -> String {
    let width = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.chars().count()).max().unwrap_or(0).max(5)
    };
    let minute = |time: &str| time.chars().take(16).collect::<String>();
    let wide = width(&mut tokens.iter().map(|token| &token.names));
    let mut table =
        format!("{:<16}  {:<wide$}  {:<16}  {:<6}  DEVICE\n", "TOKEN", "NAMES", "ENDS (UTC)", "STATE");
    for TokenEntry { id, names, ends, state, device, .. } in tokens {
        let (ends, device) = (minute(ends), device.as_deref().unwrap_or(""));
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{id:<16}  {names:<wide$}  {ends:<16}  {state:<6}  {device}");
    }
    let wide = width(&mut requests.iter().map(|request| &request.name));
    let _ =
        writeln!(table, "\n{:<wide$}  {:<16}  {:<8}  {:<22}  KEY", "DEVICE", "ASKED (UTC)", "STATE", "FROM");
    for RequestEntry { key, name, asked, from, state, .. } in requests {
        let state = match state {
            State::Pending => "pending",
            State::Issued => "issued",
            State::Rejected => "rejected",
        };
        let asked = minute(asked);
        let _ = writeln!(table, "{name:<wide$}  {asked:<16}  {state:<8}  {from:<22}  {key}");
    }
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}
