//! What cowcloop serves, through any door: one device, or many sessions over one base, with a
//! control channel, status, and events.
//!
//! ```text
//! door -> Parameters               what is to be served
//!      -> Server::open, start -> control    what the server's owner asks for
//!      -> Server::connect     -> Connection what a client asks for -> engine
//!      -> Service                           what ends the server: a signal, its starter's end
//!      -> metrics                           what a monitoring system asks for
//!      <- Events                            what the door tells the user, or a log
//!      -> Server::close
//! ```
//!
//! There is no transport in here. A door (nbdkit's callbacks, ublk's commands) maps its requests to
//! a [`Connection`]'s, its answers back, and [`Event`]s to wherever its user reads them.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod connection;
mod control;
mod events;
mod export;
mod guard;
mod json_lines;
mod kept;
mod metrics;
mod options;
mod parameters;
mod places;
mod preload;
mod remedies;
mod reports;
mod server;
mod service;
mod sessions;
mod status;
mod told;
mod trace;
mod waiting;
mod words;

pub use connection::{Connection, Fua, ZeroFlags};
pub use events::{Event, Events};
pub use guard::{forward, guard};
pub use metrics::MetricsAddress;
pub use options::{ServerOptions, SessionOptions};
pub use parameters::{Parameters, HELP};
pub use places::{Place, Places};
pub use remedies::command;
pub use server::Server;
pub use service::{Cause, Ending, Service};
pub use told::Told;
pub use trace::Prefetch;
pub use words::{one_line, reason};
