//! The socket at which `narrows-head status` asks a run how it is doing.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use crate::{Error, name::Escaped, report::RunState};

/// How long one who asks for the state may take to read it.
const ASKED: Duration = Duration::from_secs(1);
/// The pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);
/// Who may ask: the user and the group of the run.
const MODE: u32 = 0o660;

/// A listening socket.
pub(super) struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl StatusSocket {
    /// Begins to listen. A socket that nobody answers any more is replaced.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is something else of that name, or where the socket cannot be made.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::usage("--status-socket", format!("{} {reason}", Escaped(path)));
        if let Ok(meta) = fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(wrong("is no socket, and is not replaced; give another name".to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(wrong("is answered by another program; give another name".to_owned()));
            }
            fs::remove_file(path).map_err(|error| wrong(format!("cannot be replaced: {error}")))?;
        }
        let unmade = |error: io::Error| wrong(format!("cannot be made: {error}"));
        let listener = UnixListener::bind(path).map_err(unmade)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(unmade)?;
        listener.set_nonblocking(true).map_err(unmade)?;
        Ok(StatusSocket { listener, path: path.to_owned() })
    }

    /// Tells the state to everybody who connects, by the runtime whose context this is called in.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses.
    pub(super) fn serve(&self, state: Arc<RunState>) -> Result<(), Error> {
        let failed = |source| Error::Device { problem: "the status socket cannot be served", source };
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std);
        let listener = listener.map_err(failed)?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((mut stream, _)) => {
                        let json = state.json();
                        tokio::spawn(async move {
                            // Who reads too slowly gets no whole answer.
                            let _ = timeout(ASKED, stream.write_all(&json)).await;
                        });
                    }
                    // Out of descriptors; some may be freed.
                    Err(_) => sleep(PAUSE).await,
                }
            }
        });
        Ok(())
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // Where it is gone already there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// The file of the socket: as given, or in the runtime folder that systemd makes (`RuntimeDirectory=`).
pub(crate) fn socket_of(given: Option<&Path>) -> Option<PathBuf> {
    let folder = || {
        let folders = std::env::var_os("RUNTIME_DIRECTORY")?;
        let first = std::env::split_paths(&folders).next()?;
        Some(first.join("head.sock"))
    };
    given.map(Path::to_owned).or_else(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_answers_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.sock");
        let open = || StatusSocket::open(&path).map(drop).unwrap_err().to_string();
        let first = StatusSocket::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(open().contains("is answered by another program"));
        drop(first);
        assert!(!path.exists());
        // As a program leaves it that was killed.
        drop(UnixListener::bind(&path).unwrap());
        drop(StatusSocket::open(&path).unwrap());
        fs::write(&path, "text").unwrap();
        assert!(open().contains("is no socket, and is not replaced"));
    }
}
