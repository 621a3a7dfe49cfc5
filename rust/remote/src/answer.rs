//! What a server's answer to a request for a range has to look like.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use http::header::{self, HeaderMap};
use http::StatusCode;
use parking_lot::Mutex;

use crate::failure::{Failure, Kind};
use crate::version::Version;

/// The largest image, in bytes: there is a bit in memory for each chunk of it.
pub(crate) const LARGEST: u64 = 16 << 40;

/// The longest time that a server may ask to be left alone for: it is asked again then.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A request on its way, and what its answer's head said.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    range: Range<u64>,
    head: Arc<Mutex<Option<Result<Head, Failure>>>>,
}

/// The head of an answer that is as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub version: Version,
    /// The bytes that follow, fewer than were asked for at the image's end.
    pub range: Range<u64>,
}

impl Asked {
    pub fn new(range: Range<u64>) -> Asked {
        Asked { range, head: Arc::default() }
    }

    /// Looks at an answer's head; `false`: its body is not to be used.
    pub fn look(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let head = judge(&self.range, status, headers);
        let fine = head.is_ok();
        *self.head.lock() = Some(head);
        fine
    }

    /// Notes why there is no answer.
    pub fn fail(&self, failure: Failure) {
        *self.head.lock() = Some(Err(failure));
    }

    /// What the head said, if one came.
    pub fn take(&self) -> Option<Result<Head, Failure>> {
        self.head.lock().take()
    }
}

fn judge(asked: &Range<u64>, status: StatusCode, headers: &HeaderMap) -> Result<Head, Failure> {
    let wrong = |reason: String| Err(Failure::new(Kind::Wrong, reason));
    match status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::OK => {
            return wrong("the server sends the whole image when asked for a part of it".into())
        }
        StatusCode::PRECONDITION_FAILED => return Err(Failure::changed()),
        StatusCode::RANGE_NOT_SATISFIABLE if asked.start == 0 => {
            return wrong("the image on the server is empty".into())
        }
        // It ends before what it had when it was opened.
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::changed()),
        _ => return Err(refused(status, headers)),
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|word| *word != "identity") {
        return wrong(format!("the server sends the image encoded ({encoding:?})"));
    }
    let Some((range, size)) = text(header::CONTENT_RANGE).and_then(content_range) else {
        return wrong("the server sends a part without saying which".into());
    };
    if size > LARGEST {
        return wrong(format!(
            "the server says that it has {size} bytes, and no image has more than {LARGEST}"
        ));
    }
    let expected = asked.start..asked.end.min(size);
    if range != expected {
        return wrong(format!(
            "the server sends bytes {} to {} when asked for {} to {}",
            range.start, range.end, expected.start, expected.end
        ));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != range.end - range.start) {
        return wrong("the server sends a part of another length than it says".into());
    }
    let version = Version {
        size,
        etag: text(header::ETAG).map(str::to_string),
        modified: text(header::LAST_MODIFIED).map(str::to_string),
    };
    Ok(Head { version, range })
}

fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Refused,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Kind::Refused,
        status if status.is_server_error() => Kind::Away,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Kind::Away,
        _ => Kind::Wrong,
    };
    let mut failure = Failure::new(kind, format!("the server answers {status}"));
    failure.retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| pause(value.to_str().ok()?))
        .map(|pause| pause.min(LONGEST_PAUSE));
    failure
}

/// Seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until: SystemTime = DateTime::parse_from_rfc2822(text).ok()?.into();
    until.duration_since(SystemTime::now()).ok()
}

/// `bytes FIRST-LAST/SIZE`
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let size = size.parse().ok()?;
    (first <= last && last < size).then(|| (first..last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in given {
            map.insert(*name, value.parse().unwrap());
        }
        map
    }

    fn kind(status: u16, given: &[(&'static str, &str)]) -> Result<Range<u64>, Kind> {
        let status = StatusCode::from_u16(status).unwrap();
        judge(&(100..200), status, &headers(given)).map(|head| head.range).map_err(|f| f.kind)
    }

    #[test]
    fn only_the_part_that_was_asked_for_is_data() {
        assert_eq!(kind(206, &[("content-range", "bytes 100-199/500")]), Ok(100..200));
        assert_eq!(kind(206, &[("content-range", "bytes 100-149/150")]), Ok(100..150));
        assert_eq!(kind(206, &[("content-range", "bytes 100-199/17592186044416")]), Ok(100..200));
        for given in [
            &[("content-range", "bytes 0-99/500")][..],
            &[("content-range", "bytes 100-198/500")],
            &[("content-range", "bytes 100-199/150")],
            &[("content-range", "bytes 100-199/*")],
            &[("content-range", "bytes 100-18446744073709551615/18446744073709551615")],
            &[("content-range", "bytes 100-199/18446744073709551615")],
            &[("content-range", "bytes 100-199/17592186044417")],
            &[("content-range", "bytes 100-199/500"), ("content-encoding", "gzip")],
            &[("content-range", "bytes 100-199/500"), ("content-length", "99")],
            &[],
        ] {
            assert_eq!(kind(206, given), Err(Kind::Wrong), "{given:?}");
        }
        assert_eq!(kind(200, &[]), Err(Kind::Wrong));
        assert_eq!(kind(412, &[]), Err(Kind::Changed));
        assert_eq!(kind(416, &[]), Err(Kind::Changed));
        assert_eq!(kind(404, &[]), Err(Kind::Missing));
        assert_eq!(kind(403, &[]), Err(Kind::Refused));
        assert_eq!(kind(503, &[]), Err(Kind::Away));
    }

    #[test]
    fn a_server_may_ask_for_a_pause() {
        let wait =
            |text| refused(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", text)]));
        assert_eq!(wait("7").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(wait("99999").retry_after, Some(LONGEST_PAUSE));
        assert_eq!(wait("soon").retry_after, None);
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT").retry_after, None);
    }
}
