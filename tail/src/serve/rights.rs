//! Where the rights of devices stand: in a file of their own, or in the section `[devices]` of the configuration file.

use std::path::{Path, PathBuf};

use narrows_service::{Settings, read_text};

use super::changes::Changes;
use crate::{Error, config::Serve, devices::Devices};

/// The section of the configuration file.
const SECTION: &str = "devices";

/// The file with the devices' rights.
pub(crate) struct RightsFile {
    path: PathBuf,
    /// Whether they are a section of the file, and not the whole of it.
    is_section: bool,
    pub(super) changes: Changes,
}

impl RightsFile {
    /// Reads the rights that a server with these settings gives; `None` if they say nothing of rights.
    ///
    /// # Errors
    /// [`Error::UnreadDevices`] or [`Error::Devices`].
    pub(crate) fn of(
        config: &Serve,
        settings: Option<&Settings>,
    ) -> Result<Option<(RightsFile, Devices)>, Error> {
        let section = settings.filter(|settings| settings.has_section(SECTION));
        let (path, is_section) = match (&config.devices, section) {
            // What the command line gives counts more.
            (Some(path), _) => (path.clone(), false),
            (None, Some(settings)) => (settings.file().to_owned(), true),
            (None, None) => return Ok(None),
        };
        let file = RightsFile { changes: Changes::of(&path), path, is_section };
        let devices = file.load()?;
        Ok(Some((file, devices)))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the rights are a section of the configuration file.
    pub(super) fn is_section(&self) -> bool {
        self.is_section
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::UnreadDevices`] or [`Error::Devices`].
    pub(super) fn load(&self) -> Result<Devices, Error> {
        let unread = |source| Error::UnreadDevices { file: self.path.clone(), source };
        let text = read_text(&self.path).map_err(unread)?;
        let devices = if self.is_section { Devices::parse_section(&text) } else { Devices::parse(&text) };
        devices.map_err(|source| Error::Devices { file: self.path.clone(), source })
    }
}
