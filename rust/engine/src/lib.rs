//! The cowcloop engine: compressed block images, cowfiles, and the device that
//! the two make together.
//!
//! A read flows one way:
//!
//! ```text
//! device -> overlay (bitmap) -> storage                          a block that was written
//!                            -> image -> read -> codec, storage   any other block
//! ```
//!
//! What bytes mean on the medium is in [`format`]; whole images and cowfiles are worked on
//! by [`jobs`], which stand above the device.
//!
//! Nothing in here knows of Python, of nbdkit or of a terminal: events worth
//! telling are sent to the [`log`] facade, results are returned.
//!
//! All sizes and offsets are in bytes unless a name says *blocks*.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod buffers;
pub mod codec;
pub mod device;
pub mod error;
pub mod format;
pub mod image;
pub mod jobs;
pub mod layer;
mod memory;
pub mod overlay;
pub mod progress;
mod read;
pub mod remedy;
pub mod storage;

pub use error::{Error, ErrorKind, Result};
pub use layer::{Extent, ExtentKind, Layer, LayerCounters};
pub use remedy::Remedy;
