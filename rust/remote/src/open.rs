//! Opening an image far away: which version of it there is, and what is kept of that.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use cowcloop_engine::{Error, ErrorKind, Result};

use crate::address::Address;
use crate::backoff::Backoff;
use crate::cache::place::Place;
use crate::cache::{Cache, CHUNK};
use crate::client::Answer;
use crate::failure::{Failure, Kind};
use crate::image::{Remote, RemoteImage};
use crate::interrupt;
use crate::link::Link;
use crate::options::RemoteOptions;
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
        let keep = !image.remote().cache.as_ref().is_some_and(|cache| cache.has(0));
        if keep {
            image.remote().clone().keep(0, answer.bytes);
        }
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
    let begun = Instant::now();
    let mut backoff = Backoff::default();
    let mut wrong = 0;
    loop {
        let (handle, client) = link.get()?;
        let failure = match handle.block_on(uninterrupted(client.get(0..CHUNK, None))) {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        wrong += u32::from(failure.kind == Kind::Wrong);
        let hopeless = match failure.kind {
            Kind::Away | Kind::NoHost => false,
            Kind::Wrong => wrong >= WRONG,
            _ => true,
        };
        let pause = backoff.next().max(failure.retry_after.unwrap_or_default());
        let patience = match failure.kind {
            Kind::NoHost => WITHOUT_HOST,
            _ if kept() => WITH_CACHE,
            _ => options.timeout,
        };
        let patience = patience.min(options.timeout);
        if hopeless || begun.elapsed() + pause > patience {
            return Err(failure);
        }
        std::thread::sleep(pause);
        link.counts().retry();
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
