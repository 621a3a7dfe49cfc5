//! Opening an image far away: which version of it there is, and what is kept of that.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use cowcloop_engine::{Error, ErrorKind, Result};

use crate::address::Address;
use crate::backoff::Backoff;
use crate::cache::place::Place;
use crate::cache::Cache;
use crate::client::Answer;
use crate::failure::{Failure, Kind};
use crate::image::{Remote, RemoteImage};
use crate::interrupt;
use crate::link::Link;
use crate::options::RemoteOptions;
use crate::pace;
use crate::version::Version;

/// Attempts while a server answers wrongly: one that knows no ranges never will.
const WRONG: u32 = 3;
/// How long a server that is away is waited for where something of the image is kept.
const WITH_CACHE: Duration = Duration::from_secs(5);
/// How long for a name that nothing has: it is a wrong one, or the network is about to come up.
const WITHOUT_HOST: Duration = Duration::from_secs(3);

impl RemoteImage {
    /// Opens the image at `url`.
    ///
    /// # Errors
    /// `InvalidInput` for a URL that names no image; `Io` when there is no image, or no server;
    /// `Unsupported` for a server that does not send parts of files.
    pub fn open(url: &str, options: &RemoteOptions) -> Result<RemoteImage> {
        let kept = |place: Option<Place>, address: &Address, version: &Version| {
            Ok(place.and_then(|place| kept(&place, address.shown(), version)))
        };
        Self::open_by(url, options, kept)
    }

    /// Opens the image at `url`, of which all is to be kept in a cache of the caller's.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and of making the cache.
    pub(crate) fn open_with(
        url: &str,
        options: &RemoteOptions,
        cache: &dyn Fn(&Address, &Version) -> Result<Cache>,
    ) -> Result<RemoteImage> {
        Self::open_by(url, options, |_, address, version| cache(address, version).map(Some))
    }

    fn open_by(
        url: &str,
        options: &RemoteOptions,
        kept: impl FnOnce(Option<Place>, &Address, &Version) -> Result<Option<Cache>>,
    ) -> Result<RemoteImage> {
        let address = Address::parse(url)?;
        let name = address.shown().to_string();
        let place = place(&address, options);
        let latest = || place.as_ref().and_then(|place| place.latest().ok().flatten());
        let link = Link::new(address.clone(), options.clone());
        if options.offline {
            let Some((version, cache)) = latest() else {
                let message = "nothing of it is in the cache, and --offline asks no server";
                return Err(Error::new(ErrorKind::Io, name, message));
            };
            return Ok(Self::with(name, version, link, options, Some(cache)));
        }
        let answer = match first(&link, options, || latest().is_some()) {
            Ok(answer) => answer,
            Err(failure) if matches!(failure.kind, Kind::Away | Kind::NoHost) => match latest() {
                Some((version, cache)) => {
                    let reason = &failure.reason;
                    log::warn!("{name}: {reason}; what was kept of it is used meanwhile");
                    return Ok(Self::with(name, version, link, options, Some(cache)));
                }
                None => return Err(error(name, &failure)),
            },
            Err(failure) => return Err(error(name, &failure)),
        };
        let version = answer.version;
        let cache = kept(place, &address, &version)?;
        let image = Self::with(name, version, link, options, cache);
        image.remote().clone().keep(0, answer.bytes);
        Ok(image)
    }

    fn with(
        name: String,
        version: Version,
        link: Link,
        options: &RemoteOptions,
        cache: Option<Cache>,
    ) -> RemoteImage {
        RemoteImage::new(Remote::new(name, version, link, options.clone(), cache))
    }
}

/// The place of an address in the cache; that it cannot be had is told, and costs speed.
fn place(address: &Address, options: &RemoteOptions) -> Option<Place> {
    let directory = options.cache_dir.as_ref()?;
    let made = Place::new(directory, options.cache_limit, address);
    made.inspect_err(|error| unkept(&directory.display().to_string(), error)).ok()
}

fn kept(place: &Place, name: &str, version: &Version) -> Option<Cache> {
    if !version.is_certain() {
        log::warn!(
            "{name}: the server gives neither an ETag nor a date by which a changed image would \
             be known: nothing of it is kept"
        );
        return None;
    }
    place.open(version).inspect_err(|error| unkept(name, error)).ok()
}

fn unkept(name: &str, error: &io::Error) {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    log::warn!("{name}: cannot be cached: {reason}; what is fetched is not kept");
}

/// The first answer, which says what image it is.
fn first(
    link: &Link,
    options: &RemoteOptions,
    kept: impl Fn() -> bool,
) -> std::result::Result<Answer, Failure> {
    let mut patience = Patience::new(Instant::now());
    let mut backoff = Backoff::default();
    loop {
        let (handle, client) = link.get()?;
        let failure = match handle.block_on(uninterrupted(client.get(0..pace::LEAST, None))) {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let pause = backoff.next().max(failure.retry_after.unwrap_or_default());
        let most = if kept() { WITH_CACHE.min(options.timeout) } else { options.timeout };
        if patience.ends(failure.kind, Instant::now(), pause, most) {
            return Err(failure);
        }
        std::thread::sleep(pause);
        link.counts().retry();
    }
}

/// What an opening has had to bear so far.
struct Patience {
    begun: Instant,
    wrong: u32,
    /// Since when nothing has had the server's name.
    nameless: Option<Instant>,
}

impl Patience {
    fn new(begun: Instant) -> Patience {
        Patience { begun, wrong: 0, nameless: None }
    }

    /// Whether there is no use in another attempt after a failure and a pause, where `most` is the
    /// time for all of them.
    fn ends(&mut self, kind: Kind, now: Instant, pause: Duration, most: Duration) -> bool {
        self.wrong += u32::from(kind == Kind::Wrong);
        // A server may have been away before, and its name with the whole network after that.
        let since = self.nameless.unwrap_or(now);
        self.nameless = (kind == Kind::NoHost).then_some(since);
        let next = now + pause;
        match kind {
            Kind::Away => {}
            Kind::NoHost if next <= since + WITHOUT_HOST => {}
            Kind::Wrong if self.wrong < WRONG => {}
            _ => return true,
        }
        next > self.begun + most
    }
}

/// A request, or that it was interrupted.
async fn uninterrupted<T>(
    request: impl Future<Output = std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    let mut request = pin!(request);
    loop {
        if let Ok(done) = tokio::time::timeout(interrupt::TICK, &mut request).await {
            return done;
        }
        if interrupt::raised() {
            return Err(Failure::interrupted());
        }
    }
}

fn error(name: String, failure: &Failure) -> Error {
    match failure.kind {
        Kind::Wrong => Error::new(ErrorKind::Unsupported, name, failure.reason.clone()),
        Kind::Ours => Error::new(ErrorKind::InvalidInput, name, failure.reason.clone()),
        kind => {
            let kind = match kind {
                Kind::Missing => io::ErrorKind::NotFound,
                Kind::Refused => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            let source = io::Error::new(kind, failure.reason.clone());
            Error::io(name, "cannot open the image", source)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_waited_for_from_when_it_is_gone() {
        let second = Duration::from_secs(1);
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        let mut ends = |kind, at| patience.ends(kind, begun + at * second, second, 60 * second);
        assert!(!ends(Kind::Away, 10));
        assert!(!ends(Kind::NoHost, 20) && !ends(Kind::NoHost, 22));
        assert!(!ends(Kind::Away, 23));
        assert!(!ends(Kind::NoHost, 24) && !ends(Kind::NoHost, 26) && ends(Kind::NoHost, 27));
        assert!(!ends(Kind::Away, 59) && ends(Kind::Away, 60));
        assert!(!ends(Kind::Wrong, 30) && !ends(Kind::Wrong, 31) && ends(Kind::Wrong, 32));
        assert!(ends(Kind::Missing, 1));
    }
}
