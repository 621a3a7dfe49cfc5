//! DEFLATE and zlib streams, from a slice to a slice.
//!
//! For many small streams that have nothing to do with each other, as the blocks of a compressed
//! image: [`Inflater::inflate_many`] inflates two of them in one loop. For parts of such a block:
//! [`Inflater::inflate_prefix`] stops where enough is there, and [`Inflater::resume`] goes on from
//! a [`State`] of some bytes, also when only the beginning of the input was there before.
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
//! # Accepted and refused streams
//!
//! The crate accepts what zlib accepts, with a window of 32 KiB and without a preset dictionary;
//! in particular codes of one symbol, or of none for distances, although they are incomplete.
//! Bytes behind a stream are no error; [`Inflated::consumed`] says where the stream ends. A stream
//! that does not fit is an error, [`Error::TooLong`]; for a stream that is shorter than its
//! output, [`Inflated::written`] is its length. The output behind the bytes written is undefined,
//! and so is all of it after an error.
//!
//! # How it works
//!
//! Decoding is a chain: the place of a code is known only when the code before it has been looked
//! up, and a lookup takes as long as a load from the first-level cache. Two independent chains
//! take as long as one, if no branch is mispredicted. So `steps.rs` has no branch that depends on
//! the data: a step is two literals and then any symbol, and a part that turns out to be absent
//! counts as no bits and no bytes. Where nearly all symbols are literals, `branchy.rs` is faster,
//! with the usual branches. `window.rs` does what neither loop can do (long codes, long copies),
//! and `lane.rs` the rest, a symbol at a time with every bound checked: headers, the ends of the
//! buffers, and errors.
//!
//! # Why the unsafe parts are sound
//!
//! They are `steps.rs`, `branchy.rs`, `window.rs` and `copy.rs`, and the processor's own
//! instructions in `arch.rs`. All other code is safe, and so is the entry to these parts,
//! `hot::run`: it relies on nothing that it has not compared. The numbers are those of
//! `bounds.rs`.
//!
//! *Tables.* A lookup's index is masked to the table's first part, and that part is filled
//! completely when the tables are made: a complete code fills it, and for the other accepted codes
//! a mark for "none" fills the rest. Safe code follows links, with a bounds check.
//!
//! *Reading the input.* A window opens only if the input has 8 + `LOAD` bytes from the current bit
//! on. `last_load` is `LOAD` bytes before the input's end, and a round of steps begins only if
//! `next`, from where the next refill loads, is not behind it. A refill adds whole bytes, as many
//! as fit into 64 bits above those left. At least `LEAST` are left, or the step is not done here;
//! so a refill adds `STEP_IN` bytes at most. A round has one step more than `STEP_IN` fits into
//! the distance from `next` to `last_load`; so its last step begins at `last_load` or before.
//!
//! *Writing the output.* `out_limit` is `OUT_SLACK` bytes before the output's end, and a round
//! begins only if `out` is not behind it. A step writes two literals and 64 bytes behind them, and
//! moves on by `STEP_OUT` at most; so, as with the input, the last step of a round begins at
//! `out_limit` or before. The first half of the next step may run before the round's end is
//! noticed: two bytes more. A long copy compares the room with the bytes that it writes,
//! `COPY_SLACK` more than its length at most. A long copy and the long codes may move on by more
//! than a step: they count as `RARE_STEPS` further steps.
//!
//! *Reading the output.* A match's source is compared with `floor`, which is not before the
//! output's start. It is 32,768 bytes before the place where the round began, if that is later, so
//! no true distance is refused; and as a round writes less than 32,767 bytes (`ROUND`), the mark
//! for a distance that does not exist, 65,535, always is refused. A copy of 64 bytes reads no
//! farther than its own target's end, as the distance is not 0. A literal's source is a table of
//! 256 bytes, with 64 more behind it.
//!
//! *The right bits.* The bits above those counted are the input's or 0; only counted bits are
//! consumed. A step begins with 35 bits, two of them padding: enough for three lookups of 11. If
//! `LEAST` bits are left after that, the length was complete, and so are the bits with which the
//! distance is looked up; after the refill all of the distance is there.
//!
//! Each of these is also an `invariant!`, checked in debug builds. `mutants.rs` runs the loops
//! with each number wrong by one, and expects that the invariant is seen to fail, and that without
//! such checks a process dies at a guard page, or the output is wrong.
#![deny(unsafe_code)]
#![warn(unreachable_pub)]

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
