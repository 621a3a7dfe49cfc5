//! The one way in which a file gets its name: when it is whole and durable.
//!
//! Until then it has no name, where the file system has such files and lets this process
//! name them later: nothing is left of the file, however the process ends. Elsewhere it has
//! a passing name, which is removed unless the file is published.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, CWD};
use rustix::io::Errno;

use super::directory::{parent, sync_directory};
use super::FileStorage;

/// Opens a file for reading and writing.
const FLAGS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);
/// Creates it as well: it must not exist yet.
const NEW: OFlags = FLAGS.union(OFlags::CREATE).union(OFlags::EXCL);

/// A file that is not whole, and the name that it is to get.
#[derive(Debug)]
pub(crate) struct Unpublished {
    file: File,
    directory: File,
    /// The passing name that the file has in its directory, if any.
    passing: Option<String>,
    /// The name that it is to get there.
    name: PathBuf,
}

impl Unpublished {
    /// An empty file that is to be called `path`.
    pub(crate) fn create(path: &Path, mode: Mode) -> io::Result<Unpublished> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let name = path.file_name().ok_or_else(no_name)?.into();
        let directory = File::open(parent(path))?;
        let (file, passing) = match unnamed(&directory, mode) {
            Some(file) => (file, None),
            None => {
                let passing = passing_name()?;
                (rustix::fs::openat(&directory, &passing, NEW, mode)?.into(), Some(passing))
            }
        };
        Ok(Unpublished { file, directory, passing, name })
    }

    /// The open file, to be written before it gets its name.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The same open file, with the same lock, called `shown` in messages.
    pub(crate) fn storage(&self, shown: &Path) -> io::Result<FileStorage> {
        FileStorage::from_file(self.file.try_clone()?, shown)
    }

    /// Gives the file its name, durably, unless another file has that name.
    ///
    /// # Errors
    /// `AlreadyExists`, or the system's.
    pub(crate) fn publish_new(mut self) -> io::Result<()> {
        match self.passing.take() {
            None => give_name(&self.file, &self.directory, &self.name)?,
            Some(passing) => {
                let moved = self.rename_to_new(&passing);
                if moved != Ok(true) {
                    // The passing name must not stay, whatever the outcome.
                    self.passing = Some(passing);
                }
                moved?;
            }
        }
        self.settle()
    }

    /// Gives the file its name, durably, even if another file has it: that one is replaced.
    /// `permit` is called just before, with the directory and the name in it.
    ///
    /// # Errors
    /// The system's, or what `permit` says; the name is as it was then.
    pub(crate) fn publish_over<E>(
        mut self,
        permit: impl FnOnce(&File, &Path) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<io::Error> + From<Errno>,
    {
        if self.passing.is_none() {
            match give_name(&self.file, &self.directory, &self.name) {
                // With a name of its own first: only a rename replaces a file.
                Err(Errno::EXIST) => {
                    let passing = passing_name()?;
                    give_name(&self.file, &self.directory, Path::new(&passing))?;
                    self.passing = Some(passing);
                }
                other => other?,
            }
        }
        if let Some(passing) = &self.passing {
            permit(&self.directory, &self.name)?;
            rustix::fs::renameat(&self.directory, passing, &self.directory, &self.name)?;
            self.passing = None;
        }
        Ok(self.settle()?)
    }

    /// Renames the file where there is none of its name. `false`: it has both names now.
    fn rename_to_new(&self, passing: &str) -> rustix::io::Result<bool> {
        let (directory, name) = (&self.directory, &self.name);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, passing, directory, name, flags) {
            // A file system without NOREPLACE. A hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::linkat(directory, passing, directory, name, AtFlags::empty()) {
                    // A file system without hard links: FAT over FUSE, for example.
                    Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        self.rename_over_empty(passing).map(|()| true)
                    }
                    other => other.map(|()| false),
                }
            }
            other => other.map(|()| true),
        }
    }

    /// Takes the name with an empty file first, so that no other file is replaced.
    fn rename_over_empty(&self, passing: &str) -> rustix::io::Result<()> {
        let (directory, name) = (&self.directory, &self.name);
        drop(rustix::fs::openat(directory, name, NEW, Mode::from(0o600))?);
        rustix::fs::renameat(directory, passing, directory, name).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        })
    }

    /// Makes the name durable, in its directory, and the file that it names.
    fn settle(&self) -> io::Result<()> {
        let durable = self.file.sync_all().and_then(|()| sync_directory(&self.directory));
        durable.map_err(|error| {
            let message = format!("it is in its place, but may not stay there: {error}");
            io::Error::new(error.kind(), message)
        })
    }
}

impl Drop for Unpublished {
    /// Before the file is closed: FUSE can keep a file whose close is still under way when
    /// its name is removed.
    fn drop(&mut self) {
        if let Some(passing) = &self.passing {
            let _ = rustix::fs::unlinkat(&self.directory, passing, AtFlags::empty());
        }
    }
}

/// A file without a name, where the file system has such files and lets this process name
/// them later, which is tried with another file.
fn unnamed(directory: &File, mode: Mode) -> Option<File> {
    let make = || rustix::fs::openat(directory, ".", FLAGS | OFlags::TMPFILE, mode);
    let trial = make().ok()?.into();
    let name = passing_name().ok()?;
    give_name(&trial, directory, Path::new(&name)).ok()?;
    rustix::fs::unlinkat(directory, &name, AtFlags::empty()).ok()?;
    Some(make().ok()?.into())
}

/// Gives an unnamed file its first name, which must not exist yet.
fn give_name(file: &File, directory: &File, name: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// A name that cannot be foreseen, for a file that is not whole.
fn passing_name() -> io::Result<String> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(".cowcloop-{digits}.part"))
}

/// Makes a file in `directory` that never gets a name, and disappears with its handle.
pub(crate) fn anonymous(directory: &Path) -> io::Result<File> {
    let mode = Mode::from(0o600);
    match rustix::fs::open(directory, FLAGS | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(file.into()),
        // File systems without such files: FAT, and some network ones.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let handle = File::open(directory)?;
    let name = passing_name()?;
    let file = rustix::fs::openat(&handle, &name, NEW, mode)?;
    rustix::fs::unlinkat(&handle, &name, AtFlags::empty())?;
    Ok(file.into())
}

/// Gives the file `whole` the name `place` beside it, durably, in place of the file that
/// has it.
pub(crate) fn rename_over(whole: &Path, place: &Path) -> io::Result<()> {
    std::fs::rename(whole, place)?;
    sync_directory(&File::open(parent(place))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn begun(path: &Path, passing: bool) -> Unpublished {
        let mut file = Unpublished::create(path, Mode::from(0o600)).unwrap();
        if passing && file.passing.is_none() {
            let name = passing_name().unwrap();
            give_name(&file.file, &file.directory, Path::new(&name)).unwrap();
            file.passing = Some(name);
        }
        file.file().write_all(b"new").unwrap();
        file
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_alone_or_leaves_nothing() {
        for passing in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            drop(begun(&path, passing));
            assert!(names(folder.path()).is_empty());
            begun(&path, passing).publish_new().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn another_file_is_replaced_only_where_that_is_asked_for() {
        for passing in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            fs::write(&path, "old").unwrap();
            let error = begun(&path, passing).publish_new().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let refused: io::Result<()> = begun(&path, passing)
                .publish_over(|_, _| Err(io::Error::from(io::ErrorKind::ResourceBusy)));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            assert_eq!(fs::read(&path).unwrap(), b"old");
            begun(&path, passing).publish_over(|_, _| io::Result::Ok(())).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn without_hard_links_and_noreplace_no_file_is_replaced_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = begun(&path, true);
        let passing = file.passing.clone().unwrap();
        file.rename_over_empty(&passing).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let second = begun(&path, true);
        let passing = second.passing.clone().unwrap();
        assert_eq!(second.rename_over_empty(&passing), Err(Errno::EXIST));
    }
}
