//! A range's way from the server: attempts, pauses, and where it goes then.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::{sleep_until, timeout_at};

use crate::backoff::Backoff;
use crate::cache::{Kept, CHUNK};
use crate::failure::{Failure, Kind};
use crate::flight::Flight;
use crate::image::Remote;

/// How long what was written to the cache waits for more before it is made durable.
const SETTLE: Duration = Duration::from_millis(200);

/// Takes a flight out of the way, however its task ends, or even if it is never begun.
struct Landing(Arc<Remote>, Arc<Flight>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.gone(&self.1);
        self.1.land(|| Err(Failure::new(Kind::Dropped, "the request was dropped")));
    }
}

impl Remote {
    /// Fetches a range, tells all who wait for it, and keeps it.
    pub fn fly(self: Arc<Self>, flight: Arc<Flight>) -> impl Future<Output = ()> + Send {
        let landing = Landing(self, flight);
        async move {
            let Landing(this, flight) = &landing;
            match this.attempts(flight).await {
                Ok(bytes) => {
                    flight.land(|| Ok(bytes.clone()));
                    let (this, flight) = (this.clone(), flight.clone());
                    // Waits for the disk, perhaps.
                    let _ = tokio::task::spawn_blocking(move || this.arrive(&flight, bytes)).await;
                }
                Err(failure) => {
                    if failure.kind == Kind::Changed {
                        this.changed.store(true, Ordering::Release);
                    }
                    flight.land(|| Err(failure));
                }
            }
        }
    }

    /// Keeps what a flight has brought, unless it was found wrong meanwhile.
    fn arrive(self: Arc<Self>, flight: &Flight, bytes: Bytes) {
        if !flight.is_spoilt() {
            self.clone().keep(flight.first, bytes);
        }
        // Before, or after it was kept.
        if flight.is_spoilt() {
            self.forget(flight.first, flight.end);
        }
    }

    /// Tries until it works, or the time is over. What no reader waits for is tried once.
    async fn attempts(&self, flight: &Flight) -> Result<Bytes, Failure> {
        let until = flight.begun + self.options.timeout;
        let range = flight.first * CHUNK..(flight.end * CHUNK).min(self.version.size);
        let mut backoff = Backoff::default();
        let mut last = Failure::new(Kind::Away, "the server does not answer");
        loop {
            let attempt = async {
                let _permit = self.permit(flight).await;
                self.pause().await;
                let (_, client) = self.link.get()?;
                client.get(range.clone(), Some(&self.version)).await
            };
            match timeout_at(until.into(), attempt).await {
                Err(_) => return Err(last),
                Ok(Ok(answer)) => {
                    self.pace.note(&answer);
                    return Ok(answer.bytes);
                }
                Ok(Err(failure)) => last = failure,
            }
            if last.is_final() || !flight.is_wanted() {
                return Err(last);
            }
            if let Some(pause) = last.retry_after {
                *self.pause.lock() = Some(Instant::now() + pause);
            }
            let next = Instant::now() + backoff.next();
            if next >= until {
                return Err(last);
            }
            sleep_until(next.into()).await;
            self.link.counts().retry();
        }
    }

    /// Waits for its turn: what a reader waits for goes before all else.
    async fn permit(&self, flight: &Flight) -> Option<SemaphorePermit<'_>> {
        if !flight.is_wanted() {
            tokio::select! {
                permit = self.ahead.acquire() => return permit.ok(),
                () = flight.until_wanted() => {}
            }
        }
        self.wanted.acquire().await.ok()
    }

    /// Leaves the server alone for as long as it asked.
    async fn pause(&self) {
        loop {
            let until = *self.pause.lock();
            match until {
                Some(until) if until > Instant::now() => sleep_until(until.into()).await,
                _ => return,
            }
        }
    }

    /// Keeps what was fetched: in the cache or, where that cannot be, in memory for a while.
    pub fn keep(self: Arc<Self>, first: u64, bytes: Bytes) {
        match &self.cache {
            Some(cache) => match cache.keep(first, &bytes) {
                Kept::First => self.settle_soon(),
                Kept::More => {}
                Kept::Not => self.recent.lock().push(first, bytes),
            },
            None => self.recent.lock().push(first, bytes),
        }
    }

    /// Forgets the chunks `[from, to)`; whether any was kept.
    pub fn forget(&self, from: u64, to: u64) -> bool {
        let kept = self.cache.as_ref().is_some_and(|cache| cache.forget(from, to));
        let recent = self.recent.lock().forget(from, to);
        kept || recent
    }

    /// Forgets the chunks `[from, to)`, which were found to be wrong, wherever they are; whether
    /// any was kept.
    pub fn disown(&self, from: u64, to: u64) -> bool {
        self.spoil(from, to);
        self.forget(from, to)
    }

    /// Has nothing kept of what has come of the chunks `[from, to)`, and is on its way to where it
    /// would be.
    fn spoil(&self, from: u64, to: u64) {
        let mut flights = self.flights.lock();
        for chunk in from..to {
            let Some(flight) = flights.get(&chunk).filter(|flight| flight.has_bytes()).cloned()
            else {
                continue;
            };
            flight.spoil();
            (flight.first..flight.end).for_each(|chunk| drop(flights.remove(&chunk)));
        }
    }

    /// Has what was written made durable in a moment, and what is written until then.
    fn settle_soon(self: &Arc<Self>) {
        let this = self.clone();
        let Ok((handle, _)) = self.link.get() else { return self.settle() };
        handle.spawn(async move {
            tokio::time::sleep(SETTLE).await;
            let _ = tokio::task::spawn_blocking(move || this.settle()).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::address::Address;
    use crate::link::Link;
    use crate::options::RemoteOptions;
    use crate::pace;
    use crate::version::Version;

    use super::*;

    fn remote(port: u16) -> Arc<Remote> {
        let address = Address::parse(&format!("http://127.0.0.1:{port}/a")).unwrap();
        let options = RemoteOptions::default();
        let version = Version { size: 1 << 30, etag: None, modified: None };
        let link = Link::new(address, options.clone());
        Arc::new(Remote::new("a".into(), version, link, options, None))
    }

    #[test]
    fn as_much_is_on_its_way_as_a_reader_may_be_ahead() {
        // It takes connections, and answers none.
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = remote(server.local_addr().unwrap().port());
        let chunks = pace::MOST_AHEAD / CHUNK;
        remote.fetch(0..chunks, false).unwrap();
        assert_eq!(remote.flights.lock().len() as u64, chunks);
        // There is an end to it, but not for a reader.
        (1..9).for_each(|part| remote.fetch(part * chunks..(part + 1) * chunks, false).unwrap());
        let asked = remote.flights.lock().len() as u64;
        assert!(asked < 3 * chunks, "{asked}");
        remote.fetch(9 * chunks..9 * chunks + 1, true).unwrap();
        assert!(remote.flights.lock().contains_key(&(9 * chunks)));
        remote.link.rest();
    }

    #[test]
    fn a_flight_that_is_never_begun_holds_nobody_up() {
        let remote = remote(1);
        let flight = Arc::new(Flight::new(0, 2, true));
        remote.flights.lock().extend((0..2).map(|chunk| (chunk, flight.clone())));
        // As a runtime that ends does with a task that no thread has come to.
        drop(remote.clone().fly(flight.clone()));
        let outcome = flight.wait(Instant::now());
        assert!(matches!(outcome, Some(Err(failure)) if failure.kind == Kind::Dropped));
        assert!(remote.flights.lock().is_empty());
    }
}
