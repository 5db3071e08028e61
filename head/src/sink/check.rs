//! Looks whether sinks can be opened, before they are.

use super::{page, tls};
use crate::{
    Error,
    config::{Lines, Outputs},
    line_file::LineFile,
};

/// Reads the certificates and keys of every sink that uses TLS.
///
/// # Errors
/// [`Error::Usage`] for a file that cannot be used.
pub(crate) fn check_files(outputs: &Outputs) -> Result<(), Error> {
    if let Some(mqtt) = outputs.mqtt.as_ref().filter(|mqtt| mqtt.tls) {
        let identity =
            mqtt.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        tls::config(tls::roots("--mqtt-ca", mqtt.ca.as_deref())?, identity)?;
    }
    if let Some(webhook) =
        outputs.webhook.as_ref().filter(|webhook| webhook.url.scheme_str() == Some("https"))
    {
        tls::roots("--webhook-ca", webhook.ca.as_deref())?;
    }
    Ok(())
}

/// Checks whether sinks can be opened beside those of `present`, whose files and addresses are in use.
///
/// # Errors
/// Those of the first sink that cannot be opened.
pub(crate) fn check(outputs: &Outputs, present: Option<&Outputs>) -> Result<(), Error> {
    check_files(outputs)?;
    let present_page = present.and_then(|present| present.page.as_ref());
    if let Some(page) = &outputs.page
        && present_page.is_none_or(|present| present.listen != page.listen)
    {
        drop(page::listen(page)?);
    }
    match &outputs.lines {
        Lines::File { path, rotate_size, keep }
            if present.is_none_or(|present| present.lines != outputs.lines) =>
        {
            LineFile::open("--lines", path, *rotate_size, *keep).map(drop)
        }
        _ => Ok(()),
    }
}
