//! Accuracy and bytes of a bundle on labelled photos, without a network connection between head and tail.
//!
//! [`Evaluate`] is the command `narrows-bench evaluate`: it sends every photo and frame through the shipped head, the
//! codec and the tails, and compares the answers with the labels, with the unsplit networks and with JPEG. The modules
//! are its parts; `narrows-bench compare` and the tests of the workspace use them too.
//!
//! * [`pipeline`]: head, codec and tails of a bundle in one process, and its unsplit networks.
//! * [`data`]: tars of labelled photos and of frames with class maps.
//! * [`scores`], [`confusion`], [`stats`]: predicted classes, mean intersection over union, intervals.
//!
//! ```
//! use narrows_eval::{confusion::Confusion, scores::pixelwise_argmax};
//!
//! // Logits of two classes for two pixels; both pixels are of class 1.
//! let predicted = pixelwise_argmax(&[0.2, 0.9, 0.7, 0.1], 2);
//! let mut confusion = Confusion::new(2);
//! predicted.iter().for_each(|&class| confusion.add(1, class));
//! assert_eq!(confusion.iou(), [Some(0.0), Some(0.5)]);
//! ```

mod accuracy;
pub mod confusion;
pub mod data;
mod evaluate;
mod exit;
mod local;
mod local_f32;
pub mod pipeline;
pub mod progress;
mod read_log;
pub mod scores;
pub mod stats;

pub use evaluate::Evaluate;
