//! Pipes, terminals and the like: written in order, and so that a job that waits for the
//! other end can always be stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{Error, Result};

/// How long one wait lasts at most.
const WAIT: Duration = Duration::from_millis(100);

/// The wanted capacity of our own pipe, in bytes: the larger it is, the fewer the switches
/// between the two processes.
const PIPE_SIZE: usize = 1 << 20;

/// Something that is written from its beginning to its end.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None`: a FIFO that has no reader yet.
    file: Option<File>,
    path: PathBuf,
}

/// The reason why a pipe was not written.
pub(super) enum PipeError {
    /// The system's reason.
    Write(io::Error),
    /// The job is to stop.
    Stop(Error),
}

impl Pipe {
    /// Opens the file at `path`; does not wait for a FIFO's reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut pipe = Pipe { file: None, path: path.to_path_buf() };
        pipe.try_open()?;
        Ok(pipe)
    }

    /// Takes a pipe that another program has opened, and may share.
    pub(super) fn of(file: File, metadata: &fs::Metadata) -> Self {
        // O_NONBLOCK would hold for every program that shares it, so a pipe is
        // opened once more. Where that is not allowed, its writes block.
        let mut file = file;
        if metadata.file_type().is_fifo() {
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Ok(own) = open_nonblocking(Path::new(&again)) {
                file = own;
            }
            enlarge(&file);
        }
        Pipe { file: Some(file), path: PathBuf::new() }
    }

    fn try_open(&mut self) -> io::Result<()> {
        match open_nonblocking(&self.path) {
            Ok(file) => {
                enlarge(&file);
                self.file = Some(file);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes all of `buf`. `check` is called while nothing can be written.
    pub(super) fn write(
        &mut self,
        mut buf: &[u8],
        check: &dyn Fn() -> Result<()>,
    ) -> std::result::Result<(), PipeError> {
        let mut file = loop {
            match &self.file {
                Some(file) => break file,
                None => {
                    check().map_err(PipeError::Stop)?;
                    std::thread::sleep(WAIT / 10);
                    self.try_open().map_err(PipeError::Write)?;
                }
            }
        };
        while !buf.is_empty() {
            match file.write(buf) {
                Ok(0) => return Err(PipeError::Write(io::ErrorKind::WriteZero.into())),
                Ok(n) => buf = &buf[n..],
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => check().map_err(PipeError::Stop)?,
                    io::ErrorKind::WouldBlock => {
                        check().map_err(PipeError::Stop)?;
                        wait(file, PollFlags::OUT).map_err(PipeError::Write)?;
                    }
                    _ => return Err(PipeError::Write(error)),
                },
            }
        }
        Ok(())
    }
}

fn open_nonblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Makes a pipe hold more, where that is possible.
pub(super) fn enlarge(pipe: &File) {
    // No pipe, or more than a user may have: it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
}

/// Waits for a while until `file` may be ready; returns whether it is.
pub(super) fn wait(file: &File, flags: PollFlags) -> io::Result<bool> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT.subsec_nanos()) };
    match rustix::event::poll(&mut [PollFd::new(file, flags)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
