//! URLs of images: what they name, and what of them may be shown.

use std::fmt::Write;

use cowcloop_engine::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use url::Url;

/// The schemes that name an image far away.
const SCHEMES: [&str; 5] = ["http", "https", "s3", "gs", "az"];

/// Whether a text names an image far away.
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        let scheme = scheme.to_ascii_lowercase();
        SCHEMES.contains(&scheme.as_str())
    })
}

/// The URL of the file beside the one at `url` whose name has `suffix` besides; `None` of what is
/// no URL.
pub(crate) fn beside(url: &str, suffix: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    let path = format!("{}{suffix}", url.path());
    url.set_path(&path);
    Some(url.into())
}

/// A URL as it may be shown: without user, password and query, which may hold secrets.
pub fn redacted(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if is_url(text) => shown(&url),
        _ => text.to_string(),
    }
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let secret = url.query().is_some();
    // Fails for URLs that cannot have any, which is as good.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    if secret {
        format!("{url}?...")
    } else {
        url.to_string()
    }
}

/// The address of an image.
#[derive(Clone)]
pub(crate) struct Address {
    /// Without user and password.
    url: Url,
    /// User and password of HTTP's basic authentication.
    login: Option<(String, String)>,
    shown: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    pub fn parse(text: &str) -> Result<Address> {
        let refuse = |message: &str| {
            let name = redacted(text);
            // Unreadable as a URL, it may hold a password anywhere.
            let name = text.split_once("://").filter(|_| name == text && text.contains('@'));
            let name = name.map_or(redacted(text), |(scheme, _)| format!("{scheme}://..."));
            Error::new(ErrorKind::InvalidInput, name, message)
        };
        let mut url = Url::parse(text).map_err(|error| refuse(&format!("not a URL: {error}")))?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(refuse("not a URL of http, https, s3, gs or az"));
        }
        if url.host_str().is_none_or(str::is_empty) || matches!(url.path(), "" | "/") {
            return Err(refuse("a URL of an image has a host, or bucket, and a path"));
        }
        let shown = shown(&url);
        let decoded = |part: &str| {
            percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
        };
        let login = (!url.username().is_empty())
            .then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Address { url, login, shown })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn login(&self) -> Option<&(String, String)> {
        self.login.as_ref()
    }

    /// As it may be shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The bucket, where it has one, and the path of the object in it.
    pub fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// A name for its files in a cache: readable, and no other address's.
    pub fn key(&self) -> String {
        let last = self.url.path_segments().and_then(|mut parts| parts.next_back());
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = last.unwrap_or_default().chars().filter(|c| fit(*c)).take(60).collect();
        let digest = Sha256::digest(self.url.as_str().as_bytes());
        let mut key = format!("{}-", if name.is_empty() { "image" } else { &name });
        for byte in &digest[..8] {
            let _ = write!(key, "{byte:02x}");
        }
        key.trim_start_matches('.').to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["http://h/a", "HTTPS://h/a", "s3://b/k", "gs://b/k", "az://c/k"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["a.img", "/a://b", "ftp://h/a", "cd.iso:/KNOPPIX", "http:/h", "file:///a"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let address = Address::parse("https://me:pa%40ss@host:8080/d/a.img?sig=s3cret#f").unwrap();
        assert_eq!(address.shown(), "https://host:8080/d/a.img?...");
        assert_eq!(address.login(), Some(&("me".to_string(), "pa@ss".to_string())));
        assert_eq!(address.url().as_str(), "https://host:8080/d/a.img?sig=s3cret");
        assert!(!format!("{address:?}{}", address.key()).contains("s3cret"));
        for text in ["https://me:secret@/a", "https://me:secret@host:99999/a", "https://"] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_beside_has_the_same_query_and_login() {
        let found = beside("https://me:pw@host/d/a%20b.img?sig=x#f", ".verity").unwrap();
        assert_eq!(found, "https://me:pw@host/d/a%20b.img.verity?sig=x#f");
        assert_eq!(beside("s3://bucket/key", ".verity").unwrap(), "s3://bucket/key.verity");
    }

    #[test]
    fn keys_are_readable_and_differ() {
        let key = |text: &str| Address::parse(text).unwrap().key();
        assert!(key("http://h/d/knoppix.iso").starts_with("knoppix.iso-"));
        assert_ne!(key("http://h/d/a"), key("http://h/e/a"));
        assert_ne!(key("http://h/a?x=1"), key("http://h/a?x=2"));
        assert_eq!(key("http://me:pw@h/a"), key("http://h/a"));
        assert!(!key("http://h/..a%2f/../.b").starts_with('.'));
    }
}
