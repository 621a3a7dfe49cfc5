//! Which image it is that a server has under an address.

use chrono::{DateTime, Utc};
use object_store::GetOptions;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the first answer said, and each later one has to agree with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Bytes.
    pub size: u64,
    pub etag: Option<String>,
    /// `Last-Modified` as it was sent.
    pub modified: Option<String>,
}

impl Version {
    /// Whether it tells a changed image of the same size from this one.
    pub fn is_certain(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// The conditions of a request for a part of this image.
    pub fn conditions(&self) -> GetOptions {
        let mut options = GetOptions::default();
        match (self.strong_etag(), self.modified_time()) {
            (Some(etag), _) => options.if_match = Some(etag.to_string()),
            (None, Some(time)) => options.if_unmodified_since = Some(time),
            (None, None) => {}
        }
        options
    }

    /// Whether an answer is about the same image.
    pub fn agrees(&self, answer: &Version) -> bool {
        let same = |ours: &Option<String>, theirs: &Option<String>| {
            ours.is_none() || theirs.is_none() || ours == theirs
        };
        let dated = self.etag.is_some() && answer.etag.is_some();
        self.size == answer.size
            && same(&self.etag, &answer.etag)
            && (dated || same(&self.modified, &answer.modified))
    }

    /// A name for it in a cache.
    pub fn key(&self) -> String {
        let text = format!("{}\0{:?}\0{:?}", self.size, self.etag, self.modified);
        Sha256::digest(text.as_bytes())[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// All that is known of it, where that tells it from any other image at its address.
    pub fn mark(&self) -> Option<String> {
        let told = self.strong_etag().is_some() || self.modified.is_some();
        told.then(|| format!("{} {:?} {:?}", self.size, self.etag, self.modified))
    }

    /// A weak one may stand for other bytes, and never matches.
    fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    fn modified_time(&self) -> Option<DateTime<Utc>> {
        let text = self.modified.as_deref()?;
        DateTime::parse_from_rfc2822(text).ok().map(|time| time.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(size: u64, etag: Option<&str>, modified: Option<&str>) -> Version {
        Version { size, etag: etag.map(Into::into), modified: modified.map(Into::into) }
    }

    const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

    #[test]
    fn conditions_follow_the_strongest_validator() {
        let strong = version(5, Some("\"a\""), Some(DATE)).conditions();
        assert_eq!((strong.if_match.as_deref(), strong.if_unmodified_since), (Some("\"a\""), None));
        for etag in [None, Some("W/\"a\"")] {
            let dated = version(5, etag, Some(DATE)).conditions();
            assert_eq!(dated.if_match, None);
            assert_eq!(dated.if_unmodified_since.unwrap().timestamp(), 1_445_412_480);
        }
        let none = version(5, None, None);
        let conditions = none.conditions();
        assert!(!none.is_certain() && conditions.if_match.is_none());
        assert!(conditions.if_unmodified_since.is_none());
    }

    #[test]
    fn another_size_or_validator_is_another_image() {
        let ours = version(5, Some("\"a\""), Some(DATE));
        assert!(ours.agrees(&ours));
        assert!(ours.agrees(&version(5, Some("\"a\""), Some("Thu, 22 Oct 2015 07:28:00 GMT"))));
        assert!(!ours.agrees(&version(6, Some("\"a\""), Some(DATE))));
        assert!(!ours.agrees(&version(5, Some("\"b\""), Some(DATE))));
        assert!(!ours.agrees(&version(5, None, Some("Thu, 22 Oct 2015 07:28:00 GMT"))));
        assert_ne!(ours.key(), version(5, Some("\"b\""), Some(DATE)).key());
    }
}
