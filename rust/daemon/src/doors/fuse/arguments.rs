//! The door's own arguments: `DIR [-o OPTIONS]`.

use std::ffi::OsStr;
use std::path::PathBuf;

use cowcloop_server::reason;

/// A supervisor names the kernel's descriptor of what is mounted.
pub const DEVICE: &str = "--device=";

/// Where to mount, and how.
#[derive(Debug, Default)]
pub struct Arguments {
    directory: Option<PathBuf>,
    options_follow: bool,
    /// Nothing is to be written by this mount.
    pub read_only: bool,
    /// Other users may use the file, as far as its mode lets them.
    pub allow_other: bool,
    /// The kernel's descriptor of a mounted file system, which a server has left behind.
    pub device: Option<i32>,
}

impl Arguments {
    /// Takes one word. The error is a line for the user.
    pub fn take(&mut self, word: &OsStr) -> Result<(), String> {
        if std::mem::take(&mut self.options_follow) {
            return word.to_string_lossy().split(',').try_for_each(|option| self.option(option));
        }
        let shown = word.to_string_lossy();
        if shown == "-o" {
            self.options_follow = true;
            return Ok(());
        }
        if let Some(number) = shown.strip_prefix(DEVICE) {
            let number = number.parse();
            self.device = Some(number.map_err(|_| format!("{shown}: not a descriptor"))?);
            return Ok(());
        }
        if shown.starts_with('-') {
            return Err(format!("{shown}: no such option of the door fuse"));
        }
        if self.directory.is_some() {
            return Err(format!("{shown}: fuse: one directory is enough"));
        }
        self.directory = Some(PathBuf::from(word));
        Ok(())
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            _ => return Err(format!("-o {option}: no such option; there is ro,rw,allow_other")),
        }
        Ok(())
    }

    /// Checks what only all words together show.
    pub fn check(&self) -> Result<(), String> {
        match (&self.directory, self.options_follow) {
            (_, true) => Err("-o: the options are missing".into()),
            (None, false) => Err("fuse: name the directory to mount on".into()),
            (Some(_), false) => Ok(()),
        }
    }

    /// The directory's absolute path without links, as the kernel will have it.
    pub fn directory(&self) -> Result<PathBuf, String> {
        let directory = self.directory.clone().unwrap_or_default();
        let failed = |error| format!("{}: {}", directory.display(), reason(&error));
        if self.device.is_some() {
            // What is mounted there is answered by us, and not yet.
            return std::path::absolute(&directory).map_err(failed);
        }
        let place = directory.canonicalize().map_err(failed)?;
        if !place.is_dir() {
            return Err(format!("{}: not a directory to mount on", directory.display()));
        }
        Ok(place)
    }
}
