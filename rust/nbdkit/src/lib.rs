//! The nbdkit plugin `cowcloop`: NBD on one side, the server on the other.
//!
//! ```text
//! nbdkit -> callbacks (C calls in, panics stop here) -> lifecycle -> cowcloop_server
//!                                                    -> ending: nbdkit's end
//! host   (Rust calls out to nbdkit)
//! ```
//!
//! All `unsafe` code is in [`abi`], [`callbacks`] and [`host`]: what nbdkit's
//! C interface looks like, the functions that it calls, and those that we call;
//! and in [`mend`], which exchanges functions that nbdkit calls in the C library.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod arrivals;
#[allow(unsafe_code)]
mod callbacks;
mod clients;
mod ending;
#[allow(unsafe_code)]
mod host;
mod lifecycle;
mod mend;
mod report;
