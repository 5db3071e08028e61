//! What a program needs to run as a service: a configuration file each key of which is a flag, and messages to the service
//! manager.
//!
//! * [`parse()`] reads a command line and the TOML file that its `--config` names. The keys of the file are taken from the
//!   definition of the command line, so there is no second list of them; [`sample()`] writes a file of all of them.
//! * [`Checks`] are what a program finds out about its surroundings before it starts.
//! * [`Origin`] reads the file of a running program again.
//! * [`manual()`] writes man pages and shell completions.
//! * [`Notifier`] tells systemd that the program is ready, what it is doing and that it still works, when a [`ticker()`] says so.

mod checks;
mod faults;
mod file;
mod layout;
mod manual;
mod notify;
mod origin;
mod parse;
mod sample;
mod settings;
mod ticker;

pub use checks::{Check, Checks, State, print};
pub use faults::{Fault, SettingsError};
pub use file::read_text;
pub use layout::{Layout, Section, Tables};
pub use manual::{ManualFlags, manual};
pub use notify::{Notifier, VARIABLES};
pub use origin::Origin;
pub use parse::{ParseError, Parsed, parse};
pub use sample::sample;
pub use settings::Settings;
pub use ticker::{next_tick, ticker};
