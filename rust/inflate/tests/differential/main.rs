//! This crate against zlib-ng and libdeflate: the same streams are taken and refused, and the same
//! bytes come out.

mod encoders;
mod guarded;
mod oracle;
mod regressions;
mod streams;
mod writer;
