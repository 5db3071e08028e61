//! Starts a real tail and real heads as processes on loopback, for the demo, for measurements and for tests.
//!
//! [`Pair`] makes certificates, starts `narrows-tail` on a free port and gives commands of `narrows-head` that reach
//! it; dropping it ends the tail and removes the certificates. [`Interrupt`] tells whether Ctrl-C was pressed and
//! passes it on. The programs are those beside the running one.
//!
//! ```no_run
//! use narrows_pair::Pair;
//!
//! let bundle = "models/bundles/lite2".as_ref();
//! let pair = Pair::start(bundle, &[])?;
//! let status = pair.head(bundle).args(["--source", "bench/photos"]).status()?;
//! assert!(status.success());
//! pair.drain()?;
//! # Ok::<(), anyhow::Error>(())
//! ```

mod interrupt;
mod pair;
mod program;

pub use interrupt::{INTERRUPTED, Interrupt};
pub use pair::Pair;
pub use program::{bench, demo, head, tail, terminate};
