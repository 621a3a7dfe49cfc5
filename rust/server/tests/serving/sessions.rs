//! Sessions: a cowfile for each export name.

use cowcloop_server::{Fua, ServerOptions, SessionOptions};
use serde_json::json;

use crate::support::{Served, PATTERN};

fn with_sessions(limit: usize) -> Served {
    Served::new(|options: &mut ServerOptions| {
        let folder = options.image.with_file_name("sessions");
        options.sessions = Some(SessionOptions { limit, ..SessionOptions::new(folder) });
    })
}

#[test]
fn each_session_has_its_own_writes_over_the_one_base() {
    let served = with_sessions(10);
    let (alice, bob) = (served.connect("alice"), served.connect("bob"));
    assert!(!served.connect("").writable());
    let mut found = [0; 1024];
    alice.read(&mut found, 0).unwrap();
    assert!(!served.path("sessions/alice.cow").exists());
    alice.write(&[1; 1024], 0, Fua(false)).unwrap();
    bob.write(&[2; 1024], 0, Fua(false)).unwrap();
    for (client, byte) in [(&alice, 1), (&bob, 2), (&served.connect(""), PATTERN)] {
        client.read(&mut found, 0).unwrap();
        assert_eq!(found, [byte; 1024]);
    }
}

#[test]
fn status_tells_sessions_open_not_made_and_closed() {
    let served = with_sessions(10);
    served.connect("closed").write(&[1; 1024], 0, Fua(false)).unwrap();
    let open = served.connect("open");
    open.read(&mut [0; 1024], 0).unwrap();
    open.write(&[1; 1024], 0, Fua(false)).unwrap();
    let empty = served.connect("empty");
    empty.read(&mut [0; 2048], 0).unwrap();
    let status = served.status();
    let sessions = status["sessions"].as_array().unwrap();
    let told = |key: &str| sessions.iter().map(|session| session[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("name"), ["closed", "empty", "open"]);
    assert_eq!(told("state"), ["closed", "not created", "dirty"]);
    assert_eq!(told("connections"), [0, 1, 1]);
    assert_eq!(told("base_read_bytes"), [json!(null), json!(2048), json!(1024)]);
    assert_eq!(served.status()["connections"], 2);
}

#[test]
fn names_and_numbers_have_their_limits() {
    let served = with_sessions(1);
    let refused = |name: &[u8]| served.server.connect(name, false).err().unwrap();
    assert!(refused(b"../x").contains("not a session name"));
    let _first = served.connect("first");
    assert!(refused(b"second").contains("max-sessions allows 1"));
    assert_eq!(served.server.exports().len(), 2);
}

#[test]
fn the_end_closes_the_sessions_that_still_have_clients() {
    let served = with_sessions(10);
    let client = served.connect("a");
    client.write(&[1; 1024], 0, Fua(false)).unwrap();
    served.server.close().unwrap();
    assert!(client.write(&[2; 1024], 0, Fua(false)).is_err());
    assert!(served.server.connect(b"b", false).err().unwrap().contains("the server is ending"));
    drop(client);
    let served = served.again();
    let mut found = [0; 1024];
    served.connect("a").read(&mut found, 0).unwrap();
    assert_eq!(found, [1; 1024]);
}

#[test]
fn what_is_kept_of_a_session_lies_in_a_folder_while_it_is_open() {
    let served = Served::new(|options: &mut ServerOptions| {
        let folder = options.image.with_file_name("sessions");
        options.sessions = Some(SessionOptions { limit: 10, ..SessionOptions::new(folder) });
        options.kept = Some(options.image.with_file_name("kept"));
    });
    let alice = served.connect("alice");
    alice.write(&[1; 1024], 0, Fua(false)).unwrap();
    let file = served.path("kept/alice.kept");
    assert!(file.exists());
    let told = &served.status()["sessions"][0]["kept"];
    assert_eq!(*told, json!({"path": file, "taken_over": 0}));
    drop(alice);
    assert!(!file.exists());
}
