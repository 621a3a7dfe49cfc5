//! Where the bytes to compress come from: a file, a block device, or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::fs::OFlags;

use super::pipe::{enlarge, wait};
use crate::storage::{FileIdentity, FileStorage, Storage};
use crate::{Error, ErrorKind, Result};

/// The path of standard input.
pub const STANDARD_INPUT: &str = "/dev/stdin";

/// The bytes to compress.
#[derive(Debug)]
pub struct Input {
    name: String,
    pub(super) source: Source,
    /// Bytes; `None` where only the end tells.
    size: Option<u64>,
    identity: Option<FileIdentity>,
}

#[derive(Debug)]
pub(super) enum Source {
    Storage(Arc<dyn Storage>),
    Pipe(File),
}

impl Input {
    /// Opens the file, block device, FIFO or the like at `path`.
    ///
    /// # Errors
    /// `InvalidInput` for a directory, or the system's error.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new(STANDARD_INPUT) {
            let name = "standard input".to_string();
            let file = io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| Error::io(&name, "cannot be opened", source))?;
            return Self::pipe(name, file.into());
        }
        let name = path.display().to_string();
        let error = |message: &str, source| Error::io(&name, message, source);
        let metadata =
            std::fs::metadata(path).map_err(|source| error("cannot be opened", source))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            let message = "is a directory, not an image";
            return Err(Error::new(ErrorKind::InvalidInput, name, message));
        }
        if !kind.is_file() && !kind.is_block_device() {
            // NONBLOCK: a FIFO waits for its writer in `fill`, where it can be stopped.
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open(path)
                .map_err(|source| error("cannot be opened", source))?;
            return Self::pipe(name, file);
        }
        let storage =
            FileStorage::open(path).map_err(|source| error("cannot be opened", source))?;
        let mut input = Self::storage(Arc::new(storage))?;
        input.identity = Some(FileIdentity::of(&metadata));
        Ok(input)
    }

    /// Takes a storage as it is, with the size that it has now.
    ///
    /// # Errors
    /// The system's error when the size cannot be had.
    pub fn storage(storage: Arc<dyn Storage>) -> Result<Self> {
        let name = storage.name().to_string();
        let size = storage.len().map_err(|source| Error::io(&name, "has no size", source))?;
        Ok(Input { name, source: Source::Storage(storage), size: Some(size), identity: None })
    }

    /// Takes a pipe from where it stands to its end.
    ///
    /// # Errors
    /// The system's error when it cannot be examined.
    pub fn pipe(name: impl Into<String>, mut file: File) -> Result<Self> {
        let name = name.into();
        let error = |source| Error::io(&name, "cannot be examined", source);
        let metadata = file.metadata().map_err(error)?;
        if metadata.file_type().is_fifo() {
            enlarge(&file);
        }
        let size = if metadata.is_file() {
            let position = file.stream_position().map_err(error)?;
            Some(metadata.len().saturating_sub(position))
        } else {
            None
        };
        let identity = Some(FileIdentity::of(&metadata));
        Ok(Input { name, source: Source::Pipe(file), size, identity })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size in bytes; `None` where only the end tells.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether any part of it can be read at any time.
    pub fn is_seekable(&self) -> bool {
        matches!(self.source, Source::Storage(_))
    }

    /// Reads from `offset` on, or the next bytes of a pipe; fewer only at the end of a pipe. `check` is called while none come.
    ///
    /// # Errors
    /// The system's error; that of `check`.
    pub fn read_at(
        &self,
        buf: &mut [u8],
        offset: u64,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<usize> {
        match &self.source {
            Source::Storage(_) => {
                if fetch(self, buf, offset)? {
                    buf.fill(0);
                }
                Ok(buf.len())
            }
            Source::Pipe(file) => fill(&self.name, file, buf, check),
        }
    }

    /// The file that an output must not be; `None` where the input is no file.
    pub fn identity(&self) -> Option<FileIdentity> {
        self.identity
    }
}

/// Fills `buf` from a pipe; less only at its end. `check` is called while no bytes come.
pub(super) fn fill(
    name: &str,
    mut file: &File,
    buf: &mut [u8],
    check: &dyn Fn() -> Result<()>,
) -> Result<usize> {
    let error = |source| Error::io(name, "cannot be read", source);
    let mut done = 0;
    while done < buf.len() {
        // A read that blocks could not be stopped.
        while !wait(file, PollFlags::IN).map_err(error)? {
            check()?;
        }
        match file.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(source) => match source.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => check()?,
                _ => return Err(error(source)),
            },
        }
    }
    Ok(done)
}

/// Reads a piece of a file, unless it is a hole; returns whether it is one.
pub(super) fn fetch(input: &Input, data: &mut [u8], offset: u64) -> Result<bool> {
    let error =
        |source| Error::io(input.name(), format!("cannot be read at byte {offset}"), source);
    let Source::Storage(storage) = &input.source else {
        return Err(error(io::ErrorKind::NotSeekable.into()));
    };
    let end = offset + data.len() as u64;
    if storage.next_data(offset).map_err(error)?.is_none_or(|next| next >= end) {
        // A file that was cut short since has no data here either.
        if storage.len().map_err(error)? < end {
            return Err(error(io::ErrorKind::UnexpectedEof.into()));
        }
        return Ok(true);
    }
    storage.read_exact_at(data, offset).map_err(error)?;
    Ok(false)
}
