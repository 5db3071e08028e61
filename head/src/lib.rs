//! The device's side of a split network: images in, compact features to the server, answers out as JSON lines.
//!
//! The crate is what the `narrows-head` program is made of, and can be used without it:
//!
//! * [`Head`] runs the first layers of a bundle's network in int8 and codes their output as a packet of a few kilobytes
//!   for the server. It needs no connection.
//! * [`Local`] runs a whole, smaller network on the device. [`ImageEncoder`] makes a JPEG or WebP file of an image, for a
//!   server that runs the whole network.
//! * [`run()`] does what `narrows-head run` does: it takes the frames of a [`source`] along one of these paths, over QUIC to
//!   the server where one is needed, and writes a [`report::Line`] for each frame.
//! * [`doctor`] checks the device, its bundle and the connection to the server, [`check`] the settings of a run and the files
//!   that they name; [`power`] measures energy; [`enrol`] gets this device its certificate.
//!
//! ```
//! use narrows_codec::{GeometryId, LevelId};
//! use narrows_head::Head;
//! use narrows_models::{Bundle, Parts};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
//! # let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/photos/orange.jpg");
//! let mut head = Head::open(Bundle::open(folder, Parts::Head)?)?;
//! let encoded = head.encode_file(&std::fs::read(photo)?, GeometryId(0), LevelId(0))?;
//! println!("a packet of {} bytes, {:?} in the network", encoded.packet.len(), encoded.timings.head);
//! # assert!(encoded.packet.len() < 20_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Files use each other in one direction: source, stage, uplink, sink, run; below them lie frame, policy, config and error.

mod artifact;
pub mod board;
mod canvas;
pub mod check;
pub mod config;
mod demand;
pub mod doctor;
mod draft;
pub mod encoding;
pub mod enrol;
mod error;
mod event_loop;
mod frame;
mod identity;
mod limits;
mod line_file;
pub mod name;
pub mod net;
mod obstacle;
mod picture;
mod policy;
pub mod power;
pub mod report;
mod run;
pub mod settings;
mod shutdown;
mod signals;
mod sink;
pub mod source;
mod stage;
pub mod status;
mod uplink;

pub use error::{Chain, Error, ErrorKind, Unavailable};
pub use frame::Timings;
pub use narrows_models::image;
pub use obstacle::Obstacle;
pub(crate) use run::socket_of;
pub use run::{RunReport, run};
pub use signals::Stop;
pub use source::load;
pub use stage::{EncodedImage, Head, ImageEncoder, Local, LocalAnswer};
