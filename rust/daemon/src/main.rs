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
mod memory;
mod report;
mod run;
mod supervisor;

use std::ffi::OsString;
use std::process::ExitCode;

use cowcloop_engine::remedy::word;
use cowcloop_server::{command, forward, guard, Event, Events};

use crate::arguments::{Arguments, Refusal};
use crate::report::TOLD;

/// The command line is wrong.
const USAGE: u8 = 2;
/// Before a door: the server is started again when it was killed.
const SUPERVISE: &str = "supervise";
/// Instead of a door: a device that a server has left behind is removed.
const REMOVE: &str = "remove";

fn main() -> ExitCode {
    forward(&TOLD);
    // The command line shows the server's lines to its user.
    word(command);
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [command, device] = &words[..] {
        if command == REMOVE {
            return told(guard(|| doors::remove(device)));
        }
    }
    if let Some((_, rest)) = words.split_first().filter(|(first, _)| *first == SUPERVISE) {
        return match guard(|| supervisor::supervise(rest)) {
            Some(Ok(code)) => code,
            Some(Err(line)) => told(Some(Err(line))),
            None => told(None),
        };
    }
    match Arguments::read(words) {
        Ok(arguments) => told(guard(|| run::run(arguments))),
        Err(Refusal::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Refusal::Usage(line)) => {
            TOLD.tell(Event::Error { text: &line });
            ExitCode::from(USAGE)
        }
    }
}

/// The exit code; `None` stands for a panic, which was reported.
fn told(done: Option<Result<(), String>>) -> ExitCode {
    match done {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(line)) => TOLD.tell(Event::Error { text: &line }),
        None => {}
    }
    ExitCode::FAILURE
}
