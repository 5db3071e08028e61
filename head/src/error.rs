//! Errors of the device, each with its sources and a kind that tells who can mend it.

use std::{
    error::Error as StdError,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use narrows_wire::{
    BundleId, HelloRefusal, Refusal,
    identity::IdentityError,
    quic::{CertificateFault, ConnectionEnd, SetupError},
    stream::StreamError,
};

use crate::{
    encoding::EncodeError, image::ImageFault, name::Escaped, net, obstacle::Obstacle, source::SourceError,
};

/// Why a run could not start or continue, or why a frame failed.
///
/// Its text does not repeat its sources; [`Chain`] prints it with them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The value of a flag cannot be used.
    #[error("{flag}: {reason}")]
    Usage {
        /// The flag.
        flag: &'static str,
        /// What is wrong, and which values can be used.
        reason: String,
    },
    /// The bundle cannot be opened.
    #[error("--bundle")]
    Bundle(#[from] narrows_models::Error),
    /// The bundle's tables do not follow codec/FORMAT.md.
    #[error("--bundle: {part}")]
    Tables {
        /// The part, relative to the bundle's folder.
        part: String,
        /// What is wrong with it.
        source: narrows_codec::Error,
    },
    /// The bundle's head or local network cannot be run exactly.
    #[error("--bundle: {part}")]
    Head {
        /// The part, relative to the bundle's folder.
        part: String,
        /// What is wrong with it, and at which node.
        source: net::Error,
    },
    /// A network failed on a frame.
    #[error("--bundle")]
    Net(#[from] net::Error),
    /// Head and tail have different bundles.
    #[error(
        "the server at {server} serves another bundle: {theirs}; this head holds {ours}. \
         Install the same bundle folder on both sides",
        ours = short(.ours),
        theirs = if .theirs.is_empty() { "none".into() } else { .theirs.iter().map(short).collect::<Vec<_>>().join(", ") }
    )]
    Mismatch {
        /// Address of the server.
        server: String,
        /// Identity of this head's bundle.
        ours: BundleId,
        /// Identities of the server's bundles.
        theirs: Vec<BundleId>,
    },
    /// The identity folder cannot be used.
    #[error("--identity")]
    Identity(#[from] IdentityError),
    /// This head does not accept the certificate that somebody showed at the server's address.
    #[error("no trust between this head and the server at {server}: {fault}{}", hint(.fault))]
    Certificate {
        /// Address of the server.
        server: String,
        /// What is wrong with the certificate.
        fault: CertificateFault,
    },
    /// The server does not accept this head's certificate.
    #[error(
        "no trust between this head and the server at {server}: {reason}. \
         --identity must come from the CA that the server was set up with, and be neither revoked nor out of date"
    )]
    Trust {
        /// Address of the server.
        server: String,
        /// The reason that the server gave.
        reason: ConnectionEnd,
    },
    /// The folder has an identity already.
    #[error(
        "{} exists: this device is enrolled. `narrows-head renew --identity {}` renews its certificate; to enrol it anew, remove the \
         folder",
        Escaped(file),
        Escaped(folder)
    )]
    Enrolled {
        /// The folder.
        folder: PathBuf,
        /// The file that is there.
        file: PathBuf,
    },
    /// A server gives this device no certificate.
    #[error("the server at {server} gives no certificate: {reason}")]
    NotEnrolled {
        /// Address of the server.
        server: String,
        /// The server's code and text.
        reason: String,
    },
    /// The operator has not approved this device in time.
    #[error(
        "the operator of the server at {server} has not approved this device within {:.0} s; the same command goes on waiting",
        .waited.as_secs_f64()
    )]
    Unapproved {
        /// Address of the server.
        server: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// What a server has answered is no identity for this device.
    #[error("what the server at {server} answers cannot be used: {problem}")]
    EnrolmentAnswer {
        /// Address of the server.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A private key cannot be made or read, or a signing request not be made with it.
    #[error("this device's private key")]
    Key(#[source] rcgen::Error),
    /// The source holds no images.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server could not be reached in time.
    #[error("no server at {server} within {:.1} s", .waited.as_secs_f64())]
    Unreachable {
        /// Address of the server.
        server: String,
        /// How long it was tried.
        waited: Duration,
        /// Why the last attempt failed.
        source: Box<Unavailable>,
    },
    /// The server refused this head.
    #[error("the server at {server}: {refusal}")]
    Refused {
        /// Address of the server.
        server: String,
        /// The server's code and text.
        refusal: Box<HelloRefusal>,
    },
    /// The server does not follow the protocol.
    #[error("the server at {server} breaks the protocol")]
    Protocol {
        /// Address of the server.
        server: String,
        /// What it did.
        source: narrows_wire::Error,
    },
    /// A file cannot be read.
    #[error("{}", Escaped(file))]
    File {
        /// The file.
        file: PathBuf,
        /// What the operating system reported.
        source: io::Error,
    },
    /// A file holds no usable image.
    #[error("{}", Escaped(file))]
    Image {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: ImageFault,
    },
    /// The frame of a camera holds no usable image.
    #[error("camera {camera}")]
    Camera {
        /// The camera's name.
        camera: String,
        /// What is wrong with the frame.
        source: ImageFault,
    },
    /// The frame of a camera cannot be converted to RGB.
    #[error("camera {camera}")]
    Convert {
        /// The camera's name.
        camera: String,
        /// What the conversion says.
        source: narrows_video::StreamFault,
    },
    /// The picture of a frame was not kept and cannot be read again.
    #[error("the frame's picture was not kept")]
    Gone,
    /// The symbols of a frame could not be coded.
    #[error("the frame cannot be coded")]
    Code(#[source] narrows_codec::Error),
    /// Power cannot be measured, or a meter's recording cannot be used.
    #[error(transparent)]
    Power(#[from] narrows_power::Error),
    /// An image could not be encoded for the server.
    #[error("the image cannot be encoded")]
    Encode(#[from] EncodeError),
    /// A result cannot be written.
    #[error("cannot write {place}")]
    Output {
        /// A file, or standard output.
        place: String,
        /// What the operating system reported.
        source: io::Error,
    },
    /// QUIC cannot be set up on this device.
    #[error("this device")]
    Quic(#[source] SetupError),
    /// The operating system refused something that every run needs.
    #[error("this device: {problem}")]
    Device {
        /// What could not be done.
        problem: &'static str,
        /// What the operating system reported.
        source: io::Error,
    },
    /// The line of a frame cannot be written as JSON.
    #[error("the line cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The work on one frame panicked.
    #[error("{task}: a panic: {message}")]
    Panic {
        /// What could not be done.
        task: &'static str,
        /// What the panic said.
        message: String,
    },
    /// A thread ended by a panic.
    #[error("this device: the thread that {task} failed")]
    Thread {
        /// What the thread does.
        task: &'static str,
    },
}

/// Why the server cannot be used at the moment; a later attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The name server did not answer in time.
    #[error("the name server does not answer")]
    NameServer,
    /// The name could not be resolved.
    #[error("the name cannot be resolved")]
    Name(#[source] io::Error),
    /// The name resolves to no address.
    #[error("the name has no address")]
    NoAddress,
    /// No address answered in time.
    #[error("it does not answer")]
    NoAnswer,
    /// The operating system reports why the server cannot be reached.
    #[error(transparent)]
    Blocked(Obstacle),
    /// The address names a network interface that this device does not have.
    #[error("this device has no network interface {0:?}; `ip link` lists them")]
    NoInterface(String),
    /// No connection could be begun.
    #[error(transparent)]
    Connect(quinn::ConnectError),
    /// The server speaks another version of QUIC.
    #[error("it speaks another version of QUIC")]
    QuicVersion,
    /// The connection was lost, or the server closed it.
    #[error(transparent)]
    Lost(ConnectionEnd),
    /// The hello was not answered in time.
    #[error("it took the connection and did not answer the hello")]
    NoWelcome,
    /// The stream of the hello ended early.
    #[error("during the hello")]
    Hello(#[source] StreamError),
    /// None of several servers can be used, each for the reason given.
    #[error("{reasons}")]
    Several {
        /// The reason of each.
        reasons: String,
        /// The shortest time after which one of them that is busy has room again, if it says.
        retry: Option<Duration>,
    },
    /// The server refuses heads for now.
    #[error("{0}")]
    Busy(Refusal),
    /// The server is shutting down.
    #[error("it is shutting down")]
    ShuttingDown,
    /// The server sent a reply that does not fit its request.
    #[error(transparent)]
    Reply(narrows_wire::Error),
    /// An established connection was lost for a reason that another attempt would not change.
    #[error(transparent)]
    Rejected(Box<Error>),
    /// A task of this process failed.
    #[error("a task failed")]
    Task(#[source] tokio::task::JoinError),
}

/// What kind of problem an [`Error`] is, for callers that choose what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that does not exist.
    Usage,
    /// The bundle is missing, damaged, or not the server's.
    Bundle,
    /// The certificates are missing, damaged, or not trusted.
    Identity,
    /// The source holds no images.
    Source,
    /// The server cannot be reached, or refuses.
    Server,
    /// One frame cannot be used; the next one may.
    Frame,
    /// The device failed.
    Device,
}

impl Error {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Usage { .. } => ErrorKind::Usage,
            Error::Bundle(_)
            | Error::Tables { .. }
            | Error::Head { .. }
            | Error::Net(_)
            | Error::Mismatch { .. } => ErrorKind::Bundle,
            Error::Identity(_)
            | Error::Certificate { .. }
            | Error::Trust { .. }
            | Error::Enrolled { .. }
            | Error::Key(_) => ErrorKind::Identity,
            Error::Source(_) => ErrorKind::Source,
            Error::Unreachable { .. }
            | Error::Refused { .. }
            | Error::Protocol { .. }
            | Error::NotEnrolled { .. }
            | Error::Unapproved { .. }
            | Error::EnrolmentAnswer { .. } => ErrorKind::Server,
            Error::File { .. }
            | Error::Image { .. }
            | Error::Camera { .. }
            | Error::Convert { .. }
            | Error::Gone
            | Error::Code(_)
            | Error::Encode(_)
            | Error::Json(_)
            | Error::Panic { .. } => ErrorKind::Frame,
            Error::Power(error) if error.kind() == narrows_power::ErrorKind::Input => ErrorKind::Usage,
            Error::Power(_)
            | Error::Output { .. }
            | Error::Quic(_)
            | Error::Device { .. }
            | Error::Thread { .. } => ErrorKind::Device,
        }
    }

    /// Whether it is about the server or the way to it, so that this device may answer in the server's place.
    pub(crate) fn is_of_server(&self) -> bool {
        matches!(
            self,
            Error::Unreachable { .. }
                | Error::Certificate { .. }
                | Error::Trust { .. }
                | Error::Mismatch { .. }
                | Error::Refused { .. }
                | Error::Protocol { .. }
                | Error::Quic(_)
        )
    }

    pub(crate) fn usage(flag: &'static str, reason: impl Into<String>) -> Self {
        Error::Usage { flag, reason: reason.into() }
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Identity(error) => Error::Identity(error),
            other => Error::Quic(other),
        }
    }
}

/// Does the work on one frame; a panic in it is an error of that frame alone.
///
/// # Errors
/// [`Error::Panic`].
pub(crate) fn caught<T>(task: &'static str, work: impl FnOnce() -> T) -> Result<T, Error> {
    // What a frame's work leaves behind are buffers, which the next frame fills anew.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
        Error::Panic { task, message: text.unwrap_or("no message").to_owned() }
    })
}

/// Displays an error and its sources, outermost first, as `a: b: c`.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn StdError + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            // Messages of image decoders end in a line break.
            write!(f, ": {}", error.to_string().trim_end())?;
            source = error.source();
        }
        Ok(())
    }
}

/// What to do about a certificate, where the fault does not say it.
fn hint(fault: &CertificateFault) -> &'static str {
    match fault {
        CertificateFault::UnknownIssuer => {
            ". --identity must come from the CA that the server was set up with (`narrows-tail certs device`)"
        }
        CertificateFault::WrongName { .. } => {
            ". --server must use a name or address in the server's certificate"
        }
        _ => "",
    }
}

/// The first 12 digits of a bundle's identity, as `narrows_models::Digest` shortens it.
fn short(id: &BundleId) -> String {
    id.to_string()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_both_bundles() {
        let error = Error::Mismatch {
            server: "pi:1".into(),
            ours: BundleId([0xab; 32]),
            theirs: vec![BundleId([0xcd; 32]), BundleId([0; 32])],
        };
        let text = error.to_string();
        assert!(text.contains("abababababab.") && text.contains("cdcdcdcdcdcd, 000000000000;"), "{text}");
        assert_eq!(error.kind(), ErrorKind::Bundle);
    }

    #[test]
    fn an_image_error_names_file_and_cause() {
        let error = Error::Image { file: "a/b.jpg".into(), source: ImageFault::Truncated };
        assert_eq!(Chain(&error).to_string(), "a/b.jpg: the image is truncated");
        let source = crate::image::decode(b"text").unwrap_err();
        let text = Chain(&Error::Image { file: "x.png".into(), source }).to_string();
        assert!(text.starts_with("x.png: this is a text, not an image; "), "{text}");
    }

    #[test]
    fn a_panic_of_one_frame_is_an_error_with_its_message() {
        assert_eq!(caught("x", || 7).unwrap(), 7);
        for error in [caught("it failed", || panic!("at {}", 3)), caught("it failed", || panic!("at 3"))] {
            let error: Error = error.map(|(): ()| ()).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.kind()),
                ("it failed: a panic: at 3", ErrorKind::Frame)
            );
        }
    }

    #[test]
    fn a_chain_says_each_source_once() {
        let source = Unavailable::Name(io::Error::other("no such host")).into();
        let error = Error::Unreachable { server: "pi:1".into(), waited: Duration::from_millis(1500), source };
        let text = "no server at pi:1 within 1.5 s: the name cannot be resolved: no such host";
        assert_eq!(Chain(&error).to_string(), text);
        let lost = ConnectionEnd(quinn::ConnectionError::TimedOut);
        let error = Error::Unreachable {
            server: "pi:1".into(),
            waited: Duration::from_secs(1),
            source: Unavailable::Lost(lost.clone()).into(),
        };
        assert_eq!(Chain(&error).to_string(), format!("no server at pi:1 within 1.0 s: {lost}"));
    }
}
