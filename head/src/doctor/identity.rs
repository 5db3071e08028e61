//! Validity of the certificates.

use std::io;

use narrows_service::Check;
use narrows_wire::{
    identity::{IdentityError, RENEW_DAYS, Validity},
    quic::{ClientFault, SetupError},
};

use crate::{Chain, identity};

/// How to make an identity.
pub(super) const MAKE: &str = "Get one from the server, `narrows-head enrol` (docs/enrolment.md), or make it beside the CA, `narrows-tail certs device NAME --dir certs`, and copy certs/devices/NAME here";

/// What would make an identity usable that cannot be read or used.
pub(super) fn remedy(error: &SetupError) -> &'static str {
    match error {
        SetupError::Identity(IdentityError::Read { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            "Run narrows as the user that owns the folder, or give the folder to this user (chown)"
        }
        _ => MAKE,
    }
}

/// The check of a certificate that a tail would not accept.
pub(super) fn fault(fault: &ClientFault) -> Option<Check> {
    match fault {
        // The lines of the dates say so.
        ClientFault::Time => None,
        // A tail with another CA than the head's own may be what is wanted.
        ClientFault::Issuer => Some(Check::warning("identity", fault.to_string(), MAKE)),
        _ => Some(Check::failed("identity", fault.to_string(), MAKE)),
    }
}

const DAY: i64 = 86_400;

/// Returns one check per certificate, at `now` in seconds since 1970.
pub(super) fn dates(validity: Result<Vec<Validity>, IdentityError>, now: i64) -> Vec<Check> {
    let validity = match validity {
        Ok(validity) => validity,
        Err(error) => return vec![Check::failed("identity", Chain(&error).to_string(), MAKE)],
    };
    validity.into_iter().map(|one| date(one.file, one.from, one.until, now)).collect()
}

fn date(file: &str, from: i64, until: i64, now: i64) -> Check {
    let (since, left) = ((now - from).div_euclid(DAY), (until - now).div_euclid(DAY));
    if now < from {
        let found = format!("{file} becomes valid in {} days", -since);
        return Check::failed("identity", found, "Set this device's clock: timedatectl set-ntp true");
    }
    match left {
        left if left < 0 => {
            Check::failed("identity", format!("{file} ended {} days ago", -left), identity::remedy(file))
        }
        left if left < RENEW_DAYS => {
            Check::warning("identity", format!("{file} ends in {left} days"), identity::remedy(file))
        }
        left => Check::ok("identity", format!("{file} is valid for another {left} days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn validity_is_stated_in_days() {
        let at = |now: i64| date("cert.pem", 100 * DAY, 200 * DAY, now * DAY);
        assert_eq!(at(100), Check::ok("identity", "cert.pem is valid for another 100 days"));
        assert_eq!(at(171).state, State::Warning);
        assert_eq!(at(200).found, "cert.pem ends in 0 days");
        assert!(at(201).found == "cert.pem ended 1 days ago" && at(201).state == State::Failed);
        assert!(at(99).found.contains("in 1 days") && at(99).remedy.unwrap().contains("clock"));
    }
}
