//! Metrics: what a server has done, as OpenMetrics text over HTTP.
//!
//! ```text
//! requests   what clients' requests took: counted on the way, without a lock
//! text       these, and the server's status, as text
//! http       the clients that ask for it
//! address    where they do
//! ```

mod address;
mod http;
mod requests;
mod text;

use std::sync::Arc;

pub use address::MetricsAddress;
use http::Responder;
pub(crate) use requests::{Kind, Requests};

use crate::server::Server;
use crate::words::reason;

/// The thread that answers, and where.
pub(crate) struct Metrics {
    responder: Responder,
    place: Option<String>,
}

impl Metrics {
    /// Listens and answers from now on; must not be called before the server has forked. The
    /// error is a line for the user.
    pub(crate) fn start(address: &MetricsAddress, server: &Arc<Server>) -> Result<Metrics, String> {
        let listener = address.listen()?;
        let place = match address {
            MetricsAddress::Unix(path) => Some(path.display().to_string()),
            MetricsAddress::Tcp(..) => listener.place().map(|place| place.to_string()),
        };
        let no_thread = |error| format!("cannot start a thread: {}", reason(&error));
        let responder = Responder::start(listener, server).map_err(no_thread)?;
        Ok(Metrics { responder, place })
    }

    /// Host and port, or the path of the socket.
    pub(crate) fn place(&self) -> Option<String> {
        self.place.clone()
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        self.responder.stop();
    }
}
