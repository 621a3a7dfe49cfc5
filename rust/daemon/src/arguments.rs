//! The command line: `cowcloopd DOOR [door's arguments] key=value…`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cowcloop_server::{reason, Parameters, HELP};

use crate::descriptors;
use crate::doors::Wanted;
use crate::report::{self, TOLD};

/// What a supervisor says to its server, with the number of a descriptor.
pub const SUPERVISOR: &str = "--supervisor=";
/// The same, with the identity of the device that is to be taken over.
pub const IDENTITY: &str = "--identity=";

/// What is to be served, and by which door.
pub struct Arguments {
    /// The door, with its own arguments.
    pub door: Wanted,
    /// The server's.
    pub parameters: Parameters,
    /// The descriptor by which a supervisor listens.
    pub supervisor: Option<i32>,
    /// The identity that the supervisor's device has.
    pub identity: Option<u32>,
}

/// Why nothing is to be served.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The user wants this text.
    Help(String),
    /// The command line is wrong: a line for the user.
    Usage(String),
}

impl From<String> for Refusal {
    fn from(line: String) -> Refusal {
        Refusal::Usage(line)
    }
}

impl Arguments {
    /// Reads the words that follow the program's name. Events are told by the descriptor that
    /// they name as soon as that is known, errors in later words among them.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, Refusal> {
        let mut words = words.into_iter();
        let name = words.next().ok_or_else(|| format!("no door is named: {}", Wanted::NAMES))?;
        if let "--help" | "-h" = &*name.to_string_lossy() {
            return Err(Refusal::Help(help()));
        }
        if let "--version" | "-V" = &*name.to_string_lossy() {
            return Err(Refusal::Help(concat!("cowcloopd ", env!("CARGO_PKG_VERSION")).into()));
        }
        let mut door = Wanted::named(&name.to_string_lossy())?;
        let mut parameters = Parameters::default();
        let (mut supervisor, mut identity) = (None, None);
        for word in words {
            let text = word.to_str().unwrap_or_default();
            if let Some(number) = text.strip_prefix(SUPERVISOR) {
                supervisor = number.parse().ok();
            } else if let Some(number) = text.strip_prefix(IDENTITY) {
                identity = number.parse().ok();
            } else {
                take(&word, &mut door, &mut parameters)?;
            }
        }
        door.check()?;
        parameters.check()?;
        Ok(Arguments { door, parameters, supervisor, identity })
    }
}

/// Takes one word after the door's name.
fn take(word: &OsStr, door: &mut Wanted, parameters: &mut Parameters) -> Result<(), Refusal> {
    match &*word.to_string_lossy() {
        "--help" | "-h" => return Err(Refusal::Help(help())),
        "--syslog" => {
            report::log_to_the_system();
            return Ok(());
        }
        "--kernel-log" => {
            report::log_to_the_kernel();
            return Ok(());
        }
        _ => {}
    }
    let bytes = word.as_bytes();
    // A path may contain anything: only a word that begins like a parameter is one.
    let Some(at) = parameter_name(bytes) else { return Ok(door.take(word)?) };
    let (key, value) = (&bytes[..at], &bytes[at + 1..]);
    parameters.set(&String::from_utf8_lossy(key), OsStr::from_bytes(value))?;
    // At once, so that an error in the next parameter is already reported there.
    match (key, parameters.events, parameters.log) {
        (b"events", Some(number), _) => {
            let failed = |error| format!("events: {number}: {}", reason(&error));
            TOLD.tell_by(number, descriptors::adopt(number).map_err(failed)?)?;
        }
        (b"log", _, Some(wanted)) => TOLD.log_as_well(wanted),
        _ => {}
    }
    Ok(())
}

/// The length of the name before `=`, if there is one.
fn parameter_name(word: &[u8]) -> Option<usize> {
    let at = word.iter().position(|b| *b == b'=')?;
    let name = &word[..at];
    let lower = |b: &u8| b.is_ascii_lowercase();
    let whole = name.iter().all(|b| lower(b) || *b == b'-');
    (whole && name.first().is_some_and(lower)).then_some(at)
}

fn help() -> String {
    let parameters = HELP.to_string_lossy();
    format!(
        "usage: cowcloopd {} [--syslog|--kernel-log] key=value...\n       cowcloopd remove DEVICE\n\n{parameters}",
        Wanted::NAMES
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        match Arguments::read(words.iter().map(OsString::from)) {
            Err(Refusal::Usage(line)) => line,
            Err(Refusal::Help(text)) => panic!("help: {text}"),
            Ok(_) => panic!("not refused"),
        }
    }

    #[test]
    fn a_door_its_arguments_and_parameters() {
        let words = ["fuse", "/mnt/a=b", "image=/a/chicken.img", "cow=:memory:"];
        let arguments = Arguments::read(words.map(OsString::from)).unwrap_or_else(|_| panic!());
        let options = arguments.parameters.server_options().unwrap();
        assert_eq!(options.image.to_str(), Some("/a/chicken.img"));
        assert_eq!(options.cows.len(), 1);
    }

    #[test]
    fn wrong_command_lines_are_refused_with_a_reason() {
        for (words, part) in [
            (&[][..], "no door is named"),
            (&["sftp", "image=/a"], "sftp: no such door"),
            (&["fuse", "image=/a"], "fuse: name the directory"),
            (&["fuse", "/mnt", "/mnt2", "image=/a"], "/mnt2: "),
            (&["fuse", "/mnt"], "image: missing"),
            (&["fuse", "/mnt", "image=/a", "colour=red"], "colour: no such parameter"),
            (&["fuse", "/mnt", "image=/a", "image=/b"], "image: given twice"),
            (&["fuse", "/mnt", "--loud", "image=/a"], "--loud: "),
        ] {
            let line = refused(words);
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn help_names_every_door_and_parameter() {
        let Err(Refusal::Help(text)) = Arguments::read(["--help".into()]) else { panic!() };
        assert!(text.contains("fuse DIR") && text.contains("lifeline=<FD>"), "{text}");
    }
}
