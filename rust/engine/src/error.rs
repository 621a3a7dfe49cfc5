//! One error type: a small kind for decisions, and one line to show.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::remedy::Remedy;

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused: the source error has the reason.
    Io,
    /// The file does not have the format that it should have.
    Format,
    /// The format is known, but this version or codec cannot be read.
    Unsupported,
    /// Stored data does not decode to its original, or is missing.
    Damaged,
    /// Two files that do not belong together: a cowfile of another base.
    Mismatch,
    /// The file is in use elsewhere.
    Busy,
    /// A file in the place of a new one would be lost.
    Exists,
    /// A cowfile that needs repair first.
    Dirty,
    /// No space for the data, on the medium or under a limit.
    NoSpace,
    /// A write to something read-only.
    ReadOnly,
    /// The medium is out for a while: it may be put back.
    NoMedium,
    /// A request that makes no sense: out of range, or contradictory options.
    InvalidInput,
    /// A sync failed earlier, so the state on the medium is unknown.
    Poisoned,
    /// The caller asked to stop.
    Cancelled,
}

/// The cause of a failure while the medium is out. It is not the system's own `ENOMEDIUM`,
/// which a drive returns as long as it has no disc.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediumOut;

impl fmt::Display for MediumOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the medium is out")
    }
}

impl std::error::Error for MediumOut {}

/// The cause of a failure where bytes are not what a digest tree says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unverified {
    /// A block of the image.
    Image {
        /// The tree's name.
        tree: String,
        /// Where the block begins in the image, in bytes.
        offset: u64,
    },
    /// A block of the tree itself.
    Tree {
        /// The tree's name.
        tree: String,
        /// Where the block begins in the tree, in bytes.
        offset: u64,
    },
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unverified::Image { tree, offset } => {
                write!(f, "its bytes at offset {offset} are not those that {tree} has the hash of")
            }
            Unverified::Tree { tree, offset } => {
                write!(f, "its digest tree {tree} is damaged at offset {offset}")
            }
        }
    }
}

impl std::error::Error for Unverified {}

/// A failure: what, where, and the remedy.
///
/// The [`Display`](fmt::Display) form is one line: `SUBJECT: MESSAGE[: CAUSE][; REMEDY]`.
/// Clones are cheap: one failed flush answers every caller that waited for it.
#[derive(Debug, Clone)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    subject: String,
    message: String,
    source: Option<io::Error>,
    offset: Option<u64>,
    remedy: Option<Remedy>,
}

impl Error {
    /// An error of `kind` about `subject`, usually the file's name.
    pub fn new(kind: ErrorKind, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner {
            kind,
            subject: subject.into(),
            message: message.into(),
            source: None,
            offset: None,
            remedy: None,
        }))
    }

    /// An operating system's error: `message` says what was being done.
    ///
    /// The kind follows from the system's error: full disks, read-only file systems and
    /// stale handles keep their meaning.
    pub fn io(subject: impl Into<String>, message: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            _ if source.get_ref().is_some_and(|inner| inner.is::<MediumOut>()) => {
                ErrorKind::NoMedium
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        let remedy = source.get_ref().and_then(|inner| inner.downcast_ref()).map(|unverified| {
            match unverified {
                Unverified::Image { .. } => Remedy::GetImage,
                Unverified::Tree { .. } => Remedy::GetTree,
            }
        });
        Error(Arc::new(Inner {
            kind,
            subject: subject.into(),
            message: message.into(),
            source: Some(source),
            offset: None,
            remedy,
        }))
    }

    /// The same error, with what may be done about it.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: Remedy) -> Self {
        // A new error is in one place only.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.remedy = Some(remedy);
        }
        self
    }

    /// The same error, with where in the file or device it happened, in bytes.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.offset = Some(offset);
        }
        self
    }

    /// What may be done about it.
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.remedy
    }

    /// Where in the file or device it happened, in bytes, where that is known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What a program decides by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The subject, usually a file's name.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The `errno` that a block device answers with for this error.
    pub fn errno(&self) -> i32 {
        if let Some(code) = self.0.source.as_ref().and_then(io::Error::raw_os_error) {
            return code;
        }
        match self.0.source.as_ref().map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => return Errno::NOENT.raw_os_error(),
            Some(io::ErrorKind::PermissionDenied) => return Errno::ACCESS.raw_os_error(),
            _ => {}
        }
        match self.0.kind {
            ErrorKind::NoSpace => Errno::NOSPC,
            ErrorKind::ReadOnly => Errno::ROFS,
            ErrorKind::InvalidInput => Errno::INVAL,
            ErrorKind::Unsupported => Errno::OPNOTSUPP,
            ErrorKind::Busy => Errno::BUSY,
            ErrorKind::NoMedium => Errno::NOMEDIUM,
            ErrorKind::Exists => Errno::EXIST,
            ErrorKind::Cancelled => Errno::CANCELED,
            _ => Errno::IO,
        }
        .raw_os_error()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { subject, message, source, remedy, .. } = &*self.0;
        write!(f, "{subject}: {message}")?;
        if let Some(source) = source {
            write!(f, ": {}", reason(source))?;
        }
        if let Some(remedy) = remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}

/// The system's words without the number that Rust appends.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
