//! Images far away, over HTTP(S) and in object stores, behind the engine's [`Storage`] trait.
//!
//! ```text
//! RemoteImage (image) -> cache     what is kept, on disk
//!                     -> flight    what is on its way, once for all who wait for it
//!                        -> fetch  attempts and pauses -> client -> object_store
//! ```
//!
//! Requests run on threads of their own (`link`), as many at a time as the line is worth, whatever
//! the number of cores. No lock is held while a request is on its way.
//!
//! [`Storage`]: cowcloop_engine::storage::Storage
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "network"), allow(dead_code))]

mod address;
mod interrupt;
mod options;
mod verity;

pub use address::{is_url, redacted};
pub use interrupt::Interrupt;
pub use options::RemoteOptions;
pub use verity::tree_beside;

#[cfg(feature = "network")]
mod ahead;
#[cfg(feature = "network")]
mod answer;
#[cfg(feature = "network")]
mod backoff;
#[cfg(feature = "network")]
pub mod cache;
#[cfg(feature = "network")]
mod client;
#[cfg(feature = "network")]
mod counts;
#[cfg(feature = "network")]
mod failure;
#[cfg(feature = "network")]
mod fetch;
#[cfg(feature = "network")]
mod flight;
#[cfg(feature = "network")]
mod image;
#[cfg(feature = "network")]
mod link;
#[cfg(feature = "network")]
mod open;
#[cfg(feature = "network")]
mod pace;
#[cfg(feature = "network")]
mod pull;
#[cfg(feature = "network")]
mod recent;
#[cfg(feature = "network")]
mod version;

#[cfg(feature = "network")]
pub use image::RemoteImage;
#[cfg(feature = "network")]
pub use pull::pull;

#[cfg(not(feature = "network"))]
mod without;
#[cfg(not(feature = "network"))]
pub use without::{pull, RemoteImage};
