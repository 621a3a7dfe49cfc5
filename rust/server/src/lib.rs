//! What cowcloop serves, through any door: one device, or many sessions over one base, with a
//! control channel, status, and events.
//!
//! ```text
//! door -> Server::open, start -> control    what the server's owner asks for
//!      -> Server::connect     -> Connection what a client asks for -> engine
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
mod options;
mod places;
mod preload;
mod remedies;
mod reports;
mod server;
mod sessions;
mod status;
mod waiting;
mod words;

pub use connection::{Connection, Fua, ZeroFlags};
pub use events::{Event, Events};
pub use guard::{forward, guard};
pub use json_lines::{Delivery, JsonLines};
pub use options::{ServerOptions, SessionOptions};
pub use places::{Place, Places};
pub use remedies::command;
pub use server::Server;
pub use words::{one_line, reason};
