//! `narrows-tail enrol`, and what the listener of enrolments decides: which device gets a certificate, by a token that an operator has
//! made, and where the operator wants it by approval (docs/enrolment.md). The private key never leaves the device.
//!
//! ```text
//! DIR/                        the folder of the CA, as `certs init` made it
//! DIR/enrol/tokens/ID.toml    a token: names, end, digest of its secret, and who has used it
//! DIR/enrol/requests/KEY.toml a device's request, by the fingerprint of its key, and what became of it
//! DIR/enrol/lock              locked by whoever changes one of these
//! ```
//!
//! Every file is written aside and renamed, so that a loss of power leaves the old one or the new one. Whatever is decided is on disk
//! before it is answered: a device that did not hear the answer asks again with the same key and gets the same.

mod error;
mod list;
mod office;
mod store;

pub(crate) use self::office::{Asked, Office, Policy};
pub use self::{
    error::Error,
    list::{RequestEntry, TokenEntry, list, table},
    office::{Decided, NewToken, approve, reject, token},
};

#[cfg(test)]
mod tests;
