//! What the file system shows: its root, and the one file in there.

use std::time::{Duration, SystemTime};

use cowcloop_engine::Error;
use fuser::{Errno, FileAttr, FileType, INodeNo};
use rustix::process::{getegid, geteuid};

/// The name of the file.
pub const NAME: &str = "disk";
/// The file.
pub const FILE: INodeNo = INodeNo(2);
/// How long the kernel may believe what it was told: nothing of it ever changes.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The bytes of a sector in a file's count of blocks.
const SECTOR: u64 = 512;
/// What readers had best ask for at once.
const PREFERRED: u32 = 128 << 10;

/// The attributes of the root and of the file.
pub struct Attributes {
    /// Of the root directory.
    pub root: FileAttr,
    /// Of the file.
    pub file: FileAttr,
}

impl Attributes {
    /// Those of a device.
    pub fn new(size: u64, read_only: bool) -> Attributes {
        let now = SystemTime::now();
        let root = FileAttr {
            ino: INodeNo::ROOT,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: FileType::Directory,
            perm: 0o500,
            nlink: 2,
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            rdev: 0,
            blksize: PREFERRED,
            flags: 0,
        };
        let perm = if read_only { 0o400 } else { 0o600 };
        let kind = FileType::RegularFile;
        let blocks = size.div_ceil(SECTOR);
        let file = FileAttr { ino: FILE, size, blocks, kind, perm, nlink: 1, ..root };
        Attributes { root, file }
    }

    /// Those of an inode.
    pub fn of(&self, inode: INodeNo) -> Option<&FileAttr> {
        match inode {
            INodeNo::ROOT => Some(&self.root),
            FILE => Some(&self.file),
            _ => None,
        }
    }
}

/// The number that a program sees for an error.
pub fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}
