//! Results of a run: JSON lines on standard output or in a file, pictures in a folder, messages, requests and a page.

mod check;
mod event;
mod file;
mod gallery;
mod hub;
mod jsonl;
mod line;
mod monitor;
mod mqtt;
mod out;
mod overlay;
mod page;
mod pictures;
mod queue;
mod tls;
mod webhook;

pub(crate) use check::{check, check_files};
pub(crate) use hub::{Figures, Hub};
pub(crate) use jsonl::JsonlSink;
pub(crate) use out::Out;
pub(crate) use pictures::PictureFolder;
