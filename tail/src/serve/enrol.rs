//! Opens what enrols devices, if that is wanted.

use narrows_wire::{
    identity::{CertificateInfo, Identity},
    quic::SetupError,
};
use tokio::sync::watch;

use super::resolve;
use crate::{
    Error,
    certs::Authority,
    config::{Approval, Serve},
    enrol::{Office, Policy},
    frontend::enrol::Enrolments,
};

/// What enrols devices, ready to begin.
pub(crate) struct Enrolment {
    address: std::net::SocketAddr,
    office: Office,
    rate: u32,
}

impl Enrolment {
    /// Opens what enrols devices; `None` if nobody is to be enrolled.
    ///
    /// # Errors
    /// The CA cannot sign, has not signed the server's certificate, or the address cannot be listened on.
    pub(crate) fn open(config: &Serve, identity: &Identity) -> Result<Option<Enrolment>, Error> {
        let Some((listen, dir)) = config.enrol.listen.as_ref().zip(config.enrol.ca.as_ref()) else {
            return Ok(None);
        };
        let policy =
            Policy { approval: config.enrol.approval == Approval::Operator, valid: config.enrol.valid };
        let ca = Authority::open(dir).map_err(crate::enrol::Error::from)?;
        let key = |der| CertificateInfo::read(der).ok().map(|info| info.public_key);
        let own = key(ca.certificate());
        // Devices know the server by the key of this CA.
        if !identity.ca().iter().any(|one| key(one) == own) || !identity.is_issued_by(ca.certificate()) {
            return Err(Error::OtherAuthority { dir: dir.clone(), identity: identity.folder().to_owned() });
        }
        drop(ca);
        let office = Office::open(dir, policy)?;
        let address = resolve(listen)?;
        let rate = u32::try_from(config.enrol.rate).unwrap_or(u32::MAX);
        Ok(Some(Enrolment { address, office, rate }))
    }

    /// Listens, and enrols devices until the drain begins.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(super) fn begin(
        self,
        identity: &Identity,
        drain: watch::Receiver<bool>,
    ) -> Result<Enrolments, Error> {
        let Enrolment { address, office, rate } = self;
        let enrolments = Enrolments::listen(address, identity)?;
        let address = enrolments.address().map_err(|source| SetupError::Bind { address, source })?;
        tracing::info!(%address, "enrolling devices");
        tokio::spawn(enrolments.clone().serve(office, rate, drain));
        Ok(enrolments)
    }
}
