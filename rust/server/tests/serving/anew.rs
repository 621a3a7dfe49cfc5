//! Sessions that begin anew: by their owner, and with their machine.

use std::time::Duration;

use cowcloop_server::{Connection, Fua, ServerOptions, SessionOptions};
use serde_json::json;

use crate::support::{Served, PATTERN};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(1_000_000);

fn with_sessions(reset_on_boot: Option<Duration>) -> Served {
    Served::new(|options: &mut ServerOptions| {
        let folder = options.image.with_file_name("sessions");
        options.sessions = Some(SessionOptions { reset_on_boot, ..SessionOptions::new(folder) });
    })
}

fn write(client: &Connection, byte: u8) {
    client.write(&[byte; 1024], 0, Fua(false)).unwrap();
}

#[track_caller]
fn reads(client: &Connection, byte: u8) {
    let mut found = [0; 1024];
    client.read(&mut found, 0).unwrap();
    assert_eq!(found, [byte; 1024]);
}

fn cut_off(client: &Connection) {
    let error = client.read(&mut [0; 1024], 0).unwrap_err();
    assert!(error.to_string().contains("has begun anew"), "{error}");
    assert!(client.write(&[9; 1024], 0, Fua(false)).is_err());
    assert!(client.flush().is_err());
}

fn reset(served: &Served, session: &str, force: bool) -> Result<(), String> {
    let reply = served.ask(&json!({ "command": "reset", "session": session, "force": force }));
    match reply["ok"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(reply["error"].as_str().unwrap().to_string()),
    }
}

#[test]
fn a_reset_discards_what_was_written_in_one_session_alone() {
    let served = with_sessions(None);
    for (name, byte) in [("anna", 1), ("bert", 2)] {
        write(&served.connect(name), byte);
    }
    let bert = served.connect("bert");
    reset(&served, "anna", false).unwrap();
    assert!(!served.path("sessions/anna.cow").exists());
    reads(&served.connect("anna"), PATTERN);
    reads(&bert, 2);
    write(&bert, 3);
    for name in ["anna", "nobody", "../bert", ""] {
        assert!(reset(&served, name, true).unwrap_err().contains("none of that name"));
    }
    reads(&bert, 3);
}

#[test]
fn clients_are_cut_off_only_by_force() {
    let served = with_sessions(None);
    let (first, second) = (served.connect("anna"), served.connect("anna"));
    write(&first, 1);
    assert!(reset(&served, "anna", false).unwrap_err().contains("2 connections have it open"));
    reads(&second, 1);
    reset(&served, "anna", true).unwrap();
    cut_off(&first);
    cut_off(&second);
    let anew = served.connect("anna");
    reads(&anew, PATTERN);
    write(&anew, 2);
    // What is left of the old session takes nothing of the new one along.
    drop((first, second));
    reads(&served.connect("anna"), 2);
    write(&anew, 3);
    drop(anew);
    reads(&served.connect("anna"), 3);
    // One without a cowfile yet.
    let reader = served.connect("only-reads");
    reset(&served, "only-reads", true).unwrap();
    cut_off(&reader);
    assert!(!served.path("sessions/only-reads.cow").exists());
}

#[test]
fn a_session_lives_as_long_as_its_machine_runs() {
    let served = with_sessions(Some(Duration::ZERO));
    for boot in ["one", "two"] {
        let name = format!("pc@{boot}");
        reads(&served.connect(&name), PATTERN);
        write(&served.connect(&name), 1);
        // It comes back within its boot, be it after hours.
        reads(&served.connect(&name), 1);
    }
    assert!(served.path("sessions/pc.cow").exists());
    let served = served.again();
    reads(&served.connect("pc@two"), 1);
    let bert = served.connect("bert@x");
    write(&bert, 5);
    reads(&served.connect("pc@three"), PATTERN);
    reads(&bert, 5);
    assert!(!served.path("sessions/pc.cow").exists());
}

#[test]
fn connections_of_the_boot_before_are_cut_off() {
    let served = with_sessions(Some(LONG));
    let before = served.connect("pc@one");
    write(&before, 1);
    let now = served.connect("pc@two");
    cut_off(&before);
    reads(&now, PATTERN);
    write(&now, 2);
    drop(before);
    reads(&served.connect("pc@two"), 2);
    assert_eq!(served.told.texts("warning").len(), 1, "{:?}", served.told.texts("warning"));
}

#[test]
fn many_connections_of_one_boot_are_one_session() {
    let served = with_sessions(Some(Duration::ZERO));
    write(&served.connect("pc@one"), 1);
    let clients: Vec<Connection> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| served.connect("pc@two"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    clients.iter().for_each(|client| reads(client, PATTERN));
    write(&clients[0], 2);
    clients.iter().for_each(|client| reads(client, 2));
    assert_eq!(served.status()["sessions"][0]["connections"], 16);
}

#[test]
fn of_a_machine_that_does_not_name_its_boot_the_absence_tells() {
    let served = with_sessions(Some(LONG));
    write(&served.connect("pc"), 1);
    reads(&served.connect("pc"), 1);
    // The server's own absence is none of the machine's.
    let served = served.again();
    reads(&served.connect("pc"), 1);

    let served = with_sessions(Some(Duration::ZERO));
    let (first, second) = (served.connect("pc"), served.connect("pc"));
    write(&first, 1);
    drop(first);
    // It is not away while any client is there.
    reads(&served.connect("pc"), 1);
    drop(second);
    reads(&served.connect("pc"), PATTERN);
}

#[test]
fn a_look_at_a_session_is_no_boot() {
    let served = with_sessions(Some(Duration::ZERO));
    write(&served.connect("pc@one"), 1);
    for copy in ["a.cow", "b.cow"] {
        let path = served.path(copy);
        let snapshot = json!({ "command": "snapshot", "session": "pc", "path": path });
        assert_eq!(served.ask(&snapshot)["ok"], true);
    }
    assert_eq!(served.status()["sessions"][0]["name"], "pc");
    reads(&served.connect("pc@one"), 1);
}

#[test]
fn without_the_option_a_boot_means_nothing() {
    let served = with_sessions(None);
    write(&served.connect("pc@one"), 1);
    reads(&served.connect("pc@two"), 1);
    reads(&served.connect("pc"), 1);
    assert_eq!(std::fs::read_dir(served.path("sessions")).unwrap().count(), 1);
}
