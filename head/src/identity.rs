//! The identity of this device, with a warning of an end that comes near.
#![expect(clippy::disallowed_methods, reason = "certificates end at some time")]

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use narrows_wire::identity::{Identity, IdentityError};

/// Reads the identity of a device in a folder and warns of certificates that have ended or will within 30 days.
///
/// # Errors
/// Those of [`Identity::load`] and [`Identity::require_device`].
pub(crate) fn load(folder: &Path) -> Result<Identity, IdentityError> {
    let identity = Identity::load(folder)?;
    identity.require_device()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for warning in warnings(&identity, i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) {
        tracing::warn!("{warning}");
    }
    Ok(identity)
}

/// The name of this device: as given, or that of its certificate, or of the host.
pub(crate) fn device_name(given: Option<&str>, identity: Option<&Identity>) -> String {
    let host = || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned();
        (!name.is_empty()).then_some(name)
    };
    let certified = || identity.and_then(Identity::name);
    given.map(str::to_owned).or_else(certified).or_else(host).unwrap_or_else(|| "device".to_owned())
}

/// What should be mended soon, at `now` in seconds since 1970.
fn warnings(identity: &Identity, now: i64) -> Vec<String> {
    let ends = identity.validity().unwrap_or_default();
    ends.iter()
        .filter_map(|one| one.ending(now).map(|text| format!("{text}; {}", remedy(one.file))))
        .collect()
}

/// What to do about a certificate that ends.
pub(crate) fn remedy(file: &str) -> &'static str {
    match file {
        "ca.pem" => "the server's operator has to make a new CA",
        _ => {
            "renew it here, narrows-head renew --identity DIR, or where the CA is: narrows-tail certs renew NAME --dir certs"
        }
    }
}
