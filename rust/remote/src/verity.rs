//! The digest tree beside an image on its server.

use std::sync::Arc;

use cowcloop_engine::device::{DeviceOptions, DigestTree, TREE_SUFFIX};
use cowcloop_engine::{Error, ErrorKind, Result};
use rustix::io::Errno;

use crate::address::{beside, redacted};
use crate::{RemoteImage, RemoteOptions};

/// Opens URL.verity, where the image at `url` is pinned to a digest and no other tree is named;
/// `None` where the server has none, or has it for others: an object store refuses to say what does
/// not exist where credentials may not list it, and a signed URL is signed for the image alone.
///
/// # Errors
/// Those of [`RemoteImage::open`].
pub fn tree_beside(
    url: &str,
    remote: &RemoteOptions,
    device: &DeviceOptions,
) -> Result<Option<Arc<RemoteImage>>> {
    let verity = &device.verity;
    let wanted = verity.root.is_some() && matches!(verity.tree, DigestTree::Beside);
    if !wanted || !device.image_ranges.is_empty() {
        return Ok(None);
    }
    let no_url = || Error::new(ErrorKind::InvalidInput, redacted(url), "not a URL");
    let tree = beside(url, TREE_SUFFIX).ok_or_else(no_url)?;
    match RemoteImage::open(&tree, remote) {
        Ok(tree) => Ok(Some(Arc::new(tree))),
        Err(error) => match Errno::from_raw_os_error(error.errno()) {
            Errno::NOENT => Ok(None),
            Errno::ACCESS => {
                log::info!("{error}: it is not used");
                Ok(None)
            }
            _ => Err(error),
        },
    }
}
