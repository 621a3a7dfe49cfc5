//! A copy on its way to a place of its own: as a cache is kept, so that it can go on where it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::version::Version;

use super::place::{existing, make, STATE};
use super::{Cache, Head};

/// The file that a copy is to become, and those that it is meanwhile.
#[derive(Debug)]
pub(crate) struct Apart {
    to: PathBuf,
    part: PathBuf,
    state: PathBuf,
}

impl Apart {
    /// A copy that is to become the file `to`.
    pub fn new(to: &Path) -> io::Result<Apart> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "it has no name");
        let name = to.file_name().ok_or_else(no_name)?.to_string_lossy().into_owned();
        let part = to.with_file_name(format!("{name}.part"));
        let state = to.with_file_name(format!("{name}.part{STATE}"));
        Ok(Apart { to: to.to_path_buf(), part, state })
    }

    /// What there is of it, if that is without doubt of this version; made where there is
    /// nothing.
    pub fn open(&self, address: &Address, version: &Version) -> io::Result<Cache> {
        if let Some((_, cache)) = existing(&self.state, |head| head.is_of(address, version)) {
            return Ok(cache);
        }
        let gone = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(fs::remove_file(&self.state))?;
        gone(fs::remove_file(&self.part))?;
        let name = self.part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        make(&self.state, &Head::new(address, version, name))
    }

    /// It is complete and durable: it gets its name.
    pub fn finish(&self) -> io::Result<()> {
        fs::rename(&self.part, &self.to)?;
        fs::remove_file(&self.state)?;
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}
