//! The figures of a server as OpenMetrics text. `docs/metrics.md` says what each means.

use std::fmt::Error;

use cowcloop_engine::layer::LayerCounters;
use cowcloop_engine::overlay::CowfileStatus;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::requests::{Kind, Requests, Sum};
use crate::server::Server;
use crate::status::{SessionCowfile, SessionStatus, Status};

/// What the text is, for clients.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The first word of every name.
const PREFIX: &str = "cowcloop";

type Written = Result<(), Error>;

/// All figures as they are now.
pub(super) fn encode(server: &Server) -> String {
    let mut text = String::new();
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot {
        status: server.status(),
        requests: server.requests().map(sums).unwrap_or_default(),
    }));
    match text::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string does not fail.
        Err(Error) => String::new(),
    }
}

fn sums(requests: &Requests) -> Vec<(Kind, Sum)> {
    Kind::ALL.map(|kind| (kind, requests.sum(kind))).into()
}

/// What is written at one time.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    requests: Vec<(Kind, Sum)>,
}

impl prometheus_client::collector::Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut out = Out(encoder);
        out.info("build", "The program", &[("version", env!("CARGO_PKG_VERSION"))])?;
        self.of_requests(&mut out)?;
        self.of_server(&mut out)?;
        of_image(&mut out, &self.status.device.base)?;
        self.of_verity(&mut out)?;
        self.of_fetches(&mut out)?;
        of_cowfiles(&mut out, &self.cowfiles())
    }
}

impl Snapshot {
    fn of_requests(&self, out: &mut Out<'_>) -> Written {
        let of_each = |value: fn(&Sum) -> u64| -> Vec<_> {
            self.requests.iter().map(|(kind, sum)| (kind.name(), value(sum))).collect()
        };
        out.counters("requests", "Requests answered", "kind", &of_each(Sum::count))?;
        out.counters("request_failures", "Failed ones", "kind", &of_each(|sum| sum.failed))?;
        let bytes = of_each(|sum| sum.bytes);
        out.counters("request_bytes", "Bytes of the others", "kind", &bytes)?;
        out.latencies("request_duration", "Time to the answer", &self.requests)
    }

    fn of_server(&self, out: &mut Out<'_>) -> Written {
        let Status { connections, suspended, restarts, sessions, .. } = &self.status;
        out.gauge("connections", "Clients", *connections)?;
        out.gauge("suspended", "Whether reads of the image wait", u64::from(*suspended))?;
        if let Some(restarts) = restarts {
            out.counter("restarts", "Times that the server was started again", *restarts)?;
        }
        let Some(sessions) = sessions else { return Ok(()) };
        let open = sessions.iter().filter(|session| session.connections > 0).count() as u64;
        let states = [("open", open), ("closed", sessions.len() as u64 - open)];
        out.gauges("sessions", "Sessions", "state", &states)
    }

    fn of_verity(&self, out: &mut Out<'_>) -> Written {
        let Some(verity) = &self.status.device.verity else { return Ok(()) };
        out.counter("verified_bytes", "Bytes of the image verified", verity.verified_bytes)?;
        out.counter("verify_failures", "Blocks found to be wrong", verity.failures)
    }

    fn of_fetches(&self, out: &mut Out<'_>) -> Written {
        let Some(fetch) = &self.status.device.fetch else { return Ok(()) };
        out.counter("fetches", "Requests to the image's server", fetch.requests)?;
        out.counter("fetched_bytes", "Bytes that came", fetch.bytes)?;
        out.counter("fetch_retries", "Requests made again", fetch.retries)?;
        out.counter("fetch_failures", "Reads given up", fetch.failures)?;
        out.counter("fetch_renewals", "Ranges fetched anew", fetch.renewals)?;
        out.gauge("fetch_kept_bytes", "Bytes kept on disk", fetch.kept_bytes)
    }

    /// The cowfiles that are written, and the bytes of those that are at rest.
    fn cowfiles(&self) -> Cowfiles<'_> {
        let of_device = self.status.device.cowfiles.last();
        let mut found = Cowfiles { open: of_device.into_iter().collect(), at_rest: 0 };
        for SessionStatus { cowfile, .. } in self.status.sessions.iter().flatten() {
            match cowfile {
                SessionCowfile::Open(status) => found.open.push(status),
                SessionCowfile::Closed { allocated, .. } => found.at_rest += allocated,
                SessionCowfile::NotCreated { .. } => {}
            }
        }
        found
    }
}

struct Cowfiles<'a> {
    open: Vec<&'a CowfileStatus>,
    at_rest: u64,
}

fn of_image(out: &mut Out<'_>, base: &LayerCounters) -> Written {
    out.counter("image_reads", "Reads of the image's file", base.base_reads)?;
    out.counter("image_read_bytes", "Bytes of them", base.base_read_bytes)?;
    out.counter("cache_hits", "Blocks that were in the cache", base.cache_hits)?;
    out.counter("cache_misses", "Blocks that were decoded", base.cache_misses)?;
    out.counter("cache_evictions", "Blocks that made room", base.cache_evictions)?;
    out.gauge("cache_blocks", "Blocks in the cache", base.cache_blocks)?;
    out.gauge("cache_bytes", "Bytes of them", base.cache_bytes)?;
    out.gauge("cache_limit_bytes", "Bytes that they may take", base.cache_limit)
}

fn of_cowfiles(out: &mut Out<'_>, cowfiles: &Cowfiles<'_>) -> Written {
    let sum = |value: fn(&CowfileStatus) -> u64| cowfiles.open.iter().map(|cow| value(cow)).sum();
    let allocated: u64 = sum(|cow| cow.allocated);
    out.gauge("cowfiles", "Cowfiles that are open", cowfiles.open.len() as u64)?;
    out.gauge("cowfile_bytes", "Space that cowfiles take", allocated + cowfiles.at_rest)?;
    out.gauge("cowfile_blocks", "Blocks in open cowfiles", sum(|cow| cow.blocks_used))?;
    out.gauge("cowfile_pending_bits", "Bits that are not yet durable", sum(|cow| cow.pending))?;
    out.counter("cowfile_flushes", "Flushes that reached the disk", sum(|cow| cow.flushes))?;
    out.counter("cowfile_failures", "Changes that failed", sum(|cow| cow.failures))
}

/// Writes one metric after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Written {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Written {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters(&mut self, name: &str, help: &str, by: &str, values: &[(&str, u64)]) -> Written {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(label, value)| {
            let labels = [(by, *label)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(value, None)
        })
    }

    fn gauges(&mut self, name: &str, help: &str, by: &str, values: &[(&str, u64)]) -> Written {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.iter().try_for_each(|(label, value)| {
            metric.encode_family(&[(by, *label)])?.encode_gauge(value)
        })
    }

    fn latencies(&mut self, name: &str, help: &str, of: &[(Kind, Sum)]) -> Written {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        of.iter().try_for_each(|(kind, sum)| {
            let seconds = sum.nanoseconds as f64 / 1e9;
            metric.encode_family(&[("kind", kind.name())])?.encode_histogram::<NoLabelSet>(
                seconds,
                sum.count(),
                &sum.buckets(),
                None,
            )
        })
    }
}
