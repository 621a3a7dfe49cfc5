//! This crate against zlib-ng and libdeflate: they accept and refuse the same streams, and
//! the same bytes come out.

mod encoders;
mod guarded;
mod oracle;
mod regressions;
mod streams;
mod writer;
