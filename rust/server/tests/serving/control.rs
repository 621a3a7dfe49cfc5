//! The control channel, from its socket to the device and back.

use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::ErrorKind;
use cowcloop_server::Fua;
use serde_json::json;

use crate::support::{Served, PATTERN, SIZE};

#[test]
fn status_tells_the_device_its_cowfile_and_its_users() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    client.write(&[1; 2048], 0, Fua(false)).unwrap();
    let status = served.status();
    assert_eq!(status["ok"], true);
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["size"], SIZE);
    assert_eq!(status["read_only"], false);
    assert_eq!(status["suspended"], false);
    assert_eq!(status["connections"], 1);
    assert_eq!(status["image"], served.options.image.display().to_string());
    let cow = &status["cowfiles"][0];
    assert_eq!(cow["path"], served.path("a.cow").display().to_string());
    assert_eq!(cow["state"], "dirty");
    assert_eq!((&cow["blocks_used"], &cow["writes"]), (&json!(2), &json!(1)));
    assert!(status.get("sessions").is_none());
    drop(client);
    assert_eq!(served.status()["connections"], 0);
}

#[test]
fn a_snapshot_is_the_device_as_it_was() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    client.write(&[1; 1024], 0, Fua(false)).unwrap();
    let copy = served.path("copy.cow");
    let request = json!({ "command": "snapshot", "path": copy });
    let reply = served.ask(&request);
    assert_eq!((&reply["ok"], &reply["blocks_used"]), (&json!(true), &json!(1)));
    client.write(&[2; 1024], 0, Fua(false)).unwrap();
    let options = DeviceOptions { read_only: true, ..Default::default() };
    let device = Device::open(&served.options.image, &[copy], &options).unwrap();
    let mut found = [0; 2048];
    device.read_at(&mut found, 0).unwrap();
    assert_eq!(found[..1024], [1; 1024]);
    assert_eq!(found[1024..], [PATTERN; 1024]);
    let reply = served.ask(&request);
    assert_eq!(reply["ok"], false, "the name is taken");
}

#[test]
fn reopened_read_only_the_cowfile_is_clean_and_refuses_writes() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    client.write(&[1; 1024], 0, Fua(false)).unwrap();
    assert_eq!(served.ask(&json!({ "command": "sync" })), json!({ "ok": true }));
    assert_eq!(served.ask(&json!({ "command": "reopen-read-only" })), json!({ "ok": true }));
    assert!(client.write(&[2; 1024], 0, Fua(false)).is_err());
    let mut found = [0; 1024];
    client.read(&mut found, 0).unwrap();
    assert_eq!(found, [1; 1024]);
    assert_eq!(served.told.texts("request-failed").len(), 1);
}

#[test]
fn a_suspended_image_is_read_again_once_it_is_resumed() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    assert_eq!(served.ask(&json!({ "command": "suspend" })), json!({ "ok": true }));
    assert_eq!(served.status()["suspended"], true);
    let mut found = [0; 1024];
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| client.read(&mut found, 0));
        assert_eq!(served.ask(&json!({ "command": "resume" })), json!({ "ok": true }));
        reader.join().unwrap().unwrap();
    });
    assert_eq!(found, [PATTERN; 1024]);
}

#[test]
fn so_many_requests_wait_that_threads_are_left() {
    let served = Served::new(|options| {
        options.cows = vec![options.image.with_file_name("a.cow")];
        options.waiting = Some(2);
    });
    let client = served.connect("");
    client.write(&[1; 1024], 0, Fua(false)).unwrap();
    assert_eq!(served.ask(&json!({ "command": "suspend" })), json!({ "ok": true }));
    std::thread::scope(|scope| {
        let read = |at: u64| {
            let mut found = [0; 512];
            client.read(&mut found, at).map(|()| found)
        };
        let (sender, answers) = std::sync::mpsc::channel();
        for number in 0..5 {
            let sender = sender.clone();
            scope.spawn(move || sender.send(read(2048 + 512 * number)).unwrap());
        }
        for _ in 0..3 {
            assert_eq!(answers.recv().unwrap().unwrap_err().kind(), ErrorKind::NoMedium);
        }
        // Two wait, and hold up nothing that needs no image.
        assert_eq!(read(512).unwrap(), [1; 512]);
        client.write(&[3; 1024], 8192, Fua(true)).unwrap();
        client.flush().unwrap();
        assert!(answers.try_recv().is_err());
        assert_eq!(served.ask(&json!({ "command": "resume" })), json!({ "ok": true }));
        for _ in 0..2 {
            assert_eq!(answers.recv().unwrap().unwrap(), [PATTERN; 512]);
        }
    });
    assert_eq!(served.status()["cowfiles"][0]["failures"], 0);
}

#[test]
fn a_write_waits_for_the_rest_of_its_block_without_a_lock() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    assert_eq!(served.ask(&json!({ "command": "suspend" })), json!({ "ok": true }));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| client.write(&[1], 1024, Fua(true)));
        // The same block, whole: it needs nothing from below.
        client.write(&[2; 1024], 1024, Fua(false)).unwrap();
        let copy = served.path("copy.cow");
        let reply = served.ask(&json!({ "command": "snapshot", "path": copy }));
        assert_eq!(reply["ok"], true);
        assert_eq!(served.ask(&json!({ "command": "resume" })), json!({ "ok": true }));
        writer.join().unwrap().unwrap();
    });
    let mut found = [0; 1024];
    client.read(&mut found, 1024).unwrap();
    assert_eq!(found[1..], [2; 1023]);
}

#[test]
fn reads_that_wait_for_a_suspended_image_do_not_hold_up_the_end() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    assert_eq!(served.ask(&json!({ "command": "suspend" })), json!({ "ok": true }));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| client.read(&mut [0; 1024], 0));
        served.server.give_up();
        assert!(reader.join().unwrap().is_err());
    });
    served.server.close().unwrap();
}

#[test]
fn what_is_not_understood_is_answered_with_a_reason() {
    let served = Served::with_cowfile();
    let reply = served.ask(&json!({ "command": "sing" }));
    assert_eq!(reply, json!({ "ok": false, "error": "unknown command \"sing\"" }));
    let reply = served.ask(&json!({ "command": "reopen-read-only", "session": "a" }));
    assert_eq!(reply, json!({ "ok": false, "error": "this server has no sessions" }));
}

#[test]
fn the_socket_goes_when_the_server_is_closed() {
    let served = Served::with_cowfile();
    let socket = served.options.control.clone().unwrap();
    assert!(socket.exists());
    served.server.close().unwrap();
    assert!(!socket.exists());
}
