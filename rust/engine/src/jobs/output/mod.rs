//! The destination of a result: a file that appears when it is whole, a block device, or a
//! pipe.

mod open;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use crate::jobs::pipe::{Pipe, PipeError};
use crate::jobs::place::{self, Pending, Refused};
use crate::jobs::replace::Replace;
use crate::storage::{FileIdentity, FileStorage, Storage};
use crate::{Error, ErrorKind, Remedy, Result};

/// The path of standard output.
pub const STANDARD_OUTPUT: &str = "/dev/stdout";

/// Zeros to be written where they have to be.
pub(super) static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// An output under way. If it is dropped before [`finish`](Self::finish), a file is as if
/// nothing had happened.
#[derive(Debug)]
pub struct Output {
    name: String,
    sink: Sink,
    /// The offset of the next [`append`](Self::append), in bytes.
    position: u64,
}

#[derive(Debug)]
enum Sink {
    File(Pending),
    BlockDevice { file: File, size: u64 },
    Pipe(Pipe),
}

impl Output {
    /// Opens the output at `path`.
    ///
    /// A regular file is written beside its place and moved there by `finish`; a file that
    /// exists keeps its mode. The path must not name one of the `inputs`, nor a cowfile in
    /// use, nor a file that `replace` keeps.
    ///
    /// # Errors
    /// `InvalidInput` for an input or a directory, `Busy`, `Exists`, or the system's error.
    pub fn open(path: &Path, inputs: &[FileIdentity], replace: Replace) -> Result<Self> {
        open::output(path, inputs, replace, 0o666)
    }

    /// The same; only its owner can read a new file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_private(
        path: &Path,
        inputs: &[FileIdentity],
        replace: Replace,
    ) -> Result<Self> {
        open::output(path, inputs, replace, 0o600)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can only be written in order, by [`append`](Self::append).
    pub(crate) fn is_pipe(&self) -> bool {
        matches!(self.sink, Sink::Pipe(_))
    }

    /// Whether it is a block device: it has old content, and a size of its own.
    pub(crate) fn is_block_device(&self) -> bool {
        matches!(self.sink, Sink::BlockDevice { .. })
    }

    /// The directory that a file is made in; `None` for the other kinds.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.sink {
            Sink::File(pending) => Some(pending.directory()),
            _ => None,
        }
    }

    /// The open file; `None` for a pipe.
    fn file(&self) -> Option<&File> {
        match &self.sink {
            Sink::File(pending) => Some(pending.file()),
            Sink::BlockDevice { file, .. } => Some(file),
            Sink::Pipe(_) => None,
        }
    }

    /// Makes it `size` bytes long: a file grows by a hole, a block device must
    /// be large enough. Nothing for a pipe.
    ///
    /// # Errors
    /// `NoSpace` when a block device is too small, or the system's error.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        match &self.sink {
            Sink::File(pending) => {
                let message = format!("cannot be made {size} bytes long");
                pending
                    .file()
                    .set_len(size)
                    .map_err(|source| Error::io(&self.name, message, source))
            }
            Sink::BlockDevice { size: available, .. } if size > *available => Err(Error::new(
                ErrorKind::NoSpace,
                &self.name,
                format!("the device has {available} bytes, and {size} are needed"),
            )),
            _ => Ok(()),
        }
    }

    /// Writes `buf` at `offset`, from any thread.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` on a pipe.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let file = self.file().ok_or_else(|| {
            let message = "can only be written in order";
            Error::new(ErrorKind::InvalidInput, &self.name, message)
        })?;
        file.write_all_at(buf, offset).map_err(|source| self.write_error(offset, source))
    }

    /// Makes a range that was not written read as zeros, from any thread.
    /// A hole of a file is left as it is.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub(crate) fn zero_at(&self, offset: u64, length: u64) -> Result<()> {
        let Sink::BlockDevice { file, .. } = &self.sink else { return Ok(()) };
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if length > 0 && rustix::fs::fallocate(file, flags, offset, length).is_ok() {
            return Ok(());
        }
        // Older kernels, and ranges that are not whole sectors.
        let mut done = 0;
        while done < length {
            let n = (length - done).min(ZEROS.len() as u64);
            self.write_at(&ZEROS[..n as usize], offset + done)?;
            done += n;
        }
        Ok(())
    }

    /// Writes `buf` after the bytes appended so far. `check` is called while a pipe takes
    /// none.
    ///
    /// # Errors
    /// The system's error, or that of `check`.
    pub fn append(&mut self, buf: &[u8], check: &dyn Fn() -> Result<()>) -> Result<()> {
        if let Sink::Pipe(pipe) = &mut self.sink {
            pipe.write(buf, check).map_err(|failure| match failure {
                PipeError::Write(source) => self.write_error(self.position, source),
                PipeError::Stop(error) => error,
            })?;
        } else {
            self.write_at(buf, self.position)?;
        }
        self.position += buf.len() as u64;
        Ok(())
    }

    /// Appends `length` zeros.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(crate) fn append_zeros(
        &mut self,
        length: u64,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let n = left.min(ZEROS.len() as u64);
            self.append(&ZEROS[..n as usize], check)?;
            left -= n;
        }
        Ok(())
    }

    /// Where the next [`append`](Self::append) goes, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at `offset`; the bytes before it are written by position.
    pub(super) fn seek(&mut self, offset: u64) {
        debug_assert!(!self.is_pipe());
        self.position = offset;
    }

    /// The bytes written so far, to be read back; `None` for a pipe.
    pub(super) fn storage(&self) -> Result<Option<Arc<dyn Storage>>> {
        let Some(file) = self.file() else { return Ok(None) };
        let storage = file
            .try_clone()
            .and_then(|file| FileStorage::from_file(file, Path::new(&self.name)))
            .map_err(|source| Error::io(&self.name, "cannot be read back", source))?;
        Ok(Some(Arc::new(storage)))
    }

    /// Completes the output: a file is durable and in its place afterwards, a
    /// block device is durable. `check` is asked once more before a file gets
    /// its place: the medium may have taken long.
    ///
    /// # Errors
    /// The system's error, or that of `check`; a file's place is unchanged then.
    pub fn finish(self, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let error = |message: &str, source| Error::io(&self.name, message, source);
        match self.sink {
            Sink::File(pending) => {
                let failed = |refused| place_error(&self.name, "cannot be completed", refused);
                pending.make_durable().map_err(|source| failed(source.into()))?;
                check()?;
                pending.settle().map_err(failed)
            }
            Sink::BlockDevice { file, .. } => {
                file.sync_all().map_err(|source| error("cannot be written to the medium", source))
            }
            Sink::Pipe(_) => Ok(()),
        }
    }

    /// [`finish`](Self::finish), after a check that a file has `size` bytes.
    pub(super) fn finish_sized(self, size: u64, check: &dyn Fn() -> Result<()>) -> Result<()> {
        if let Sink::File(pending) = &self.sink {
            let found =
                pending.file().metadata().map_err(|source| self.write_error(0, source))?.len();
            if found != size {
                let message =
                    format!("has {found} bytes instead of {size}: it was changed meanwhile");
                return Err(Error::new(ErrorKind::Io, &self.name, message));
            }
        }
        self.finish(check)
    }

    fn write_error(&self, offset: u64, source: io::Error) -> Error {
        Error::io(&self.name, format!("cannot be written at byte {offset}"), source)
    }
}

/// Gives the file `whole` the name `place` beside it, durably, instead of what has it now.
///
/// # Errors
/// `Busy` for a cowfile in use, or the system's error; both files are as they were then.
pub fn take_place(whole: &Path, place: &Path) -> Result<()> {
    let name = place.display().to_string();
    place::take_place(whole, place)
        .map_err(|refused| place_error(&name, "cannot be replaced", refused))
}

/// The reason why a file's place refuses the file.
fn place_error(name: &str, message: &str, refused: Refused) -> Error {
    match refused {
        Refused::InUse => {
            let message = "a cowfile in use lies there: name another output";
            Error::new(ErrorKind::Busy, name, message).with_remedy(Remedy::Detach)
        }
        Refused::Kept(kind) => kept(name, kind),
        Refused::System(source) => Error::io(name, message, source),
    }
}

fn kept(name: &str, kind: &str) -> Error {
    Error::new(ErrorKind::Exists, name, format!("is a {kind}: name another output"))
}
