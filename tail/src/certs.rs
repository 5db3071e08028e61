//! `narrows-tail certs`: a private CA, the server's identity and one identity per device; their renewal, their revocation,
//! and the list of what was issued (docs/certificates.md).
//!
//! ```text
//! DIR/ca.pem ca.key       the CA; only the commands that sign read ca.key
//! DIR/server/             the server's identity: ca.pem cert.pem key.pem, and crl.pem once a device was revoked
//! DIR/devices/NAME/       a device's identity: ca.pem cert.pem key.pem
//! DIR/issued/SERIAL.pem   every certificate that the CA has signed
//! DIR/crl.pem             the certificate revocation list
//! ```
//!
//! Commands that sign hold a lock on `ca.key`, so two of them at once lose nothing.

mod authority;
mod date;
mod error;
mod files;
mod issue;
mod list;
mod name;
mod records;
mod revoke;

pub(crate) use self::{
    authority::Authority,
    date::{now, text},
    files::{create_folder, replace},
    issue::for_device,
    name::check_device,
    records::all as issued,
    revoke::{is_of, present_list},
};
pub use self::{
    error::Error,
    issue::{Issued, Key, device, init, renew, server},
    list::{Entry, State, list, table},
    revoke::{Revocation, revoke},
};

#[cfg(test)]
mod tests;
