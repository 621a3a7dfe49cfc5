//! What is read first of an image: noted while clients read (`record`), and made ready for them
//! the next time, with all the rest if that is wanted (`prefetch`).
//!
//! ```text
//! record      notes what clients read first, and writes it down at the end
//! prefetch    the thread that makes ready what a trace says, and the rest
//!    -> ahead    has parts of the image fetched and inflated: in order, within a rate
//!    -> place    where the trace of an image lies
//!    -> readers  the clients that it gives way to
//! ```

mod ahead;
mod place;
mod prefetch;
mod readers;
mod record;

pub(crate) use prefetch::Prefetching;
pub(crate) use readers::Readers;
pub(crate) use record::{Recorder, Recording};

/// What is made ready for clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing.
    None,
    /// What a trace says.
    #[default]
    Trace,
    /// That, then all the rest of the image.
    All,
}
