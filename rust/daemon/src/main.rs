//! `cowcloopd`: one device of the kernel's, served by the server without nbdkit, Python or a
//! socket between.
//!
//! ```text
//! arguments -> doors (the kernel's requests in, a Connection's out) -> cowcloop_server
//! report    <- events: to the program that started us, and to a log
//! ```
//!
//! `unsafe` is where a door must have it, and in [`descriptors`].
#![deny(unsafe_code)]

mod arguments;
#[allow(unsafe_code)]
mod descriptors;
mod doors;
mod report;
mod run;

use std::process::ExitCode;

use cowcloop_engine::remedy::word;
use cowcloop_server::{command, forward, guard, Event, Events};

use crate::arguments::{Arguments, Refusal};
use crate::report::TOLD;

/// The command line is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    forward(&TOLD);
    // The command line shows the server's lines to its user.
    word(command);
    let arguments = match Arguments::read(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(Refusal::Help(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Usage(line)) => {
            TOLD.tell(Event::Error { text: &line });
            return ExitCode::from(USAGE);
        }
    };
    match guard(|| run::run(arguments)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(line)) => {
            TOLD.tell(Event::Error { text: &line });
            ExitCode::FAILURE
        }
        // The panic was reported.
        None => ExitCode::FAILURE,
    }
}
