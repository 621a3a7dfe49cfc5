//! DEFLATE and zlib streams, from a slice to a slice.
#![deny(unsafe_code)]

mod arch;
mod bounds;
mod branchy;
mod checksum;
mod copy;
mod error;
mod header;
mod hot;
mod inflater;
mod lane;
mod many;
#[cfg(test)]
mod mutants;
mod steps;
mod tables;
mod window;

#[cfg(test)]
extern crate self as cowcloop_inflate;

pub use error::Error;
pub use inflater::{Inflated, Inflater, Job, Progress, State};

/// What is around the DEFLATE data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// Nothing (RFC 1951).
    Raw,
    /// Two bytes before, and the Adler-32 of the output behind (RFC 1950).
    Zlib,
}
