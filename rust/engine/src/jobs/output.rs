//! The destination of a result: a file that appears when it is whole, a block device, or a
//! pipe.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};

use super::pipe::{Pipe, PipeError};
use super::place::{self, Pending, Refused};
use super::replace::Replace;
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
        Self::open_with_mode(path, inputs, replace, 0o666)
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
        Self::open_with_mode(path, inputs, replace, 0o600)
    }

    fn open_with_mode(
        path: &Path,
        inputs: &[FileIdentity],
        replace: Replace,
        mode: u32,
    ) -> Result<Self> {
        // Reopening standard output by its name would begin at its first byte.
        if path == Path::new(STANDARD_OUTPUT) {
            return Self::standard_output(inputs);
        }
        let name = path.display().to_string();
        let error = |message: &str, source| Error::io(&name, message, source);
        let is_directory = || {
            let message = "is a directory: name a file in it";
            Error::new(ErrorKind::InvalidInput, &name, message)
        };
        let existing = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => return Err(is_directory()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(error("cannot be opened", source)),
        };
        if let Some(metadata) = &existing {
            refuse_input(&name, metadata, inputs)?;
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(is_directory());
            }
            if !kind.is_file() {
                let sink = if kind.is_block_device() {
                    let file = open_block_device(path, &name, replace)?;
                    let size = rustix::fs::seek(&file, SeekFrom::End(0))
                        .map_err(|errno| error("has no size", errno.into()))?;
                    Sink::BlockDevice { file, size }
                } else {
                    let pipe = Pipe::open(path)
                        .map_err(|source| error("cannot be opened for writing", source))?;
                    Sink::Pipe(pipe)
                };
                return Ok(Output { name, sink, position: 0 });
            }
        } else if fs::symlink_metadata(path).is_ok() {
            let message = "is a symbolic link to nothing: remove it, or make what it points to";
            return Err(Error::new(ErrorKind::InvalidInput, name, message));
        }
        // The file that a symbolic link names is replaced, not the link. With the call
        // above the system has agreed to follow it.
        let place = match existing {
            Some(_) => {
                fs::canonicalize(path).map_err(|source| error("cannot be found again", source))?
            }
            None => path.to_path_buf(),
        };
        let what = match existing {
            Some(_) => "cannot be replaced",
            None => "cannot create a file beside it",
        };
        let pending = Pending::create(&place, existing.as_ref(), replace, mode)
            .map_err(|refused| place_error(&name, what, refused))?;
        Ok(Output { name, sink: Sink::File(pending), position: 0 })
    }

    fn standard_output(inputs: &[FileIdentity]) -> Result<Self> {
        let name = "standard output".to_string();
        let file = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map(File::from)
            .map_err(|source| Error::io(&name, "cannot be opened", source))?;
        let metadata =
            file.metadata().map_err(|source| Error::io(&name, "cannot be examined", source))?;
        refuse_input(&name, &metadata, inputs)?;
        Ok(Output { name, sink: Sink::Pipe(Pipe::of(file, &metadata)), position: 0 })
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

/// Opens a block device that is neither mounted nor served.
fn open_block_device(path: &Path, name: &str, replace: Replace) -> Result<File> {
    let in_use = || {
        let message = "this block device is in use: unmount it, or detach what serves it, first";
        Error::new(ErrorKind::Busy, name, message)
    };
    let storage = FileStorage::open_alone(path).map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => in_use(),
        _ => Error::io(name, "cannot be opened for writing", source),
    })?;
    // Where there are no locks, none can be held.
    if matches!(storage.try_lock(true), Ok(false)) {
        return Err(in_use());
    }
    match replace.refuses(&storage) {
        Some(kind) => Err(kept(name, kind)),
        None => Ok(storage.into_file()),
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

fn refuse_input(name: &str, metadata: &fs::Metadata, inputs: &[FileIdentity]) -> Result<()> {
    // A terminal or /dev/null may be both.
    let kind = metadata.file_type();
    if (kind.is_file() || kind.is_block_device()) && inputs.contains(&FileIdentity::of(metadata)) {
        let message = "is also an input: name another output";
        return Err(Error::new(ErrorKind::InvalidInput, name, message));
    }
    Ok(())
}
