//! Where the trace of an image lies, and opening it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cowcloop_engine::storage::{FileStorage, Storage};
use cowcloop_remote::{is_url, redacted, RemoteImage, RemoteOptions};

use crate::options::ServerOptions;

/// How long a server is waited for that has the trace: the image goes without.
const PATIENCE: Duration = Duration::from_secs(5);

/// The end of the name of a trace beside its image.
const END: &str = ".trace";

/// A trace's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    /// The user has named it, so it has to be there.
    named: bool,
    /// The image is a part of a file, which may have others.
    part: bool,
}

impl Place {
    /// The place where the options say that it lies, or else the image's name and `.trace`;
    /// `None`: nothing is there.
    ///
    /// A part of a file has its trace beside that file.
    pub(super) fn of(options: &ServerOptions) -> Option<Place> {
        if let Some(path) = &options.trace.replay {
            return Some(Place { path: path.clone(), named: true, part: false });
        }
        let part = !options.device.image_ranges.is_empty();
        let path = beside(&options.image);
        let there = match url(&path) {
            Some(_) => !options.remote.offline,
            None => path.try_exists().unwrap_or(true),
        };
        there.then_some(Place { path, named: false, part })
    }

    /// Its name in messages.
    pub(super) fn shown(&self) -> String {
        url(&self.path).map_or_else(|| self.path.display().to_string(), redacted)
    }

    /// Opens it; nothing of it is kept. The error is the rest of a line for the user.
    pub(super) fn open(&self, remote: &RemoteOptions) -> Result<Arc<dyn Storage>, String> {
        let Some(url) = url(&self.path) else {
            let opened = FileStorage::open(&self.path);
            return match opened {
                Ok(file) => Ok(Arc::new(file)),
                Err(error) => Err(crate::words::reason(&error)),
            };
        };
        let timeout = remote.timeout.min(PATIENCE);
        let options = RemoteOptions { cache_dir: None, timeout, ..remote.clone() };
        let opened = RemoteImage::open(url, &options);
        opened.map(|image| Arc::new(image) as Arc<dyn Storage>).map_err(|error| {
            let line = error.to_string();
            let about = format!("{}: ", error.subject());
            line.strip_prefix(&about).unwrap_or(&line).to_string()
        })
    }

    /// Whether it may be that of another image, and no word is lost about it.
    pub(super) fn may_be_of_another(&self) -> bool {
        self.part
    }

    /// Whether there may be nothing, and no word is lost about it: servers have many ways to
    /// say so.
    pub(super) fn may_be_missing(&self) -> bool {
        !self.named && url(&self.path).is_some()
    }
}

fn url(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| is_url(text))
}

/// The name of the trace that lies beside an image.
fn beside(image: &Path) -> PathBuf {
    let Some(url) = url(image) else {
        let mut name = image.as_os_str().to_os_string();
        name.push(END);
        return name.into();
    };
    let path = url.find(['?', '#']).unwrap_or(url.len());
    format!("{}{END}{}", &url[..path], &url[path..]).into()
}

/// The system's words for why a trace cannot be read, as the rest of a line.
pub(super) fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {}", crate::words::reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_the_name_of_its_image() {
        for (image, trace) in [
            ("/a/b", "/a/b.trace"),
            ("/a/b?c", "/a/b?c.trace"),
            ("https://h/a.img", "https://h/a.img.trace"),
            ("https://h/a.img?sig=x/y", "https://h/a.img.trace?sig=x/y"),
            ("s3://b/k", "s3://b/k.trace"),
        ] {
            assert_eq!(beside(Path::new(image)), Path::new(trace));
        }
    }
}
