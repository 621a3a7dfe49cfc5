//! The kept file of the last cowfile.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::overlay::Keeping;
use crate::storage::{Exchange, FileStorage};
use crate::{Error, ErrorKind, Result};

/// Where the bits of the last cowfile are kept, so that a server that takes over finds what was
/// acknowledged.
#[derive(Debug, Clone)]
pub struct KeptOptions {
    /// The kept file: made if it is missing, mode 0600. It has to outlive the server; that it
    /// ends with the machine does no harm. `/proc/self/fd/N` is a descriptor that is handed over.
    pub path: PathBuf,
    /// This boot of the machine.
    pub boot: [u8; 16],
}

impl KeptOptions {
    /// Opens the file and takes its lock. The cowfile's lock comes first: a server that is dying
    /// has both until its last write has ended.
    pub(super) fn open(&self) -> Result<Keeping> {
        let name = self.path.display().to_string();
        let opened = match FileStorage::open_writable(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                FileStorage::create_new(&self.path)
            }
            other => other,
        };
        let file = opened.map_err(|error| Error::io(&name, "cannot open the kept file", error))?;
        match file.try_lock(true) {
            Ok(true) => {}
            Ok(false) => {
                let message = "this kept file is another server's: give each its own";
                return Err(Error::new(ErrorKind::Busy, name, message));
            }
            Err(error) => return Err(Error::io(name, "cannot lock the kept file", error)),
        }
        let storage = Arc::new(Exchange::new(file, &self.path));
        Ok(Keeping { storage, boot: self.boot })
    }
}
