//! The file system's requests, and the connection's answers.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use cowcloop_engine::{Extent, ExtentKind, Result};
use cowcloop_server::{guard, Connection, Fua, ZeroFlags};
use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::attributes::{errno, Attributes, FILE, FOREVER, NAME};
use super::crew::{Crew, WAITING};
use super::mount::readers;
use super::room::with_room;

/// Bytes of a read or a write at most; the kernel's own limit, unless its owner raises that.
const MOST: u32 = 1 << 20;
/// Requests that the kernel may have under way for readers that do not wait, such as a loop
/// device: all of those that may wait for a suspended image, and others besides.
const BACKGROUND: u16 = WAITING as u16 + 64;
/// The unit of a cowfile, and so of what can be discarded.
const UNIT: u32 = 1024;

/// `fallocate` modes.
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;
/// `lseek` directions.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The handle of a file that was opened to be written.
const WRITER: FileHandle = FileHandle(1);

/// The file system with one file.
pub struct DeviceFile {
    attributes: Attributes,
    read_only: bool,
    connection: Arc<Connection>,
    crew: Crew,
}

impl DeviceFile {
    /// The device of a connection.
    pub fn new(connection: Connection, read_only: bool) -> DeviceFile {
        let attributes = Attributes::new(connection.size(), read_only);
        let crew = Crew::new(readers());
        DeviceFile { attributes, read_only, connection: Arc::new(connection), crew }
    }

    fn size(&self) -> u64 {
        self.attributes.file.size
    }

    /// Has `work` done with the connection: here, or by another thread while this one reads on.
    fn work(&self, work: impl FnOnce(&Connection) + Send + 'static) {
        if let Some(_leave) = self.crew.leave() {
            guard(|| work(&self.connection));
            return;
        }
        let connection = self.connection.clone();
        self.crew.hand_over(move || work(&connection));
    }

    /// As [`work`](Self::work), for what is answered by success or an error.
    fn change(
        &self,
        reply: ReplyEmpty,
        change: impl FnOnce(&Connection) -> Result<()> + Send + 'static,
    ) {
        self.work(move |connection| match change(connection) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        });
    }
}

fn read(connection: &Connection, offset: u64, size: usize, reply: ReplyData) {
    with_room(size, |data| match connection.read(data, offset) {
        Ok(()) => reply.data(data),
        Err(error) => reply.error(errno(&error)),
    });
}

fn write(connection: &Connection, data: &[u8], offset: u64, reply: ReplyWrite) {
    match connection.write(data, offset, Fua(false)) {
        Ok(()) => reply.written(data.len() as u32),
        Err(error) => reply.error(errno(&error)),
    }
}

/// The first place from `offset` on that is of a kind, if there is one.
fn find(connection: &Connection, offset: u64, kind: ExtentKind) -> Result<Option<u64>> {
    let mut found = None;
    let mut look = |extent: Extent| {
        if extent.kind == kind {
            found = Some(extent.offset);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    connection.extents(offset, connection.size() - offset, &mut look)?;
    Ok(found)
}

impl Filesystem for DeviceFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each of these says what would have been possible where it refuses, which is as good.
        let _ = config.set_max_write(MOST);
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_congestion_threshold(BACKGROUND);
        for wanted in [InitFlags::FUSE_ASYNC_READ, InitFlags::FUSE_ASYNC_DIO] {
            let _ = config.add_capabilities(wanted);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&FOREVER, &self.attributes.file, Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes.of(inode) {
            Some(attributes) => reply.attr(&FOREVER, attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// As a block device has it: times do not count, an open that is to empty the file leaves
    /// it as it is, and nothing else can be set.
    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        match size {
            Some(size) if size != 0 && size != self.size() => reply.error(Errno::EINVAL),
            _ => self.getattr(request, inode, handle, reply),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if inode != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, NAME),
        ];
        for (next, (inode, kind, name)) in (1..).zip(entries) {
            if next > offset && reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // A loop device takes the block size for the unit in which it may discard.
        reply.statfs(self.size() / u64::from(UNIT), 0, 0, 1, 0, UNIT, 255, UNIT);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if inode != FILE {
            reply.error(Errno::EISDIR);
        } else if writes && self.read_only {
            reply.error(Errno::EROFS);
        } else {
            // All changes come through this file system: what the kernel has cached stays true.
            let handle = if writes { WRITER } else { FileHandle(0) };
            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.size().saturating_sub(offset);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(size as usize);
        if let Some(_leave) = self.crew.leave() {
            guard(|| read(&self.connection, offset, size, reply));
            return;
        }
        let connection = self.connection.clone();
        self.crew.hand_over(move || read(&connection, offset, size, reply));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.read_only {
            return reply.error(Errno::EROFS);
        }
        let left = self.size().saturating_sub(offset);
        let data = &data[..usize::try_from(left).unwrap_or(usize::MAX).min(data.len())];
        if data.is_empty() {
            // As at the end of any disk.
            return reply.error(Errno::ENOSPC);
        }
        if let Some(_leave) = self.crew.leave() {
            guard(|| write(&self.connection, data, offset, reply));
            return;
        }
        let (connection, data) = (self.connection.clone(), data.to_vec());
        self.crew.hand_over(move || write(&connection, &data, offset, reply));
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        if handle == WRITER {
            self.change(reply, Connection::flush);
        } else {
            reply.ok();
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.change(reply, Connection::flush);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if self.read_only {
            return reply.error(Errno::EROFS);
        }
        let known = [PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE, ZERO_RANGE];
        if !known.contains(&mode) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let left = self.size().saturating_sub(offset);
        if length > left && mode & KEEP_SIZE == 0 {
            return reply.error(Errno::ENOSPC);
        }
        let length = length.min(left);
        let flags = ZeroFlags { may_trim: true, fast: false, fua: Fua(false) };
        self.change(reply, move |connection| connection.zero(offset, length, flags));
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let size = self.size();
        let kind = match whence {
            SEEK_DATA => ExtentKind::Data,
            SEEK_HOLE => ExtentKind::Zero,
            _ => return reply.error(Errno::EINVAL),
        };
        let offset = match u64::try_from(offset) {
            Ok(offset) if offset < size => offset,
            _ => return reply.error(Errno::ENXIO),
        };
        self.work(move |connection| match find(connection, offset, kind) {
            Ok(Some(found)) => reply.offset(found as i64),
            // There is a hole behind the end of any file.
            Ok(None) if kind == ExtentKind::Zero => reply.offset(size as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
