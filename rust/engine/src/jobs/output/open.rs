//! Opening an output: which kind it is, and whether it may be replaced.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::SeekFrom;

use super::{kept, place_error, Output, Sink, STANDARD_OUTPUT};
use crate::jobs::pipe::Pipe;
use crate::jobs::place::Pending;
use crate::jobs::replace::Replace;
use crate::storage::{FileIdentity, FileStorage};
use crate::{Error, ErrorKind, Result};

/// Opens the output at `path`; a new file gets `mode`, less what the umask takes.
pub(super) fn output(
    path: &Path,
    inputs: &[FileIdentity],
    replace: Replace,
    mode: u32,
) -> Result<Output> {
    // Reopening standard output by its name would begin at its first byte.
    if path == Path::new(STANDARD_OUTPUT) {
        return standard_output(inputs);
    }
    let name = path.display().to_string();
    let error = |message: &str, source| Error::io(&name, message, source);
    let existing = existing(path, &name)?;
    if let Some(metadata) = &existing {
        refuse_input(&name, metadata, inputs)?;
        if !metadata.is_file() {
            let sink = special(path, &name, metadata, replace)?;
            return Ok(Output { name, sink, position: 0 });
        }
    } else if fs::symlink_metadata(path).is_ok() {
        let message = "is a symbolic link to nothing: remove it, or make what it points to";
        return Err(Error::new(ErrorKind::InvalidInput, name, message));
    }
    // The file that a symbolic link names is replaced, not the link. With the call
    // above the system has agreed to follow it.
    let (place, what) = match existing {
        Some(_) => {
            let place =
                fs::canonicalize(path).map_err(|source| error("cannot be found again", source))?;
            (place, "cannot be replaced")
        }
        None => (path.to_path_buf(), "cannot create a file beside it"),
    };
    let pending = Pending::create(&place, existing.as_ref(), replace, mode)
        .map_err(|refused| place_error(&name, what, refused))?;
    Ok(Output { name, sink: Sink::File(pending), position: 0 })
}

/// What lies at `path`, which must be no directory; `None`: nothing.
fn existing(path: &Path, name: &str) -> Result<Option<fs::Metadata>> {
    let is_directory = || {
        let message = "is a directory: name a file in it";
        Err(Error::new(ErrorKind::InvalidInput, name, message))
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => is_directory(),
        Ok(metadata) => Ok(Some(metadata)),
        Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => is_directory(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(name, "cannot be opened", source)),
    }
}

/// Opens what exists and is no regular file.
fn special(path: &Path, name: &str, metadata: &fs::Metadata, replace: Replace) -> Result<Sink> {
    let error = |message: &str, source| Error::io(name, message, source);
    if metadata.file_type().is_block_device() {
        let file = open_block_device(path, name, replace)?;
        let size = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|errno| error("has no size", errno.into()))?;
        return Ok(Sink::BlockDevice { file, size });
    }
    let pipe = Pipe::open(path).map_err(|source| error("cannot be opened for writing", source))?;
    Ok(Sink::Pipe(pipe))
}

fn standard_output(inputs: &[FileIdentity]) -> Result<Output> {
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

fn refuse_input(name: &str, metadata: &fs::Metadata, inputs: &[FileIdentity]) -> Result<()> {
    // A terminal or /dev/null may be both.
    let kind = metadata.file_type();
    if (kind.is_file() || kind.is_block_device()) && inputs.contains(&FileIdentity::of(metadata)) {
        let message = "is also an input: name another output";
        return Err(Error::new(ErrorKind::InvalidInput, name, message));
    }
    Ok(())
}
