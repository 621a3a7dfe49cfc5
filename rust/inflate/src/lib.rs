//! DEFLATE and zlib streams, from a slice to a slice.
//!
//! For many small streams that have nothing to do with each other, as the blocks of a compressed
//! image: [`Inflater::inflate_many`] inflates two of them in one loop. For parts of such a block:
//! [`Inflater::inflate_prefix`] stops where enough is there, and [`Inflater::resume`] goes on from
//! a [`State`] of some bytes.
//!
//! ```
//! use cowcloop_inflate::{Container, Inflater, Job};
//!
//! let streams = [&[0x78, 0x9c, 0x4b, 0x04, 0x00, 0x00, 0x62, 0x00, 0x62][..]; 3];
//! let mut outputs = [[0; 1]; 3];
//! let pairs = streams.into_iter().zip(&mut outputs);
//! let mut jobs: Vec<_> = pairs.map(|(input, output)| Job::new(input, output)).collect();
//! Inflater::new().inflate_many(Container::Zlib, &mut jobs);
//! assert!(jobs.iter().all(|job| job.result.is_ok_and(|inflated| inflated.written == 1)));
//! assert_eq!(outputs, [*b"a"; 3]);
//! ```
//!
//! # What is taken and what is refused
//!
//! What zlib takes, with a window of 32 KiB and without a preset dictionary; in particular codes of
//! one symbol, or of none for distances, though they are incomplete. Bytes behind a stream are no
//! error; [`Inflated::consumed`] tells of them. A stream that does not fit is one,
//! [`Error::TooLong`]; of one that is shorter than its output [`Inflated::written`] tells. What of
//! the output lies behind the bytes written is undefined, and so is all of it after an error.
//!
//! # How it works
//!
//! Decoding is a chain: where a code begins is known when the one before it was looked up, and a
//! lookup takes as long as a load from the first cache. Two independent chains take as long as one,
//! if no branch is mispredicted. So `steps.rs` has no branch that depends on what the data is: a
//! step is two literals, and then any symbol, and what is none after all counts as no bits and no
//! bytes. Where nearly all is literals, `branchy.rs` does better, with the usual branches. What
//! neither can do is done by `window.rs` (long codes, long copies), or a symbol at a time by
//! `lane.rs`, which checks every bound: headers, the ends of the buffers, and errors.
//!
//! # Why the unsafe parts are sound
//!
//! They are `steps.rs`, `branchy.rs`, `window.rs` and `copy.rs`, and the processor's own
//! instructions in `arch.rs`. All else is safe, and their entry, `hot::run`, is a safe function: it
//! relies on nothing that it has not compared. The numbers are those of `bounds.rs`.
//!
//! *Tables.* A lookup's index is masked to the table's first part, and all of that is filled when
//! the tables are made: a code that is complete fills it, and the others that are taken fill it by
//! a mark for "none". Links are followed by safe code, with a bounds check.
//!
//! *Reading the input.* A window opens only if the input has 8 + `LOAD` bytes from the bit at hand
//! on. `last_load` is `LOAD` bytes before the input's end, and a round of steps begins only if
//! `next`, from where the next refill loads, is not behind it. A refill adds whole bytes, as many
//! as fit into 64 bits above those left, of which there are `LEAST` at least, or the step is not
//! done here: `STEP_IN` bytes at most. A round has as many steps as `STEP_IN` goes into the
//! distance from `next` to `last_load`, and one; so its last step begins at `last_load` or before.
//!
//! *Writing the output.* `out_limit` is `OUT_SLACK` bytes before the output's end, and a round
//! begins only if `out` is not behind it. A step writes two literals and 64 bytes behind them, and
//! moves on by `STEP_OUT` at most; so, as with the input, the last step of a round begins at
//! `out_limit` or before. The first half of the next step may be done before the round's end is
//! seen: two bytes more. A long copy compares the room with what it writes, `COPY_SLACK` bytes more
//! than its length at most. It and the long codes may move on by more than a step: they count as
//! `RARE_STEPS` steps more.
//!
//! *Reading the output.* A match's source is compared with `floor`, which is not before the output's
//! start. It is 32,768 bytes before where the round began, if that is later, so no true distance
//! is refused; and as a round writes less than 32,767 bytes (`ROUND`), the mark for a distance that
//! does not exist, which is 65,535, always is. A copy of 64 bytes ends where its target ends, or
//! before, as the distance is not 0. A literal's source is a table of 256 bytes, and 64 behind it.
//!
//! *The right bits.* Bits above those counted are as they are in the input, or 0; only those
//! counted are consumed. A step has 35 at its beginning, with two that are padding: three lookups
//! of 11. If then there are `LEAST`, the length was there, and so are the bits by which the
//! distance is looked up; with the refill all of the distance is.
//!
//! Each of these is also an `invariant!`, checked in debug builds. `mutants.rs` runs the loops with
//! each number wrong by one, and expects that the invariant is seen to fail, and that without such
//! checks a process dies at a guard page, or the output is wrong.
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
