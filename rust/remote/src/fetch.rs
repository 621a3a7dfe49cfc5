//! A range's way from the server: attempts, pauses, and where it goes then.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::SemaphorePermit;
use tokio::time::{sleep_until, timeout_at};

use crate::backoff::Backoff;
use crate::cache::CHUNK;
use crate::failure::{Failure, Kind};
use crate::flight::Flight;
use crate::image::Remote;

/// How long what was written to the cache waits for more before it is made durable.
const SETTLE: Duration = Duration::from_millis(200);

/// Takes a flight out of the way, however its task ends.
struct Landing<'a>(&'a Remote, Arc<Flight>);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.0.gone(&self.1);
        self.1.land(|| Err(Failure::new(Kind::Dropped, "the request was dropped")));
    }
}

impl Remote {
    /// Fetches a range, tells all who wait for it, and keeps it.
    pub async fn fly(self: Arc<Self>, flight: Arc<Flight>) {
        let landing = Landing(&self, flight.clone());
        match self.attempts(&flight).await {
            Ok(bytes) => {
                flight.land(|| Ok(bytes.clone()));
                let (this, flight) = (self.clone(), flight.clone());
                // Waits for the disk, perhaps.
                let keep = move || {
                    if !flight.is_spoilt() {
                        this.clone().keep(flight.first, bytes);
                    }
                    // Found wrong meanwhile: before, or after it was kept.
                    if flight.is_spoilt() {
                        this.forget(flight.first, flight.end);
                    }
                };
                let _ = tokio::task::spawn_blocking(keep).await;
            }
            Err(failure) => {
                if failure.kind == Kind::Changed {
                    self.changed.store(true, Ordering::Release);
                }
                flight.land(|| Err(failure));
            }
        }
        drop(landing);
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
            Some(cache) if cache.keep(first, &bytes) => {
                if !self.settling.swap(true, Ordering::AcqRel) {
                    self.settle_soon();
                }
            }
            _ => self.recent.lock().push(first, bytes),
        }
    }

    fn settle_soon(self: &Arc<Self>) {
        let this = self.clone();
        let Ok((handle, _)) = self.link.get() else { return };
        handle.spawn(async move {
            tokio::time::sleep(SETTLE).await;
            // Before, so that what is written from now on has a task of its own.
            this.settling.store(false, Ordering::Release);
            let _ = tokio::task::spawn_blocking(move || this.settle()).await;
        });
    }
}
