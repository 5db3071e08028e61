//! The server of a split network: it decodes packets of features, or images, and answers with classes and class maps.
//!
//! The library has two layers. The [`engine`] runs the networks of bundles with ONNX Runtime and knows no transport; its
//! front ends translate a protocol to it, of which there is one: QUIC (wire/PROTOCOL.md). [`serve()`] is the whole server,
//! as the binary `narrows-tail` runs it, and [`check`] looks at what it needs before it is started.
//!
//! To run the networks of a bundle without a server, open an engine and give it a job:
//!
//! ```no_run
//! use std::time::Instant;
//!
//! use narrows_tail::engine::{Client, Engine, Job, JobInput, Options, Prediction, Query, TaskQuery};
//!
//! # async fn classify(packet: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::open(&["models/bundles/lite2".into()], &Options::default())?;
//! let answer = engine
//!     .submit(Job {
//!         client: Client::default(),
//!         model: engine.models().remove(0),
//!         input: JobInput::Packet(packet),
//!         queries: vec![TaskQuery { task: 0, query: Query::Classify { top_k: 5 } }],
//!         arrived: Instant::now(),
//!         deadline: None,
//!     })
//!     .await?;
//! if let Ok(Prediction::Classes(classes)) = &answer.tasks[0].result {
//!     println!("class {} with probability {}", classes[0].index, classes[0].probability);
//! }
//! engine.close();
//! # Ok(())
//! # }
//! ```

pub mod certs;
pub mod check;
pub mod config;
pub mod devices;
pub mod engine;
pub mod enrol;
mod error;
mod files;
mod frontend;
mod limits;
mod serve;
pub mod settings;
pub mod signing;
mod status;

pub use error::{Error, ErrorKind};
pub use limits::Shortage;
pub use serve::serve;
